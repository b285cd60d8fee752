"""What a line of points says about each of its inner points once that one is left out.

A prefill or transfer table is one line; a decode table is one line per context, along which `DecodeSurface` is linear
in KV. There leave-one-out of the whole surface, which costs a surface per point, comes to the same as leaving out
along the lines but for what the rows beside a line clip.
"""

from __future__ import annotations

import math
import statistics
from dataclasses import dataclass

import numpy as np

from profiler.monotone import isotonic
from profiler.sampling.noise import Measured

#: How many standard errors a deviation must exceed to be more than noise.
_EXPLAINED = 3.0


@dataclass(frozen=True, slots=True)
class Line:
    """Points that are interpolated between each other.

    Attributes:
        x: coordinate along which the table is linear between points, increasing.
        points: measured there, at least one repeat each.
    """

    x: tuple[float, ...]
    points: tuple[Measured, ...]


@dataclass(frozen=True, slots=True)
class LeftOut:
    """An inner point of a line against what its neighbours say.

    Attributes:
        index: of the point on its line.
        raw: mean over its repeats of |predicted - measured| / measured, as a profile states it.
        error: |predicted - median| / median.
        doubt: what of `error` noise of the three medians explains.
    """

    index: int
    raw: float
    error: float
    doubt: float

    @property
    def explained(self) -> bool:
        """Whether noise explains the error."""
        return self.error <= self.doubt


def left_out(line: Line) -> list[LeftOut]:
    """Each inner point left out in turn; empty for fewer than three points."""
    x, medians = np.array(line.x), np.array([point.median for point in line.points])
    found = []
    for i in range(1, len(x) - 1):
        kept = np.arange(len(x)) != i
        predicted = float(np.interp(x[i], x[kept], isotonic(medians[kept])))
        measured = line.points[i]
        weight = (x[i] - x[i - 1]) / (x[i + 1] - x[i - 1])
        parts = (
            measured.standard_error,
            (1 - weight) * line.points[i - 1].standard_error * medians[i - 1] / measured.median,
            weight * line.points[i + 1].standard_error * medians[i + 1] / measured.median,
        )
        raw = statistics.fmean(abs(predicted - value) / value for value in measured.values)
        error = abs(predicted - measured.median) / measured.median
        found.append(LeftOut(i, raw, error, _EXPLAINED * math.hypot(*map(float, parts))))
    return found


def left_out_line(line: Line, shorter: Line, longer: Line) -> float | None:
    """Mean relative error of a row of one context predicted from the rows of a shorter and a longer context.

    At equal KV a step is linear in the batch between rows; only points whose KV both other rows reach are compared.
    What noise explains is taken off.

    Args:
        line: x is KV tokens, as in the others; the points are of table decode.
        shorter: row of the next shorter context.
        longer: row of the next longer context.

    Returns:
        None when no point can be compared.
    """
    errors = []
    for kv, point in zip(line.x, line.points, strict=True):
        if not all(other.x[0] <= kv <= other.x[-1] for other in (shorter, longer)):
            continue
        ends = [(kv / context_of(other), *_read(other, kv)) for other in (longer, shorter)]
        (low, low_ms, low_error), (high, high_ms, high_error) = ends
        share = (point.point.at[0] - low) / (high - low)
        predicted = low_ms + share * (high_ms - low_ms)
        doubt = math.hypot(
            point.standard_error * point.median, (1 - share) * low_error * low_ms, share * high_error * high_ms
        )
        errors.append(max(abs(predicted - point.median) - doubt, 0.0) / point.median)
    return statistics.fmean(errors) if errors else None


def context_of(line: Line) -> float:
    """KV tokens per request of a row of decode points."""
    batch, kv = line.points[0].point.at
    return kv / batch


def _read(line: Line, x: float) -> tuple[float, float]:
    """Value of a line at `x`, and the relative standard error of its nearest point."""
    value = float(np.interp(x, line.x, [point.median for point in line.points]))
    nearest = min(range(len(line.x)), key=lambda i: abs(line.x[i] - x))
    return value, line.points[nearest].standard_error
