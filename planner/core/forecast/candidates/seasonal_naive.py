"""The same time one season ago, scaled by how today compares with it so far."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from planner.core.forecast.candidates.base import Fit, Params
from planner.core.forecast.history import FloatArray, History


@dataclass(frozen=True, slots=True)
class SeasonalNaive:
    """Coarse rates one season ago, times a scale.

    The rates are joined by straight lines between the centres of the coarse bins. The scale is the mean of
    the last `level_s` seconds over the mean of the same span one season ago, within [1/scale_limit,
    scale_limit].
    """

    season_s: float
    level_s: float
    scale_limit: float
    name: str = "seasonal_naive"

    def fit(self, history: History) -> Fit | None:  # noqa: ARG002 - part of the interface
        """Nothing to fit."""
        return None

    def point(self, history: History, steps: int, params: Params | None) -> FloatArray | None:  # noqa: ARG002
        """Shape (steps,), requests/s; None until the season before is known at the times needed."""
        if len(history.coarse_rps) < 2:
            return None
        recent = history.rates_rps[-max(1, round(self.level_s / history.bin_s)) :]
        before = self._season_ago(history, np.arange(-len(recent) + 1, 1))
        ahead = self._season_ago(history, np.arange(1, steps + 1))
        known = ~np.isnan(before)
        if np.isnan(ahead).any() or known.sum() * 2 < len(recent):
            return None
        then, now = float(before[known].mean()), float(recent[known].mean())
        if then <= 0:
            # a silent season says nothing about a busy day
            return ahead if now <= 0 else None
        return ahead * min(max(now / then, 1 / self.scale_limit), self.scale_limit)

    def _season_ago(self, history: History, steps: NDArray[np.int_]) -> FloatArray:
        """Rates one season before the bins at `steps` (0 is the last known bin), NaN where unknown."""
        times = history.at_s + (steps - 0.5) * history.bin_s - self.season_s
        width = history.coarse_bin_s
        centres = history.coarse_end_s + (np.arange(-len(history.coarse_rps), 0) + 0.5) * width
        rates: FloatArray = np.interp(times, centres, history.coarse_rps, left=np.nan, right=np.nan)
        return rates
