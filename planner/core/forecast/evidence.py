"""The rolling backtest: what was forecast for a bin waits for it, is scored by it, and leaves a residual."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace

from planner.core.forecast.candidates import Forecaster
from planner.core.forecast.conformal import pinball_loss, residual_quantiles
from planner.core.forecast.history import FloatArray, History
from planner.core.forecast.settings import ForecastSettings
from planner.core.forecast.state import (
    RESIDUAL_UNIT,
    CandidateState,
    ForecastState,
    Issued,
    Loss,
    rounded,
)

#: Per scored step, the forecasts that wait, oldest first.
Waiting = tuple[tuple[Issued, ...], ...]


def points(
    candidates: Sequence[CandidateState], models: Sequence[Forecaster], history: History, steps: int
) -> list[FloatArray | None]:
    """Point forecasts by candidate, shape (steps,) each, requests/s; None from those that cannot forecast."""
    return [model.point(history, steps, candidate.params) for candidate, model in zip(candidates, models, strict=True)]


def issue(settings: ForecastSettings, waiting: Waiting, ahead: Sequence[FloatArray | None]) -> Waiting:
    """Queue the points forecast from the newest bin; each scored step waits for exactly that many bins."""
    return tuple(
        (*queue, tuple(None if p is None else rounded(float(p[step - 1])) for p in ahead))[-step:]
        for step, queue in zip(settings.scored_steps, waiting, strict=True)
    )


def skip(settings: ForecastSettings, waiting: Waiting, bins: int) -> Waiting:
    """Pass over unknown bins: what waited for them is never scored; nothing is forecast from them."""
    return tuple(
        (*queue, *(None,) * min(bins, step))[-step:] for step, queue in zip(settings.scored_steps, waiting, strict=True)
    )


def score_outcome(settings: ForecastSettings, state: ForecastState, rate_rps: float) -> tuple[CandidateState, ...]:
    """The candidates after the bin that comes next showed `rate_rps`.

    The pinball loss is that of the quantiles which the stored point and the residuals known before this
    outcome give, so an outcome never scores itself.
    """
    due = [
        queue[0] if len(queue) == step else None
        for step, queue in zip(settings.scored_steps, state.issued, strict=True)
    ]
    # by scored step: the reference's loss on this outcome
    reference: list[float | None] = [None] * len(due)
    scored = []
    for position, candidate in enumerate(state.candidates):
        spread = residual_quantiles(settings, candidate.residuals, settings.scored_levels, settings.prior_dispersion)
        residuals, losses = list(candidate.residuals), list(candidate.losses)
        for i, forecast in enumerate(due):
            point = None if forecast is None else forecast[position]
            if point is None:
                continue
            own = _pinball(settings, point, spread[i], rate_rps, state.bin_s)
            if position == 0:
                reference[i] = own
            against = reference[i]
            if against is not None:
                losses[i] = _discounted(settings, losses[i], own, against)
            residual = math.sqrt(rate_rps * state.bin_s) - math.sqrt(point * state.bin_s)
            residuals[i] = (*residuals[i], round(residual / RESIDUAL_UNIT))[-settings.residuals :]
        scored.append(replace(candidate, residuals=tuple(residuals), losses=tuple(losses)))
    return tuple(scored)


def _pinball(
    settings: ForecastSettings, point_rps: float, spread: Sequence[float], rate_rps: float, bin_s: float
) -> float:
    """Mean over the scored levels of the pinball loss, requests/s."""
    root = math.sqrt(point_rps * bin_s)
    losses = [
        pinball_loss(rate_rps, max(root + q, 0.0) ** 2 / bin_s, level)
        for level, q in zip(settings.scored_levels, spread, strict=True)
    ]
    return sum(losses) / len(losses)


def _discounted(settings: ForecastSettings, loss: Loss, own: float, reference: float) -> Loss:
    keep = 0.5 ** (1 / settings.loss_half_life_bins)
    return Loss(
        own_rps=rounded(keep * loss.own_rps + own),
        reference_rps=rounded(keep * loss.reference_rps + reference),
        outcomes=loss.outcomes + 1,
    )
