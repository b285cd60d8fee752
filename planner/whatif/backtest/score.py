"""Scores of issued quantiles: pinball loss, coverage, and both against the simplest forecasters."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum

import numpy as np

from planner.core.forecast import ENSEMBLE
from planner.whatif.backtest.evaluate import Issued
from planner.whatif.backtest.series import Floats

#: What others are measured against, by the names of the forecasters.
LAST_VALUE, SEASONAL_NAIVE = "last_value", "seasonal_naive"


class Target(StrEnum):
    """What of the window is forecast."""

    MEAN = "mean"
    """The mean rate over the window: how much work comes."""

    WORST = "worst"
    """The rate of its busiest bin: what is sized for."""

    LAST = "last"
    """The rate of its last bin: what each quantile of a forecast states, and the only one it promises to cover."""

    def of_outcomes(self, rates: Floats) -> Floats:
        """Shape (W, S) to (W,)."""
        return self._of(rates)

    def of_quantiles(self, rates: Floats) -> Floats:
        """Shape (W, L, S) to (W, L): bins move together, as `decide` takes them when it sizes for the worst one."""
        return self._of(rates)

    def _of(self, rates: Floats) -> Floats:
        if self is Target.MEAN:
            return np.asarray(rates.mean(axis=-1))
        return np.asarray(rates.max(axis=-1)) if self is Target.WORST else np.asarray(rates[..., -1])


@dataclass(frozen=True)
class Score:
    """How one forecaster did at one horizon and target, over the windows that it could forecast.

    Attributes:
        windows: scored. Those of more than one bin overlap, so that fewer are independent.
        pinball_rps: mean pinball loss by level, requests/s (Koenker, Bassett 1978).
        loss_rps: its mean over the levels.
        coverage: share of outcomes at or below the quantile, by level; equal to the level where it is calibrated.
        bias_rps: mean of outcome less median; positive where more came than was expected.
        against_last_value: loss over that of the last value on the windows that both forecast; below 1 is better. None
            where there is no such window, or the other's loss is zero.
        against_seasonal_naive: the same against the seasonal naive.
    """

    windows: int
    pinball_rps: tuple[float, ...]
    loss_rps: float
    coverage: tuple[float, ...]
    bias_rps: float
    against_last_value: float | None
    against_seasonal_naive: float | None


def scores_of(issued: Issued, levels: tuple[float, ...], target: Target) -> dict[str, Score]:
    """By forecaster, the ensemble first; those that never could forecast are left out.

    Args:
        issued: of one horizon.
        levels: that it was issued with, the median among them.
        target: what of the windows counts.
    """
    outcomes = target.of_outcomes(issued.outcomes_rps)
    quantiles = {name: target.of_quantiles(values) for name, values in issued.quantiles_rps.items()}
    losses = {name: pinball(outcomes, values, levels) for name, values in quantiles.items()}
    order = sorted(quantiles, key=lambda name: (name != ENSEMBLE, name != LAST_VALUE, name))
    return {
        name: _score(name, outcomes, quantiles[name], losses, levels)
        for name in order
        if not np.isnan(quantiles[name]).all()
    }


def pinball(outcomes: Floats, quantiles: Floats, levels: tuple[float, ...]) -> Floats:
    """Loss of every window and level, shape (W, L), from outcomes (W,) and quantiles (W, L); NaN stays NaN."""
    error = outcomes[:, None] - quantiles
    share = np.array(levels)[None, :]
    return np.asarray(np.maximum(share * error, (share - 1.0) * error))


def _score(
    name: str, outcomes: Floats, quantiles: Floats, losses: Mapping[str, Floats], levels: tuple[float, ...]
) -> Score:
    could = ~np.isnan(quantiles).any(axis=1)
    own, seen, stated = losses[name][could], outcomes[could], quantiles[could]
    return Score(
        windows=int(could.sum()),
        pinball_rps=tuple(own.mean(axis=0).tolist()),
        loss_rps=float(own.mean()),
        coverage=tuple((seen[:, None] <= stated).mean(axis=0).tolist()),
        bias_rps=float((seen - stated[:, levels.index(0.5)]).mean()),
        against_last_value=_ratio(losses[name], losses.get(LAST_VALUE)),
        against_seasonal_naive=_ratio(losses[name], losses.get(SEASONAL_NAIVE)),
    )


def _ratio(own: Floats, other: Floats | None) -> float | None:
    if other is None:
        return None
    both = ~(np.isnan(own).any(axis=1) | np.isnan(other).any(axis=1))
    least = float(other[both].mean()) if both.any() else 0.0
    return float(own[both].mean()) / least if least > 0 else None
