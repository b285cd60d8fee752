"""Time as the planner sees it: wall time times a factor, which is 1 unless the engines are simulated."""

from __future__ import annotations

import datetime as dt
import time
from collections.abc import Callable
from dataclasses import dataclass


@dataclass(frozen=True)
class Clock:
    """The service's one source of time.

    Attributes:
        speed_up: planner seconds per second of wall time.
        wall: gives unix time, s.
        steady: gives seconds that never go back.
    """

    speed_up: float = 1.0
    wall: Callable[[], float] = time.time
    steady: Callable[[], float] = time.monotonic

    def planner_s(self, wall_s: float) -> float:
        """Unix time in planner seconds."""
        return wall_s * self.speed_up

    def iso(self, wall_s: float) -> str:
        """Unix time in ISO 8601, UTC, to the millisecond."""
        return dt.datetime.fromtimestamp(wall_s, dt.UTC).isoformat(timespec="milliseconds")
