"""The interface of a forecaster of the mean request rate."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

import numpy as np

from planner.core.forecast.history import FloatArray, History

Params = tuple[float, ...]


@dataclass(frozen=True, slots=True)
class Fit:
    """The outcome of a fit: new parameters, or None with a note that says why the previous ones stay."""

    params: Params | None
    note: str = ""


class Forecaster(Protocol):
    """Forecasts the mean rate of the coming bins. Pure: the same arguments give the same floats."""

    @property
    def name(self) -> str:
        """Stable name; the state and the decision record refer to it."""
        ...

    def fit(self, history: History) -> Fit | None:
        """Parameters for `point`; None when there is nothing to fit (yet)."""
        ...

    def point(self, history: History, steps: int, params: Params | None) -> FloatArray | None:
        """Mean rates of the next bins.

        Args:
            history: ends at the last known bin.
            steps: bins to forecast, >= 1.
            params: of the last fit that succeeded.

        Returns:
            Shape (steps,), requests/s, finite and >= 0; None while this forecaster cannot forecast.
        """
        ...


def guarded(fit: Callable[[], Params]) -> Fit:
    """Run a library fit; what warns, fails or is not finite becomes a note, not an answer."""
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        try:
            params = fit()
        except (ValueError, FloatingPointError, np.linalg.LinAlgError) as error:
            return Fit(None, f"fit failed, previous parameters kept: {error}")
    if caught:
        return Fit(None, f"fit warned, previous parameters kept: {caught[0].message}")
    if not all(np.isfinite(params)):
        return Fit(None, "fit gave parameters that are not finite, previous ones kept")
    return Fit(params)
