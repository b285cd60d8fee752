"""Dynamo 1.6's `kalman`: a level and a trend, followed by a Kalman filter; one interval ahead.

Level and trend drift by random steps of variances 1.0 and 0.1, an observation has variance 10.0, whatever the unit of
the series: at thousands of requests an interval the filter takes every one at its word, and so it forecasts little else
than the last value and its last slope.
"""

from __future__ import annotations

import numpy as np

from planner.whatif.policies.dynamo_predictors import MIN_POINTS, Predictor

#: `kalman_q_level`, `kalman_q_trend`, `kalman_r`, and the variance of level and trend before anything was seen.
Q_LEVEL, Q_TREND, R, FIRST_VARIANCE = 1.0, 0.1, 10.0, 1000.0

_ADVANCE = np.array([[1.0, 1.0], [0.0, 1.0]])
_NOISE = np.diag([Q_LEVEL, Q_TREND])


class Kalman(Predictor):
    """Local linear trend; the last value until the fifth.

    Harvey, Forecasting, Structural Time Series Models and the Kalman Filter, 1989, section 2.3.
    """

    def __init__(self) -> None:
        super().__init__()
        self._state = np.zeros(2)
        self._covariance = np.eye(2) * FIRST_VARIANCE
        self._advanced = False

    def add(self, value: float) -> None:
        """Take in the value of an interval, as `Predictor.add`."""
        known = len(self.values)
        super().add(value)
        if len(self.values) == known:
            return
        seen = self.values[-1]
        if known == 0:
            self._state = np.array([seen, 0.0])
        else:
            self._advance()
            gain = self._covariance[:, 0] / (self._covariance[0, 0] + R)
            self._state = self._state + gain * (seen - self._state[0])
            self._covariance = self._covariance - np.outer(gain, self._covariance[0])
        self._advanced = False

    def next(self) -> float:
        """The level one step ahead, not below zero."""
        if len(self.values) < MIN_POINTS:
            return self.last
        self._advance()
        return max(0.0, float(self._state[0]))

    def _advance(self) -> None:
        """One step of the model, once in an interval: a forecast advances it already."""
        if not self._advanced:
            self._state = _ADVANCE @ self._state
            self._covariance = _ADVANCE @ self._covariance @ _ADVANCE.T + _NOISE
            self._advanced = True
