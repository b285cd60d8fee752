"""Latencies between the bounds of a histogram's buckets.

vLLM's buckets are wide where SLAs are set: between 10 and 25 ms there is no bound. Lengths come in round numbers, but
latencies have one smooth hump with a tail to the right, so inside a bucket they are spread as a lognormal distribution
is that has the histogram's exact mean and fits its counts; how many lie in each bucket stays what was counted.
"""

from __future__ import annotations

from functools import cached_property

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.special import ndtr, ndtri

from planner.observe.histogram import Histogram

#: Standard deviations of the logarithm to choose from: 2 % is steadier than any engine, 2.5 a spread of thousands.
_SIGMAS = np.geomspace(0.02, 2.5, 96)

#: Of these the widest is taken whose log-likelihood is so close to the best one (one standard error): what the counts
#: hardly tell apart is taken as worse rather than better for the SLA.
_TELLS = 0.5

#: A bucket in which the fit sees less than this is spread evenly.
_LEAST = 1e-9


class LatencyHistogram(Histogram):
    """A histogram whose values are latencies, in any unit; the same counts, another spread inside the buckets."""

    @classmethod
    def of(cls, histogram: Histogram) -> LatencyHistogram:
        """The same counts as latencies."""
        return cls(histogram.bounds, histogram.counts, histogram.total)

    def scaled(self, factor: float) -> LatencyHistogram:
        """The same values, each times `factor`."""
        return LatencyHistogram.of(super().scaled(factor))

    @cached_property
    def _fit(self) -> tuple[float, float, NDArray[np.float64]] | None:
        """mu, sigma, and the fit's share below each edge, shape (k + 2,); None where nothing can be fitted."""
        if not (np.isfinite(self.total) and self.total > 0 and self.n > 0):
            return None
        edges = np.log(self.bounds)
        mus = np.log(self.mean) - _SIGMAS**2 / 2.0
        inner = ndtr((edges[None, :] - mus[:, None]) / _SIGMAS[:, None])
        below = np.concatenate([np.zeros((len(mus), 1)), inner, np.ones((len(mus), 1))], axis=1)
        likelihood = np.log(np.maximum(np.diff(below, axis=1), 1e-12)) @ self.counts
        place = int(np.flatnonzero(likelihood >= likelihood.max() - _TELLS)[-1])
        return float(mus[place]), float(_SIGMAS[place]), below[place]

    def quantile(self, q: ArrayLike) -> NDArray[np.float64]:
        """Values that shares `q` lie at or below, same shape; needs n > 0."""
        plain = super().quantile(q)
        if self._fit is None:
            return plain
        mu, sigma, below = self._fit
        counted = np.concatenate([[0.0], np.cumsum(self.counts)])
        rank = np.asarray(q, dtype=np.float64) * counted[-1]
        bucket = np.clip(np.searchsorted(counted, rank, side="left") - 1, 0, len(self.counts) - 1)
        count, mass = self.counts[bucket], below[bucket + 1] - below[bucket]
        u = np.where(count > 0, (rank - counted[bucket]) / np.where(count > 0, count, 1.0), 0.0)
        share = below[bucket] + np.clip(u, 0.0, 1.0) * mass
        edges = np.concatenate([[0.0], self.bounds, [np.inf]])
        value = np.exp(mu + sigma * ndtri(np.clip(share, 1e-12, 1.0 - 1e-12)))
        return np.where(mass >= _LEAST, np.clip(value, edges[bucket], edges[bucket + 1]), plain)

    def share_below(self, limit: float) -> float:
        """Share of the values at or below `limit`; needs n > 0."""
        if self._fit is None:
            return super().share_below(limit)
        mu, sigma, below = self._fit
        bucket = int(np.searchsorted(self.bounds, limit, side="right"))
        mass = float(below[bucket + 1] - below[bucket])
        if mass < _LEAST or limit <= 0:
            return super().share_below(limit)
        inside = (float(ndtr((np.log(limit) - mu) / sigma)) - float(below[bucket])) / mass
        return float(self.counts[:bucket].sum() + self.counts[bucket] * min(max(inside, 0.0), 1.0)) / self.n
