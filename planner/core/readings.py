"""When a reading may be used."""

from __future__ import annotations

import math
from typing import TypeVar

from planner.core.types import Known, Unknown

T = TypeVar("T")


def usable(reading: Known[T] | Unknown, stale_after_s: float) -> Known[T] | Unknown:
    """The reading, or Unknown where its value is stale or not a number."""
    if isinstance(reading, Unknown):
        return reading
    if not reading.age_s <= stale_after_s:  # an age that is not a number is no better than a great one
        return Unknown(f"stale: {reading.age_s:.0f} s old, {stale_after_s:.0f} s allowed", reading.age_s)
    if isinstance(reading.value, float | int) and not math.isfinite(reading.value):
        return Unknown(f"not a number: {reading.value}", reading.age_s)
    if isinstance(reading.value, float | int) and reading.value < 0:
        return Unknown(f"negative: {reading.value}", reading.age_s)
    return reading
