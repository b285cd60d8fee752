"""What runs in a pod of the fake kubelet: nothing, or a simulated engine. (`commands` runs real commands.)"""

from __future__ import annotations

import asyncio
import functools
from abc import ABC, abstractmethod
from pathlib import Path

from aiohttp import web

from tests import engines
from tests.kubernetes.annotations import Wishes, arguments, option
from tests.kubernetes.api import Object
from worker_graph.simulated.engine import Engine
from worker_graph.simulated.profiles import worker_timing
from worker_graph.simulated.server import Server, drain
from worker_graph.simulated.timing import WorkerTiming

#: vLLM's port, and how long a prefill engine keeps KV that nobody fetches.
ENGINE_PORT, HOLD_MS = 8000, 480_000.0


class Runner(ABC):
    """The containers of one pod between two restarts."""

    #: Port and path of the readiness probe where the pod has none; None if it is ready once it runs.
    probe: tuple[int, str] | None = None

    @abstractmethod
    async def start(self) -> None:
        """Begin; returns at once."""

    async def ended(self) -> tuple[int, str]:
        """Wait for the end: exit code and message."""
        await asyncio.Event().wait()
        raise AssertionError("unreachable")

    @abstractmethod
    async def stop(self, grace_s: float) -> int:
        """End it as a deletion does, within the grace; its exit code."""

    async def kill(self) -> None:  # noqa: B027 (nothing runs in some)
        """End it at once."""


class Idle(Runner):
    """Nothing: ready after a while, and takes a while to end."""

    def __init__(self, wishes: Wishes) -> None:
        self._drain_s = wishes.seconds("drain-s")

    async def start(self) -> None:
        """Nothing to do."""

    async def stop(self, grace_s: float) -> int:
        """After its drain, or at the end of the grace as if killed."""
        await asyncio.sleep(min(self._drain_s, grace_s))
        return 0 if self._drain_s <= grace_s else 137


class SimulatedEngine(Runner):
    """The project's simulated engine, many in this process; its port refuses until the ready delay is over."""

    def __init__(self, pod: Object, wishes: Wishes, ip: str) -> None:
        words = arguments(pod)
        tp = option(words, "--tensor-parallel-size", "-tp", default="1")
        self._wishes, self._ip = wishes, ip
        self._port = int(wishes.get("engine-port", str(ENGINE_PORT)))
        self.probe = (self._port, "/health")
        self._role = wishes.get("engine-role", "aggregated")
        self._timing_file = wishes.get("engine-timing").replace("{tp}", tp)
        self._profile = wishes.get("engine-profile").replace("{tp}", tp)
        served = option(words, "--served-model-name", "--model", default="simulated")
        self._model = wishes.get("engine-model", served)
        self._runner: web.AppRunner | None = None
        self._server: Server | None = None
        self._starting: asyncio.Task[None] | None = None

    async def start(self) -> None:
        """Listen after the ready delay."""
        self._starting = asyncio.create_task(self._listen())

    async def ended(self) -> tuple[int, str]:
        """Only when it cannot listen."""
        assert self._starting is not None
        try:
            await self._starting
        except OSError as error:
            return 1, str(error)
        return await super().ended()

    async def stop(self, grace_s: float) -> int:
        """Streams may end within --shutdown-timeout, as with vLLM, or within the grace if that is shorter."""
        timeout_s = self._wishes.seconds("engine-shutdown-timeout-s")
        if self._server is not None and timeout_s > 0.0:
            await drain(self._server, min(timeout_s, grace_s))
        await self.kill()
        return 0 if timeout_s <= grace_s else 137

    async def kill(self) -> None:
        """Cut the streams."""
        if self._starting is not None:
            self._starting.cancel()
        if self._runner is not None:
            await self._runner.cleanup()
            self._runner = None

    async def _listen(self) -> None:
        speed_up = float(self._wishes.get("engine-speed-up", "1"))
        await asyncio.sleep(self._wishes.seconds("ready-delay-s"))
        timing = await asyncio.to_thread(_timing, self._role, self._timing_file, self._profile)
        engine = Engine(timing, self._model, speed_up=speed_up, flush_ms=20.0, hold_ms=HOLD_MS)
        self._server = Server(engine, self._ip, self._port)
        runner = web.AppRunner(
            self._server.application(), handler_cancellation=True, access_log=None, shutdown_timeout=0.01
        )
        await runner.setup()
        self._runner = runner
        await web.TCPSite(runner, self._ip, self._port, reuse_address=True).start()


@functools.cache
def _timing(role: str, file: str, profile: str) -> WorkerTiming:
    """One table for all engines of a kind."""
    if file:
        return WorkerTiming.load(Path(file))
    if profile:
        return worker_timing(role, [Path(one) for one in profile.split(",")])
    return WorkerTiming.of(engines.engine(), engines.transfer(), role=role, source="made up")
