"""The load predictors of Dynamo's planners: last value, and an ARIMA model; one point ahead, no lead time.

Dynamo's `arima` is `pmdarima.auto_arima`. Releases 0.7 and 0.8 call it anew for every forecast, on the last 50 points.
From 0.9 on it is called once, on the first five; then its `update` only appends points and refines the parameters, and
the order never changes. pmdarima fits statsmodels' SARIMAX underneath, which is called here directly, in the same
stepwise search for the order. On series of the public Azure trace, random walks and a noisy sine the forecasts are
those of pmdarima 2.1.1 to the last digit.
"""

from __future__ import annotations

import math
import warnings
from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

#: Points before the first ARIMA fit; points that 0.8 remembers (`--load-prediction-window-size`).
MIN_POINTS, WINDOW = 5, 50

#: auto_arima's defaults: iterations of a fit, of an update, largest d, significance of the test for stationarity.
_FIT_ITERATIONS, _UPDATE_ITERATIONS, _MAX_D = 50, 5, 2
#: Longest p and q; never more than a third of the points.
MOST_LAGS = 5

#: Critical value of the KPSS test for level stationarity at 5 % (Kwiatkowski et al. 1992, table 1).
_KPSS_5_PERCENT = 0.463
#: An inverse root beyond this is too near the unit circle for auto_arima.
_LARGEST_INVERSE_ROOT = 0.99

_Array = NDArray[np.float64]


class Predictor(ABC):
    """One series, one value per interval."""

    def __init__(self) -> None:
        self.values: list[float] = []

    def add(self, value: float) -> None:
        """Take in the value of an interval; NaN counts as 0, and zeros before the first other value as nothing."""
        known = 0.0 if math.isnan(value) else value
        if known == 0.0 and not self.values:
            return
        self.values.append(known)

    @property
    def last(self) -> float:
        """The newest value; 0 before any."""
        return self.values[-1] if self.values else 0.0

    @abstractmethod
    def next(self) -> float:
        """The value expected of the next interval."""


class Constant(Predictor):
    """The next interval is as the last."""

    def next(self) -> float:
        """The last value."""
        return self.last


@dataclass(frozen=True)
class _Order:
    """Order (p, d, q) of a model, and whether it has an intercept."""

    p: int
    d: int
    q: int
    intercept: bool


class WindowedArima(Predictor):
    """ARIMA as in 0.7 and 0.8: chosen anew for every forecast, on the last 50 points; before the fifth, the last."""

    def add(self, value: float) -> None:
        """Take in the value of an interval, as `Predictor.add`; the oldest beyond 50 is forgotten."""
        super().add(value)
        del self.values[:-WINDOW]

    def next(self) -> float:
        """One step ahead, which may be below zero; the last value where no model can be fitted."""
        if len(self.values) < MIN_POINTS or len(set(self.values)) == 1:
            return self.last
        try:
            _, result = _choose(np.array(self.values))
            return float(result.forecast(1)[0])
        except (ValueError, ArithmeticError, IndexError, np.linalg.LinAlgError):
            return self.last


class Arima(Predictor):
    """ARIMA, its order chosen on the first five points and kept; the last value until then."""

    def __init__(self) -> None:
        super().__init__()
        self._order: _Order | None = None
        self._parameters: _Array | None = None
        self._logs = False

    def next(self) -> float:
        """One step ahead, not below zero; the last value where no model can be fitted."""
        if len(self.values) < MIN_POINTS or len(set(self.values)) == 1:
            return self.last
        try:
            forecast = self._forecast()
        # The peer falls back on any failure of the fit; these are what SARIMAX raises.
        except (ValueError, ArithmeticError, IndexError, np.linalg.LinAlgError):
            return self.last
        return max(0.0, forecast) if math.isfinite(forecast) else self.last

    def _forecast(self) -> float:
        if self._order is None:
            self._order, result = _choose(np.array(self.values))
            if self._order.p == 0 and self._order.q == 0:
                # The peer's remedy for a model without memory: try again on logarithms.
                self._order, result = _choose(np.log1p(self.values))
                self._logs = True
        else:
            series = np.log1p(self.values) if self._logs else np.array(self.values)
            result = _fit(series, self._order, _UPDATE_ITERATIONS, self._parameters)
        self._parameters = np.asarray(result.params)
        ahead = float(result.forecast(1)[0])
        return math.expm1(ahead) if self._logs else ahead


