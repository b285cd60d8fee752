"""Iterations of an aggregated worker that hold decode steps and a chunk of prefill."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray

from profiler.affine import fit_cost
from profiler.monotone import isotonic_partial


class MixedTable:
    """Milliseconds of one iteration against prefill tokens in it, requests decoding and KV tokens held.

    A non-negative affine cost is fitted to the points and clipped, at each place, to the largest measured
    value below it and the smallest above it. All three grow with each argument, so the result does, and at a
    consistent measured point both bounds are its value.

    Args:
        prefill_tokens: shape (n,), not negative.
        batch: shape (n,), not negative.
        kv_tokens: shape (n,), not negative.
        iteration_ms: shape (n,), positive.

    Raises:
        ValueError: no points or different lengths.
    """

    def __init__(
        self, prefill_tokens: ArrayLike, batch: ArrayLike, kv_tokens: ArrayLike, iteration_ms: ArrayLike
    ) -> None:
        columns = [np.asarray(a, dtype=np.float64).ravel() for a in (prefill_tokens, batch, kv_tokens)]
        values = np.asarray(iteration_ms, dtype=np.float64).ravel()
        if len(values) == 0 or any(len(column) != len(values) for column in columns):
            raise ValueError("a mixed table needs equally many values in each column, at least one")
        points, index = np.unique(np.column_stack(columns), axis=0, return_inverse=True)
        medians = np.array([float(np.median(values[index.ravel() == i])) for i in range(len(points))])
        #: measured points, shape (points, 3).
        self.points: NDArray[np.float64] = points
        #: medians of their repeats, made non-decreasing in each coordinate.
        self.knots_ms = isotonic_partial(points, medians)
        self._cost = fit_cost(points, medians)

    def iteration_ms(self, prefill_tokens: ArrayLike, batch: ArrayLike, kv_tokens: ArrayLike) -> NDArray[np.float64]:
        """Milliseconds of an iteration (broadcast)."""
        place = np.stack(np.broadcast_arrays(*(np.asarray(a, np.float64) for a in (prefill_tokens, batch, kv_tokens))))
        low, high = np.full(place.shape[1:], -np.inf), np.full(place.shape[1:], np.inf)
        for point, value in zip(self.points, self.knots_ms, strict=True):
            at = point.reshape(3, *[1] * (place.ndim - 1))
            low = np.where((place >= at).all(axis=0), np.maximum(low, value), low)
            high = np.where((place <= at).all(axis=0), np.minimum(high, value), high)
        cost = self._cost[0] + np.tensordot(self._cost[1:], place, axes=1)
        return np.asarray(np.clip(cost, low, high))
