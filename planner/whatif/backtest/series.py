"""The arrivals of a trace as the planner counts them: a rate and a dispersion for each of its intervals."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

from planner.whatif.traces import Trace

Floats = NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class Series:
    """Whole intervals of a trace; what comes after the last one is left out.

    Attributes:
        interval_s: width of an interval.
        rates_rps: requests per second in each, shape (n,).
        dispersion: variance over mean of the counts per second in each, shape (n,); NaN where an interval has fewer
            than two whole seconds, or no arrival.
        requests: in the whole trace.
        span_s: to its last arrival.
    """

    interval_s: float
    rates_rps: Floats
    dispersion: Floats
    requests: int
    span_s: float


def series_of(trace: Trace, interval_s: float) -> Series:
    """Count a trace's arrivals in one pass; memory follows its seconds, not its requests.

    Raises:
        profiler.errors.InputError: the trace is invalid at some line.
    """
    seconds, bins = np.zeros(0, dtype=np.int64), np.zeros(0, dtype=np.int64)
    requests, span_s = 0, 0.0
    for chunk in trace.chunks():
        requests, span_s = requests + len(chunk), float(chunk.arrival_s[-1])
        seconds = _counted(seconds, chunk.arrival_s, 1.0)
        bins = _counted(bins, chunk.arrival_s, interval_s)
    whole = int(span_s / interval_s)
    # The whole seconds of an interval, as a replay reads them at its ticks.
    edges = np.floor(np.arange(whole + 1) * interval_s).astype(np.int64)
    dispersion = np.array([_dispersion(seconds[a:b]) for a, b in pairwise(edges.tolist())])
    return Series(interval_s, bins[:whole] / interval_s, dispersion, requests, span_s)


def _counted(counts: NDArray[np.int64], arrival_s: Floats, width_s: float) -> NDArray[np.int64]:
    """`counts` with more arrivals in bins of a width."""
    place = np.floor(arrival_s / width_s).astype(np.int64)
    first = int(place[0])
    added = np.bincount(place - first)
    if first + len(added) > len(counts):
        counts = np.concatenate([counts, np.zeros(first + len(added) - len(counts), dtype=np.int64)])
    counts[first : first + len(added)] += added
    return counts


def _dispersion(counts: NDArray[np.int64]) -> float:
    mean = float(counts.mean()) if len(counts) > 1 else 0.0
    return float(counts.var(ddof=1)) / mean if mean > 0 else float("nan")
