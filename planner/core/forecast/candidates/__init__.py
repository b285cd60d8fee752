"""The forecasters of the request rate. A new one is one file here and one line in `FORECASTERS`."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from planner.core.forecast.candidates.autoregressive import Autoregressive
from planner.core.forecast.candidates.base import Fit, Forecaster, Params
from planner.core.forecast.candidates.exponential import DampedTrend
from planner.core.forecast.candidates.last_value import LastValue
from planner.core.forecast.candidates.seasonal_naive import SeasonalNaive
from planner.core.forecast.settings import ForecastSettings

#: The first is the reference: always available, and what the others' losses are measured against.
FORECASTERS: Final[tuple[Callable[[ForecastSettings], Forecaster], ...]] = (
    lambda s: LastValue(s.last_value_bins),
    lambda s: SeasonalNaive(s.season_s, s.season_level_s, s.season_scale_limit),
    lambda s: DampedTrend(s.min_fit_bins),
    lambda s: Autoregressive(s.autoregressive_lags, s.min_fit_bins),
)


def forecasters(settings: ForecastSettings) -> tuple[Forecaster, ...]:
    """The registered forecasters with their settings, in the order of the registry."""
    return tuple(build(settings) for build in FORECASTERS)


__all__ = ["FORECASTERS", "Fit", "Forecaster", "Params", "forecasters"]
