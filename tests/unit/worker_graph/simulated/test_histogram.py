"""Many observations at once count as one by one."""

import bisect

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from worker_graph.simulated.histogram import Histogram

EDGES = (0.01, 0.025, 0.05, 0.1)


def test_an_edge_belongs_to_its_bucket() -> None:
    histogram = Histogram(EDGES)
    for value in (0.01, 0.0100001, 0.1, 0.2):
        histogram.observe(value)
    assert histogram.cumulative() == [1, 2, 2, 3, 4]


@given(st.floats(0.001, 0.2), st.floats(-1e-3, 1e-3), st.integers(1, 200), st.integers(1, 50), st.sampled_from(EDGES))
def test_a_series_counts_as_its_values(first: float, growth: float, steps: int, count: int, edge: float) -> None:
    first = max(first, 1e-6 - growth * steps)
    histogram = Histogram(EDGES)
    histogram.observe_series(first, growth, steps, count)
    values = first + growth * np.arange(steps)
    assert sum(histogram.counts) == steps * count
    assert min(histogram.counts) >= 0
    assert histogram.sum == pytest.approx(values.sum() * count)
    # A value on an edge may fall to either side: rounding.
    clear = np.abs(values - edge) > 1e-9
    below, place = int((values[clear] < edge).sum()), bisect.bisect_left(EDGES, edge)
    assert below * count <= histogram.cumulative()[place] <= (below + int((~clear).sum())) * count
