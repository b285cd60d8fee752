"""The simulator as Python sees it: workers come and go, time advances, finished requests are handed out."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from planner.core.engines import Engines
from planner.core.types import Role
from planner.whatif.simulator import state as st
from planner.whatif.simulator.loop import advance, retire
from planner.whatif.traces import Trace, TraceChunk
from profiler.timing import EngineTiming

Routing = Literal["round_robin", "least_loaded"]
ROUTING = {"round_robin": st.ROUND_ROBIN, "least_loaded": st.LEAST_LOADED}


@dataclass(frozen=True)
class Finished:
    """Requests that completed, in order of completion; ITL is not a number for a single output token. Shapes (n,)."""

    arrival_ms: NDArray[np.float64]
    isl: NDArray[np.int64]
    osl: NDArray[np.int64]
    hit: NDArray[np.int64]
    ttft_ms: NDArray[np.float64]
    itl_ms: NDArray[np.float64]


@dataclass(frozen=True)
class Supply:
    """One pool's workers and load at this moment."""

    ready: int
    starting: int
    draining: int
    waiting: int
    running: int
    kv_usage: float


@dataclass(frozen=True, slots=True)
class WorkerLoad:
    """One ready worker's load at this moment, as its own metrics would show it.

    Attributes:
        number: of the worker; it keeps it for life.
        waiting: requests in the engine's queue.
        running: requests in the engine's batch.
        kv_usage: share of its KV blocks in use.
        kv_capacity_tokens: tokens that its KV cache holds.
    """

    number: int
    waiting: int
    running: int
    kv_usage: float
    kv_capacity_tokens: int


