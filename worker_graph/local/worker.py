"""The life of one local worker: started, healthy, in the gateway, drained, gone."""

from __future__ import annotations

import asyncio
import math
import time
from collections.abc import Callable, Coroutine
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any, Literal

import aiohttp

from profiler.errors import DependencyError
from worker_graph.local.gateway import Gateway
from worker_graph.local.launchers import Command
from worker_graph.local.options import LocalOptions
from worker_graph.local.process import Process
from worker_graph.spec import Role

#: Seconds between two looks at a worker's health, or at what a draining one still holds.
_POLL_S = 0.1

#: Looks in a row that must find a draining worker empty: between a prefill worker's answer and the decode worker's
#: request for the KV, both sides of a hand-off can be quiet for a moment.
_QUIET_POLLS = 5

_TIMEOUT = aiohttp.ClientTimeout(total=5.0)

#: Gauges of the engine that say whether it holds anything for anyone.
_HOLDING = ("vllm:num_requests_running", "vllm:num_requests_waiting", "vllm:kv_cache_usage_perc")


class State(StrEnum):
    """Where a worker is. `PENDING`: no GPU is free, or its pool backs off after a failure."""

    PENDING = "pending"
    STARTING = "starting"
    READY = "ready"
    DRAINING = "draining"


@dataclass(eq=False)
class LocalWorker:
    """One worker of a pool; `drain` asks it to leave."""

    name: str
    pool: str
    role: Role
    state: State = State.PENDING
    port: int = 0
    gpus: tuple[int, ...] = ()
    process: Process | None = None
    asked_at: float = field(default_factory=time.monotonic)
    ready_at: float | None = None
    reason: str = ""
    drain: asyncio.Event = field(default_factory=asyncio.Event)
    task: asyncio.Task[None] | None = None
    counted: bool = False

    def url(self, host: str) -> str:
        """Where it serves."""
        return f"http://{host}:{self.port}"

    @property
    def startup_s(self) -> float:
        """From asking for it to its readiness; not a number before."""
        return math.nan if self.ready_at is None else self.ready_at - self.asked_at


@dataclass(frozen=True)
class Surroundings:
    """What a worker's life needs from the supervisor."""

    options: LocalOptions
    session: aiohttp.ClientSession
    gateway: Gateway
    say: Callable[[str], None]
    changed: Callable[[], None]


class WorkerFailedError(Exception):
    """A worker ended by itself, or never served; the message says how."""


async def live(worker: LocalWorker, command: Command, around: Surroundings) -> None:
    """Run a worker from its start until it is gone.

    Raises:
        WorkerFailedError: it ended, or did not serve in time, without being asked to leave.
    """
    options = around.options
    url = worker.url(options.host)
    worker.state, worker.reason = State.STARTING, ""
    try:
        worker.process = await Process.start(command.argv, command.env, options.run_dir / "logs" / f"{worker.name}.log")
    except DependencyError as error:
        raise WorkerFailedError(str(error)) from None
    ended = asyncio.create_task(worker.process.wait())
    leave = asyncio.create_task(worker.drain.wait())
    try:
        around.changed()
        await _serve_and_drain(worker, url, around, ended, leave)
    finally:
        leave.cancel()
        try:
            await around.gateway.remove(url)
        except DependencyError as error:
            around.say(f"{worker.name}: not taken out of the gateway: {error}")
        await asyncio.shield(worker.process.stop(options.stop_grace_s))


async def _serve_and_drain(
    worker: LocalWorker,
    url: str,
    around: Surroundings,
    ended: asyncio.Task[int],
    leave: asyncio.Task[Literal[True]],
) -> None:
    options, process = around.options, worker.process
    if process is None:
        raise AssertionError("the caller has started it")
    try:
        served = await _unless(_serve(worker, url, around), {ended, leave}, options.startup_timeout_s)
    except TimeoutError:
        late = f"not healthy after {options.startup_timeout_s:g} s"
        raise WorkerFailedError(f"{late}; {process.last_line()} ({process.log})") from None
    if served:
        around.say(f"{worker.name} ready after {worker.startup_s:.1f} s")
        await asyncio.wait({ended, leave}, return_when=asyncio.FIRST_COMPLETED)
    if ended.done():
        if not leave.done():
            how = f"ended by itself with exit code {process.exit_code}"
            raise WorkerFailedError(f"{how}; {process.last_line()} ({process.log})")
        return
    worker.state = State.DRAINING
    around.changed()
    if not served:
        return
    try:
        await _unless(_drained(url, around), {ended}, options.drain_timeout_s)
    except TimeoutError:
        around.say(f"{worker.name}: still busy after {options.drain_timeout_s:g} s of draining, ended all the same")
    else:
        around.say(f"{worker.name} drained")


