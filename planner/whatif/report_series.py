"""Lines of the report's pictures, thinned to what a screen can show: pure arithmetic on arrays."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from planner.core.forecast import Forecast
from planner.core.state import Decision
from planner.whatif.outcome import BUCKET_S, Outcome
from planner.whatif.replay import Tick

Line = NDArray[np.float64]

#: Points that a line may have; a screen is hardly wider in pixels.
MOST_POINTS = 1000

#: Spans longer than this are shown in minutes rather than in buckets of ten seconds.
_SHORT_S = 1200.0


def load(ticks: Sequence[Tick], span_s: float) -> tuple[Line, Line]:
    """Observed arrivals: middle of each interval, s, and requests per second in it; shapes (n,)."""
    kept = [tick for tick in ticks if tick.at_s - tick.interval_s < span_s]
    begin = np.array([tick.at_s - tick.interval_s for tick in kept])
    # The last interval outlasts the trace; its empty rest is no fall of the load.
    width = np.minimum([tick.at_s for tick in kept], span_s) - begin
    count = np.array([tick.arrivals for tick in kept], dtype=np.float64)
    # A sliver of an interval would show noise as a peak.
    whole = width > 0.2 * np.array([tick.interval_s for tick in kept])
    begin, width, count = begin[whole], width[whole], count[whole]
    first = _firsts(len(count))
    widths = _reduce(np.add, width, first)
    return _reduce(np.minimum, begin, first) + widths / 2, _reduce(np.add, count, first) / widths


@dataclass(frozen=True)
class Forecasts:
    """What our planner expected, at the time that it was expected for; shapes (n,), NaN where there was none.

    Attributes:
        for_s: middle of the last bin that each forecast covers, when workers that it asks for serve.
        median_rps, high_rps: the median and the quantile that is sized for, of that bin.
        sized_rps: what the plan was sized for: the worst bin of the quantile, and what waited.
        level: of the quantile that is sized for.
    """

    for_s: Line
    median_rps: Line
    high_rps: Line
    sized_rps: Line
    level: float


def forecasts(decisions: Sequence[Decision], bin_s: float) -> Forecasts | None:
    """The forecasts of a run, bins `bin_s` wide; None if there was none."""
    rows = []
    level = 0.5
    for decision in decisions:
        forecast = decision.forecast
        if not isinstance(forecast, Forecast):
            continue
        steps = len(forecast.rates_rps[0])
        middle = min(range(len(forecast.levels)), key=lambda i: abs(forecast.levels[i] - 0.5))
        level = forecast.levels[-1]
        rows.append(
            (
                decision.at_s + (steps - 0.5) * bin_s,
                forecast.rates_rps[middle][-1],
                forecast.rates_rps[-1][-1],
                decision.demand.rate_rps if decision.demand is not None else math.nan,
            )
        )
    if not rows:
        return None
    table = np.array(rows, dtype=np.float64)
    first = _firsts(len(table))
    count = np.diff(np.append(first, len(table)))
    for_s, median, high = (_reduce(np.add, table[:, i], first) / count for i in range(3))
    return Forecasts(for_s, median, high, _reduce(np.fmax, table[:, 3], first), level)


@dataclass(frozen=True)
class Workers:
    """Supply of one pool, steps that hold until the next; shapes (n,)."""

    at_s: Line
    ready: Line
    starting: Line
    draining: Line
    plan: Line


def steps(rows: Line) -> Line:
    """Rows (time, ready, starting, draining, …) that hold until the next, without those that repeat what was."""
    changed = np.any(np.diff(rows[:, 1:], axis=0) != 0, axis=1)
    rows = rows[np.concatenate([[True], changed[:-1], [True]])] if len(rows) > 1 else rows
    return np.asarray(rows[_highest(rows[:, 1:4].sum(axis=1))])


def workers(outcome: Outcome) -> dict[str, Workers]:
    """Supply by pool name over the span of the trace; repeated values are left out."""
    kept = [tick for tick in outcome.ticks if tick.at_s <= outcome.span_s] or list(outcome.ticks[:1])
    pools = {}
    for pool in kept[0].plan if kept else ():
        rows = np.array(
            [
                (t.at_s, t.ready.get(pool, 0), t.starting.get(pool, 0), t.draining.get(pool, 0), t.plan.get(pool, 0))
                for t in kept
            ],
            dtype=np.float64,
        )  # fmt: skip
        # The plan of the start holds from time 0; what one sees at the first tick is the best guess of it.
        rows = np.concatenate([[[0.0, *rows[0, 1:]]], rows, [[outcome.span_s, *rows[-1, 1:]]]])
        pools[pool] = Workers(*steps(rows).T)
    return pools


def _highest(total: Line) -> NDArray[np.int64]:
    """Rows to keep: of each group the one with the highest total, since peaks are what GPUs are paid for."""
    first = _firsts(len(total))
    ends = np.append(first[1:], len(total))
    return np.array([a + int(total[a:b].argmax()) for a, b in zip(first, ends, strict=True)], dtype=np.int64)


@dataclass(frozen=True)
class Latency:
    """95th percentiles by time of arrival, NaN where nothing completed; shapes (n,).

    Each is the worst of the `width_s` around it.
    """

    at_s: Line
    ttft_ms: Line
    itl_ms: Line
    width_s: float


def latency(outcome: Outcome) -> Latency:
    """TTFT and ITL over time."""
    timeline = outcome.timeline
    first = _firsts(len(timeline.start_s))
    width = BUCKET_S * _step(len(timeline.start_s))
    return Latency(
        at_s=timeline.start_s[first] + width / 2,
        ttft_ms=_reduce(np.fmax, timeline.ttft_p95_ms, first),
        itl_ms=_reduce(np.fmax, timeline.itl_p95_ms, first),
        width_s=width,
    )


def attainment(outcome: Outcome) -> tuple[Line, Line, float]:
    """Share of the offered requests that attained, by time of arrival.

    Returns:
        The middle of each bucket, s, the share in it, NaN where nothing was offered, and the buckets' width, s.
    """
    timeline = outcome.timeline
    buckets = len(timeline.start_s)
    edges = np.append(timeline.start_s, outcome.span_s + BUCKET_S)
    at = np.array([0.0, *(tick.at_s for tick in outcome.ticks)])
    arrived = np.cumsum([0.0, *(tick.arrivals for tick in outcome.ticks)])
    # Ticks may be wider than buckets; what completed was offered for certain.
    offered = np.maximum(np.diff(np.interp(edges, at, arrived)), timeline.completed)
    step = _step(buckets, 6 if outcome.span_s > _SHORT_S else 1)
    first = np.arange(0, buckets, step)
    offered, attained = _reduce(np.add, offered, first), _reduce(np.add, timeline.attained, first)
    share = np.divide(attained, offered, out=np.full(len(first), np.nan), where=offered > 0)
    return timeline.start_s[first] + step * BUCKET_S / 2, share, step * BUCKET_S


def frontier(outcomes: Sequence[Outcome]) -> tuple[Outcome, ...]:
    """Those that no other beats in both GPU-hours and attainment, cheapest first."""
    best: list[Outcome] = []
    for outcome in sorted(outcomes, key=lambda o: (o.gpu_hours, -o.attainment)):
        if not best or outcome.attainment > best[-1].attainment:
            best.append(outcome)
    return tuple(best)


def _step(count: int, unit: int = 1) -> int:
    """Neighbours to merge, a multiple of `unit`, so that at most `MOST_POINTS` remain."""
    return unit * max(1, math.ceil(count / unit / MOST_POINTS))


def _firsts(count: int) -> NDArray[np.int64]:
    """Where each group of neighbours begins."""
    return np.arange(0, count, _step(count), dtype=np.int64)


def _reduce(how: np.ufunc, values: NDArray[np.generic], first: NDArray[np.int64]) -> Line:
    """Each group in one number; nothing for nothing."""
    if len(first) == 0:
        return np.empty(0)
    return np.asarray(how.reduceat(values.astype(np.float64), first), dtype=np.float64)
