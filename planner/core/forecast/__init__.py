"""Quantile forecasts of the request rate, chosen and weighed by a rolling backtest.

    state = ForecastState.empty()
    state = update(settings, state, rate_rps, bin_s, at_s)          # every bin; None for an unknown one
    forecast = predict(settings, state, steps, levels, dispersion)  # Unknown when no bin is known

How it works, in the order of the code: `history` and `ring` keep the past; `candidates` forecast the mean
rate; `conformal` puts quantiles around it from past errors; `evidence` scores each candidate when the outcome
is known; `weights` turns the scores into shares; the forecast is the weighted mean of the candidates'
quantiles.

Pure: no clock, no randomness, no globals; the same state and bin give the same floats. More load gives
forecasts no lower where that can be promised: every point forecaster scales with a history scaled as a whole
(the fitted ones up to the tolerance of their fit), and the ensemble on constant histories. It cannot be
promised for the ensemble on any history: weights depend on which candidate was right, and that may differ
between a history and its multiple.
"""

from planner.core.forecast.backtest import ENSEMBLE, Backtest, BacktestResult, backtest
from planner.core.forecast.candidates import FORECASTERS, Forecaster
from planner.core.forecast.online import broken_off, update
from planner.core.forecast.quantiles import Forecast, predict
from planner.core.forecast.ring import SHORTEST_BIN
from planner.core.forecast.settings import ForecastSettings
from planner.core.forecast.state import ForecastState

__all__ = [
    "ENSEMBLE",
    "FORECASTERS",
    "SHORTEST_BIN",
    "Backtest",
    "BacktestResult",
    "Forecast",
    "ForecastSettings",
    "ForecastState",
    "Forecaster",
    "backtest",
    "broken_off",
    "predict",
    "update",
]
