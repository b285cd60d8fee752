"""Measured against simulated: the figures of both, their errors, and whether these keep the targets."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType

import numpy as np
from numpy.typing import NDArray

from planner.accuracy.match import Matched
from planner.accuracy.replay import Replay, replay
from profiler.errors import InputError
from profiler.record import Recording
from profiler.schema import Validation

#: Relative errors that are promised.
TARGETS: Mapping[str, float] = MappingProxyType(
    {
        "ttft_mean": 0.10,
        "ttft_p50": 0.10,
        "ttft_p90": 0.10,
        "ttft_p99": 0.20,
        "itl_mean": 0.10,
        "itl_p50": 0.10,
        "itl_p90": 0.10,
    }
)
#: Beyond one of these, the client shares in what it measured.
BUSY_SHARE, LATE_MS = 0.8, 20.0


@dataclass(frozen=True, eq=False)
class Comparison:
    """A run beside its replay.

    Attributes:
        name: the run's folder and name.
        recording, matched, replayed: what was compared.
        compared: the requests that count: completed in both, and after the warm-up; shape (requests,).
        measured_ms, simulated_ms: by the names of `TARGETS`; those without a value are left out.
        notes: what to know before believing the figures.
    """

    name: str
    recording: Recording
    matched: Matched
    replayed: Replay
    compared: NDArray[np.bool_]
    measured_ms: Mapping[str, float]
    simulated_ms: Mapping[str, float]
    notes: tuple[str, ...]

    @property
    def title(self) -> str:
        """What tells it from runs of the same name on other machines."""
        return f"{self.recording.meta.model} on {self.recording.meta.gpu}, {self.name}"

    @property
    def errors(self) -> dict[str, float]:
        """Simulated / measured - 1, by figure."""
        return {name: self.simulated_ms[name] / value - 1.0 for name, value in self.measured_ms.items()}

    @property
    def missed(self) -> tuple[str, ...]:
        """Figures whose error is beyond the target."""
        return tuple(name for name, error in self.errors.items() if not abs(error) <= TARGETS[name])

    def validation(self) -> Validation:
        """What the profiles keep of it."""
        return Validation(
            run=self.name,
            mode=self.recording.meta.mode,
            requests=int(self.compared.sum()),
            rate_rps=self.recording.meta.rate_rps,
            measured_ms={name: round(value, 3) for name, value in self.measured_ms.items()},
            simulated_ms={name: round(value, 3) for name, value in self.simulated_ms.items()},
        )


def compare(recording: Recording, matched: Matched, *, warmup_s: float) -> Comparison:
    """Replay a run and compare.

    Args:
        recording: the run.
        matched: its graph.
        warmup_s: requests sent before count on neither side; both see them.

    Raises:
        InputError: no request is left to compare.
        DependencyError: the simulation does not come to its end.
    """
    replayed = replay(recording, matched.engines, matched.counts)
    late = recording.sent_s >= warmup_s
    compared = recording.completed & np.isfinite(replayed.ttft_ms) & late
    if not compared.any():
        problem = f"no request to compare: {int(recording.completed.sum())} of {len(late)} completed"
        raise InputError(problem, expected=f"completed ones after {warmup_s:g} s", source=recording.path)
    notes = [*matched.notes]
    lost, unfit = int((~recording.completed).sum()), int((~np.isfinite(replayed.ttft_ms)).sum())
    if lost:
        notes.append(f"{lost} of {len(late)} requests were lost when it was recorded; the replay holds them")
    if unfit:
        notes.append(f"{unfit} requests do not fit the simulated engine")
    client = recording.meta.client
    if client.cpu_share > BUSY_SHARE or client.late_p99_ms > LATE_MS:
        busy = f"{client.cpu_share:.0%} CPU, late by {client.late_p99_ms:.0f} ms (p99)"
        notes.append(f"the client could not keep up ({busy}): it is part of what it measured")
    return Comparison(
        name=f"{recording.path.resolve().parent.name}/{recording.path.stem}",
        recording=recording,
        matched=matched,
        replayed=replayed,
        compared=compared,
        measured_ms=figures(recording.ttft_ms[compared], recording.itl_ms[compared]),
        simulated_ms=figures(replayed.ttft_ms[compared], replayed.itl_ms[compared]),
        notes=tuple(notes),
    )


def figures(ttft_ms: NDArray[np.float64], itl_ms: NDArray[np.float64]) -> dict[str, float]:
    """The figures of `TARGETS`; percentiles interpolate linearly; NaN, as of a single token's ITL, is left out."""
    found = {}
    for kind, values in (("ttft", ttft_ms), ("itl", itl_ms)):
        good = values[np.isfinite(values)]
        if len(good) == 0:
            continue
        for name in TARGETS:
            series, _, which = name.partition("_")
            if series == kind:
                found[name] = float(good.mean() if which == "mean" else np.percentile(good, float(which[1:])))
    return found
