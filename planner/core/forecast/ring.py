"""Appending bins to the history: fine bins as they come, coarse bins as they fill."""

from __future__ import annotations

import math
from dataclasses import replace

from planner.core.forecast.settings import ForecastSettings
from planner.core.forecast.state import ForecastState, rounded

#: Share of a bin from which on a tick that comes early brings a bin of its own.
SHORTEST_BIN = 0.3


def bins_elapsed(state: ForecastState, bin_s: float, at_s: float) -> int:
    """Bins since the last one: 1 in a row or early, more after a gap, 0 or less for a repeat."""
    if state.at_s is None:
        return 1
    bins = (at_s - state.at_s) / bin_s
    return 1 if SHORTEST_BIN <= bins < 1.0 else round(bins)


def extend_bins(
    settings: ForecastSettings, state: ForecastState, rate_rps: float | None, at_s: float, elapsed: int
) -> ForecastState:
    """`state` with the bin that ends at `at_s`, after elapsed - 1 unknown bins.

    The bin belongs to the coarse bin that holds its middle.
    """
    missed = min(elapsed - 1, settings.history_bins)
    rates = (*state.rates_rps, *(None,) * missed, None if rate_rps is None else rounded(rate_rps))
    state = replace(
        state,
        at_s=at_s,
        bins=state.bins + elapsed,
        rates_rps=rates[-settings.history_bins :],
    )
    if settings.coarse_bins == 0:
        return replace(state, coarse_rps=())
    index = math.floor((at_s - state.bin_s / 2) / settings.coarse_bin_s)
    state = _advance_coarse(settings, state, index)
    if rate_rps is None:
        return state
    return replace(
        state,
        coarse_sum_rps=rounded(state.coarse_sum_rps + rate_rps),
        coarse_known=state.coarse_known + 1,
    )


def _advance_coarse(settings: ForecastSettings, state: ForecastState, index: int) -> ForecastState:
    if not state.coarse_rps and state.coarse_known == 0:
        return replace(state, coarse_index=index)
    finished = index - state.coarse_index
    if finished <= 0:
        return state
    mean = rounded(state.coarse_sum_rps / state.coarse_known) if state.coarse_known else None
    skipped = (None,) * min(finished - 1, settings.coarse_bins)
    return replace(
        state,
        coarse_rps=(*state.coarse_rps, mean, *skipped)[-settings.coarse_bins :],
        coarse_index=index,
        coarse_sum_rps=0.0,
        coarse_known=0,
    )
