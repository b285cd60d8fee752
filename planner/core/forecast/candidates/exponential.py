"""Exponential smoothing with a damped additive trend.

Damped, because an undamped trend fitted to a burst runs away over a lead time of minutes, and simple
smoothing lags every ramp by design. On square roots of the rates, where the noise of counting has the same
size at every load, so that busy bins do not own the fit.

Hyndman and Athanasopoulos, Forecasting: principles and practice, 3rd ed., section 8.2:
    l_t = a y_t + (1 - a) (l_{t-1} + f b_{t-1});  b_t = b (l_t - l_{t-1}) + (1 - b) f b_{t-1}
    y_{t+h} = l_t + (f + f^2 + ... + f^h) b_t
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from planner.core.forecast.candidates.base import Fit, Params, guarded
from planner.core.forecast.history import FloatArray, History

#: Bins whose mean starts the level; the trend starts flat.
_START_BINS = 10


@dataclass(frozen=True, slots=True)
class DampedTrend:
    """Damped additive trend on square roots; parameters are (a, b, f) of the module's formula."""

    min_fit_bins: int
    name: str = "damped_trend"

    def fit(self, history: History) -> Fit | None:
        """Least squares of the one-step errors, by statsmodels; None on too short a history."""
        roots = np.sqrt(history.rates_rps)
        if len(roots) < self.min_fit_bins:
            return None
        if np.ptp(roots) <= 1e-9 * roots.max():
            # a constant has no best smoothing; any forecasts it
            return Fit((0.5, 0.0, 0.9))
        return guarded(lambda: _least_squares(roots))

    def point(self, history: History, steps: int, params: Params | None) -> FloatArray | None:
        """Shape (steps,), requests/s; None before the first fit."""
        if params is None:
            return None
        alpha, beta, damping = params
        roots = np.sqrt(history.rates_rps)
        level, trend = float(roots[:_START_BINS].mean()), 0.0
        for root in roots.tolist():
            carried = damping * trend
            new = alpha * root + (1 - alpha) * (level + carried)
            level, trend = new, beta * (new - level) + (1 - beta) * carried
        ahead = level + trend * np.cumsum(damping ** np.arange(1, steps + 1))
        return np.square(np.maximum(ahead, 0.0))


def _least_squares(roots: FloatArray) -> Params:
    # imported here: it costs more than a second, which the start of the planner does not have
    from statsmodels.tsa.holtwinters import Holt  # noqa: PLC0415

    model = Holt(
        roots,
        damped_trend=True,
        initialization_method="known",
        initial_level=float(roots[:_START_BINS].mean()),
        initial_trend=0.0,
    )
    # the brute-force start triples the cost and changes the fit by less than the data do
    found = model.fit(use_brute=False).params
    return float(found["smoothing_level"]), float(found["smoothing_trend"]), float(found["damping_trend"])
