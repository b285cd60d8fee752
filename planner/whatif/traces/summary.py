"""Statistics of a trace in one streaming pass and fixed memory."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from planner.whatif.traces.trace import Trace


@dataclass(frozen=True)
class LengthSummary:
    """Mean and nearest-rank percentiles of a length, in tokens."""

    mean: float
    p50: float
    p95: float
    p99: float


@dataclass(frozen=True)
class TraceSummary:
    """What a trace looks like.

    Attributes:
        requests: number of requests.
        span_s: from the first to the last arrival.
        isl: input lengths.
        osl: output lengths.
        mean_hit_share: mean over requests of prefix_hit_tokens / isl.
        rps_mean: requests per second of span (spans under 1 s count as 1 s, so that it stays finite).
        minute_peak_to_mean: busiest clock minute over the mean rate; 1 for a span under one minute.
        dispersion_per_second: variance over mean of the counts per clock second: 1 for Poisson arrivals, more
            when they come in bursts or the rate moves.
    """

    requests: int
    span_s: float
    isl: LengthSummary
    osl: LengthSummary
    mean_hit_share: float
    rps_mean: float
    minute_peak_to_mean: float
    dispersion_per_second: float


class _LengthHistogram:
    """Counts per length: exact up to 65,535 tokens, within 0.1 % above; 640 kB in all."""

    _EXACT = 65_536
    _GROWTH = math.log(1.001)
    _BINS = _EXACT + 16_384

    def __init__(self) -> None:
        self._counts = np.zeros(self._BINS, dtype=np.int64)
        self._total = 0.0

    def add(self, lengths: NDArray[np.int32]) -> None:
        above = np.log(np.maximum(lengths, self._EXACT) / self._EXACT) / self._GROWTH
        bins = np.where(lengths < self._EXACT, lengths, self._EXACT + above.astype(np.int64))
        np.add.at(self._counts, bins, 1)
        self._total += float(lengths.sum(dtype=np.int64))

    def summary(self) -> LengthSummary:
        cumulative = np.cumsum(self._counts)
        requests = int(cumulative[-1])
        if requests == 0:
            return LengthSummary(0.0, 0.0, 0.0, 0.0)

        def percentile(share: float) -> float:
            index = int(np.searchsorted(cumulative, math.ceil(share * requests)))
            if index < self._EXACT:
                return float(index)
            return self._EXACT * math.exp((index - self._EXACT + 0.5) * self._GROWTH)

        return LengthSummary(self._total / requests, percentile(0.50), percentile(0.95), percentile(0.99))


class _WindowCounts:
    """Moments of the number of arrivals per window of fixed width, empty windows included."""

    def __init__(self, width_s: float) -> None:
        self._width_s = width_s
        self._open_window = 0
        self._open_count = 0
        self.peak = 0
        self._sum = 0
        self._sum_of_squares = 0

    def add(self, arrival_s: NDArray[np.float64]) -> None:
        windows, counts = np.unique(np.floor(arrival_s / self._width_s).astype(np.int64), return_counts=True)
        # The window that the previous chunk ended in may go on in this one.
        if int(windows[0]) == self._open_window:
            counts[0] += self._open_count
        else:
            self._close(np.array([self._open_count]))
        self._close(counts[:-1])
        self._open_window, self._open_count = int(windows[-1]), int(counts[-1])

    def _close(self, counts: NDArray[np.int64]) -> None:
        if len(counts):
            self.peak = max(self.peak, int(counts.max()))
            self._sum += int(counts.sum())
            self._sum_of_squares += int((counts**2).sum())

    def finish(self) -> float:
        """Closes the last window and returns variance / mean over all windows from time 0."""
        self._close(np.array([self._open_count]))
        windows = self._open_window + 1
        mean = self._sum / windows
        return (self._sum_of_squares / windows - mean**2) / mean if mean else 0.0


def summarize(trace: Trace) -> TraceSummary:
    """Reads a trace once and returns its statistics; a trace without requests gives zeros.

    Raises:
        profiler.errors.InputError: the trace is invalid at some line.
    """
    isl, osl = _LengthHistogram(), _LengthHistogram()
    seconds, minutes = _WindowCounts(1.0), _WindowCounts(60.0)
    requests, hit_share = 0, 0.0
    first_s = last_s = 0.0
    for chunk in trace.chunks():
        if requests == 0:
            first_s = float(chunk.arrival_s[0])
        last_s = float(chunk.arrival_s[-1])
        requests += len(chunk)
        hit_share += float(np.sum(chunk.prefix_hit_tokens / chunk.isl))
        isl.add(chunk.isl)
        osl.add(chunk.osl)
        seconds.add(chunk.arrival_s)
        minutes.add(chunk.arrival_s)
    dispersion = seconds.finish()
    minutes.finish()
    span_s = last_s - first_s
    rps = requests / max(span_s, 1.0)
    return TraceSummary(
        requests=requests,
        span_s=span_s,
        isl=isl.summary(),
        osl=osl.summary(),
        mean_hit_share=hit_share / requests if requests else 0.0,
        rps_mean=rps,
        minute_peak_to_mean=minutes.peak / (60.0 * rps) if span_s >= 60.0 else 1.0,
        dispersion_per_second=dispersion,
    )
