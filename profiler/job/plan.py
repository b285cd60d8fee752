"""What a run will do: model, machine and layouts, found out and checked before anything is started or written."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from profiler.engines.command import Limits, Serve, check_more, find_program, serve_command, serve_environment
from profiler.engines.engine import Endpoint, Engine, LaunchedEngine
from profiler.engines.machine import Machine
from profiler.errors import InputError
from profiler.job.settings import DEFAULT_MAX_NUM_BATCHED_TOKENS, DEFAULT_MAX_NUM_SEQS, Settings, slug
from profiler.models.layouts import Layout
from profiler.schema import ModelInfo, Role, TableName
from worker_graph.local.ports import check_free, free_ports

#: Sixteen tokens, as vLLM on GPUs has it.
DEFAULT_BLOCK_SIZE = 16
#: Samples under this label of the journal are of a hand-off.
PAIR = "pair"


@dataclass(frozen=True)
class Worker:
    """One engine under test.

    Attributes:
        label: in the journal: `aggregated`, `prefill` or `decode`.
        layout: of the engine.
        gpus: that it is given; empty where it runs elsewhere or on the processor.
        tables: measured on it.
        roles: whose profiles it gives.
        url: where it runs already; None for one that is started.
        kv_role: of a pair over NIXL.
    """

    label: str
    layout: Layout
    gpus: tuple[int, ...]
    tables: tuple[TableName, ...]
    roles: tuple[Role, ...]
    url: str | None = None
    kv_role: str | None = None


@dataclass(frozen=True)
class Unit:
    """What is measured in one go: one engine, or a pair of them side by side."""

    name: str
    workers: tuple[Worker, ...]

    @property
    def is_pair(self) -> bool:
        """Whether its hand-off is measured."""
        return len(self.workers) == 2

    @property
    def gpus(self) -> int:
        """GPUs that it takes."""
        if self.shares_gpus:
            return max(worker.layout.gpus for worker in self.workers)
        return sum(worker.layout.gpus for worker in self.workers)

    @property
    def devices(self) -> tuple[int, ...]:
        """Indices of the GPUs that it takes, each once."""
        return tuple(dict.fromkeys(index for worker in self.workers for index in worker.gpus))

    @property
    def shares_gpus(self) -> bool:
        """Whether a GPU holds both engines."""
        return self.is_pair and bool(set(self.workers[0].gpus) & set(self.workers[1].gpus))


@dataclass(frozen=True, kw_only=True)
class Plan:
    """What a run will do.

    Attributes:
        settings: as asked for.
        machine: that it runs on.
        model: that is measured.
        serve: how engines are started; None where they run already.
        units: in order.
        skipped: layouts ruled out, by name with why.
        folder: of the run.
    """

    settings: Settings
    machine: Machine
    model: ModelInfo
    serve: Serve | None
    units: tuple[Unit, ...]
    skipped: tuple[tuple[str, str], ...]
    folder: Path

    @property
    def limits(self) -> Limits:
        """What engines are started with."""
        return limits_of(self.settings)

    def launch(self, unit: Unit) -> list[tuple[Engine, tuple[str, ...] | None]]:
        """The engines of a unit, ready to be started, each with its command where it has one.

        Raises:
            PortTakenError: the port that was asked for is taken.
        """
        if self.serve is None:
            return [(Endpoint((worker.url or "").rstrip("/")), None) for worker in unit.workers]
        count = len(unit.workers)
        ports = free_ports("127.0.0.1", 2 * count)
        if self.settings.port is not None:
            ports[:count] = [self.settings.port + index for index in range(count)]
            for port in ports[:count]:
                check_free("127.0.0.1", port, "--port")
        made: list[tuple[Engine, tuple[str, ...] | None]] = []
        for index, worker in enumerate(unit.workers):
            argv = self.command(worker, ports[index])
            env = serve_environment(worker.gpus, ports[count + index] if worker.kv_role else None)
            engine = LaunchedEngine(
                argv,
                env,
                url=f"http://127.0.0.1:{ports[index]}",
                model=self.serve.name,
                log=self.folder / f"engine-{unit.name}-{worker.label}.log",
                startup_timeout_s=self.settings.startup_timeout_s,
            )
            made.append((engine, tuple(argv)))
        return made

    def command(self, worker: Worker, port: int) -> list[str]:
        """The command of a worker that is started here."""
        if self.serve is None:
            raise AssertionError("asked for the command of an engine that runs already")
        return serve_command(self.serve, worker.layout, port, kv_role=worker.kv_role, host_buffers=self.machine.is_cpu)

    def named(self, command: Sequence[str]) -> list[str]:
        """A command with the model's name for the folder of its stub, which means nothing elsewhere."""
        stub = self.serve.model if self.serve is not None and self.serve.dummy else None
        return [self.model.name if word == stub else word for word in command]

    def fingerprint(self, unit: Unit) -> dict[str, object]:
        """What must be equal for samples to be of the same thing; versions join it once the engines run."""
        engines: dict[str, object] = {}
        for worker in unit.workers:
            known: dict[str, object] = {"layout": worker.layout.name}
            if self.serve is None:
                known |= {
                    "url": worker.url,
                    "limits": [self.settings.max_num_seqs, self.settings.max_num_batched_tokens],
                }
            else:
                # Port and program may differ from start to start.
                known |= {"arguments": self.named(self.command(worker, 0)[len(self.serve.vllm) :])}
            engines[worker.label] = known
        return {"model": self.model.model_dump(mode="json"), "gpu": self.machine.gpu, "engines": engines}


