"""Quantiles around a point forecast, from its own past errors.

Errors are kept as residuals r = sqrt(count seen) - sqrt(count forecast), because the square root of a count
with variance-to-mean ratio d has standard deviation sqrt(d)/2 at every load (delta method; Bartlett 1936):
errors made at night serve at noon. The quantile forecast at level p is (sqrt(point) + q(p))^2 in counts, zero
where the sum is below zero. This is split conformal prediction (Vovk et al. 2005) with the score r;
exchangeability holds only roughly in time, hence a bounded, recent set of residuals.

While residuals are few they are shrunk to a prior, level by level, n residuals against a prior worth m:

    q(p) = (n E(p) + m P(p)) / (n + m)

E(p) is the empirical quantile at rank (n + 1) p, interpolated, between the smallest and the largest residual.
P(p) at the first scored step is the normal quantile z(p) sqrt(d (1 + 1/k)) / 2, k being the bins that the
last value averages (its own uncertainty); at every further scored step it is q(p) of the step before, because
errors grow with distance. Between scored steps q is linear in the step; past the last one it grows like that
of a random walk, sqrt(h / last).
"""

from __future__ import annotations

import math
from bisect import bisect_left
from collections.abc import Sequence
from statistics import NormalDist

import numpy as np

from planner.core.forecast.history import FloatArray
from planner.core.forecast.settings import ForecastSettings
from planner.core.forecast.state import RESIDUAL_UNIT

_NORMAL = NormalDist()


def pinball_loss(observed: float, quantile: float, level: float) -> float:
    """Loss that the true quantile minimises in the mean (Koenker, Bassett 1978); unit of `observed`."""
    error = observed - quantile
    return max(level * error, (level - 1) * error)


def empirical_quantile(ordered: Sequence[float], level: float) -> float:
    """The value at rank (n + 1) `level` of n >= 1 ascending values, interpolated, within their range."""
    rank = (len(ordered) + 1) * level
    below = math.floor(rank)
    if below < 1:
        return ordered[0]
    if below >= len(ordered):
        return ordered[-1]
    low, high = ordered[below - 1], ordered[below]
    return low + (rank - below) * (high - low)


def residual_quantiles(
    settings: ForecastSettings, residuals: Sequence[Sequence[int]], levels: Sequence[float], dispersion: float
) -> list[list[float]]:
    """q(p) of the module's formula, in square roots of counts.

    Args:
        settings: the prior's strength and the bins that the last value averages.
        residuals: per scored step, in `RESIDUAL_UNIT`.
        levels: of the quantiles.
        dispersion: variance over mean of the counts, >= 0.

    Returns:
        By scored step, then by level.
    """
    sd = 0.5 * math.sqrt(dispersion * (1 + 1 / settings.last_value_bins))
    prior = [sd * _NORMAL.inv_cdf(level) for level in levels]
    by_step = []
    for ring in residuals:
        if ring:
            ordered, n, m = sorted(ring), len(ring), settings.prior_strength
            prior = [
                (n * RESIDUAL_UNIT * empirical_quantile(ordered, level) + m * before) / (n + m)
                for level, before in zip(levels, prior, strict=True)
            ]
        by_step.append(prior)
    return by_step


def at_step(by_scored_step: Sequence[Sequence[float]], scored_steps: Sequence[int], step: int) -> list[float]:
    """Residual quantiles by level at any step >= 1, from those at the scored steps."""
    right = bisect_left(scored_steps, step)
    if right == len(scored_steps):
        growth = math.sqrt(step / scored_steps[-1])
        return [growth * q for q in by_scored_step[-1]]
    if right == 0 or scored_steps[right] == step:
        return list(by_scored_step[right])
    left, width = right - 1, scored_steps[right] - scored_steps[right - 1]
    share = (step - scored_steps[left]) / width
    return [a + share * (b - a) for a, b in zip(by_scored_step[left], by_scored_step[right], strict=True)]


def quantile_rates(point_rps: FloatArray, residual: FloatArray, bin_s: float) -> FloatArray:
    """(sqrt(point) + q)^2, in rates.

    Args:
        point_rps: shape (steps,), requests/s.
        residual: shape (levels, steps), square roots of counts, levels ascending.
        bin_s: width of a bin.

    Returns:
        Shape (levels, steps), requests/s, >= 0, not decreasing in the level.
    """
    roots = np.sqrt(point_rps * bin_s) + residual
    # rounding must not cross two quantiles that are equal on paper
    rates: FloatArray = np.maximum.accumulate(np.square(np.maximum(roots, 0.0)) / bin_s, axis=0)
    return rates
