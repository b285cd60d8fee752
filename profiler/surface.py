"""Two-dimensional table: ITL against running requests and the KV tokens they hold.

Measured points become knots of a grid. Nodes between are filled by physics. Along a row of equal context a
step is linear in KV; between rows it is linear in 1/context at equal KV, which is linear in the batch. Each
node is then clipped to what the measured points below and above it allow, and a cumulative maximum over both
axes follows; neither can move a measured point, since all nodes below it were clipped to at most its value.

Each cell is read as two triangles that meet on the diagonal along which batch and KV grow together. Rows of
equal context run that way, so what is linear along a row stays linear; a bilinear cell would mix in its other
two corners, which no sweep comes near. On both triangles the slopes are differences of neighbouring nodes, so
nodes that grow along both axes give a surface that does.
"""

from __future__ import annotations

from functools import cached_property

import numpy as np
from numpy.typing import ArrayLike, NDArray

from profiler.estimate import Estimate, LeaveOneOut, Where, leave_one_out
from profiler.monotone import isotonic_partial
from profiler.roofline import Roofline
from profiler.rows import Rows
from profiler.step_cost import StepCost


class DecodeSurface:
    """ITL in milliseconds, non-decreasing in batch and in KV tokens, exact at consistent measured points.

    Beyond the measured contexts, batches or KV the surface follows the step's cost (`step_cost`): rooflines
    as floors, calibrated by the measured points. It never follows the slope of the last two samples.

    Args:
        batch: shape (n,), requests that ran together (whole worker), positive.
        kv_tokens: shape (n,), KV tokens that they held together, positive.
        itl_ms: shape (n,), positive; repeats of a point in any order are reduced to their median.
        roofline: speed of light of the worker; None when not known.
        kv_capacity_tokens: adds the knot where the KV cache is full; None when not known.
        stream_ms: that the front end takes to stream one token; ITL is never less than that of all requests.

    Raises:
        ValueError: no points, different lengths, or something is not finite and positive.
    """

    def __init__(
        self,
        batch: ArrayLike,
        kv_tokens: ArrayLike,
        itl_ms: ArrayLike,
        roofline: Roofline | None = None,
        kv_capacity_tokens: float | None = None,
        stream_ms: float = 0.0,
    ) -> None:
        b, kv, itl = (np.asarray(a, dtype=np.float64).ravel() for a in (batch, kv_tokens, itl_ms))
        if not len(b) == len(kv) == len(itl) or len(b) == 0:
            raise ValueError(f"a surface needs equally many values, at least one: {len(b)}, {len(kv)}, {len(itl)}")
        for values in (b, kv, itl):
            if not (np.isfinite(values).all() and (values > 0).all()):
                raise ValueError("batches, KV tokens and times must be finite and positive")
        self._roofline, self._capacity, self.stream_ms = roofline, kv_capacity_tokens, stream_ms
        points, index = np.unique(np.column_stack([b, kv]), axis=0, return_inverse=True)
        index = index.ravel()
        self._samples = [itl[index == i] for i in range(len(points))]
        #: measured points, shape (points, 2): batch and KV tokens.
        self.points: NDArray[np.float64] = points
        #: median of the repeats of each point.
        self.medians_ms = np.array([float(np.median(sample)) for sample in self._samples])
        #: the medians made non-decreasing in both; what the surface goes through.
        self.knots_ms = isotonic_partial(points, self.medians_ms)
        #: cost of a step, calibrated by the points.
        self.cost = StepCost.fit(points[:, 0], points[:, 1], self.medians_ms, roofline)
        self._rows = Rows(points[:, 0], points[:, 1], self.knots_ms, self.cost)
        self._build()

    def _build(self) -> None:
        batches = np.unique(np.append(self.points[:, 0], 1.0))
        if len(batches) == 1:
            batches = np.append(batches, 2.0)  # a surface needs a second knot
        kv = np.unique(np.append(self.points[:, 1], [0.0] + ([self._capacity] if self._capacity else [])))
        nodes = self._rows.fill(batches, kv)
        at = np.searchsorted(batches, self.points[:, 0]), np.searchsorted(kv, self.points[:, 1])
        low, high = np.full_like(nodes, -np.inf), np.full_like(nodes, np.inf)
        low[at] = high[at] = self.knots_ms
        low = _both(np.maximum, low)
        high = _both(np.minimum, high[::-1, ::-1])[::-1, ::-1]
        self._batches, self._kv = batches, kv
        self._nodes = _both(np.maximum, np.clip(nodes, low, high))
        # One efficiency for everything beyond the grid's upper sides: that of its far corner. A factor that
        # differed from side to side could fall along the other axis, and the surface with it.
        self._beyond = float(self._nodes[-1, -1] / self.cost.ms(batches[-1], kv[-1]))

    @property
    def contexts(self) -> NDArray[np.float64]:
        """KV tokens per request of the measured rows, increasing; about equal contexts are one row."""
        return self._rows.contexts

    def itl_ms(self, batch: ArrayLike, kv_tokens: ArrayLike) -> NDArray[np.float64]:
        """ITL in milliseconds for `batch` running requests that hold `kv_tokens` together (broadcast).

        A batch below 1 counts as 1 and KV below 0 as 0; nan stays nan.
        """
        b, kv = np.broadcast_arrays(np.asarray(batch, dtype=np.float64), np.asarray(kv_tokens, dtype=np.float64))
        # The other form of clip (np.clip) is slower on scalars, of which the planner asks many.
        x = np.minimum(np.maximum(b, self._batches[0]), self._batches[-1])
        y = np.minimum(np.maximum(kv, self._kv[0]), self._kv[-1])
        i = np.minimum(np.searchsorted(self._batches, x, side="right") - 1, len(self._batches) - 2)
        j = np.minimum(np.searchsorted(self._kv, y, side="right") - 1, len(self._kv) - 2)
        x0, y0 = self._batches[i], self._kv[j]
        t = (x - x0) / (self._batches[i + 1] - x0)
        u = (y - y0) / (self._kv[j + 1] - y0)
        nodes = self._nodes
        low, high = np.minimum(t, u), np.maximum(t, u)
        corner = np.where(t >= u, nodes[i + 1, j], nodes[i, j + 1])
        value = nodes[i, j] * (1 - high) + corner * (high - low) + nodes[i + 1, j + 1] * low
        if (b > self._batches[-1]).any() or (kv > self._kv[-1]).any():
            further = self.cost.ms(np.maximum(b, x), np.maximum(kv, y)) - self.cost.ms(x, y)
            value = value + self._beyond * further
        return np.asarray(np.maximum(value, self.stream_ms * b) if self.stream_ms else value)

    def where(self, batch: float, kv_tokens: float) -> Where:
        """Where a point lies among the measured rows of equal context."""
        return self._rows.where(batch, kv_tokens)

    def at(self, batch: float, kv_tokens: float) -> Estimate:
        """Value, place and expected error at one point."""
        where = self.where(batch, kv_tokens)
        place = np.log([max(batch, 1e-9), max(kv_tokens, 1e-9)])
        distance = np.hypot(*(np.log(self.points) - place).T)
        error = self.leave_one_out.local(distance, where, nearest=3)
        return Estimate(float(self.itl_ms(batch, kv_tokens)), where, error)

    @cached_property
    def leave_one_out(self) -> LeaveOneOut:
        """Error at each measured point with that point left out; computed on first use."""
        owner = np.repeat(np.arange(len(self.points)), [len(s) for s in self._samples])
        values = np.concatenate(self._samples)

        def without(i: int) -> tuple[float, Where]:
            kept = owner != i
            b, kv = self.points[owner[kept]].T
            rest = DecodeSurface(b, kv, values[kept], self._roofline, self._capacity)
            place = float(self.points[i, 0]), float(self.points[i, 1])
            return float(rest.itl_ms(*place)), rest.where(*place)

        return leave_one_out(self._samples, without)


def _both(extreme: np.ufunc, grid: NDArray[np.float64]) -> NDArray[np.float64]:
    """Cumulative maximum or minimum along both axes of a grid."""
    result: NDArray[np.float64] = extreme.accumulate(extreme.accumulate(grid, axis=0), axis=1)
    return result