def limits_of(settings: Settings) -> Limits:
    """What engines are started with."""
    return Limits(
        max_num_seqs=settings.max_num_seqs or DEFAULT_MAX_NUM_SEQS,
        max_num_batched_tokens=settings.max_num_batched_tokens or DEFAULT_MAX_NUM_BATCHED_TOKENS,
        block_size=settings.block_size or DEFAULT_BLOCK_SIZE,
        max_model_len=settings.max_model_len,
        gpu_memory_utilization=settings.gpu_memory_utilization,
    )


def units_of(settings: Settings, machine: Machine, layouts: Sequence[Layout]) -> list[Unit]:
    """Units of a run, each with the GPUs that it is given.

    Raises:
        InputError: a layout needs more GPUs than there are.
    """
    if settings.prefill_url is not None or settings.pair is not None:
        prefill, decode = layouts
        return [_pair(settings, machine, prefill, decode)]
    roles: tuple[Role, ...] = ("prefill", "decode", "aggregated")
    if settings.url is not None:
        layout = layouts[0]
        return [Unit(layout.name, (Worker("aggregated", layout, (), settings.tables, roles, settings.url),))]
    units = {}
    for layout in layouts:
        gpus = _given(machine, layout.gpus, 0, layout.name)
        units[layout.name] = Unit(layout.name, (Worker("aggregated", layout, gpus, settings.tables, roles),))
    return list(units.values())


def _pair(settings: Settings, machine: Machine, prefill: Layout, decode: Layout) -> Unit:
    name = f"pair-{prefill.name}-{decode.name}"
    if settings.share_gpus and machine.is_cpu:
        raise InputError("is given where there are no GPUs", expected="--pair without it", field="--share-gpus")
    urls = settings.prefill_url, settings.decode_url
    # Engines that share GPUs have half of their memory each: what they do alone is that of no worker.
    prefill_tables: tuple[TableName, ...] = () if settings.share_gpus else ("prefill",)
    decode_tables: tuple[TableName, ...] = () if settings.share_gpus else ("decode",)
    prefill_roles: tuple[Role, ...] = () if settings.share_gpus else ("prefill",)
    decode_roles: tuple[Role, ...] = () if settings.share_gpus else ("decode",)
    if not settings.launches:
        first: tuple[int, ...] = ()
        second: tuple[int, ...] = ()
    else:
        first = _given(machine, prefill.gpus, 0, name)
        second = _given(machine, decode.gpus, 0 if settings.share_gpus else prefill.gpus, name)
    return Unit(
        name,
        (
            Worker("prefill", prefill, first, prefill_tables, prefill_roles, urls[0], "kv_producer"),
            Worker("decode", decode, second, decode_tables, decode_roles, urls[1], "kv_consumer"),
        ),
    )


def _given(machine: Machine, count: int, after: int, name: str) -> tuple[int, ...]:
    if machine.is_cpu:
        return ()
    if after + count > len(machine.devices):
        problem = f"{name} needs {after + count} GPUs"
        right = f"at most {len(machine.devices)}, which is what is here"
        raise InputError(problem, expected=right, field="--pair" if name.startswith("pair") else "--layout")
    return tuple(device.index for device in machine.devices[after : after + count])


def serve_of(settings: Settings, source: str, name: str, *, quantized: bool) -> Serve:
    """How engines are started.

    Args:
        settings: as asked for.
        source: what vLLM loads: a folder or a name.
        name: that requests give.
        quantized: whether the model's own weights are in the number format that was asked for.

    Raises:
        InputError: arguments that have options of their own, or no such program.
    """
    check_more(settings.engine_args)
    find_program(settings.vllm)
    more = settings.engine_args
    if settings.dtype is not None and not quantized:
        more = ("--quantization" if settings.dtype == "fp8" else "--dtype", settings.dtype, *more)
    return Serve(settings.vllm, source, name, settings.stub, limits_of(settings), more)


def run_folder(settings: Settings, model: str, gpu: str) -> Path:
    """Where a run keeps what it needs to go on: hidden, since it holds no profiles."""
    name = settings.name or f"{slug(model)}-{slug(gpu)}" + ("-pair" if settings.is_pair else "")
    return settings.to / (f".run-{name}" + (f"-{settings.part}" if settings.part else ""))


def check_folder(plan: Plan) -> None:
    """Refuse a run whose folder is there and was not asked to be gone on with.

    Raises:
        InputError: it is there.
    """
    settings = plan.settings
    if plan.folder.exists() and not (settings.resume or settings.overwrite):
        right = "--resume to go on with it, --overwrite to begin anew, or another --name"
        raise InputError("holds an earlier run", expected=right, source=plan.folder, field="--to")


def set_aside(folder: Path) -> Path | None:
    """Move an earlier run's folder out of the way; its samples are kept. Where to, or None where there was none."""
    if not folder.exists():
        return None
    number = 1
    while (moved := folder.with_name(f"{folder.name}.{number}")).exists():
        number += 1
    folder.rename(moved)
    return moved


def with_stub(plan: Plan, folder: str) -> Plan:
    """The plan with the folder of the stub that was written."""
    if plan.serve is None:
        raise AssertionError("a stub for engines that run already")
    return replace(plan, serve=replace(plan.serve, model=folder))
