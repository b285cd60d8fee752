"""How far off the forecasts were that plans rested on: each is kept until the bin that it was for has come."""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass, field

from planner.core.forecast import Forecast
from planner.core.record import DecisionRecord
from planner.core.types import Known

#: Forecasts that wait for their outcome at most: more than any lead time has intervals that people use.
MOST_WAITING = 1000


@dataclass
class ForecastErrors:
    """Medians forecast for the end of the lead time, by the end of their bin, planner seconds."""

    waiting: deque[tuple[float, float]] = field(default_factory=lambda: deque(maxlen=MOST_WAITING))

    def take(self, record: DecisionRecord) -> float | None:
        """Compare what was forecast for this record's bin, and keep what it forecasts itself.

        Returns:
            (forecast - observed) / observed; None when one of them is not known, or nothing came.
        """
        decision, observation = record.decision, record.observation
        interval_s = record.settings.interval_s
        median = None
        while self.waiting and self.waiting[0][0] <= decision.at_s + 0.5 * interval_s:
            end_s, rate = self.waiting.popleft()
            median = rate if abs(end_s - decision.at_s) <= 0.5 * interval_s else None
        forecast = decision.forecast
        if isinstance(forecast, Forecast) and 0.5 in forecast.levels:
            rates = forecast.rates_rps[forecast.levels.index(0.5)]
            self.waiting.append((decision.at_s + len(rates) * interval_s, rates[-1]))
        arrivals = observation.arrivals
        if median is None or not isinstance(arrivals, Known) or arrivals.value <= 0 or observation.interval_s <= 0:
            return None
        seen = arrivals.value / observation.interval_s
        return (median - seen) / seen