async def _unless(work: Coroutine[Any, Any, None], stops: set[asyncio.Task[Any]], timeout_s: float) -> bool:
    """Whether the work was done before any of the stops; it is cancelled otherwise.

    Raises:
        TimeoutError: neither came in time.
    """
    task = asyncio.create_task(work)
    try:
        done, _ = await asyncio.wait({task, *stops}, timeout=timeout_s, return_when=asyncio.FIRST_COMPLETED)
        if not done:
            raise TimeoutError
        if task in done:
            task.result()
            return True
        return False
    finally:
        task.cancel()
        await asyncio.wait({task})


async def _serve(worker: LocalWorker, url: str, around: Surroundings) -> None:
    """Wait for the worker's health, add it to the gateway, wait until the gateway sends requests there."""
    while not await _healthy(url, around.session):
        await asyncio.sleep(_POLL_S)
    await _added(around.gateway, url, worker.role)
    worker.ready_at, worker.state = time.monotonic(), State.READY
    around.changed()


async def register_again(gateway: Gateway, url: str, worker: LocalWorker) -> None:
    """Tell a new gateway of a worker that served behind the one before, unless it ends or is to leave meanwhile."""
    work = asyncio.create_task(_added(gateway, url, worker.role))
    ended = [] if worker.task is None else [worker.task]
    leave = asyncio.create_task(worker.drain.wait())
    try:
        await asyncio.wait({work, leave, *ended}, return_when=asyncio.FIRST_COMPLETED)
    finally:
        work.cancel()
        leave.cancel()
        await asyncio.wait({work, leave})


async def _added(gateway: Gateway, url: str, role: Role) -> None:
    """Add a worker and wait until requests go to it, however often the gateway has to be asked."""
    while True:
        try:
            if any(one.url == url and one.healthy for one in await gateway.backends()):
                return
            await gateway.add(url, role)
            for _ in range(50):
                if any(one.url == url and one.healthy for one in await gateway.backends()):
                    return
                await asyncio.sleep(_POLL_S)
        except DependencyError:
            # It is being restarted, or it knows the worker already and says so.
            await asyncio.sleep(5 * _POLL_S)


async def _drained(url: str, around: Surroundings) -> None:
    """Take a worker out of the gateway and wait until it holds nothing more, for clients or for other workers.

    The gateway is done with a prefill worker when that has answered; the decode worker fetches the KV afterwards.
    Blocks that wait to be fetched count as used, so the worker may go when nothing runs, waits or is held.
    """
    while True:
        try:
            await around.gateway.remove(url)
            break
        except DependencyError:
            await asyncio.sleep(5 * _POLL_S)
    quiet = 0
    while quiet < _QUIET_POLLS:
        try:
            found = [one for one in await around.gateway.backends() if one.url == url]
            known = bool(found)
            if any(one.healthy for one in found):
                # A call that added it to a new gateway may have come in after the one that took it out.
                await around.gateway.remove(url)
        except DependencyError:
            # Without the gateway there is nobody to finish for, but its restart must not read as quiet.
            known = True
        quiet = quiet + 1 if not known and await _holds_nothing(url, around.session) else 0
        await asyncio.sleep(_POLL_S)


async def _healthy(url: str, session: aiohttp.ClientSession) -> bool:
    try:
        async with session.get(f"{url}/health", timeout=_TIMEOUT) as answer:
            return answer.status == 200
    except (aiohttp.ClientError, TimeoutError):
        return False


async def _holds_nothing(url: str, session: aiohttp.ClientSession) -> bool:
    """Whether every gauge of requests and KV reads zero; a worker that does not say is not done."""
    try:
        async with session.get(f"{url}/metrics", timeout=_TIMEOUT) as answer:
            text = await answer.text()
    except (aiohttp.ClientError, TimeoutError):
        return False
    values = [
        float(line.rsplit(" ", 1)[1])
        for line in text.splitlines()
        if line.startswith(_HOLDING) and line.split("{", 1)[0].split(" ", 1)[0] in _HOLDING
    ]
    return bool(values) and not any(values)
