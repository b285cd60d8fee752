"""An autoregression on square roots of the rates.

y_t = c + p_1 y_{t-1} + ... + p_k y_{t-k} + noise, y = sqrt(rate); fitted by conditional least squares
(statsmodels `AutoReg`). The square root stabilises the variance of counts (Bartlett 1936), which least
squares assumes. It returns to the mean of the history at the speed that the history shows, where the last
value and a trend do not.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from planner.core.forecast.candidates.base import Fit, Params, guarded
from planner.core.forecast.history import FloatArray, History

#: Forecasts stay under this many times the highest rate in the history: an autoregression knows nothing
#: beyond it.
_CEILING = 2.0


@dataclass(frozen=True, slots=True)
class Autoregressive:
    """Autoregression of `lags` bins on square roots; parameters are (c, p_1, ..., p_lags)."""

    lags: int
    min_fit_bins: int
    name: str = "autoregressive"

    def fit(self, history: History) -> Fit | None:
        """Least squares, by statsmodels; None on too short a history."""
        roots = np.sqrt(history.rates_rps)
        if len(roots) < max(self.min_fit_bins, 3 * self.lags + 2):
            return None
        if np.ptp(roots) <= 1e-9 * roots.max():
            # least squares has no single answer on a constant; the last bin is as good as any
            return Fit((0.0, 1.0, *(0.0 for _ in range(self.lags - 1))))
        fit = guarded(lambda: _least_squares(roots, self.lags))
        if fit.params is not None and _explodes(fit.params[1:]):
            return Fit(None, "fit is not stationary, previous parameters kept")
        return fit

    def point(self, history: History, steps: int, params: Params | None) -> FloatArray | None:
        """Shape (steps,), requests/s; None before the first fit or with fewer bins than lags."""
        if params is None or len(params) != self.lags + 1 or len(history.rates_rps) < self.lags:
            return None
        constant, slopes = params[0], params[1:]
        ceiling = float(np.sqrt(_CEILING * history.rates_rps.max()))
        # newest first, as the slopes are
        past = np.sqrt(history.rates_rps[-self.lags :])[::-1].tolist()
        ahead = []
        for _ in range(steps):
            new = constant + sum(slope * root for slope, root in zip(slopes, past, strict=True))
            past = [min(max(new, 0.0), ceiling), *past[:-1]]
            ahead.append(past[0])
        rates: FloatArray = np.square(np.array(ahead, dtype=np.float64))
        return rates


def _least_squares(roots: FloatArray, lags: int) -> Params:
    # imported here: it costs more than a second, which the start of the planner does not have
    from statsmodels.tsa.ar_model import AutoReg  # noqa: PLC0415

    return tuple(float(p) for p in AutoReg(roots, lags, trend="c").fit().params)


def _explodes(slopes: Params) -> bool:
    """Whether a root of the companion matrix lies on or outside the unit circle."""
    companion = np.eye(len(slopes), k=-1)
    companion[0] = slopes
    return bool(np.abs(np.linalg.eigvals(companion)).max() >= 1.0)
