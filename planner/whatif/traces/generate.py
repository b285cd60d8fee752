"""A seeded workload generator: a non-homogeneous, overdispersed Poisson process with heavy-tailed lengths."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator

import numpy as np
from numpy.typing import NDArray
from scipy.special import ndtr

from planner.whatif.traces.spec import GeneratorSpec, LengthSpec
from planner.whatif.traces.trace import Trace, TraceChunk, rechunk

BIN_S = 0.1
"""The rate is taken as constant over a bin; well below the second over which queues and policies look."""
_WINDOW_BINS = 600
_WINDOW_REQUESTS = 200_000
"""A window of bins is shortened until it holds about this many requests at the most, to bound memory."""
_HIT_CONCENTRATION = 4.0
"""a + b of the beta distribution of hit shares: broad, with neither end empty."""


class GeneratedTrace(Trace):
    """A trace made from a spec, window by window; memory does not depend on its duration."""

    def __init__(self, spec: GeneratorSpec) -> None:
        self.spec = spec

    @property
    def name(self) -> str:
        """The name in the spec."""
        return self.spec.name

    def chunks(self) -> Iterator[TraceChunk]:
        """Yields the requests anew from the seed; see `Trace.chunks`."""
        return rechunk(self._windows())

    def _windows(self) -> Iterator[TraceChunk]:
        spec = self.spec
        bins = math.ceil(spec.duration_s / BIN_S)
        width = min(_WINDOW_BINS, max(1, int(_WINDOW_REQUESTS / (spec.peak_rps * BIN_S))))
        # One stream of random numbers per purpose: more bursts do not change the lengths.
        level, idle, bursts, arrivals, lengths = (
            np.random.Generator(np.random.PCG64(seed)) for seed in np.random.SeedSequence(spec.seed).spawn(5)
        )
        modulators = [_levels(spec, level), _idling(spec, idle), _bursting(spec, bursts)]
        for start in range(0, bins, width):
            edges: NDArray[np.float64] = np.arange(start, min(start + width, bins)) * np.float64(BIN_S)
            rate = _pattern(spec, edges + BIN_S / 2)
            for modulator in modulators:
                rate = rate * modulator.at(edges)
            # The last bin may reach beyond the end of the trace.
            widths = np.minimum(BIN_S, spec.duration_s - edges)
            counts = arrivals.poisson(rate * widths)
            total = int(counts.sum())
            if total == 0:
                continue
            arrival_s = np.repeat(edges, counts) + arrivals.random(total) * np.repeat(widths, counts)
            arrival_s.sort()
            yield _requests(spec, lengths, arrival_s)


def _pattern(spec: GeneratorSpec, t: NDArray[np.float64]) -> NDArray[np.float64]:
    """Returns the deterministic part of the rate at times `t`, in requests per second."""
    rate = np.full(len(t), spec.rps, dtype=np.float64)
    if spec.daily_amplitude:
        phase = 2 * np.pi * (t - spec.daily_peak_s) / spec.daily_period_s
        rate *= 1 + spec.daily_amplitude * np.cos(phase)
    if spec.night_share:
        # The trough is half a period from the peak: at a phase of one half.
        phase = np.mod((t - spec.daily_peak_s) / spec.daily_period_s, 1.0)
        rate = np.where(np.abs(phase - 0.5) < spec.night_share / 2, 0.0, rate)
    if spec.weekend_factor != 1:
        day, hour = t / spec.daily_period_s, 1 / 24
        weekend = [spec.weekend_factor] * 2
        factor = np.interp(np.mod(day, 7.0), [0, hour, 5, 5 + hour, 7], [weekend[0], 1, 1, *weekend])
        # No weekend comes before the first day.
        rate *= np.where(day < hour, 1.0, factor)
    rate *= np.maximum(0.0, 1 + spec.trend_per_hour * t / 3600)
    stepped = t >= spec.step_at_s
    if spec.step_duration_s:
        stepped &= t < spec.step_at_s + spec.step_duration_s
    rate = np.where(stepped, rate * spec.step_factor, rate)
    since = t - spec.flash_at_s
    # Both branches are bounded first: only one is used, but a far one may not overflow.
    rise = np.clip(since / spec.flash_ramp_s, 0, 1)
    decline = np.exp(-np.maximum(since - spec.flash_ramp_s, 0) / spec.flash_decay_s)
    return rate * (1 + (spec.flash_factor - 1) * rise * decline)


class _Steps:
    """A random step function of time, drawn as far as it is asked for and forgotten behind.

    Args:
        draw: returns the duration of the next step in seconds and the factor on the rate during it.
    """

    def __init__(self, draw: Callable[[], tuple[float, float]]) -> None:
        self._draw = draw
        duration_s, factor = draw()
        self._ends = [duration_s]
        self._factors = [factor]

    def at(self, t: NDArray[np.float64]) -> NDArray[np.float64]:
        """Returns the factors at times that never decrease from call to call."""
        while self._ends[-1] <= t[-1]:
            duration_s, factor = self._draw()
            self._ends.append(self._ends[-1] + duration_s)
            self._factors.append(factor)
        where = np.searchsorted(self._ends, t, side="right")
        factors = np.asarray(self._factors)[where]
        passed = int(where[-1])
        del self._ends[:passed], self._factors[:passed]
        return factors


def _levels(spec: GeneratorSpec, rng: np.random.Generator) -> _Steps:
    """Gamma-distributed levels of mean 1, each held for an exponential time.

    With levels of variance v held for tau on average, the rate has the autocovariance v exp(-t / tau); counts
    over one second then have the index of dispersion 1 + rps v c, with c = 2 tau (1 - tau (1 - exp(-1 /
    tau))), which is solved for v.
    """
    tau = spec.dispersion_memory_s
    share_within_second = 2 * tau * (1 - tau * -math.expm1(-1 / tau))
    variance = (spec.dispersion - 1) / (spec.rps * share_within_second)
    if variance == 0:
        return _Steps(lambda: (math.inf, 1.0))
    # Durations have a floor of one bin: shorter ones would be unseen.
    return _Steps(lambda: (max(BIN_S, rng.exponential(tau)), rng.gamma(1 / variance, variance)))


def _idling(spec: GeneratorSpec, rng: np.random.Generator) -> _Steps:
    """Idle and busy spells by turns; the busy rate makes up for the idle time."""
    share = spec.idle_share
    if share == 0:
        return _Steps(lambda: (math.inf, 1.0))
    busy_s = spec.idle_duration_s * (1 - share) / share
    idle = bool(rng.random() < share)

    def draw() -> tuple[float, float]:
        nonlocal idle
        idle = not idle
        mean_s, factor = (busy_s, 1 / (1 - share)) if idle else (spec.idle_duration_s, 0.0)
        return max(BIN_S, rng.exponential(mean_s)), factor

    return _Steps(draw)


def _bursting(spec: GeneratorSpec, rng: np.random.Generator) -> _Steps:
    """Calm and bursts by turns."""
    if spec.bursts_per_hour == 0 or spec.burst_factor == 1:
        return _Steps(lambda: (math.inf, 1.0))
    burst = True

    def draw() -> tuple[float, float]:
        nonlocal burst
        burst = not burst
        if burst:
            return max(BIN_S, rng.exponential(spec.burst_duration_s)), spec.burst_factor
        return max(BIN_S, rng.exponential(3600 / spec.bursts_per_hour)), 1.0

    return _Steps(draw)


def _requests(spec: GeneratorSpec, rng: np.random.Generator, arrival_s: NDArray[np.float64]) -> TraceChunk:
    count = len(arrival_s)
    normal_in, independent = rng.standard_normal((2, count))
    rho = spec.length_correlation
    normal_out = rho * normal_in + math.sqrt(1 - rho**2) * independent
    isl = _lengths(spec.isl, rng, normal_in, _growth(spec.isl_growth_per_hour, arrival_s))
    osl = _lengths(spec.osl, rng, normal_out, _growth(spec.osl_growth_per_hour, arrival_s))
    return TraceChunk(arrival_s, isl, osl, _hits(spec, rng, isl))


def _growth(per_hour: float, arrival_s: NDArray[np.float64]) -> NDArray[np.float64]:
    """Returns the factor that a drift has on each length by the time of its arrival."""
    return np.maximum(0.0, 1 + per_hour * arrival_s / 3600)


def _lengths(
    spec: LengthSpec, rng: np.random.Generator, normal: NDArray[np.float64], growth: NDArray[np.float64]
) -> NDArray[np.int32]:
    """Returns lengths in tokens; the standard normal of each request places it within its mode."""
    weights = np.cumsum([mode.weight for mode in spec.modes])
    # The last boundary is left out, so that rounding cannot point beyond the last mode.
    mode = np.searchsorted(weights[:-1] / weights[-1], rng.random(len(normal)), side="right")
    median = np.array([mode.median_tokens for mode in spec.modes])[mode]
    sigma = np.array([mode.sigma for mode in spec.modes])[mode]
    tokens = median * np.exp(sigma * normal)
    tail = rng.random(len(normal)) < spec.tail_share
    if tail.any():
        above = np.maximum(ndtr(-normal[tail]), 1e-300)
        # In logarithms: a small alpha would overflow before the cap is applied.
        grown = np.minimum(-np.log(above) / spec.tail_alpha, math.log(spec.max_tokens) + 1)
        tokens[tail] = spec.tail_start_tokens * np.exp(grown)
    rounded: NDArray[np.float64] = np.clip(np.rint(tokens * growth), spec.min_tokens, spec.max_tokens)
    return rounded.astype(np.int32)


def _hits(spec: GeneratorSpec, rng: np.random.Generator, isl: NDArray[np.int32]) -> NDArray[np.int32]:
    """Returns prefix hits in tokens, in whole blocks, always leaving the last token to compute."""
    if spec.prefix_hit_share == 0:
        return np.zeros(len(isl), dtype=np.int32)
    # Where most of every prompt is shared, first turns cannot be as many as asked for.
    miss = min(spec.prefix_miss_share, (1 - spec.prefix_hit_share) / 2)
    mean = spec.prefix_hit_share / (1 - miss)
    share = rng.beta(mean * _HIT_CONCENTRATION, (1 - mean) * _HIT_CONCENTRATION, len(isl))
    share[rng.random(len(isl)) < miss] = 0.0
    blocks = np.floor(share * isl / spec.prefix_block_tokens)
    hits: NDArray[np.float64] = np.minimum(blocks * spec.prefix_block_tokens, isl - 1)
    return hits.astype(np.int32)
