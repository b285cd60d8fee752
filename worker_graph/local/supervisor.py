"""Keeps a graph's processes as they are asked for: so many workers per pool, and a gateway that knows them."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections import deque
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field

import aiohttp

from profiler.errors import DependencyError, InputError, PlimsollError
from worker_graph.local import leftovers
from worker_graph.local.gateway import Gateway, gateway, routing_of, wait_until_ready
from worker_graph.local.launchers import launcher
from worker_graph.local.options import LocalOptions
from worker_graph.local.ports import check_free, free_ports
from worker_graph.local.process import Process
from worker_graph.local.worker import (
    LocalWorker,
    State,
    Surroundings,
    WorkerFailedError,
    live,
    register_again,
)
from worker_graph.spec import Component, GraphSpec

#: After the first failure a worker is tried again at once, then ever later, up to this.
LONGEST_BACK_OFF_S = 30.0

#: A worker that served for so long has shown that its command is right: the back-off starts anew.
PROVEN_S = 30.0

_GATEWAY_START_S = 30.0


class BudgetError(InputError):
    """A plan asks for more GPUs than there are."""


@dataclass(eq=False)
class LocalPool:
    """One component's workers. `not_before`: no start before this moment, by the monotonic clock."""

    component: Component
    desired: int
    workers: list[LocalWorker] = field(default_factory=list)
    made: int = 0
    failures: int = 0
    not_before: float = 0.0
    last_failure: str = ""
    startup_s: deque[float] = field(default_factory=lambda: deque(maxlen=20))

    def staying(self) -> list[LocalWorker]:
        """Workers that have not been asked to leave."""
        return [worker for worker in self.workers if not worker.drain.is_set()]

    def count(self, *states: State) -> int:
        """Workers in one of these states."""
        return sum(worker.state in states for worker in self.workers)


