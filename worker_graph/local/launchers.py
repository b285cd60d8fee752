"""What starts a worker: stock vLLM, or the simulated engine. A further engine adds one class and one line."""

from __future__ import annotations

import asyncio
import sys
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from profiler.errors import DependencyError, InputError
from worker_graph.local.options import LocalOptions
from worker_graph.spec import Component, GraphSpec
from worker_graph.vllm import Placement, model_of, vllm_command

#: The simulated engine is reached by its command alone: nothing here needs its code.
_SIMULATED = "worker_graph.simulated"


@dataclass(frozen=True, slots=True)
class Command:
    """What to run, and the environment that it needs beside this process's own."""

    argv: Sequence[str]
    env: Mapping[str, str]


class Launcher(ABC):
    """Makes the commands of a graph's workers."""

    #: Ports that one worker needs.
    ports = 1

    def __init__(self, options: LocalOptions) -> None:
        self.options = options

    async def prepare(self, spec: GraphSpec) -> None:  # noqa: B027 (most engines need nothing before the first worker)
        """What is done once, before the first worker.

        Raises:
            InputError: the graph cannot be run by this engine.
            DependencyError: something outside failed.
        """

    @abstractmethod
    def command(self, component: Component, ports: Sequence[int], gpus: tuple[int, ...]) -> Command:
        """The command of one more worker.

        Raises:
            InputError: the component cannot be run by this engine; names the field.
        """


class VllmLauncher(Launcher):
    """Stock `vllm serve`: port for HTTP, NIXL's side channel, KV events, their replay."""

    ports = 4

    async def prepare(self, spec: GraphSpec) -> None:
        """Every worker's command is made once, so that an argument that is wrong is found before anything starts."""
        for component in spec.workers:
            self.command(component, (1, 2, 3, 4), tuple(range(component.gpus_per_worker)))

    def command(self, component: Component, ports: Sequence[int], gpus: tuple[int, ...]) -> Command:
        """As the component's arguments mean."""
        placement = Placement(
            host=self.options.host,
            port=ports[0],
            nixl_port=ports[1],
            kv_events_port=ports[2],
            kv_replay_port=ports[3],
            gpu_ids=gpus,
            executable=self.options.vllm_command,
        )
        made = vllm_command(component, placement)
        return Command(made.argv, made.env)


class SimulatedLauncher(Launcher):
    """The simulated engine; its timing is worked out from the profiles once per role and read by every worker."""

    async def prepare(self, spec: GraphSpec) -> None:
        """Write the timing of each role beside the logs."""
        if not self.options.profiles:
            raise InputError("is missing", expected="a folder with profiles (--profile)", field="--profile")
        for component in spec.workers:
            argv = [
                *self._base(component),
                *(part for folder in self.options.profiles for part in ("--profile", str(folder))),
                "--write-timing",
                str(self._timing(component)),
            ]
            process = await asyncio.create_subprocess_exec(
                *argv, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.STDOUT
            )
            said, _ = await process.communicate()
            if process.returncode == InputError.exit_code:
                raise InputError(said.decode(errors="replace").strip().removeprefix("error: "))
            if process.returncode != 0:
                last = said.decode(errors="replace").strip().splitlines()[-1:]
                raise DependencyError(f"the simulated engine's timing could not be made: {' '.join(last)}")

    def command(self, component: Component, ports: Sequence[int], gpus: tuple[int, ...]) -> Command:  # noqa: ARG002 (simulated GPUs have no ids)
        """One simulated worker."""
        argv = [
            *self._base(component), "--timing", str(self._timing(component)),
            "--host", self.options.host, "--port", str(ports[0]), "--model", model_of(component),
            "--speed-up", f"{self.options.speed_up:g}", "--startup-s", f"{self.options.simulated_startup_s:g}",
        ]  # fmt: skip
        return Command(argv, {})

    def _base(self, component: Component) -> list[str]:
        if component.role is None:
            raise AssertionError("only workers are launched")
        return [sys.executable, "-m", _SIMULATED, "--role", component.role.value]

    def _timing(self, component: Component) -> str:
        return str(self.options.run_dir / f"timing-{component.name}.npz")


#: One line per engine.
LAUNCHERS: dict[str, type[Launcher]] = {"vllm": VllmLauncher, "simulated": SimulatedLauncher}


def launcher(options: LocalOptions) -> Launcher:
    """The launcher of an engine by its name.

    Raises:
        InputError: there is none of this name.
    """
    if options.engine not in LAUNCHERS:
        raise InputError(f"is {options.engine!r}", expected=", ".join(LAUNCHERS), field="--engine")
    return LAUNCHERS[options.engine](options)
