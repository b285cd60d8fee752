"""What a Prometheus histogram of completed requests tells: mean, quantiles, the share below a limit, a sample.

Within a bucket nothing is known of where values lie, and spreading them evenly is biased where a limit falls inside a
wide bucket. The sum is exported too, though, so the mean is known exactly: values within every bucket are taken as
lo + (hi - lo) u^g with u uniform, the one g for all buckets being chosen so that the mean comes out right. As
E[u^g] = 1 / (1 + g), it has a closed form: sum = sum_i c_i lo_i + 1 / (1 + g) sum_i c_i (hi_i - lo_i). g = 1 is even
spread; g = 0 puts every value on its bucket's upper bound, which is where round numbers (an ISL of 1000) lie.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import ArrayLike, NDArray

#: How far outside 0 to 1 rounding may put E[u^g]; further out the sum does not belong to the buckets.
SLACK = 0.02


@dataclass(frozen=True, eq=False)
class Histogram:
    """Counts by bucket.

    Attributes:
        bounds: finite upper bounds, rising; shape (k,), k >= 1. The first bucket starts at 0.
        counts: values in each bucket, the last above every bound; shape (k + 1,).
        total: sum of the values; NaN where it is not known.
    """

    bounds: NDArray[np.float64]
    counts: NDArray[np.float64]
    total: float

    @property
    def n(self) -> float:
        """How many values."""
        return float(self.counts.sum())

    @property
    def mean(self) -> float:
        """Sum over count; NaN where either is missing."""
        return self.total / self.n if self.n > 0 else float("nan")

    def scaled(self, factor: float) -> Histogram:
        """The same values, each times `factor`."""
        return Histogram(self.bounds * factor, self.counts, self.total * factor)

    @cached_property
    def _shape(self) -> tuple[NDArray[np.float64], NDArray[np.float64], float]:
        """Lower edges and widths of the k + 1 buckets, and g.

        Values above the last bound have no upper edge. They are spread evenly above it, as wide as what the other
        buckets, evenly spread, leave of the sum. Where that leaves nothing, or the sum is not known, a quantile among
        them is the last bound, and they count as above any limit.
        """
        lower = np.concatenate([[0.0], self.bounds])
        width = np.append(np.diff(lower), 0.0)
        over = float(self.counts[-1])
        if not np.isfinite(self.total):
            return lower, width, 1.0
        if over > 0:
            rest = self.total - float(np.dot(self.counts, lower + width / 2))
            if rest > 0:
                width[-1] = 2.0 * rest / over
                return lower, width, 1.0
        spread = float(np.dot(self.counts, width))
        if spread <= 0:
            return lower, width, 1.0
        place = (self.total - float(np.dot(self.counts, lower))) / spread
        if not -SLACK <= place <= 1.0 + SLACK:
            return lower, width, 1.0
        place = min(max(place, 1e-6), 1.0)
        return lower, width, 1.0 / place - 1.0

    def quantile(self, q: ArrayLike) -> NDArray[np.float64]:
        """Values that shares `q` lie at or below, same shape; needs n > 0."""
        lower, width, power = self._shape
        below = np.concatenate([[0.0], np.cumsum(self.counts)])
        rank = np.asarray(q, dtype=np.float64) * below[-1]
        bucket = np.clip(np.searchsorted(below, rank, side="left") - 1, 0, len(self.counts) - 1)
        count = self.counts[bucket]
        u = np.where(count > 0, (rank - below[bucket]) / np.where(count > 0, count, 1.0), 0.0)
        return np.asarray(lower[bucket] + width[bucket] * np.clip(u, 0.0, 1.0) ** power)

    def share_below(self, limit: float) -> float:
        """Share of the values at or below `limit`; needs n > 0."""
        lower, width, power = self._shape
        bucket = int(np.searchsorted(self.bounds, limit, side="right"))
        inside = float(self.counts[:bucket].sum())
        if self.counts[bucket] > 0 and limit > lower[bucket] and width[bucket] > 0:
            reach = min((limit - lower[bucket]) / width[bucket], 1.0)
            # g = 0: all on the upper bound, which a limit inside the bucket does not reach.
            u = reach ** (1.0 / power) if power > 0 else float(reach >= 1.0)
            inside += float(self.counts[bucket]) * u
        return inside / self.n

    def sample(self, n: int) -> NDArray[np.float64]:
        """Values that stand for all, one per equal stratum, rising; shape (n,)."""
        return self.quantile((np.arange(n) + 0.5) / n)


def from_cumulative(counts: Mapping[float, float], total: float) -> Histogram | None:
    """A histogram from counts at or below each bound, as Prometheus exports them; None without a finite bound.

    Args:
        counts: by upper bound, +Inf included. A scrape is not one instant, so they may fall by a request; they are read
            as not falling.
        total: sum of the values.
    """
    bounds = sorted(counts)
    if len(bounds) < 2 or bounds[-1] != float("inf"):
        return None
    cumulative = np.maximum.accumulate(np.array([counts[bound] for bound in bounds], dtype=np.float64))
    return Histogram(np.array(bounds[:-1], dtype=np.float64), np.diff(cumulative, prepend=0.0), total)


def merge(parts: Sequence[tuple[Mapping[float, float], float]]) -> Histogram | None:
    """Several instances' cumulative counts and sums as one histogram.

    Instances of different releases may have different buckets; only the bounds that all share are exact, and kept.
    """
    if not parts:
        return None
    shared = set.intersection(*(set(counts) for counts, _ in parts))
    counts = {bound: sum(part[bound] for part, _ in parts) for bound in shared}
    return from_cumulative(counts, sum(total for _, total in parts))


@dataclass(frozen=True, eq=False)
class SumOf:
    """Values that are the sum of one from each of two histograms, taken as independent of each other."""

    first: Histogram
    second: Histogram

    #: Strata of each histogram; all pairs stand for the sum.
    strata = 256

    @cached_property
    def _sums(self) -> NDArray[np.float64]:
        return np.sort(np.add.outer(self.first.sample(self.strata), self.second.sample(self.strata)), axis=None)

    @property
    def mean(self) -> float:
        """Mean of the sum, exact whatever the dependence."""
        return self.first.mean + self.second.mean

    def quantile(self, q: ArrayLike) -> NDArray[np.float64]:
        """As `Histogram.quantile`."""
        return np.asarray(np.quantile(self._sums, np.asarray(q, dtype=np.float64)))

    def share_below(self, limit: float) -> float:
        """As `Histogram.share_below`."""
        return float(np.searchsorted(self._sums, limit, side="right")) / len(self._sums)