class Simulation:
    """One replay of a trace on a graph whose workers are added and drained from outside.

    Args:
        engines: the graph's engines.
        trace: arrivals; read in chunks, so that memory follows the requests in flight.
        routing: the gateway's policy for both pools.
        on_finished: called with finished requests whenever some are taken out.
        others: role and timing of workers of other layouts that may come beside the role's own.
        like: another simulation of the very same engines, routing and others, whose tables are taken instead of made.
    """

    def __init__(
        self,
        engines: Engines,
        trace: Trace,
        routing: Routing,
        on_finished: Callable[[Finished], None],
        others: Sequence[tuple[Role, EngineTiming]] = (),
        like: Simulation | None = None,
    ) -> None:
        second = engines.timing[1] if len(engines.timing) > 1 else None
        self.engines = engines
        beside = [(engines.roles.index(role), timing) for role, timing in others]
        gpus = [*(e.gpus for e in engines.timing), *([0] * (2 - len(engines.timing))), *(e.gpus for _, e in beside)]
        self._gpus = {number: count for number, count in enumerate(gpus) if count}
        if like is None:
            self._sim = st.new_sim((engines.timing[0], second), engines.transfer, ROUTING[routing], others=beside)
        else:
            self._sim = st.emptied(like.raw)
        self._chunks: Iterator[TraceChunk] = trace.chunks()
        self._on_finished = on_finished
        self._ahead = _columns(next(self._chunks, None))
        self.last_arrival_ms = 0.0
        self._next_chunk()
        self._second_read = 0

    # -- time ------------------------------------------------------------------------------------------------------

    def run_to(self, until_ms: float) -> None:
        """Carry out all events up to and including `until_ms`."""
        while True:
            status = advance(self._sim, until_ms, *self._chunk, self._last)
            if status == st.REACHED:
                break
            if status == st.NEED_ARRIVALS:
                self._next_chunk()
            elif status == st.NEED_SLOTS:
                self._sim = st.with_more_slots(self._sim)
            else:
                self._take_out()
        self._take_out()

    @property
    def exhausted(self) -> bool:
        """Whether every request of the trace has arrived and nothing is in flight."""
        totals = self._sim.totals
        drained = bool(totals["next_arrival"][0] >= len(self._chunk[0]) and totals["in_flight"][0] == 0)
        return drained and self._last

    @property
    def all_arrived(self) -> bool:
        """Whether every request of the trace has arrived."""
        return self._last and bool(self._sim.totals["next_arrival"][0] >= len(self._chunk[0]))

    def _next_chunk(self) -> None:
        """Load the next arrivals; one chunk is read ahead, so that the last one is known as such."""
        self._chunk = self._ahead or _NO_ARRIVALS
        self._ahead = _columns(next(self._chunks, None))
        self._last = self._ahead is None
        self._sim.totals["next_arrival"][0] = 0
        if len(self._chunk[0]):
            self.last_arrival_ms = float(self._chunk[0][-1])
        if self._last:
            # Known before the last arrival comes: a worker that ends between it and the next tick counts to it only.
            self._sim.totals["window_ms"] = self.last_arrival_ms

    def _take_out(self) -> None:
        count = int(self._sim.totals["out"][0])
        if count == 0:
            return
        s = self._sim
        self._on_finished(
            Finished(
                arrival_ms=s.out["arrival"][:count].copy(),
                isl=s.out["isl"][:count].copy(),
                osl=s.out["osl"][:count].copy(),
                hit=s.out["hit"][:count].copy(),
                ttft_ms=s.out["ttft"][:count].copy(),
                itl_ms=s.out["itl"][:count].copy(),
            )
        )
        s.totals["out"][0] = 0

    # -- workers ---------------------------------------------------------------------------------------------------

    def pool_of(self, role: Role) -> int:
        """The kernel's number of a role's pool."""
        return self.engines.roles.index(role)

    def add_worker(self, role: Role, ready_ms: float, other: int | None = None) -> None:
        """Ask for one worker now, which serves from `ready_ms` on.

        Args:
            role: its pool.
            ready_ms: when it serves.
            other: place of its layout among `others`; the role's own layout without it.
        """
        pool = self.pool_of(role)
        # The first free place, as FREE is the least of the states.
        w = int(self._sim.workers["state"].argmin())
        if self._sim.workers["state"][w] != st.FREE:
            w = len(self._sim.workers)
            self._sim = st.with_more_workers(self._sim)
        s = self._sim
        worker = np.zeros((), dtype=st.WORKER)
        worker["pool"], worker["engine"], worker["state"] = pool, self._engine(role, other), st.STARTING
        worker["event"], worker["born"] = max(ready_ms, s.totals["clock"][0]), s.totals["clock"][0]
        s.workers[w] = worker
        s.phase[w] = 0
        s.totals["workers"][0] = max(s.totals["workers"][0], w + 1)

    def _engine(self, role: Role, other: int | None) -> int:
        """The kernel's number of a layout."""
        return self.pool_of(role) if other is None else 2 + other

    def drain_worker(self, role: Role, other: int | None = None) -> None:
        """Take one worker of a layout out of service: a starting one ends at once, else the least loaded one drains."""
        s = self._sim
        mine = (s.workers["engine"] == self._engine(role, other)) & (s.workers["state"] != st.FREE)
        starting = np.flatnonzero(mine & (s.workers["state"] == st.STARTING))
        if len(starting):
            w = int(starting[np.argmax(s.workers["event"][starting])])
            s.workers["state"][w] = st.DRAINING
        else:
            ready = np.flatnonzero(mine & (s.workers["state"] == st.READY))
            if len(ready) == 0:
                return
            w = int(ready[np.argmin(s.workers["in_flight"][ready])])
            s.workers["state"][w] = st.DRAINING
        retire(s, w, float(s.totals["clock"][0]))

    def supply(self, role: Role, other: int | None = None) -> Supply:
        """A layout's workers and their load; what waits at the gateway for the role counts to it."""
        pool, engine, s = self.pool_of(role), self._engine(role, other), self._sim
        # Several times a tick: only places that were ever used, and a few passes over them.
        workers = s.workers[: int(s.totals["workers"][0])]
        mine = workers["engine"] == engine
        state = workers["state"][mine]
        _, starting, ready, draining = np.bincount(state, minlength=st.DRAINING + 1).tolist()
        # A worker that starts has nothing in flight, nor has a place whose worker is gone.
        queued = int(np.add.reduce(workers["wait_count"][mine]))
        in_flight = int(np.add.reduce(workers["in_flight"][mine]))
        blocks = int(np.add.reduce(workers["blocks"][mine][state == st.READY]))
        return Supply(
            ready=ready,
            starting=starting,
            draining=draining,
            waiting=queued + self._held_at_gateway(pool),
            running=in_flight - queued,
            kv_usage=float(blocks) / (int(s.engines["capacity_blocks"][engine]) * max(1, ready)),
        )

    def loads(self, role: Role, other: int | None = None) -> list[WorkerLoad]:
        """The ready workers of a layout, one by one, oldest number first."""
        engine, s = self._engine(role, other), self._sim
        blocks = int(s.engines["capacity_blocks"][engine])
        size = int(s.engines["block"][engine])
        ready = np.flatnonzero((s.workers["engine"] == engine) & (s.workers["state"] == st.READY))
        return [
            WorkerLoad(
                number=int(w),
                waiting=int(s.workers["wait_count"][w]),
                running=int(s.workers["in_flight"][w] - s.workers["wait_count"][w]),
                kv_usage=float(s.workers["blocks"][w]) / max(1, blocks),
                kv_capacity_tokens=blocks * size,
            )
            for w in ready
        ]

    def _held_at_gateway(self, pool: int) -> int:
        held, slot = 0, int(self._sim.lists[pool, st.WAIT, st.HEAD])
        while slot != st.NONE:
            held += 1
            slot = int(self._sim.requests["next"][slot])
        return held

    def gpus(self) -> int:
        """GPUs held now: starting, ready and draining workers."""
        workers = self._sim.workers[: int(self._sim.totals["workers"][0])]
        engines = workers["engine"][workers["state"] != st.FREE]
        return sum(int(np.count_nonzero(engines == engine)) * gpus for engine, gpus in self._gpus.items())

    # -- what happened ---------------------------------------------------------------------------------------------

    def total(self, name: str) -> int:
        """One of the kernel's counts, by its field in `state.TOTALS`."""
        return int(self._sim.totals[name][0])

    def seconds_since_last(self) -> NDArray[np.int64]:
        """Arrivals in each whole second since the last call, shape (n,)."""
        now = int(self._sim.totals["clock"][0] / 1000.0)
        span = np.arange(max(self._second_read, now - st.SECONDS + 1), now) % st.SECONDS
        counts = self._sim.per_second[span].copy()
        self._sim.per_second[span] = 0
        self._second_read = now
        return counts

    def gpu_hours(self) -> float:
        """GPU-hours so far, at most up to the last arrival: every worker from its asking to its end."""
        s = self._sim
        end = min(float(s.totals["clock"][0]), float(s.totals["window_ms"][0]))
        alive = s.workers["state"] != st.FREE
        total = 0.0
        for engine, gpus in self._gpus.items():
            held = np.maximum(0.0, end - s.workers["born"][alive & (s.workers["engine"] == engine)]).sum()
            total += (float(s.engines["worker_ms"][engine]) + float(held)) * gpus
        return total / 3_600_000.0

    @property
    def raw(self) -> st.Sim:
        """The kernel's memory, for tests of its invariants."""
        return self._sim


Columns = tuple[
    NDArray[np.float64], NDArray[np.int64], NDArray[np.int64], NDArray[np.int64]
]  # arrival_ms, isl, osl, hit
_NO_ARRIVALS: Columns = (
    np.empty(0),
    np.empty(0, dtype=np.int64),
    np.empty(0, dtype=np.int64),
    np.empty(0, dtype=np.int64),
)


def _columns(chunk: TraceChunk | None) -> Columns | None:
    if chunk is None:
        return None
    return (
        chunk.arrival_s * 1000.0,
        chunk.isl.astype(np.int64),
        chunk.osl.astype(np.int64),
        chunk.prefix_hit_tokens.astype(np.int64),
    )
