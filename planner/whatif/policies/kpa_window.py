"""Knative's sliding windows: averages of per-second metrics, and the largest recommendation of a delay.

Modelled on `pkg/autoscaler/aggregation` of knative/serving: `bucketing.go` and `max/window.go`.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field

#: Weights of the exponential average decay by at least this factor per second, and sum up to at least `_WEIGHTS`.
_LEAST_DECAY, _WEIGHTS = 0.2, 0.9999


@dataclass(slots=True)
class AverageWindow:
    """Values in buckets of one second, of which the last `seconds` count.

    Attributes:
        seconds: length of the window.
        weighted: whether the average is exponential (`metric-aggregation-algorithm: weighted-exponential`) instead of
            `linear`, the default.
    """

    seconds: int
    weighted: bool = False
    _buckets: dict[int, float] = field(default_factory=dict)
    _first: int = 0
    _last: int | None = None

    def record(self, at_s: float, value: float) -> None:
        """Add a value to its second's bucket; times never run backwards here."""
        second = int(at_s)
        if self._last is None or second - self._last >= self.seconds:
            # The window has run empty: what comes is averaged over the time since now, not over the whole window.
            self._first = second
            self._buckets.clear()
        self._last = second
        self._buckets[second] = self._buckets.get(second, 0.0) + value
        for old in [one for one in self._buckets if one <= second - self.seconds]:
            del self._buckets[old]

    def empty(self, now_s: float) -> bool:
        """Whether nothing was recorded for more than the window."""
        return self._last is None or int(now_s) - self._last > self.seconds

    def average(self, now_s: float) -> float:
        """The average over the part of the window that has been recorded, 0 where nothing was.

        A second without a value between two with one counts as 0; those after the last value do not count, save in the
        weighted average.
        """
        if self._last is None or int(now_s) - self._last >= self.seconds:
            return 0.0
        behind = int(now_s) - self._last
        if self.weighted:
            return self._weighted(int(now_s))
        total = sum(value for second, value in self._buckets.items() if second > int(now_s) - self.seconds)
        count = min(self._last - self._first + 1, self.seconds - behind)
        return math.floor(total / count * 1e6) / 1e6

    def _weighted(self, now: int) -> float:
        """Sum of a * (1 - a)^age * value; it starts low, as if zeroes had gone before."""
        decay = max(1.0 - math.pow(1.0 - _WEIGHTS, 1.0 / self.seconds), _LEAST_DECAY)
        return sum(
            decay * math.pow(1.0 - decay, now - second) * value
            for second, value in self._buckets.items()
            if second > now - self.seconds
        )


@dataclass(slots=True)
class DelayWindow:
    """The largest count recorded in the last `delay_s` seconds, in buckets of `tick_s`."""

    delay_s: float
    tick_s: float
    _counts: dict[int, int] = field(default_factory=dict)

    def largest(self, at_s: float, count: int) -> int:
        """Record a count and give the largest that the window holds."""
        place, places = int(at_s) // int(self.tick_s), math.ceil(self.delay_s / self.tick_s)
        self._counts[place] = max(count, self._counts.get(place, count))
        self._counts = {one: kept for one, kept in self._counts.items() if place - one < places}
        return max(self._counts.values())
