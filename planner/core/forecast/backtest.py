"""The forecasts replayed over a series, by the very code that runs online."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from planner.core.forecast.conformal import pinball_loss
from planner.core.forecast.history import FloatArray
from planner.core.forecast.online import update
from planner.core.forecast.quantiles import Forecast, candidate_quantiles, predict
from planner.core.forecast.settings import ForecastSettings
from planner.core.forecast.state import ForecastState

#: The name under which a backtest reports the weighted mean of the candidates.
ENSEMBLE = "ensemble"


@dataclass(frozen=True, slots=True)
class Backtest:
    """How one forecaster did.

    Attributes:
        pinball_rps: mean pinball loss by level, over bins and steps, requests/s.
        coverage: share of outcomes at or below the quantile, by level, over bins and steps.
        peak_coverage: share of windows whose highest rate is at or below the highest quantile, by level: what
            a planner sees that sizes for the worst step.
        forecasts: windows scored.
    """

    pinball_rps: tuple[float, ...]
    coverage: tuple[float, ...]
    peak_coverage: tuple[float, ...]
    forecasts: int


@dataclass(frozen=True, slots=True)
class BacktestResult:
    """By candidate name and `ENSEMBLE`; a candidate is scored on the bins where it could forecast.

    Attributes:
        levels: of the quantiles.
        steps: bins ahead.
        by_name: candidates that never could forecast are left out.
        mean_weight: mean weight by candidate over all forecasts.
    """

    levels: tuple[float, ...]
    steps: int
    by_name: dict[str, Backtest]
    mean_weight: dict[str, float]


def backtest(
    settings: ForecastSettings,
    rates: FloatArray,
    bin_s: float,
    steps: int,
    levels: tuple[float, ...],
    *,
    dispersion: float = 1.0,
    warmup_bins: int = 0,
    start_s: float = 0.0,
) -> BacktestResult:
    """Forecast every window of `steps` bins from the bins before it; score the quantiles as issued.

    Args:
        settings: of the forecasts.
        rates: shape (n,), requests/s per bin, NaN where unknown.
        bin_s: width of a bin.
        steps: bins ahead.
        levels: of the quantiles, ascending.
        dispersion: variance over mean passed to every forecast.
        warmup_bins: bins before the first forecast that is scored.
        start_s: time at which the first bin starts.

    Returns:
        Scores; windows with an unknown outcome are passed over.
    """
    state = ForecastState.empty()
    issued: dict[str, list[FloatArray]] = {}
    seen: dict[str, list[FloatArray]] = {}
    shares: list[dict[str, float]] = []
    for i in range(len(rates) - steps):
        rate = float(rates[i])
        state = update(settings, state, None if np.isnan(rate) else rate, bin_s, start_s + (i + 1) * bin_s)
        outcome = rates[i + 1 : i + 1 + steps]
        forecast = predict(settings, state, steps, levels, dispersion)
        if i < warmup_bins or np.isnan(outcome).any() or not isinstance(forecast, Forecast):
            continue
        shares.append(forecast.weights)
        quantiles = candidate_quantiles(settings, state, steps, levels, dispersion)
        for name, values in (*quantiles.items(), (ENSEMBLE, np.array(forecast.rates_rps))):
            issued.setdefault(name, []).append(values)
            seen.setdefault(name, []).append(outcome)
    return BacktestResult(
        levels=levels,
        steps=steps,
        by_name={name: _scored(levels, np.array(issued[name]), np.array(seen[name])) for name in issued},
        mean_weight={
            name: sum(share[name] for share in shares) / len(shares) for name in (shares[0] if shares else ())
        },
    )


def _scored(levels: tuple[float, ...], quantiles: FloatArray, outcomes: FloatArray) -> Backtest:
    """Scores of quantiles of shape (windows, levels, steps) by outcomes of shape (windows, steps)."""
    covered = outcomes[:, np.newaxis, :] <= quantiles
    peaks = outcomes.max(axis=1)[:, np.newaxis] <= quantiles.max(axis=2)
    losses = [
        [pinball_loss(y, q, level) for y, q in zip(outcomes.flat, quantiles[:, i, :].flat, strict=True)]
        for i, level in enumerate(levels)
    ]
    return Backtest(
        pinball_rps=tuple(float(np.mean(loss)) for loss in losses),
        coverage=tuple(covered.mean(axis=(0, 2)).tolist()),
        peak_coverage=tuple(peaks.mean(axis=0).tolist()),
        forecasts=len(outcomes),
    )
