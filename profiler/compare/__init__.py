"""Two profiles beside each other: what differs in how they came about, and how far the measured times drifted.

A region drifts by the median relative difference of B against A over the points in it. Every point has an error of its
own in either table, and a drift is significant only where it exceeds what these errors explain together.
"""

from profiler.compare.comparison import Comparison, as_json, compare
from profiler.compare.drift import Region
from profiler.compare.pairs import Layout, expert_parallel, layout_of, layout_words, pair
from profiler.compare.provenance import Difference

__all__ = [
    "Comparison",
    "Difference",
    "Layout",
    "Region",
    "as_json",
    "compare",
    "expert_parallel",
    "layout_of",
    "layout_words",
    "pair",
]
