"""`update`: takes in one bin. Pure: state in, state out."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace

from planner.core.forecast.candidates import Forecaster, forecasters
from planner.core.forecast.evidence import issue, points, score_outcome, skip
from planner.core.forecast.history import History, known_history
from planner.core.forecast.ring import bins_elapsed, extend_bins
from planner.core.forecast.settings import ForecastSettings
from planner.core.forecast.state import CandidateState, ForecastState, Loss, rounded


def update(
    settings: ForecastSettings, state: ForecastState, rate_rps: float | None, bin_s: float, at_s: float
) -> ForecastState:
    """Take in the bin that ended at `at_s`: score what was forecast for it, refit when due, forecast from it.

    A bin that is not after the last one (a repeated or reordered tick, less than 0.3 of a bin later) leaves
    the state as it is; one that comes before a whole bin has passed is a bin all the same. Bins missed in
    between are unknown. A gap longer than the history, another bin width or other scored steps than the
    state's start the history, the residuals and the losses afresh; the coarse bins stay.

    Args:
        settings: of the forecasts.
        state: before the bin.
        rate_rps: requests/s in the bin; None when unknown, which is not zero.
        bin_s: width of the bin.
        at_s: end of the bin, s since any fixed time; seasons are counted in it.

    Returns:
        The state after the bin.

    Raises:
        ValueError: a rate below zero or not finite, a width not above zero, or a time that is not finite.
    """
    if rate_rps is not None and not (math.isfinite(rate_rps) and rate_rps >= 0):
        raise ValueError(f"rate_rps must be finite and >= 0, or None when unknown: {rate_rps}")
    if not (math.isfinite(bin_s) and bin_s > 0 and math.isfinite(at_s)):
        raise ValueError(f"bin_s must be finite and > 0, and at_s finite: {bin_s}, {at_s}")
    elapsed = bins_elapsed(state, bin_s, at_s)
    if elapsed <= 0:
        return state
    models = forecasters(settings)
    if elapsed > settings.history_bins or not _continues(settings, state, bin_s, models):
        state = _afresh(settings, state, bin_s, models)
        # nothing is missed in a history that starts here
        elapsed = 1
    state = replace(state, issued=skip(settings, state.issued, elapsed - 1))
    if rate_rps is not None:
        state = replace(state, candidates=score_outcome(settings, state, rate_rps))
    state = extend_bins(settings, state, rate_rps, at_s, elapsed)
    history = known_history(settings, state)
    if rate_rps is None or history is None:
        return replace(state, issued=skip(settings, state.issued, 1))
    state = replace(state, candidates=_refit(settings, state, history[0], elapsed, models))
    ahead = points(state.candidates, models, history[0], settings.scored_steps[-1])
    return replace(state, issued=issue(settings, state.issued, ahead))


def broken_off(state: ForecastState, before: ForecastState) -> ForecastState:
    """The state after a bin in which the load became another one: what was forecast across the break counts nowhere.

    Neither the errors made in that bin nor those of older forecasts for later ones are kept: they tell how large the
    break was, and nothing of the errors to come. Forecasts from the bin itself are scored as ever.

    Args:
        state: after the bin.
        before: before it; where the history has begun afresh since, the state is left as it is.
    """
    if before.bins >= state.bins or before.scored_steps != state.scored_steps:
        return state
    candidates = tuple(
        replace(now, residuals=then.residuals, losses=then.losses)
        for now, then in zip(state.candidates, before.candidates, strict=True)
    )
    issued = tuple((*(None for _ in queue[:-1]), *queue[-1:]) for queue in state.issued)
    return replace(state, candidates=candidates, issued=issued)


def _continues(settings: ForecastSettings, state: ForecastState, bin_s: float, models: Sequence[Forecaster]) -> bool:
    return (
        math.isclose(state.bin_s, bin_s)
        and state.scored_steps == settings.scored_steps
        and tuple(c.name for c in state.candidates) == tuple(m.name for m in models)
    )


def _afresh(
    settings: ForecastSettings, state: ForecastState, bin_s: float, models: Sequence[Forecaster]
) -> ForecastState:
    """No fine history and no evidence; the coarse bins, which tell time by themselves, stay."""
    none = tuple(() for _ in settings.scored_steps)
    return replace(
        state,
        bin_s=bin_s,
        bins=0,
        rates_rps=(),
        scored_steps=settings.scored_steps,
        issued=none,
        candidates=tuple(CandidateState(m.name, residuals=none, losses=tuple(Loss() for _ in none)) for m in models),
    )


def _refit(
    settings: ForecastSettings,
    state: ForecastState,
    history: History,
    elapsed: int,
    models: Sequence[Forecaster],
) -> tuple[CandidateState, ...]:
    """Fit the candidates whose turn came in the last `elapsed` bins; spread, to keep ticks even."""
    refitted = []
    for i, (candidate, model) in enumerate(zip(state.candidates, models, strict=True)):
        turn = state.bins + i * settings.refit_every // len(models)
        due = turn // settings.refit_every > (turn - elapsed) // settings.refit_every
        fit = model.fit(history) if due else None
        if fit is None:
            refitted.append(candidate)
        elif fit.params is None:
            refitted.append(replace(candidate, fit_note=fit.note))
        else:
            refitted.append(replace(candidate, params=tuple(map(rounded, fit.params)), fit_note=fit.note))
    return tuple(refitted)
