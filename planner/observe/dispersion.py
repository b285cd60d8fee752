"""The index of dispersion of arrivals, from the increments between scrapes.

The index is that of counts per scrape period, not per second: shorter bursts are seen only as far as they show in it.
Differences of neighbouring increments are used (von Neumann's mean square successive difference), so that a rate that
rises or falls slowly, which the forecast accounts for, is not counted as burstiness. With counts x_i over dt_i, rates
r_i = x_i / dt_i and an overall rate R, E (r_i - r_j)^2 = D R (1 / dt_i + 1 / dt_j) for neighbours i and j, hence D.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Iterable
from dataclasses import dataclass
from itertools import pairwise

from planner.core.types import Known, Unknown

#: Increments kept for each gateway. The error of the index is about sqrt(3 / increments) of it.
MOST_INCREMENTS = 64
#: Fewer say too little: at 12 the index of a Poisson process still varies by half.
LEAST_INCREMENTS = 12


@dataclass(frozen=True)
class Increment:
    """Arrivals counted between two scrapes."""

    start_s: float
    end_s: float
    count: float


class Dispersion:
    """The last increments of every gateway."""

    def __init__(self) -> None:
        self._increments: dict[str, deque[Increment]] = {}

    def add(self, address: str, increments: Iterable[Increment]) -> None:
        """Take in what was counted since the tick before."""
        self._increments.setdefault(address, deque(maxlen=MOST_INCREMENTS)).extend(increments)

    def forget(self, addresses: Iterable[str]) -> None:
        """Let go of gateways that are gone."""
        for address in addresses:
            self._increments.pop(address, None)

    def index(self, age_s: float) -> Known[float] | Unknown:
        """Variance over mean of the arrivals at all gateways.

        A gateway that gets a random share p of the arrivals sees D_i - 1 = p (D - 1), so D - 1 is the sum of these.

        Args:
            age_s: of the newest increment.
        """
        excess, most, arrivals = 0.0, 0, 0.0
        for increments in self._increments.values():
            most = max(most, len(increments))
            arrivals += sum(one.count for one in increments)
            index = _index(list(increments))
            if index is not None:
                excess += index - 1.0
        if most < LEAST_INCREMENTS:
            return Unknown(f"{most} increments of the arrivals so far, {LEAST_INCREMENTS} are needed")
        if arrivals <= 0:
            return Unknown("no arrivals to take it from")
        return Known(max(0.0, 1.0 + excess), age_s)


def _index(increments: list[Increment]) -> float | None:
    """Of one gateway; None with too few increments or arrivals."""
    span = math.fsum(one.end_s - one.start_s for one in increments)
    arrivals = math.fsum(one.count for one in increments)
    if len(increments) < LEAST_INCREMENTS or arrivals <= 0:
        return None
    squares = []
    for one, other in pairwise(increments):
        if one.end_s == other.start_s:
            long, short = one.end_s - one.start_s, other.end_s - other.start_s
            step = one.count / long - other.count / short
            squares.append(step**2 / (1.0 / long + 1.0 / short))
    if len(squares) < LEAST_INCREMENTS - 1:
        return None
    return math.fsum(squares) / len(squares) / (arrivals / span)
