"""Exponential smoothing with a damped additive trend.

Damped, because an undamped trend fitted to a burst runs away over a lead time of minutes, and simple
smoothing lags every ramp by design. On square roots of the rates, where the noise of counting has the same
size at every load, so that busy bins do not own the fit.

Hyndman and Athanasopoulos, Forecasting: principles and practice, 3rd ed., section 8.2:
    l_t = a y_t + (1 - a) (l_{t-1} + f b_{t-1});  b_t = b (l_t - l_{t-1}) + (1 - b) f b_{t-1}
    y_{t+h} = l_t + (f + f^2 + ... + f^h) b_t

The parameters come from a grid, not from the optimiser of statsmodels `Holt`: on an hour of bins the grid's
squared error is at most 1 % above what that one finds (a test compares the two), it costs a third of the time
and that evenly, it cannot fail to converge, and it has no tolerance that would make a fit depend on the scale
of the load or on the machine.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from planner.core.forecast.candidates.base import Fit, Params
from planner.core.forecast.history import FloatArray, History

#: Bins whose mean starts the level; the trend starts flat.
_START_BINS = 10

#: Values of a, b and f that a fit tries: closer than an hour of bins can tell apart.
_GRID = (
    (0.02, 0.05, 0.1, 0.15, 0.2, 0.3, 0.4, 0.55, 0.7, 0.85, 1.0),
    (0.0, 0.03, 0.1, 0.2, 0.4, 0.7),
    (0.8, 0.9, 0.95, 0.98),
)


@dataclass(frozen=True, slots=True)
class DampedTrend:
    """Damped additive trend on square roots; parameters are (a, b, f) of the module's formula."""

    min_fit_bins: int
    name: str = "damped_trend"

    def fit(self, history: History) -> Fit | None:
        """Least squares of the one-step errors, on the grid; None on too short a history."""
        roots = np.sqrt(history.rates_rps)
        if len(roots) < self.min_fit_bins:
            return None
        if np.ptp(roots) <= 1e-9 * roots.max():
            # a constant has no best smoothing; any forecasts it
            return Fit((0.5, 0.0, 0.9))
        return Fit(_least_squares(roots))

    def point(self, history: History, steps: int, params: Params | None) -> FloatArray | None:
        """Shape (steps,), requests/s; None before the first fit."""
        if params is None:
            return None
        alpha, beta, damping = params
        roots = np.sqrt(history.rates_rps)
        level, trend = _start(roots), 0.0
        for root in roots.tolist():
            carried = damping * trend
            new = alpha * root + (1 - alpha) * (level + carried)
            level, trend = new, beta * (new - level) + (1 - beta) * carried
        ahead = level + trend * np.cumsum(damping ** np.arange(1, steps + 1))
        return np.square(np.maximum(ahead, 0.0))


def _least_squares(roots: FloatArray) -> Params:
    """The point of the grid with the least sum of squared one-step errors; the first of equals."""
    alpha, beta, damping = (axis.ravel() for axis in np.meshgrid(*_GRID, indexing="ij"))
    level, trend, squares = np.full(alpha.size, _start(roots)), np.zeros(alpha.size), np.zeros(alpha.size)
    for root in roots.tolist():
        carried = damping * trend
        error = root - level - carried
        squares += error * error
        gain = alpha * error
        level = level + carried + gain
        # b (l_t - l_{t-1}) + (1 - b) f b_{t-1}, with l_t - l_{t-1} = f b_{t-1} + a e_t
        trend = carried + beta * gain
    best = int(squares.argmin())
    return float(alpha[best]), float(beta[best]), float(damping[best])


def _start(roots: FloatArray) -> float:
    return float(roots[:_START_BINS].mean())
