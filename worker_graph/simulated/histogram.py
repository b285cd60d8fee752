"""A histogram that takes many observations at once: a thousand equal ones, or an arithmetic series of them."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Sequence


class Histogram:
    """Counts by upper edge (inclusive, as Prometheus has it), and their sum."""

    __slots__ = ("counts", "edges", "sum")

    def __init__(self, edges: Sequence[float]) -> None:
        self.edges = tuple(edges)
        self.counts = [0] * (len(self.edges) + 1)
        self.sum = 0.0

    def observe(self, value: float, count: int = 1) -> None:
        """`count` observations of one value."""
        self.counts[bisect_left(self.edges, value)] += count
        self.sum += value * count

    def observe_series(self, first: float, growth: float, steps: int, count: int) -> None:
        """The values first, first + growth, … (`steps` of them), each `count` times."""
        last = first + growth * (steps - 1)
        if growth < 0.0:
            first, last, growth = last, first, -growth
        low, high = bisect_left(self.edges, first), bisect_left(self.edges, last)
        self.sum += (first + last) * 0.5 * steps * count
        below = 0
        for place in range(low, high):
            # Values up to this edge; rounding must not move one below the bucket that `first` is in.
            reached = min(steps, max(below, int((self.edges[place] - first) / growth) + 1))
            self.counts[place] += (reached - below) * count
            below = reached
        self.counts[high] += (steps - below) * count

    def cumulative(self) -> list[int]:
        """Counts up to each edge, and of all."""
        total, rows = 0, []
        for count in self.counts:
            total += count
            rows.append(total)
        return rows
