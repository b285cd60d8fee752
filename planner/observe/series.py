"""Raw samples by instance: when it was scraped, and how its counters rose.

No increase is interpolated or extrapolated. All series of an instance are sampled at its scrapes, windows begin and end
at scrapes, and a counter's increase over a window is exact.
"""

from __future__ import annotations

import math
from bisect import bisect_right
from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from functools import cached_property

from planner.observe.base import Series
from planner.observe.dialects.base import Selector

#: 1 for every scrape of a target that worked; Prometheus writes it by itself.
UP = "up"

#: Labels that say who scraped, not what: one target seen by two of these is two copies of the same series.
SCRAPERS = ("job", "prometheus", "prometheus_replica")


@dataclass(frozen=True)
class Window:
    """Scrapes that an increase is taken between, by the wall clock.

    Attributes:
        start_s, end_s: times of the scrapes; the increase is that in (start_s, end_s].
        fresh: whether the window ends later than that of the tick before.
    """

    start_s: float
    end_s: float
    fresh: bool

    @property
    def span_s(self) -> float:
        """Seconds covered."""
        return self.end_s - self.start_s


@dataclass(eq=False)
class Instance:
    """What was read of one target.

    Attributes:
        address: its label `instance`.
        series: by metric name.
        started: name of the gauge with the unix time at which its process started; empty where it exports none.
        read_from_s: start of the span that was read, by the wall clock.
        flaws: values that were left out, in words.
    """

    address: str
    series: Mapping[str, list[Series]]
    started: str = ""
    read_from_s: float = -math.inf
    flaws: list[str] = field(default_factory=list)

    @cached_property
    def scrapes_s(self) -> list[float]:
        """When it was scraped and answered, rising."""
        times = set[float]()
        for name, family in self.series.items():
            for series in family:
                if name == UP:
                    times.update(at for at, value in zip(series.at_s, series.values, strict=True) if value == 1)
                else:
                    times.update(series.at_s)
        return sorted(times)

    @cached_property
    def points_s(self) -> list[float]:
        """Its scrapes, and before them the start of its process if that was within what was read: all was 0 then."""
        started = [value for one in self.series.get(self.started, ()) for value in one.values[:1]]
        if started and self.scrapes_s and self.read_from_s <= started[0] < self.scrapes_s[0]:
            return [started[0], *self.scrapes_s]
        return self.scrapes_s

    @property
    def newest_s(self) -> float:
        """Time of its newest scrape; -inf if there is none."""
        return self.scrapes_s[-1] if self.scrapes_s else -math.inf

    def newest(self, name: str) -> float | None:
        """The newest values of a gauge summed over its series, or None if a series is missing, old or not a number.

        A gauge that was not in the newest scrape is no longer exported.
        """
        total, found = 0.0, False
        for series in self.series.get(name, ()):
            if series.at_s and series.at_s[-1] == self.newest_s:
                value = series.values[-1]
                if not math.isfinite(value) or value < 0:
                    self._flaw(f"{name} of {self.address} is {value:g}")
                    return None
                total, found = total + value, True
        return total if found else None

    def mean(self, name: str) -> float | None:
        """As `newest`, the mean over the gauge's series."""
        total = self.newest(name)
        series = [one for one in self.series.get(name, ()) if one.at_s and one.at_s[-1] == self.newest_s]
        return None if total is None else total / len(series)

    def exports(self, selector: Selector) -> bool:
        """Whether any series of that name was read."""
        return bool(self.series.get(selector.name))

    def counter(self, selector: Selector) -> list[Counter]:
        """The counters that a selector means."""
        return [self._counter(one) for one in self.series.get(selector.name, ()) if selector.matches(one.labels)]

    def increase(self, selector: Selector, window: Window) -> float | None:
        """Sum of the increases of the counters that a selector means; None if the instance has none."""
        counters = self.counter(selector)
        return sum(counter.increase(window) for counter in counters) if counters else None

    def risen(self, series: Series, window: Window) -> float:
        """Increase of one of its counters."""
        return self._counter(series).increase(window)

    def histogram(self, name: str, window: Window) -> tuple[dict[float, float], float] | None:
        """Increases of a histogram's cumulative buckets, by upper bound, and of its sum; None if there is none."""
        buckets = defaultdict[float, float](float)
        for series in self.series.get(f"{name}_bucket", ()):
            try:
                bound = float(series.labels["le"])
            except (KeyError, ValueError):
                self._flaw(f"a bucket of {name} of {self.address} has no bound")
                continue
            buckets[bound] += self.risen(series, window)
        if not buckets:
            return None
        total = self.increase(Selector(f"{name}_sum"), window)
        return dict(buckets), float("nan") if total is None else total

    def _counter(self, series: Series) -> Counter:
        at_s, values = [], []
        for at, value in zip(series.at_s, series.values, strict=True):
            if math.isfinite(value) and value >= 0:
                at_s.append(at)
                values.append(value)
            else:
                self._flaw(f"{series.name} of {self.address} is {value:g}")
        return Counter.unrolled(at_s, values, born=self._born(series.at_s[0]))

    def _born(self, first_s: float) -> bool:
        """Whether a counter first seen then started from 0 within what was read.

        Either its instance was scraped before without it (many programs export a counter from its first count on), or
        the instance's process started since then, as it says. Otherwise its first sample is what it rises from.
        """
        return self.points_s[0] < first_s

    def _flaw(self, text: str) -> None:
        if text not in self.flaws:
            self.flaws.append(text)


@dataclass(frozen=True)
class Counter:
    """A counter without its resets: how far it rose since the first sample, or since 0 if it was born after.

    A reset shows as a fall, and what is then counted was counted since the restart. What was counted between the last
    scrape before a restart and the restart is lost.
    """

    at_s: list[float]
    risen: list[float]

    @classmethod
    def unrolled(cls, at_s: list[float], values: list[float], *, born: bool) -> Counter:
        """From raw values, all finite and none negative."""
        risen: list[float] = []
        for index, value in enumerate(values):
            if index == 0:
                risen.append(value if born else 0.0)
            else:
                before = values[index - 1]
                risen.append(risen[-1] + (value - before if value >= before else value))
        return cls(at_s, risen)

    def at(self, time_s: float) -> float:
        """How far it had risen by the newest scrape until then."""
        index = bisect_right(self.at_s, time_s) - 1
        return self.risen[index] if index >= 0 else 0.0

    def increase(self, window: Window) -> float:
        """Increase in the window."""
        return self.at(window.end_s) - self.at(window.start_s)


def by_instance(
    series: Iterable[Series], wanted: Callable[[str], bool], *, started: str, from_s: float
) -> dict[str, Instance]:
    """Series sorted by their label `instance`, those of other instances left out.

    Where several Prometheus servers or jobs scraped a target, only the one with the newest sample is kept.
    """
    copies: dict[str, dict[tuple[str, ...], list[Series]]] = {}
    for one in series:
        address = one.labels.get("instance", "")
        if one.at_s and wanted(address):
            scraper = tuple(one.labels.get(label, "") for label in SCRAPERS)
            copies.setdefault(address, {}).setdefault(scraper, []).append(one)
    instances = {}
    for address, scrapers in copies.items():
        newest = max(scrapers.values(), key=lambda family: max(one.at_s[-1] for one in family))
        names: dict[str, list[Series]] = {}
        for one in newest:
            names.setdefault(one.name, []).append(one)
        instances[address] = Instance(address, names, started, read_from_s=from_s)
    return instances
