"""Which model a worker serves, and over how many GPUs."""

from __future__ import annotations

from dataclasses import dataclass

from worker_graph.spec import Component
from worker_graph.vllm.arguments import Arguments, read_arguments


@dataclass(frozen=True)
class Parallel:
    """Sizes of a worker: tensor, pipeline and data parallel, and how many of its data-parallel ranks it runs itself."""

    tp: int
    pp: int
    dp: int
    ranks: int

    @property
    def gpus(self) -> int:
        """GPUs that the worker's own ranks take. For dense and MoE models alike: a rank has a whole TP x PP group."""
        return self.tp * self.pp * self.ranks


def parallel_of(arguments: Arguments) -> Parallel:
    """Sizes from the arguments.

    A worker that is given a rank of its own (`--data-parallel-rank`) runs that one; one with
    `--data-parallel-size-local` runs so many on each of its nodes; any other runs all.

    Raises:
        InputError: a size is no whole number, or they need another number of GPUs than the component has.
    """
    component = arguments.component
    tp, pp, dp = (arguments.count(f"--{kind}-parallel-size", 1) for kind in ("tensor", "pipeline", "data"))
    ranks = dp
    if arguments.find("--data-parallel-rank") is not None:
        ranks = 1
    elif arguments.find("--data-parallel-size-local") is not None:
        ranks = min(dp, arguments.count("--data-parallel-size-local", dp, least=0) * component.nodes)
    sizes = Parallel(tp, pp, dp, ranks)
    given = component.gpus_per_worker
    if given and sizes.gpus != given:
        factors = [f"--tensor-parallel-size {tp}"]
        factors += [f"--pipeline-parallel-size {pp}"] if pp > 1 else []
        factors += (
            [f"--data-parallel-size {dp}" + (f" ({ranks} of them here)" if ranks != dp else "")] if dp > 1 else []
        )
        needs = f"has {given} GPUs per worker, and {' x '.join(factors)} takes {sizes.gpus}"
        size = next((flag for flag in arguments.flags if flag.name.endswith("-parallel-size")), None)
        place = size.words[-1].place if size is not None else component.place
        expected = "the same number in the GPU limit and in the parallel sizes"
        raise component.document.error(f"{component.name} {needs}", place, expected)
    return sizes


def layout(component: Component) -> tuple[int, int]:
    """Tensor-parallel and data-parallel size of a worker.

    Raises:
        InputError: as `parallel_of`, or the component's command is none that is known.
    """
    sizes = parallel_of(read_arguments(component))
    return sizes.tp, sizes.dp


def model_of(component: Component) -> str:
    """The model that a worker loads, as it is written: a name on the hub or a folder.

    Raises:
        InputError: its arguments name none.
    """
    return model_in(read_arguments(component))


def model_in(arguments: Arguments) -> str:
    """The model that the arguments name."""
    model = arguments.text("--model")
    if model is None:
        raise arguments.component.document.error("names no model", arguments.component.container, "--model MODEL")
    return model


def served_name(arguments: Arguments) -> str:
    """The name that requests give for the model: the served name where there is one, else the model's own.

    Raises:
        InputError: there is more than one; metrics and routing go by the one name.
    """
    flag = arguments.find("--served-model-name")
    if flag is None:
        return model_in(arguments)
    if len(flag.values) != 1 or not flag.values[0]:
        given = " ".join(flag.values) or "nothing"
        raise arguments.error(flag, f"names {given}", "one name")
    return flag.values[0]
