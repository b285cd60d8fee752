"""What a prefill table with the engine's own clock says beyond TTFT: the front end, attention, launches, and savings.

`server_ms` runs from when a prompt is scheduled to its first token. What a client sees beyond it passes outside the
engine's loop.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.typing import ArrayLike, NDArray

from profiler.csvfile import Samples
from profiler.curve import PrefillCurve

Array = NDArray[np.float64]

#: Repeats of a point that lie further apart, largest to smallest, tell nothing small beside what they measure.
WIDEST_SPREAD = 1.25


def column_is(rows: Samples, name: str, value: float) -> NDArray[np.bool_]:
    """Where an optional column of a prefill table has this value; all rows where there is no such column."""
    return rows[name] == value if name in rows else np.ones(len(rows["isl"]), dtype=np.bool_)


def lone(rows: Samples) -> NDArray[np.bool_]:
    """Rows of a prefill table with one prompt and no prefix hit, shape (rows,)."""
    return column_is(rows, "batch", 1) & column_is(rows, "prefix_hit_tokens", 0)


def has_engine_clock(rows: Samples) -> bool:
    """Whether the engine's own clock was read for lone prompts of a prefill table."""
    return "server_ms" in rows and bool(np.isfinite(rows["server_ms"][lone(rows)]).any())


def front_end(rows: Samples) -> tuple[float, float]:
    """TTFT outside the engine's loop: ms, and ms per prompt token; neither below 0.

    Theil-Sen: the median of the slopes between any two lone prompts, and the median of what is left. Single requests
    are late for reasons of their own.

    Args:
        rows: a prefill table that has the engine's clock.
    """
    from scipy.stats import theilslopes  # noqa: PLC0415 - takes longer to import than the rest of the package

    both = np.isfinite(rows["server_ms"]) & column_is(rows, "batch", 1)
    isl, outside = rows["isl"][both], (rows["ttft_ms"] - rows["server_ms"])[both]
    slope = max(0.0, float(theilslopes(outside, isl).slope)) if len(np.unique(isl)) > 1 else 0.0
    return max(0.0, float(np.median(outside - slope * isl))), slope


def attention_share(curve: PrefillCurve, longest: int) -> float:
    """alpha, ms per token^2: the least-squares quadratic term, held so that L stays non-decreasing.

    Bounded below by 0 and above by the smallest slope of T over (n_i + n_{i+1}) between sampled lengths.
    """
    lengths = np.unique(np.linspace(longest / 64, longest, 64).astype(np.int64)).astype(np.float64)
    times = curve.ttft_ms(lengths)
    if len(lengths) < 3:
        return 0.0
    quadratic = float(np.polyfit(lengths, times, 2)[0])
    ceiling = float(np.min(np.diff(times) / np.diff(lengths**2)))
    return max(0.0, min(quadratic, ceiling))


def engine_curve(rows: Samples, curve: Callable[[ArrayLike, ArrayLike], PrefillCurve]) -> PrefillCurve:
    """Time of lone prompts by the engine's clock against their length, from those with prefix hits, too.

    n new tokens behind h cached ones take L(n) + alpha ((h + n)^2 - h^2), which is 2 alpha h n more than n tokens
    alone. Alpha comes from the prompts without hits. A hit that was measured on a block's eviction is a prompt without
    one: points whose repeats disagree are left out.

    Args:
        rows: a prefill table that has the engine's clock.
        curve: makes a curve of lengths and times.
    """
    known = np.isfinite(rows["server_ms"])
    without = lone(rows) & known
    plain = curve(rows["isl"][without], rows["server_ms"][without])
    if "prefix_hit_tokens" not in rows:
        return plain
    with_hit = column_is(rows, "batch", 1) & (rows["prefix_hit_tokens"] > 0) & known
    at = np.column_stack([rows["isl"][with_hit], rows["prefix_hit_tokens"][with_hit]])
    points, value = agreeing(at, rows["server_ms"][with_hit])
    isl, hit = points.T
    alpha = attention_share(plain, int(rows["isl"].max()))
    alone = value - 2.0 * alpha * hit * (isl - hit)
    kept = alone > 0
    return curve(
        np.concatenate([rows["isl"][without], (isl - hit)[kept]]),
        np.concatenate([rows["server_ms"][without], alone[kept]]),
    )


def agreeing(at: Array, values: Array) -> tuple[Array, Array]:
    """Points whose repeats lie within `WIDEST_SPREAD` of each other, and the medians of these.

    Args:
        at: coordinates, shape (rows, columns).
        values: shape (rows,), positive.

    Returns:
        Shapes (points, columns) and (points,).
    """
    points, index = np.unique(at, axis=0, return_inverse=True)
    groups = [values[index.ravel() == point] for point in range(len(points))]
    kept = np.array([group.max() <= WIDEST_SPREAD * group.min() for group in groups], dtype=np.bool_)
    return points[kept], np.array([float(np.median(group)) for group in groups])[kept]


def convex_below(values: Array) -> Array:
    """The largest convex function on equally spaced nodes that is nowhere above `values`; shape (n,)."""
    kept: list[int] = []
    for i in range(len(values)):
        while len(kept) > 1 and _is_above(values, kept[-2], kept[-1], i):
            kept.pop()
        kept.append(i)
    return np.interp(np.arange(len(values)), kept, values[kept])


def _is_above(values: Array, a: int, b: int, c: int) -> bool:
    """Whether point b lies on or above the line from a to c."""
    return bool((values[b] - values[a]) * (c - a) >= (values[c] - values[a]) * (b - a))
