"""Isotonic regression that stays as close as possible to every point (least largest change).

The midpoint of the running maximum over the points below and the running minimum over the points above is the
L-infinity isotonic regression (Barlow, Bartholomew, Bremner and Brunk, "Statistical Inference under Order
Restrictions", 1972; for partial orders Stout, "Isotonic regression via partitioning", Algorithmica 66, 2013).
Where the data already agrees with the order both bounds are the datum itself, so consistent measurements come
back unchanged, bit for bit.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray


def isotonic(values: ArrayLike) -> NDArray[np.float64]:
    """Make `values`, in the order of one growing coordinate, non-decreasing.

    Args:
        values: shape (n,), finite.

    Raises:
        ValueError: not one-dimensional, or not finite.
    """
    data = _checked(values)
    low = np.minimum.accumulate(data[::-1])[::-1]
    return _middle(np.maximum.accumulate(data), low)


def isotonic_partial(points: ArrayLike, values: ArrayLike) -> NDArray[np.float64]:
    """Make `values` non-decreasing in the partial order of their coordinates.

    Point i is below point j when every coordinate of i is at most that of j; points of equal coordinates
    become equal.

    Args:
        points: shape (n, dimensions), finite.
        values: shape (n,), finite.

    Raises:
        ValueError: the shapes differ or something is not finite.
    """
    data = _checked(values)
    where = np.asarray(points, dtype=np.float64)
    if where.ndim != 2 or len(where) != len(data) or not np.isfinite(where).all():
        raise ValueError(f"points must be finite and of shape ({len(data)}, dimensions), not {where.shape}")
    low, high = np.empty_like(data), np.empty_like(data)
    for i in range(len(data)):
        high[i] = data[(where <= where[i]).all(axis=1)].max()
        low[i] = data[(where >= where[i]).all(axis=1)].min()
    return _middle(high, low)


def _checked(values: ArrayLike) -> NDArray[np.float64]:
    data = np.asarray(values, dtype=np.float64)
    if data.ndim != 1 or not np.isfinite(data).all():
        raise ValueError("values must be finite and of one dimension")
    return data


def _middle(high: NDArray[np.float64], low: NDArray[np.float64]) -> NDArray[np.float64]:
    # Equal bounds are returned as they are: (v + v) / 2 overflows for the largest floats and gains nothing.
    return np.where(high == low, high, low + (high - low) / 2)
