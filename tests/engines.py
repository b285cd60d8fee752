"""Engines, traces and runs made by hand, so that a test can say what must come out."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from planner.core.engines import Engines
from planner.core.types import Role
from planner.whatif.simulator.simulation import Finished, Routing, Simulation
from planner.whatif.traces.trace import Trace, TraceChunk, rechunk
from profiler.timing import EngineTiming, TransferTiming

AGGREGATED, PREFILL, DECODE = Role.AGGREGATED, Role.PREFILL, Role.DECODE

#: arrival in ms, ISL, OSL, prefix hit.
Row = tuple[float, int, int, int]


def engine(
    *,
    fixed_ms: float = 10.0,
    token_ms: float = 0.01,
    attention: float = 0.0,
    step_ms: float = 5.0,
    request_ms: float = 0.1,
    kv_ms: float = 0.001,
    bend: float = 0.0,
    capacity: int = 160_000,
    seqs: int = 64,
    batched: int = 8192,
    block: int = 16,
    gpus: int = 1,
    kv_nodes: int = 9,
    shared_ms: float | None = None,
    front_ms: float = 0.0,
    front_token_ms: float = 0.0,
    ahead: bool = False,
    behind_ms: float | None = None,
    mixed_request_ms: float = 0.0,
    exposed: bool | None = None,
    stream_ms: float = 0.0,
) -> EngineTiming:
    """Prefill fixed + token n + attention n^2; decode step + request b + kv K, and `bend` K^2 between KV nodes.

    A mixed iteration shares `shared_ms`, by default the decode iteration at batch 1 without KV; its prompts take
    `behind_ms` instead of the fixed part. Launches are exposed where the engine schedules ahead, unless told.
    """
    step = capacity / (kv_nodes - 1)
    kv = np.arange(kv_nodes) * step
    batches = np.arange(seqs + 1, dtype=np.float64)
    nodes = np.arange(0, 65_536 + 32, 32, dtype=np.float64)
    decode = step_ms + request_ms * batches[:, None] + (kv_ms * kv + bend * kv**2)[None, :]
    return EngineTiming(
        prefill_ms=fixed_ms + token_ms * nodes,
        behind_ms=fixed_ms + token_ms * nodes if behind_ms is None else behind_ms + token_ms * nodes,
        prefill_step_tokens=32,
        attention_ms_per_token2=attention,
        decode_ms=np.ascontiguousarray(decode),
        kv_step_tokens=step,
        floor_ms=float(decode[1, 0]),
        shared_ms=float(decode[1, 0]) if shared_ms is None else shared_ms,
        kv_capacity_tokens=capacity,
        max_num_seqs=seqs,
        max_num_batched_tokens=batched,
        block_size=block,
        gpus=gpus,
        front_ms=front_ms,
        front_ms_per_token=front_token_ms,
        ahead=ahead,
        mixed_ms_per_request=mixed_request_ms,
        stream_ms=stream_ms,
        exposed=ahead if exposed is None else exposed,
    )


def transfer(
    base_ms: float = 2.0, token_ms: float = 0.002, *, post_ms: float = 0.0, post_token_ms: float = 0.0
) -> TransferTiming:
    """Hand-off of base + token n, for post + post token n of which the decode engine's loop stands still."""
    nodes = np.arange(0, 65_536 + 64, 64, dtype=np.float64)
    return TransferTiming(base_ms + token_ms * nodes, 64, "by hand", post_ms + post_token_ms * nodes)


def aggregated(timing: EngineTiming) -> Engines:
    """A graph of aggregated workers."""
    return Engines((AGGREGATED,), (timing,), transfer())


def disaggregated(prefill: EngineTiming, decode: EngineTiming, handoff: TransferTiming | None = None) -> Engines:
    """A graph of prefill and decode workers."""
    return Engines((PREFILL, DECODE), (prefill, decode), handoff or transfer())


class HandTrace(Trace):
    """A trace of given rows, in chunks of a given size."""

    def __init__(self, rows: Iterable[Row], size: int = 65_536) -> None:
        self._rows = sorted(rows)
        self._size = size

    @property
    def name(self) -> str:
        return "by hand"

    def chunks(self) -> Iterator[TraceChunk]:
        if not self._rows:
            return
        arrival, isl, osl, hit = zip(*self._rows, strict=True)
        whole = TraceChunk(
            np.array(arrival) / 1000.0,
            np.array(isl, dtype=np.int32),
            np.array(osl, dtype=np.int32),
            np.array(hit, dtype=np.int32),
        )
        yield from rechunk([whole], self._size)


@dataclass
class Run:
    """A simulation and what came out of it so far, in order of arrival; shapes (n,)."""

    simulation: Simulation
    batches: list[Finished]

    def _column(self, name: str) -> NDArray[np.float64]:
        if not self.batches:
            return np.empty(0)
        arrival = np.concatenate([b.arrival_ms for b in self.batches])
        values = np.concatenate([getattr(b, name) for b in self.batches])
        return np.asarray(values[np.argsort(arrival, kind="stable")], dtype=np.float64)

    @property
    def arrival(self) -> NDArray[np.float64]:
        return self._column("arrival_ms")

    @property
    def isl(self) -> NDArray[np.float64]:
        return self._column("isl")

    @property
    def osl(self) -> NDArray[np.float64]:
        return self._column("osl")

    @property
    def hit(self) -> NDArray[np.float64]:
        return self._column("hit")

    @property
    def ttft(self) -> NDArray[np.float64]:
        return self._column("ttft_ms")

    @property
    def itl(self) -> NDArray[np.float64]:
        return self._column("itl_ms")

    @property
    def end(self) -> NDArray[np.float64]:
        """When the last token came."""
        return self.arrival + self.ttft + np.nan_to_num(self.itl) * (self.osl - 1)

    def to(self, until_ms: float) -> Run:
        self.simulation.run_to(until_ms)
        return self


def start(
    engines: Engines,
    rows: Iterable[Row],
    workers: Mapping[Role, int] | int = 1,
    *,
    routing: Routing = "least_loaded",
    chunk: int = 65_536,
) -> Run:
    """A simulation at time 0 with workers that are ready; a number stands for so many of each role."""
    batches: list[Finished] = []
    simulation = Simulation(engines, HandTrace(rows, chunk), routing, batches.append)
    counts = dict.fromkeys(engines.roles, workers) if isinstance(workers, int) else workers
    for role, count in counts.items():
        for _ in range(count):
            simulation.add_worker(role, 0.0)
    return Run(simulation, batches)


def finish(
    engines: Engines,
    rows: Sequence[Row],
    workers: Mapping[Role, int] | int = 1,
    *,
    routing: Routing = "least_loaded",
    chunk: int = 65_536,
    tick_ms: float = 1e6,
) -> Run:
    """A whole run; a test that never comes to its end fails."""
    run = start(engines, rows, workers, routing=routing, chunk=chunk)
    now = 0.0
    for _ in range(100_000):
        now += tick_ms
        if run.to(now).simulation.exhausted:
            return run
    raise AssertionError("the simulation does not come to its end")


def poisson(rate_per_ms: float, count: int, seed: int) -> NDArray[np.float64]:
    """Arrival times, ms, shape (count,)."""
    return np.random.default_rng(seed).exponential(1.0 / rate_per_ms, count).cumsum()
