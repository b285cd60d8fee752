"""Dynamo's lookups into a profile: cubic curves over ISL, and a 100 x 100 grid over KV usage and context length.

What `planner/utils/perf_interpolation.py` of ai-dynamo 0.7 to 0.8 computes, flaws included (the cubic TTFT need not
rise with ISL, and a large part of the grid is filled from the nearest sample), on every raw sample, suspect ones too.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from profiler.csvfile import Samples
from profiler.errors import InputError
from profiler.tables import Profile

#: Nodes of each axis of the grid, as in Dynamo.
RESOLUTION = 100

_Array = NDArray[np.float64]


class PrefillLookup:
    """TTFT and throughput of prefill against ISL: cubic splines through the samples, held at their ends.

    Args:
        profile: with a prefill table. Repeats of one ISL are averaged: Dynamo's tables hold one sample per point, and
            its spline refuses two.

    Raises:
        InputError: the profile has no prefill table, or fewer than the four points of a cubic.
    """

    def __init__(self, profile: Profile) -> None:
        from scipy.interpolate import interp1d  # noqa: PLC0415 - slow to import, and only this policy needs it

        rows = table_rows(profile, "prefill", "dynamo-classic")
        isl, ttft_ms = rows["isl"], rows["ttft_ms"]
        computed = isl / ttft_ms * 1000.0 / profile.meta.gpu.count_per_worker
        at, place = np.unique(isl, return_inverse=True)
        if len(at) < 4:
            raise InputError(
                f"{len(at)} prompt lengths",
                expected="at least 4, for the cubic interpolation of dynamo-classic",
                source=profile.path / "prefill.csv",
            )
        self._shortest, self._longest = float(at[0]), float(at[-1])
        self._ttft_ms = interp1d(at, _mean_at(place, ttft_ms), kind="cubic")
        self._throughput = interp1d(at, _mean_at(place, _throughput(rows, computed)), kind="cubic")

    def ttft_ms(self, isl: float) -> float:
        """TTFT of a lone prompt, ms."""
        return float(self._ttft_ms(self._held(isl)))

    def throughput(self, isl: float) -> float:
        """Prompt tokens per second and GPU."""
        return float(self._throughput(self._held(isl)))

    def _held(self, isl: float) -> float:
        return max(self._shortest, min(isl, self._longest))


class Operating(NamedTuple):
    """A cell of the decode grid: tokens per second and GPU, ITL in ms, share of the KV cache in use."""

    throughput: float
    itl_ms: float
    kv_usage: float


class DecodeLookup:
    """ITL and throughput of decode on a grid over KV usage (0 to 1) and context length (0 to the longest sampled).

    Cubic between the samples (`griddata`), the nearest sample outside their hull; a lookup takes the nearest cell.

    Args:
        profile: with a decode table and a known KV capacity.

    Raises:
        InputError: the profile has no decode table or no KV capacity, or its samples do not span an area.
    """

    def __init__(self, profile: Profile) -> None:
        rows = table_rows(profile, "decode", "dynamo-classic")
        capacity = profile.meta.kv_capacity_tokens
        if capacity is None:
            raise InputError(
                "missing, and dynamo-classic looks decode up by KV usage",
                expected="the tokens of KV cache of one worker",
                source=profile.path / "profile.json",
                field="kv_capacity_tokens",
            )
        self._capacity = float(capacity)
        context = rows["context_tokens"]
        usage = rows["kv_tokens"] / self._capacity
        if "kv_usage" in rows:
            usage = np.where(np.isnan(rows["kv_usage"]), usage, rows["kv_usage"])
        computed = rows["batch"] / rows["itl_ms"] * 1000.0 / profile.meta.gpu.count_per_worker
        self.kv_axis = np.linspace(0.0, 1.0, RESOLUTION)
        self.context_axis = np.linspace(0.0, float(context.max()), RESOLUTION)
        fill = _filler(profile, usage, context, self.kv_axis, self.context_axis)
        #: Cells by (context length, KV usage), shape (100, 100).
        self.itl_grid = fill(rows["itl_ms"])
        self.throughput_grid = fill(_throughput(rows, computed))

    def itl_ms(self, concurrency: float, context: float) -> float:
        """ITL in ms when `concurrency` requests of `context` tokens run on one worker."""
        usage = concurrency * context / self._capacity
        return float(self.itl_grid[self._row(context), _nearest(self.kv_axis, usage)])

    def best(self, itl_ms: float, context: float) -> Operating:
        """The fullest cell whose ITL is within `itl_ms` at this context length; the emptiest when none is."""
        row = self._row(context)
        within = np.flatnonzero(self.itl_grid[row] <= itl_ms)
        # From 1.0 downward: the ITL of the grid may dip again, so a bisection would stop elsewhere.
        column = int(within[-1]) if len(within) else 0
        return Operating(
            float(self.throughput_grid[row, column]),
            float(self.itl_grid[row, column]),
            float(self.kv_axis[column]),
        )

    def _row(self, context: float) -> int:
        return _nearest(self.context_axis, context)


def _nearest(axis: _Array, value: float) -> int:
    """Index of the nearest node of an even axis, held at its ends; halves go to the even index, as in Dynamo."""
    return int(np.clip(np.round((value - axis[0]) / (axis[1] - axis[0])), 0, len(axis) - 1))


def table_rows(profile: Profile, name: str, policy: str) -> Samples:
    """A profile's samples of one table.

    Raises:
        InputError: it has none; says which policy needs them.
    """
    rows = {str(table): samples for table, samples in profile.samples.items()}.get(name)
    if rows is None:
        raise InputError(f"missing, and {policy} needs it for {name}", source=profile.path / f"{name}.csv")
    return rows


def _throughput(rows: Samples, computed: _Array) -> _Array:
    """Measured tokens per second and GPU; where it was not recorded, what Dynamo's profiler computes from the time."""
    measured = rows.get("throughput_tokens_per_s_per_gpu")
    return computed if measured is None else np.where(np.isnan(measured), computed, measured)


def _mean_at(place: NDArray[np.int64], values: _Array) -> _Array:
    return np.asarray(np.bincount(place, weights=values) / np.bincount(place))


def _filler(
    profile: Profile, usage: _Array, context: _Array, kv_axis: _Array, context_axis: _Array
) -> Callable[[_Array], _Array]:
    """A function from a column of the samples to its grid."""
    from scipy.interpolate import griddata  # noqa: PLC0415 - slow to import, and only this policy needs it
    from scipy.spatial import QhullError  # noqa: PLC0415

    points = np.column_stack((usage, context))
    kv, tokens = np.meshgrid(kv_axis, context_axis)

    def fill(values: _Array) -> _Array:
        try:
            grid = np.asarray(griddata(points, values, (kv, tokens), method="cubic"), dtype=np.float64)
        except QhullError:
            raise InputError(
                "the samples do not span an area of KV usage and context length",
                expected="at least two context lengths with several loads each",
                source=profile.path / "decode.csv",
            ) from None
        outside = np.isnan(grid)
        nearest = griddata(points, values, (kv, tokens), method="nearest")
        grid[outside] = np.asarray(nearest)[outside]
        return grid

    return fill


def finite(*values: float) -> bool:
    """Whether every value is a number; NaN and infinities are not."""
    return all(math.isfinite(value) for value in values)
