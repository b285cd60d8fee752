"""The simulator on exactly what a run recorded: same times, same lengths, the same workers throughout."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from planner.core.engines import Engines
from planner.core.types import Role
from planner.whatif.simulator.simulation import Finished, Simulation
from planner.whatif.traces.trace import Trace, TraceChunk, rechunk
from profiler.errors import DependencyError
from profiler.record import Recording

#: Requests that stand alone come so far apart, ms; none needs so long for its first two tokens.
_APART_MS = 1e6
#: Simulated time after the last arrival, by which all have ended; ten days.
_GRACE_MS = 864e6


@dataclass(frozen=True, eq=False)
class Replay:
    """What the simulator says of each request of a recording, in its order; NaN where it did not complete.

    Attributes:
        ttft_ms, itl_ms: of the request among the others; ITL is NaN for one output token.
        lone_ttft_ms: TTFT of the request with the workers to itself.
        prefill_ms: until the end of its prompt on a prefill worker of its own; NaN for aggregated workers.
    """

    ttft_ms: NDArray[np.float64]
    itl_ms: NDArray[np.float64]
    lone_ttft_ms: NDArray[np.float64]
    prefill_ms: NDArray[np.float64]


def replay(recording: Recording, engines: Engines, counts: Mapping[Role, int]) -> Replay:
    """Replay all requests of a recording, the lost ones, too: they were work for the engine.

    Args:
        recording: the run.
        engines: of its workers.
        counts: workers by role, ready from the beginning.

    Raises:
        DependencyError: the simulation does not come to its end.
    """
    sent_ms = recording.sent_s * 1000.0
    ttft, itl = _simulate(engines, counts, recording, sent_ms, recording.osl)
    apart = np.arange(len(sent_ms), dtype=np.float64) * _APART_MS
    lone, _ = _simulate(engines, counts, recording, apart, np.minimum(recording.osl, 2))
    prefill = np.full(len(ttft), np.nan)
    if Role.PREFILL in engines.roles:
        # Prefill workers by themselves are aggregated ones whose requests end with the first token. Blocks that wait
        # to be fetched are left aside: they hold prompts up only where the KV cache of prefill is full.
        alone = Engines((Role.AGGREGATED,), (engines.of(Role.PREFILL),), engines.transfer)
        first = np.ones_like(recording.osl)
        prefill, _ = _simulate(alone, {Role.AGGREGATED: counts[Role.PREFILL]}, recording, sent_ms, first)
    return Replay(ttft, itl, lone, prefill)


def _simulate(
    engines: Engines,
    counts: Mapping[Role, int],
    recording: Recording,
    at_ms: NDArray[np.float64],
    osl: NDArray[np.int64],
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    # No two at one instant, so that a result is known by its time; a nanosecond a request changes nothing else.
    at_ms = at_ms + np.arange(len(at_ms)) * 1e-6
    batches: list[Finished] = []
    trace = _Recorded(recording, at_ms, osl)
    # The load client sends round robin, as recorded runs are.
    simulation = Simulation(engines, trace, "round_robin", batches.append)
    for role, count in counts.items():
        for _ in range(count):
            simulation.add_worker(role, 0.0)
    simulation.run_to(float(at_ms[-1]) + _GRACE_MS)
    if not simulation.exhausted:
        raise DependencyError(f"{recording.path}: the simulation does not come to its end")
    ttft, itl = np.full(len(at_ms), np.nan), np.full(len(at_ms), np.nan)
    for batch in batches:
        # The trace carries seconds, so that a time comes back within rounding.
        index = np.searchsorted(at_ms, batch.arrival_ms - 5e-7)
        ttft[index], itl[index] = batch.ttft_ms, batch.itl_ms
    return ttft, itl


class _Recorded(Trace):
    """A recording's requests at given times."""

    def __init__(self, recording: Recording, at_ms: NDArray[np.float64], osl: NDArray[np.int64]) -> None:
        self._name = recording.meta.name
        whole = TraceChunk(
            at_ms / 1000.0,
            recording.isl.astype(np.int32),
            osl.astype(np.int32),
            # At least the last token of a prompt is computed.
            np.minimum(recording.hit, recording.isl - 1).astype(np.int32),
        )
        self._whole = whole

    @property
    def name(self) -> str:
        """The run's name."""
        return self._name

    def chunks(self) -> Iterator[TraceChunk]:
        """All requests."""
        yield from rechunk([self._whole])
