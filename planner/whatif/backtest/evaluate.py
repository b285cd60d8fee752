"""The planner's forecasts, issued bin by bin over a series, by the very code that runs online."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from planner.core.decide import DISPERSION_WEIGHT
from planner.core.forecast import ENSEMBLE, Forecast, ForecastSettings, ForecastState, predict, update
from planner.core.forecast.quantiles import candidate_quantiles
from planner.whatif.backtest.series import Floats, Series

#: Levels of the quantiles that are scored: two central intervals (50 % and 80 %), the median, and the tail.
LEVELS = (0.1, 0.25, 0.5, 0.75, 0.9, 0.95)


@dataclass(frozen=True, eq=False)
class Issued:
    """All forecasts of one horizon, and what came. W windows, L levels, S bins a window.

    Attributes:
        steps: bins ahead, S.
        made_s: when each was made, shape (W,); the window is the S bins that follow.
        outcomes_rps: rates that the bins showed, shape (W, S).
        quantiles_rps: by forecaster, shape (W, L, S); NaN in windows that it could not forecast.
        mean_weight: mean share of each candidate in the ensemble.
    """

    steps: int
    made_s: Floats
    outcomes_rps: Floats
    quantiles_rps: Mapping[str, Floats]
    mean_weight: Mapping[str, float]


def evaluate(
    settings: ForecastSettings,
    series: Series,
    steps: Sequence[int],
    *,
    levels: tuple[float, ...] = LEVELS,
    warmup_bins: int = 0,
    on_progress: Callable[[int], None] = lambda bins: None,  # noqa: ARG005
) -> dict[int, Issued]:
    """Forecast from every bin, knowing the bins up to it and nothing else.

    Args:
        settings: of the forecasts.
        series: arrivals.
        steps: horizons in bins, each at least 1.
        levels: of the quantiles, ascending.
        warmup_bins: bins before the first forecast that is kept.
        on_progress: receives the number of bins taken in.

    Returns:
        By horizon; forecasts whose window goes beyond the series are not among them. Empty windows where it is too
        short.
    """
    bins, furthest = len(series.rates_rps), max(steps)
    kept: dict[int, list[tuple[int, dict[str, Floats], dict[str, float]]]] = {h: [] for h in steps}
    state, dispersion = ForecastState.empty(), None
    for i, (rate, seen) in enumerate(zip(series.rates_rps.tolist(), series.dispersion.tolist(), strict=True)):
        state = update(settings, state, rate, series.interval_s, (i + 1) * series.interval_s)
        dispersion = smoothed(dispersion, seen)
        on_progress(i + 1)
        if i + 1 < warmup_bins:
            continue
        # A candidate's quantiles of a bin do not depend on how many bins follow it.
        each = candidate_quantiles(settings, state, furthest, levels, dispersion or 1.0)
        for ahead in steps:
            if i + 1 + ahead > bins:
                continue
            forecast = predict(settings, state, ahead, levels, dispersion or 1.0)
            if isinstance(forecast, Forecast):
                issued = {name: values[:, :ahead] for name, values in each.items()}
                issued[ENSEMBLE] = np.array(forecast.rates_rps)
                kept[ahead].append((i, issued, forecast.weights))
    return {ahead: _stacked(series, ahead, len(levels), kept[ahead]) for ahead in steps}


def smoothed(before: float | None, seen: float) -> float | None:
    """The running dispersion after an interval that showed `seen`, NaN for none; as `decide` keeps it."""
    if np.isnan(seen):
        return before
    now = max(1.0, seen)
    return now if before is None else before + DISPERSION_WEIGHT * (now - before)


def _stacked(
    series: Series, steps: int, levels: int, kept: Sequence[tuple[int, dict[str, Floats], dict[str, float]]]
) -> Issued:
    names = list(dict.fromkeys([ENSEMBLE, *(name for _, issued, _ in kept for name in issued)]))
    missing = np.full((levels, steps), np.nan)
    at = np.array([i for i, _, _ in kept], dtype=np.int64)
    return Issued(
        steps=steps,
        made_s=np.asarray((at + 1) * series.interval_s, dtype=np.float64),
        outcomes_rps=series.rates_rps[at[:, None] + 1 + np.arange(steps)[None, :]],
        quantiles_rps={
            name: np.array([issued.get(name, missing) for _, issued, _ in kept]).reshape(len(kept), levels, steps)
            for name in names
        },
        mean_weight={
            name: float(np.mean([weights[name] for _, _, weights in kept])) for name in (kept[0][2] if kept else ())
        },
    )
