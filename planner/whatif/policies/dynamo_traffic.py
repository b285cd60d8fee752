"""The throughput side of Dynamo 1.6: the traffic of an interval, and three series forecast from it.

From `plugins/builtins/local_planner.py` of ai-dynamo 1.6.1. Each mean is forecast alone and one interval ahead; an
interval without requests repeats the lengths of the last one that had some.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass

from planner.core.types import Known, Observation
from planner.whatif.policies.dynamo_engine import Shape
from planner.whatif.policies.dynamo_kalman import Kalman
from planner.whatif.policies.dynamo_passes import Lengths
from planner.whatif.policies.dynamo_predictors import Arima, Constant, Predictor

#: `load_predictor`. The fourth, `prophet`, needs a library of that name and a compiler's tool chain with it.
PREDICTORS: Mapping[str, Callable[[], Predictor]] = {"arima": Arima, "constant": Constant, "kalman": Kalman}


@dataclass(frozen=True, slots=True)
class Traffic:
    """What came in an interval: requests offered, the span in seconds, and mean lengths of those that completed."""

    requests: int
    span_s: float
    lengths: Lengths


class Meter:
    """Adds observations up to the traffic since it was last taken."""

    def __init__(self) -> None:
        self._requests, self._span_s = 0, 0.0
        self._sums, self._completed = [0.0, 0.0, 0.0], 0

    def add(self, observation: Observation) -> Lengths:
        """Take in an observation; returns the mean lengths of its own requests."""
        self._span_s += observation.interval_s
        if isinstance(observation.arrivals, Known):
            self._requests += observation.arrivals.value
        if not isinstance(observation.lengths, Known) or len(observation.lengths.value) == 0:
            return Lengths()
        sample = observation.lengths.value
        seen = Lengths.of(sample)
        self._completed += len(sample)
        self._sums = [
            total + mean * len(sample) for total, mean in zip(self._sums, (seen.isl, seen.hit, seen.osl), strict=True)
        ]
        return seen

    def take(self) -> Traffic:
        """The traffic since the last time, and begin anew."""
        means = Lengths(*(total / self._completed for total in self._sums)) if self._completed else Lengths()
        taken = Traffic(self._requests, self._span_s, means)
        self._requests, self._span_s = 0, 0.0
        self._sums, self._completed = [0.0, 0.0, 0.0], 0
        return taken


class Forecaster:
    """Requests, ISL and OSL of the next interval, each by a predictor of its own."""

    def __init__(self, kind: str) -> None:
        make = PREDICTORS[kind]
        self._requests, self._isl, self._osl = make(), make(), make()
        self._last = Lengths()

    def add(self, traffic: Traffic) -> None:
        """Take in an interval."""
        self._requests.add(float(traffic.requests))
        seen = traffic.lengths
        if traffic.requests > 0:
            if seen.known:
                self._last = seen
        else:
            seen = self._last
        if math.isfinite(seen.isl):
            self._isl.add(seen.isl)
            self._osl.add(seen.osl)

    def next(self, hit_rate: float) -> tuple[float, Shape]:
        """Requests of the next interval and their shape."""
        return self._requests.next(), Shape(self._isl.next(), self._osl.next(), hit_rate)
