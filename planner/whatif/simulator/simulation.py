"""The simulator as Python sees it: workers come and go, time advances, finished requests are handed out."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from planner.core.engines import Engines
from planner.core.types import Role
from planner.whatif.simulator import state as st
from planner.whatif.simulator.loop import advance
from planner.whatif.simulator.worker import retire_if_empty
from planner.whatif.traces import Trace, TraceChunk

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


class Simulation:
    """One replay of a trace on a graph whose workers are added and drained from outside.

    Args:
        engines: the graph's engines.
        trace: arrivals; read in chunks, so that memory follows the requests in flight.
        routing: the gateway's policy for both pools.
        on_finished: called with finished requests whenever some are taken out.
    """

    def __init__(
        self,
        engines: Engines,
        trace: Trace,
        routing: Routing,
        on_finished: Callable[[Finished], None],
    ) -> None:
        second = engines.timing[1] if len(engines.timing) > 1 else None
        self.engines = engines
        self._sim = st.new_sim((engines.timing[0], second), engines.transfer, ROUTING[routing])
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

    def add_worker(self, role: Role, ready_ms: float) -> None:
        """Ask for one worker now; it serves from `ready_ms` on."""
        pool = self.pool_of(role)
        free = np.flatnonzero(self._sim.workers["state"] == st.FREE)
        if len(free) == 0:
            self._sim = st.with_more_workers(self._sim)
            free = np.flatnonzero(self._sim.workers["state"] == st.FREE)
        w, s = int(free[0]), self._sim
        s.workers["pool"][w] = pool
        s.workers["state"][w] = st.STARTING
        s.workers["event"][w] = max(ready_ms, s.totals["clock"][0])
        s.workers["born"][w] = s.totals["clock"][0]
        s.workers["iteration"][w] = s.workers["kv"][w] = s.workers["blocks"][w] = s.workers["seats"][w] = s.workers[
            "in_flight"
        ][w] = 0
        s.workers["seg_steps"][w] = s.workers["wait_count"][w] = s.workers["heap_count"][w] = 0
        s.phase[w] = 0
        s.totals["workers"][0] = max(s.totals["workers"][0], w + 1)

    def drain_worker(self, role: Role) -> None:
        """Take one worker out of service: a starting one ends at once, else the least loaded one drains."""
        pool, s = self.pool_of(role), self._sim
        mine = (s.workers["pool"] == pool) & (s.workers["state"] != st.FREE)
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
        retire_if_empty(s, w, float(s.totals["clock"][0]))

    def supply(self, role: Role) -> Supply:
        """The role's workers and their load."""
        pool, s = self.pool_of(role), self._sim
        mine = s.workers["pool"] == pool
        ready, draining = mine & (s.workers["state"] == st.READY), mine & (s.workers["state"] == st.DRAINING)
        serving = ready | draining
        capacity = int(s.engines["capacity_blocks"][pool]) * max(1, int(ready.sum()))
        in_flight = int(s.workers["in_flight"][serving].sum())
        waiting = int(s.workers["wait_count"][serving].sum()) + self._held_at_gateway(pool)
        return Supply(
            ready=int(ready.sum()),
            starting=int((mine & (s.workers["state"] == st.STARTING)).sum()),
            draining=int(draining.sum()),
            waiting=waiting,
            running=in_flight - int(s.workers["wait_count"][serving].sum()),
            kv_usage=float(s.workers["blocks"][ready].sum()) / capacity,
        )

    def _held_at_gateway(self, pool: int) -> int:
        held, slot = 0, int(self._sim.lists[pool, st.WAIT, st.HEAD])
        while slot != st.NONE:
            held += 1
            slot = int(self._sim.requests["next"][slot])
        return held

    def gpus(self) -> int:
        """GPUs held now: starting, ready and draining workers."""
        s = self._sim
        alive = s.workers["state"] != st.FREE
        return sum(
            int((alive & (s.workers["pool"] == pool)).sum()) * engine.gpus
            for pool, engine in enumerate(self.engines.timing)
        )

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
        for pool, engine in enumerate(self.engines.timing):
            held = np.maximum(0.0, end - s.workers["born"][alive & (s.workers["pool"] == pool)]).sum()
            total += (float(s.engines["worker_ms"][pool]) + float(held)) * engine.gpus
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
