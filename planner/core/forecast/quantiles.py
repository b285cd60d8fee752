"""`predict`: the quantiles of the coming bins, from a state."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from planner.core.forecast.candidates import forecasters
from planner.core.forecast.conformal import at_step, quantile_rates, residual_quantiles
from planner.core.forecast.evidence import points
from planner.core.forecast.history import FloatArray, known_history
from planner.core.forecast.settings import ForecastSettings
from planner.core.forecast.state import ForecastState
from planner.core.forecast.weights import score, spanned, weights
from planner.core.types import Unknown


@dataclass(frozen=True, slots=True)
class Forecast:
    """Quantiles of the rate in each of the next bins.

    They are quantiles of the rate that a bin will show, noise of counting included, as the pinball loss sees
    it.

    Attributes:
        levels: ascending.
        rates_rps: by level, then by step (the first is the next bin); >= 0, not decreasing in the level.
        weights: share of each candidate in the quantiles, summing to 1.
        loss: pinball loss of each candidate relative to the last value's, recent and discounted, averaged
            over the scored steps that the forecast spans; None until enough outcomes are known.
        chosen: the candidate with the highest weight.
        bins_known: fine bins kept whose rate is known.
        bins_stale: unknown bins since the last known one; the forecast starts after them.
        notes: by candidate, why its last fit was not used.
    """

    levels: tuple[float, ...]
    rates_rps: tuple[tuple[float, ...], ...]
    weights: dict[str, float]
    loss: dict[str, float | None]
    chosen: str
    bins_known: int
    bins_stale: int
    notes: dict[str, str]


def predict(
    settings: ForecastSettings, state: ForecastState, steps: int, levels: tuple[float, ...], dispersion: float
) -> Forecast | Unknown:
    """Quantiles of the rate in the next `steps` bins.

    Args:
        settings: of the forecasts.
        state: after the last bin.
        steps: bins ahead, >= 1; may change from call to call, as the lead time does.
        levels: in (0, 1), strictly ascending.
        dispersion: variance over mean of the arrivals, >= 0, 1 for Poisson; it counts while residuals are
            few.

    Returns:
        The forecast, or Unknown when no bin in the history is known.

    Raises:
        ValueError: arguments out of range.
    """
    by_candidate = candidate_quantiles(settings, state, steps, levels, dispersion)
    known = known_history(settings, state)
    if known is None:
        return Unknown("no bin of the request rate is known yet")
    share = weights(settings, state.candidates, by_candidate, steps)
    rates = np.zeros((len(levels), steps))
    for name, quantiles in by_candidate.items():
        rates += share[name] * quantiles
    return Forecast(
        levels=levels,
        rates_rps=tuple(tuple(row) for row in rates.tolist()),
        weights=share,
        loss={c.name: score(settings, c.losses[spanned(settings.scored_steps, steps)]) for c in state.candidates},
        chosen=max(share, key=lambda name: share[name]),
        bins_known=state.bins_known,
        bins_stale=known[1],
        notes={c.name: c.fit_note for c in state.candidates if c.fit_note},
    )


def candidate_quantiles(
    settings: ForecastSettings, state: ForecastState, steps: int, levels: tuple[float, ...], dispersion: float
) -> dict[str, FloatArray]:
    """Quantiles of each candidate that can forecast, shape (levels, steps), requests/s.

    Empty when nothing is known. Arguments and errors as in `predict`.
    """
    if steps < 1 or not (math.isfinite(dispersion) and dispersion >= 0):
        raise ValueError(f"steps must be >= 1, dispersion finite and >= 0: {steps}, {dispersion}")
    if not levels or not all(a < b for a, b in zip((0.0, *levels), (*levels, 1.0), strict=True)):
        raise ValueError(f"levels must lie in (0, 1) and ascend: {levels}")
    known = known_history(settings, state)
    if known is None:
        return {}
    history, stale = known
    ahead = points(state.candidates, forecasters(settings), history, stale + steps)
    quantiles = {}
    for candidate, point in zip(state.candidates, ahead, strict=True):
        if point is None:
            continue
        by_step = residual_quantiles(settings, candidate.residuals, levels, dispersion)
        # unknown bins at the end lengthen the way to every step
        spread = [at_step(by_step, settings.scored_steps, stale + step) for step in range(1, steps + 1)]
        quantiles[candidate.name] = quantile_rates(point[stale:], np.array(spread).T, state.bin_s)
    return quantiles
