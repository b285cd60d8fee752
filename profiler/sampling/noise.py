"""Samples grouped by point, and how well the median of a point's repeats is known.

The spread of a point is its median absolute deviation (MAD), made consistent for the normal distribution and corrected
for few repeats (Croux and Rousseeuw, "Time-efficient algorithms for two highly robust estimators of scale", COMPSTAT
1992). The MAD of three is their smaller gap, which is often close to nothing, so two or three repeats are judged by
their range over its expectation for normal ones instead. So few say little by themselves, and each point is weighed
with its table's own spread (the median over its points), which counts as much as three repeats. The 90 % interval of a
median of n repeats is then +- 1.645 * sqrt(pi / 2) * spread / sqrt(n). All spreads are relative to the median. No
repeat is ever dropped: the median bears outliers.
"""

from __future__ import annotations

import math
import statistics
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from profiler.measure.base import Point, Sample
from profiler.schema import TableName
from profiler.streaming import BEHIND

VALUE: Mapping[TableName, str] = {
    "prefill": "ttft_ms",
    "decode": "itl_ms",
    "mixed": "iteration_ms",
    "transfer": "transfer_ms",
}

_CONSISTENT = 1.4826
_RANGE = {2: 1.128, 3: 1.693}
_FEW = {4: 1.363, 5: 1.206, 6: 1.200, 7: 1.140, 8: 1.129, 9: 1.107}
_PRIOR_WEIGHT = 2.0
_OF_MEDIAN = math.sqrt(math.pi / 2)
_Z90 = 1.645


@dataclass(frozen=True, slots=True)
class Measured:
    """A point with its repeats.

    Attributes:
        point: where.
        values: milliseconds, increasing; samples marked suspect are left out, and it may be empty.
        taken: how many samples there are, suspect ones among them.
        median: of the values; nan where there are none.
        spread: relative standard deviation of one repeat; nan when not known.
    """

    point: Point
    values: tuple[float, ...]
    taken: int
    median: float
    spread: float

    @property
    def standard_error(self) -> float:
        """Relative standard error of the median; 0 where the spread is not known."""
        return 0.0 if math.isnan(self.spread) else _OF_MEDIAN * self.spread / math.sqrt(len(self.values))

    @property
    def half_width(self) -> float:
        """Half of the 90 % interval of the median, relative to it."""
        return _Z90 * self.standard_error


def measured(samples: Iterable[Sample]) -> dict[TableName, dict[Point, Measured]]:
    """Samples by table and point, in the order of the coordinates; the order of the samples does not matter.

    Raises:
        ValueError: a sample lacks its table's value, or it is not positive and finite.
    """
    found: dict[Point, list[Sample]] = defaultdict(list)
    for sample in samples:
        found[sample.point].append(sample)
    tables: dict[TableName, dict[Point, Measured]] = defaultdict(dict)
    raw = {point: _values(point, found[point]) for point in sorted(found, key=lambda p: (p.table, p.at))}
    for table in {point.table for point in raw}:
        own = {point: values for point, values in raw.items() if point.table == table}
        alone = {point: spread(values) for point, values in own.items() if len(values) > 1}
        # Points that agree to the last digit say that the engine is exact, not that nothing is known.
        pooled = statistics.median(alone.values()) if alone else math.nan
        for point, values in own.items():
            median = statistics.median(values) if values else math.nan
            tables[table][point] = Measured(
                point, values, len(found[point]), median, _shrunk(alone.get(point, math.nan), len(values), pooled)
            )
    return dict(tables)


def spread(values: Sequence[float]) -> float:
    """Relative standard deviation of two or more positive values."""
    n, median = len(values), statistics.median(values)
    if n in _RANGE:
        return (max(values) - min(values)) / _RANGE[n] / median
    deviation = statistics.median(abs(value - median) for value in values)
    return _CONSISTENT * _FEW.get(n, n / (n - 0.8)) * deviation / median


def _shrunk(own: float, repeats: int, pooled: float) -> float:
    if math.isnan(own):
        return pooled
    free = repeats - 1
    return math.sqrt((_PRIOR_WEIGHT * pooled**2 + free * own**2) / (_PRIOR_WEIGHT + free))


def _values(point: Point, samples: Sequence[Sample]) -> tuple[float, ...]:
    name = VALUE[point.table]
    values = []
    for sample in samples:
        value = sample.values.get(name, math.nan)
        server = sample.values.get("server_itl_ms", math.nan)
        if point.table == "decode" and value > BEHIND * server:
            # What a front end manages does not get better by repeats; the engine's own time goes into the table.
            value = server
        if not (math.isfinite(value) and value > 0):
            raise ValueError(f"a sample of {point.table} at {point.at} has {name} {value}, not positive and finite")
        if sample.values.get("suspect", 0.0) != 1.0:
            values.append(value)
    return tuple(sorted(values))