class Supervisor:
    """Runs one graph; `run` returns when `stop` was called and nothing of the graph is left."""

    def __init__(self, spec: GraphSpec, options: LocalOptions, say: Callable[[str], None]) -> None:
        self.spec, self.options = spec, options
        self.pools = {one.name: LocalPool(one, one.replicas) for one in spec.workers}
        self.events: deque[tuple[float, str]] = deque(maxlen=500)
        self.gateway_restarts = 0
        self.gateway_ready = False
        self.port = self.metrics_port = 0
        self._print = say
        self._launcher = launcher(options)
        self._wake = asyncio.Event()
        self._stopping = False
        self.max_gpus = options.gpus
        self._free_gpus = list(range(options.gpus))
        self._gpu_s, self._gpu_s_at = 0.0, time.monotonic()
        self._gateway_process: Process | None = None
        self._check_budget({name: pool.desired for name, pool in self.pools.items()}, options.gpus)

    # -- what may be asked of it -----------------------------------------------------------------------------------

    def scale(self, replicas: Mapping[str, int], max_gpus: int | None = None) -> dict[str, str]:
        """Ask for workers, all pools at once or none.

        Args:
            replicas: workers by pool.
            max_gpus: GPUs that the graph may hold from now on, draining workers included: where one pool shrinks and
                another grows, the one waits for the other's GPUs. None: as many as there are.

        Raises:
            InputError: an unknown pool, a negative count.
            BudgetError: the plan would take more GPUs than that.
        """
        for name, count in replicas.items():
            if name not in self.pools:
                raise InputError(f"there is no pool {name!r}", expected=", ".join(self.pools), field="replicas")
            if count < 0:
                raise InputError(f"is {count}", expected="0 or more", field=f"replicas.{name}")
        allowed = self.options.gpus if max_gpus is None else min(max_gpus, self.options.gpus)
        self._check_budget({name: replicas.get(name, pool.desired) for name, pool in self.pools.items()}, allowed)
        self.max_gpus = allowed
        outcome = {}
        for name, count in replicas.items():
            pool = self.pools[name]
            outcome[name] = "unchanged" if count == pool.desired else f"{pool.desired} to {count}"
            if count != pool.desired:
                self._say(f"{name}: {pool.desired} to {count} workers")
            pool.desired = count
        self._wake.set()
        return outcome

    def stop(self) -> None:
        """End everything; requests in flight get `stop_grace_s`."""
        self._stopping = True
        self._wake.set()

    def gpus_held(self) -> int:
        """GPUs of workers that run, whatever their state."""
        return self.options.gpus - len(self._free_gpus)

    def gpu_seconds(self) -> float:
        """GPU time of workers so far, by the wall clock: from each worker's start to its end."""
        now = time.monotonic()
        self._gpu_s += self.gpus_held() * (now - self._gpu_s_at)
        self._gpu_s_at = now
        return self._gpu_s

    @property
    def gateway_pid(self) -> int | None:
        """Process id of the gateway; None before its start."""
        return self._gateway_process.pid if self._gateway_process is not None else None

    # -- its life --------------------------------------------------------------------------------------------------

    async def run(self, started: Callable[[], None]) -> None:
        """Start gateway and workers, keep them, end them.

        Args:
            started: called when the gateway serves and the workers are being started.

        Raises:
            InputError: the graph cannot be run so.
            DependencyError: a port is taken, or the gateway cannot be started.
        """
        options = self.options
        (options.run_dir / "logs").mkdir(parents=True, exist_ok=True)
        leftovers.end(options.run_dir, self._say)
        for port, what in ((options.port, "gateway"), (options.metrics_port, "gateway metrics")):
            check_free(options.host, port, what)
        spare = free_ports(options.host, 2)
        self.port, self.metrics_port = options.port or spare[0], options.metrics_port or spare[1]
        await self._launcher.prepare(self.spec)
        async with aiohttp.ClientSession() as session:
            front = gateway(options.gateway, session, options.host, self.port)
            around = Surroundings(options, session, front, self._say, self._changed)
            keeper: asyncio.Task[None] | None = None
            try:
                await self._start_gateway(front)
                keeper = asyncio.create_task(self._keep_gateway(front))
                started()
                await self._reconcile(around, keeper)
            finally:
                if keeper is not None:
                    keeper.cancel()
                await self._end_all()
                leftovers.write(options.run_dir, [])

    async def _reconcile(self, around: Surroundings, keeper: asyncio.Task[None]) -> None:
        while not self._stopping:
            if keeper.done():
                keeper.result()
            for pool in self.pools.values():
                await self._shrink(pool, around)
            for pool in self.pools.values():
                self._grow(pool, around)
            self._wake.clear()
            with contextlib.suppress(TimeoutError):
                # Back-offs end without anything happening.
                await asyncio.wait_for(self._wake.wait(), 0.5)

    async def _shrink(self, pool: LocalPool, around: Surroundings) -> None:
        """Ask those that are too many to leave: first what serves nobody yet, then the least loaded."""
        if len(pool.staying()) <= pool.desired:
            return
        load: dict[str, int] = {}
        with contextlib.suppress(DependencyError):
            # Without the gateway's counts any worker is as good as another; all of them are drained.
            load = {one.url: one.load for one in await around.gateway.backends()}
        order = (State.PENDING, State.STARTING, State.READY)

        def last_to_miss(worker: LocalWorker) -> tuple[int, int, float]:
            return order.index(worker.state), load.get(worker.url(self.options.host), 0), -worker.asked_at

        # Counted now: while the gateway was asked, workers may have ended, or more may have been asked for.
        excess = max(0, len(pool.staying()) - pool.desired)
        for worker in sorted(pool.staying(), key=last_to_miss)[:excess]:
            worker.drain.set()
            if worker.task is None:
                pool.workers.remove(worker)

    def _grow(self, pool: LocalPool, around: Surroundings) -> None:
        """Start what is missing, as far as there are GPUs and no back-off; the rest waits and says for what."""
        while len(pool.staying()) < pool.desired:
            pool.made += 1
            role = pool.component.role
            if role is None:
                raise AssertionError("pools are made of workers")
            pool.workers.append(LocalWorker(f"{pool.component.name.lower()}-{pool.made}", pool.component.name, role))
        for worker in pool.workers:
            if worker.task is not None:
                continue
            need, wait_s = pool.component.gpus_per_worker, pool.not_before - time.monotonic()
            if wait_s > 0:
                worker.reason = f"next try in {wait_s:.0f} s after: {pool.last_failure}"
            elif need > (free := max(0, self.max_gpus - self.gpus_held())):
                worker.reason = f"needs {need} GPUs, {free} of {self.max_gpus} are free"
            else:
                self.gpu_seconds()
                worker.gpus = tuple(self._free_gpus.pop(0) for _ in range(need))
                worker.state = State.STARTING
                worker.task = asyncio.create_task(self._live(pool, worker, around))

    async def _live(self, pool: LocalPool, worker: LocalWorker, around: Surroundings) -> None:
        """One worker from start to end, and what its end means for its pool."""
        try:
            ports = free_ports(self.options.host, self._launcher.ports)
            worker.port = ports[0]
            await live(worker, self._launcher.command(pool.component, ports, worker.gpus), around)
        except (WorkerFailedError, PlimsollError, OSError) as error:
            if worker.ready_at is not None and time.monotonic() - worker.ready_at > PROVEN_S:
                pool.failures = 0
            pause = 0.0 if pool.failures == 0 else min(2.0 ** (pool.failures - 1), LONGEST_BACK_OFF_S)
            pool.failures += 1
            pool.not_before = time.monotonic() + pause
            pool.last_failure = f"{worker.name} {error}"
            self._say(pool.last_failure)
        finally:
            self.gpu_seconds()
            self._free_gpus = sorted({*self._free_gpus, *worker.gpus})
            pool.workers.remove(worker)
            self._changed()

    # -- the gateway -----------------------------------------------------------------------------------------------

    async def _start_gateway(self, front: Gateway) -> None:
        options = self.options
        argv = front.command(
            options.host,
            self.port,
            self.metrics_port,
            disaggregated=len(self.pools) > 1,
            routing=options.routing or routing_of(self.spec),
        )
        self._gateway_process = process = await Process.start(argv, {}, options.run_dir / "logs" / "gateway.log")
        self._changed()
        ready = asyncio.create_task(wait_until_ready(front, _GATEWAY_START_S))
        ended = asyncio.create_task(process.wait())
        await asyncio.wait({ready, ended}, return_when=asyncio.FIRST_COMPLETED)
        self.gateway_ready = not ended.done() and ready.done() and ready.result()
        ready.cancel()
        ended.cancel()
        if not self.gateway_ready:
            last = process.last_line()
            await process.stop(0.0)
            raise DependencyError(f"gateway {front.name} did not come up; {last} ({process.log})")

    async def _keep_gateway(self, front: Gateway) -> None:
        """Start the gateway again whenever it ends, and tell it its workers."""
        while self._gateway_process is not None:
            code = await self._gateway_process.wait()
            self.gateway_ready = False
            if self._stopping:
                return
            self.gateway_restarts += 1
            self._say(f"gateway ended with exit code {code}; {self._gateway_process.last_line()}; started again")
            try:
                await self._start_gateway(front)
            except DependencyError as error:
                self._say(str(error))
                await asyncio.sleep(1.0)
                continue
            host = self.options.host
            # All at once, and none for ever: the next end of the gateway must be noticed, too.
            await asyncio.gather(
                *(register_again(front, one.url(host), one) for one in self.workers() if one.state is State.READY)
            )

    # -- bookkeeping -----------------------------------------------------------------------------------------------

    def workers(self) -> Iterator[LocalWorker]:
        """Every worker of every pool."""
        for pool in self.pools.values():
            yield from pool.workers

    async def _end_all(self) -> None:
        """End every worker at once, then the gateway."""
        tasks = [worker.task for worker in self.workers() if worker.task is not None]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        if self._gateway_process is not None:
            await self._gateway_process.stop(self.options.stop_grace_s)

    def _changed(self) -> None:
        """Note who runs, for cleaning up after a crash, and look again at what is asked for."""
        processes = [worker.process for worker in self.workers()] + [self._gateway_process]
        running = [one.pid for one in processes if one is not None and one.exit_code is None]
        try:
            leftovers.write(self.options.run_dir, running)
        except OSError as error:
            # A full disk is no reason to end workers; but the next start may not find them.
            self._say(f"what runs cannot be noted in {self.options.run_dir}: {error.strerror or error}")
        for pool in self.pools.values():
            for worker in pool.workers:
                if worker.ready_at is not None and not worker.counted:
                    worker.counted = True
                    pool.startup_s.append(worker.startup_s)
        self._wake.set()

    def _check_budget(self, replicas: Mapping[str, int], allowed: int) -> None:
        need = sum(count * self.pools[name].component.gpus_per_worker for name, count in replicas.items())
        if need > allowed:
            asked = ", ".join(f"{count} {name}" for name, count in replicas.items())
            raise BudgetError(f"{asked} take {need} GPUs", expected=f"at most {allowed}", field="--gpus")

    def _say(self, text: str) -> None:
        self.events.append((time.time(), text))
        self._print(text)
