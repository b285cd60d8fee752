"""A surge: the newest interval brought far more than the ones before it can explain.

The forecasters learn from their errors, and a crowd that comes within a minute leaves them one or two: each forecasts
it an interval too late and too low. A rise beyond all noise of counting is taken at its word instead: the load goes on
rising as it did between the last two intervals, for as long as a worker takes to come, to at most a multiple of the
newest interval. It only ever adds to what is sized for, and ends by itself with the rise.

A surge has a rule of its own, so it teaches the forecasters nothing: what they had forecast for it and for what comes
after it is not held against them, or the band around every forecast would stay as wide as the crowd was large.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
from pydantic import BaseModel, ConfigDict, Field

from planner.core.forecast.history import FloatArray


class SurgeSettings(BaseModel):
    """When a rise is a surge, and how far it is followed."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    deviations: float = Field(default=6.0, gt=0)
    """How many times larger than usual a jump must be. With fewer, bursts are followed that are gone when workers
    come."""

    intervals: int = Field(default=3, ge=1)
    """Intervals before the newest one whose mean it is compared with."""

    most: float = Field(default=2.0, ge=1)
    """The load is taken to rise to at most so many times the newest interval; a crowd's end is not known. 1: no further
    than the newest interval itself."""


def surge_rps(
    settings: SurgeSettings, rates_rps: Sequence[float | None], bin_s: float, dispersion: float, ahead_s: float
) -> float:
    """The load that a surge leads to, requests/s; 0 when there is none.

    In square roots of counts, whose noise has the same size at every load: a jump is sqrt(c) - sqrt(m), c being an
    interval's count and m the mean of the counts before it. The newest jump is a surge when it is at least `deviations`
    times the larger of sqrt(dispersion) / 2, the deviation of a count (delta method; Bartlett 1936), and the root mean
    square of all jumps before: where traffic jumps all the time, a jump announces nothing. The surge leads to
    r + (r - r') / bin_s ahead_s, r and r' being the rates of the newest interval and of the one before, at most to
    `most` r.

    Args:
        settings: what a surge is.
        rates_rps: by interval, oldest first; None where unknown.
        bin_s: width of an interval, s.
        dispersion: variance over mean of the arrivals, 1 for Poisson.
        ahead_s: from the newest interval's middle to the time that is sized for, s.
    """
    known = np.array([rate for rate in rates_rps if rate is not None])
    if len(known) <= settings.intervals or any(rate is None for rate in rates_rps[-2:]):
        return 0.0
    jumps = _jumps(known * bin_s, settings.intervals)
    # The last but one may belong to the same surge.
    usual = math.sqrt(float(np.square(jumps[:-2]).mean())) if len(jumps) > 2 else 0.0
    if jumps[-1] < settings.deviations * max(0.5 * math.sqrt(dispersion), usual):
        return 0.0
    newest, before = float(known[-1]), float(known[-2])
    return min(settings.most * newest, newest + max(0.0, newest - before) / bin_s * ahead_s)


def is_early_surge(
    settings: SurgeSettings,
    rates_rps: Sequence[float | None],
    bin_s: float,
    count: float,
    span_s: float,
    dispersion: float,
) -> bool:
    """Whether what has come since the last interval is a surge already, before the next interval is over.

    As in `surge_rps`, with a newest interval that is only a part of one: the jump is sqrt(n) - sqrt(m s / bin_s), n
    requests having come in s seconds, and its noise is that of any count.

    Args:
        settings: what a surge is.
        rates_rps: by interval, oldest first; None where unknown.
        bin_s: width of an interval, s.
        count: requests since the last interval.
        span_s: in so many seconds, > 0.
        dispersion: variance over mean of the arrivals, 1 for Poisson.
    """
    known = np.array([rate for rate in rates_rps if rate is not None])
    if len(known) <= settings.intervals or rates_rps[-1] is None:
        return False
    jumps = _jumps(known * bin_s, settings.intervals)
    # The last one may belong to the same surge.
    usual = math.sqrt(float(np.square(jumps[:-1]).mean())) if len(jumps) > 1 else 0.0
    # As for whole intervals, one request in one of them is the least that is expected.
    expected = max(float(known[-settings.intervals :].mean()) * bin_s, 1.0) * span_s / bin_s
    return math.sqrt(count) - math.sqrt(expected) >= settings.deviations * max(0.5 * math.sqrt(dispersion), usual)


def has_surged(settings: SurgeSettings, rates_rps: Sequence[float | None], bin_s: float, dispersion: float) -> bool:
    """Whether one of the last `intervals` intervals was a surge, whose level the forecasters have not learnt yet.

    They average over intervals of which some were before it. Arguments as of `surge_rps`.
    """
    ends = (len(rates_rps) - k for k in range(settings.intervals))
    return any(surge_rps(settings, rates_rps[:end], bin_s, dispersion, 0.0) > 0 for end in ends)


def _jumps(counts: FloatArray, intervals: int) -> FloatArray:
    """sqrt(count) - sqrt(mean of the `intervals` counts before it), shape (n - intervals,)."""
    sums = np.concatenate([np.zeros(1), np.cumsum(counts)])
    means = (sums[intervals:-1] - sums[: -intervals - 1]) / intervals
    # Without any load before, a single request would be a jump: one in an interval is the least that is expected.
    jumps: FloatArray = np.sqrt(counts[intervals:]) - np.sqrt(np.maximum(means, 1.0))
    return jumps
