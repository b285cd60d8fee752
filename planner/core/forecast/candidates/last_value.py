"""The recent past goes on: the yardstick that every other forecaster must beat."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from planner.core.forecast.candidates.base import Fit, Params
from planner.core.forecast.history import FloatArray, History


@dataclass(frozen=True, slots=True)
class LastValue:
    """The mean of the last `bins` bins, for every step."""

    bins: int
    name: str = "last_value"

    def fit(self, history: History) -> Fit | None:  # noqa: ARG002 - part of the interface
        """Nothing to fit."""
        return None

    def point(self, history: History, steps: int, params: Params | None) -> FloatArray:  # noqa: ARG002
        """Always available. Shape (steps,), requests/s."""
        return np.full(steps, history.rates_rps[-self.bins :].mean())
