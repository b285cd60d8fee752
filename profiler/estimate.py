"""One interpolated value with where it lies and how wrong it may be."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from enum import StrEnum

import numpy as np
from numpy.typing import NDArray

from profiler.schema import TableError


class Where(StrEnum):
    """Where a point lies in a table.

    inside: measured on all sides. edge: in the first or the last measured interval, whose end points cannot
        be checked by leaving them out. outside: beyond what was measured; the value follows a roofline.
    """

    INSIDE = "inside"
    EDGE = "edge"
    OUTSIDE = "outside"


@dataclass(frozen=True, slots=True)
class Estimate:
    """A value read from a table.

    Attributes:
        value: milliseconds.
        where: inside, edge or outside.
        error: relative error to expect, from leaving out the nearest points; None when too few points were
            measured.
    """

    value: float
    where: Where
    error: float | None


@dataclass(frozen=True)
class LeaveOneOut:
    """What a table predicts for each of its own points once that point is left out.

    Attributes:
        relative: shape (points,), mean over the point's repeats of |predicted - measured| / measured; nan
            where the point is the only one.
        interior: shape (points,), whether measured neighbours remained on all sides. The others are predicted
            from outside, so their error is that of extrapolating by one interval.
        of_medians: shape (points,), |predicted - median| / median of the point's repeats: what is left of the error
            where repeats scatter by themselves.
    """

    relative: NDArray[np.float64]
    interior: NDArray[np.bool_]
    of_medians: NDArray[np.float64]

    @property
    def summary(self) -> TableError | None:
        """Mean and worst over the interior points; None when there are none."""
        inner = self.relative[self.interior]
        if len(inner) == 0:
            return None
        of_medians = float(self.of_medians[self.interior].mean())
        return TableError(
            mean=float(inner.mean()), worst=float(inner.max()), points=len(inner), mean_of_medians=of_medians
        )

    def local(self, distance: NDArray[np.float64], where: Where, nearest: int) -> float | None:
        """Error to expect at a place, from the points left out nearest to it.

        Inside it is the mean of the `nearest` interior points. At an edge it is no less than the table's
        mean, since the end point is itself unchecked. Outside it is the error of the nearest point that was
        extrapolated to.

        Args:
            distance: shape (points,), of each point from the place.
            where: where the place lies.
            nearest: how many points to average, outside excepted.
        """
        finite = np.isfinite(self.relative)
        inner, outer = finite & self.interior, finite & ~self.interior
        chosen = (outer if outer.any() else inner) if where is Where.OUTSIDE else (inner if inner.any() else outer)
        if not chosen.any():
            return None
        candidates = self.relative[chosen]
        # Beyond one end the error of extrapolating at the other end says nothing.
        count = 1 if where is Where.OUTSIDE else nearest
        error = float(candidates[np.argsort(distance[chosen], kind="stable")[:count]].mean())
        if where is Where.INSIDE:
            return error
        return max(error, float(self.relative[inner].mean())) if inner.any() else error


def leave_one_out(
    samples: list[NDArray[np.float64]], predict_without: Callable[[int], tuple[float, Where]]
) -> LeaveOneOut:
    """Leave out each point with all its repeats, predict it from the others, compare with the raw samples.

    Args:
        samples: repeats of each point.
        predict_without: value and place of point i in the table built without it.
    """
    relative, of_medians = np.full(len(samples), np.nan), np.full(len(samples), np.nan)
    interior = np.zeros(len(samples), dtype=np.bool_)
    if len(samples) > 1:
        for i, measured in enumerate(samples):
            value, where = predict_without(i)
            relative[i] = np.mean(np.abs(value - measured) / measured)
            of_medians[i] = abs(value / np.median(measured) - 1.0)
            interior[i] = where is not Where.OUTSIDE
    return LeaveOneOut(relative, interior, of_medians)
