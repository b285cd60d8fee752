"""What a forecaster sees: the known past, without holes."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from planner.core.forecast.settings import ForecastSettings
from planner.core.forecast.state import ForecastState

FloatArray = NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class History:
    """Request rates up to the last known bin.

    Attributes:
        rates_rps: shape (n,), n >= 1, fine bins; ends at the last known bin. Unknown bins before it are
            filled by a straight line between their known neighbours, never by zero.
        bin_s: width of a fine bin.
        at_s: end of the last known bin.
        coarse_rps: shape (m,), finished coarse bins, NaN where unknown.
        coarse_end_s: end of the last finished coarse bin.
        coarse_bin_s: width of a coarse bin.
    """

    rates_rps: FloatArray
    bin_s: float
    at_s: float
    coarse_rps: FloatArray
    coarse_end_s: float
    coarse_bin_s: float


def known_history(settings: ForecastSettings, state: ForecastState) -> tuple[History, int] | None:
    """The history up to the last known bin and the unknown bins since; None when no bin is known."""
    rates = _array(state.rates_rps)
    known = np.flatnonzero(~np.isnan(rates))
    if state.at_s is None or known.size == 0:
        return None
    first, last = int(known[0]), int(known[-1])
    stale = len(rates) - 1 - last
    filled = np.interp(np.arange(first, last + 1), known, rates[known])
    history = History(
        rates_rps=filled,
        bin_s=state.bin_s,
        at_s=state.at_s - stale * state.bin_s,
        coarse_rps=_array(state.coarse_rps),
        coarse_end_s=state.coarse_index * settings.coarse_bin_s,
        coarse_bin_s=settings.coarse_bin_s,
    )
    return history, stale


def _array(values: tuple[float | None, ...]) -> FloatArray:
    # dtype float turns None into NaN
    return np.array(values, dtype=np.float64)
