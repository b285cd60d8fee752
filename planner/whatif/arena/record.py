"""What is kept of one run: a policy in a case under one seed, as one line of JSON."""

from __future__ import annotations

import json
from typing import Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, ValidationError

from planner.whatif.outcome import Outcome

_FROZEN = ConfigDict(frozen=True, extra="forbid")

#: Points of a timeline: a picture of it is a few hundred pixels wide.
MOST_POINTS = 300


class Timeline(BaseModel):
    """Workers of each pool over time, steps that hold until the next; as many as `at_s` has.

    Attributes:
        at_s: s from the start of the trace.
        ready: workers that serve, by pool name.
        held: those and the ones that start or drain: what GPUs are paid for.
    """

    model_config = _FROZEN

    at_s: tuple[float, ...]
    ready: dict[str, tuple[int, ...]]
    held: dict[str, tuple[int, ...]]


class Load(BaseModel):
    """Arrivals over time: middle of each interval, s, and requests per second in it."""

    model_config = _FROZEN

    at_s: tuple[float, ...]
    rps: tuple[float, ...]


class Figures(BaseModel):
    """What a run achieved and cost.

    Attributes:
        attainment: share of offered requests within both limits.
        making_s, decisions_s, replay_s: processor seconds of the policy's making, of its decisions, and of the replay
            without them.
        requests_per_s: of the replay, decisions included, per processor second.
    """

    model_config = _FROZEN

    requests: int
    completed: int
    attainment: float
    ttft_attainment: float
    itl_attainment: float
    ttft_p99_ms: float | None = None
    itl_p99_ms: float | None = None
    gpu_hours: float
    peak_gpus: int
    scale_ups: int
    scale_downs: int
    making_s: float
    decisions_s: float
    replay_s: float
    requests_per_s: float
    timeline: Timeline


class RunRecord(BaseModel):
    """One run, done or failed.

    Attributes:
        key: hash of everything that its result depends on.
        start: workers at time 0, as the replay was given them.
        figures: of a run that was done.
        error: of one that failed.
    """

    model_config = _FROZEN

    version: Literal[1] = 1
    key: str
    case: str
    policy: str
    seed: int
    start: dict[str, int]
    figures: Figures | None = None
    error: str | None = None


def to_line(record: RunRecord) -> str:
    """One line of JSON, without the line's end."""
    return json.dumps(record.model_dump(mode="json", exclude_none=True), separators=(",", ":"), allow_nan=False)


def from_line(line: str) -> RunRecord | None:
    """The record of a line; None for a line that is cut off or of another version."""
    try:
        return RunRecord.model_validate_json(line)
    except ValidationError:
        return None


def timeline_of(outcome: Outcome) -> Timeline:
    """The supply after every tick within the span, thinned to `MOST_POINTS`; of neighbours the one that held most."""
    ticks = [tick for tick in outcome.ticks if tick.at_s <= outcome.span_s] or list(outcome.ticks[:1])
    pools = list(ticks[0].plan) if ticks else []
    held = [[t.ready[p] + t.starting[p] + t.draining[p] for p in pools] for t in ticks]
    rows = np.array([[*(t.ready[p] for p in pools), *of] for t, of in zip(ticks, held, strict=True)], dtype=np.int64)
    at = np.array([t.at_s for t in ticks])
    if len(rows):
        changed = np.concatenate([[True], np.any(np.diff(rows, axis=0) != 0, axis=1)])
        changed[-1] = True
        rows, at = rows[changed], at[changed]
    kept = _thinned(rows[:, len(pools) :].sum(axis=1)) if len(rows) else np.empty(0, dtype=np.int64)
    rows, at = rows[kept], at[kept]

    def lines(first: int) -> dict[str, tuple[int, ...]]:
        return {pool: tuple(rows[:, first + i].tolist()) for i, pool in enumerate(pools)}

    return Timeline(at_s=tuple(np.round(at, 1).tolist()), ready=lines(0), held=lines(len(pools)))


def _thinned(held: NDArray[np.int64]) -> NDArray[np.int64]:
    """Places to keep: of each group of neighbours the one with most workers, since peaks are what is paid for."""
    step = -(-len(held) // MOST_POINTS)
    return np.array([a + int(held[a : a + step].argmax()) for a in range(0, len(held), step)], dtype=np.int64)


def load_of(arrival_s: NDArray[np.float64]) -> Load:
    """The load of a trace in at most `MOST_POINTS` intervals of equal width.

    Args:
        arrival_s: times of arrival, s, shape (n,), n at least 1.
    """
    span = float(arrival_s[-1])
    # Intervals under ten seconds show chance, not load.
    bins = max(1, min(MOST_POINTS, int(span // 10.0)))
    counts, edges = np.histogram(arrival_s, bins=bins, range=(0.0, max(span, 1e-9)))
    rates, middles = counts / np.diff(edges), (edges[1:] + edges[:-1]) / 2
    return Load(at_s=tuple(np.round(middles, 1).tolist()), rps=tuple(np.round(rates, 2).tolist()))