def _choose(series: _Array) -> tuple[_Order, Any]:
    """The order that a stepwise search finds to have the least AIC, and its fit.

    Hyndman and Khandakar, Automatic Time Series Forecasting, Journal of Statistical Software 27 (2008), section 3.2:
    from the best of a few simple models on, to the first better one among its neighbours, until there is none.
    """
    d = _differences(series)
    longest = min(MOST_LAGS, len(series) // 3)
    search = _Search(series, d)
    first = min(2, longest)
    search.better(_Order(first, d, first, d < 2))
    search.better(_Order(0, d, 0, d < 2))
    if longest > 0:
        search.better(_Order(1, d, 0, d < 2))
        search.better(_Order(0, d, 1, d < 2))
    if d < 2:
        search.better(_Order(0, d, 0, intercept=False))
    while search.best is not None:
        if not any(search.better(order) for order in _neighbours(search.best[1], longest)):
            return search.best[1], search.best[2]
    raise ValueError("no order can be fitted")


class _Search:
    """Models that were tried, and the best so far: its AIC, order and fit."""

    def __init__(self, series: _Array, d: int) -> None:
        self._series, self._d = series, d
        self._tried: set[_Order] = set()
        self.best: tuple[float, _Order, Any] | None = None

    def better(self, order: _Order) -> bool:
        """Whether this model, tried for the first time, is the best."""
        if order in self._tried:
            return False
        self._tried.add(order)
        try:
            result = _fit(self._series, order, _FIT_ITERATIONS)
        except (ValueError, ArithmeticError, IndexError, np.linalg.LinAlgError):
            return False
        aic = float(result.aic)
        if not math.isfinite(aic) or not _roots_inside(result) or (self.best is not None and aic >= self.best[0]):
            return False
        self.best = (aic, order, result)
        return True


def _neighbours(order: _Order, longest: int) -> list[_Order]:
    """One lag less or more of one kind, then of both, then the same without or with an intercept."""
    steps = ((-1, 0), (0, -1), (1, 0), (0, 1), (-1, -1), (-1, 1), (1, -1), (1, 1))
    near = [_Order(order.p + p, order.d, order.q + q, order.intercept) for p, q in steps]
    allowed = [one for one in near if 0 <= one.p <= longest and 0 <= one.q <= longest]
    return [*allowed, _Order(order.p, order.d, order.q, not order.intercept)]


def _fit(series: _Array, order: _Order, iterations: int, start: _Array | None = None) -> Any:
    # imported here: it costs more than a second, which only this predictor should pay
    from statsmodels.tsa.statespace.sarimax import SARIMAX  # noqa: PLC0415

    with warnings.catch_warnings():
        # Five points make statsmodels complain of everything; the peer silences it too. Not before the import, which
        # sets filters of its own.
        warnings.simplefilter("ignore")
        model = SARIMAX(series, order=(order.p, order.d, order.q), trend="c" if order.intercept else None)
        return model.fit(start_params=start, method="lbfgs", maxiter=iterations, disp=False)


def _roots_inside(result: Any) -> bool:
    roots = np.concatenate((np.atleast_1d(result.arroots), np.atleast_1d(result.maroots)))
    return not len(roots) or float(np.max(1.0 / np.abs(roots))) <= _LARGEST_INVERSE_ROOT


def _differences(series: _Array) -> int:
    """The model's d: differences until the KPSS test no longer rejects a stationary level at 5 %."""
    for d in range(_MAX_D):
        left = np.diff(series, d)
        if np.ptp(left) == 0.0 or kpss(left) <= _KPSS_5_PERCENT:
            return d
    return _MAX_D


def kpss(series: _Array) -> float:
    """The KPSS statistic for a stationary level, with 4 (n/100)^(1/4) lags in its long-run variance.

    Kwiatkowski, Phillips, Schmidt and Shin, Journal of Econometrics 54 (1992), equations 11 and 12.
    """
    n = len(series)
    rest = series - series.mean()
    lags = int(4 * (n / 100.0) ** 0.25)
    variance = float(rest @ rest) / n
    for lag in range(1, lags + 1):
        variance += 2.0 / n * (1.0 - lag / (lags + 1)) * float(rest[lag:] @ rest[:-lag])
    return float(np.sum(np.cumsum(rest) ** 2)) / n**2 / variance
