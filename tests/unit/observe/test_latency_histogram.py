"""Latencies inside wide buckets: near the truth where plain spreading is far off, and never against the counts."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from planner.observe.histogram import Histogram
from planner.observe.latency_histogram import LatencyHistogram

#: vLLM's, s.
BOUNDS = np.array([0.01, 0.025, 0.05, 0.075, 0.1, 0.15, 0.2, 0.3, 0.4, 0.5, 0.75, 1.0, 2.5, 5.0, 7.5, 10.0, 20.0])


def histogram(values: np.ndarray) -> LatencyHistogram:
    """As vLLM would export these values."""
    counts = np.bincount(np.searchsorted(BOUNDS, values, side="left"), minlength=len(BOUNDS) + 1).astype(np.float64)
    return LatencyHistogram.of(Histogram(BOUNDS, counts, float(values.sum())))


@pytest.mark.parametrize("sigma", [0.05, 0.15, 0.3, 0.6])
@pytest.mark.parametrize("median_s", [0.0065, 0.0095, 0.012, 0.03, 0.6])
@pytest.mark.parametrize("family", ["lognormal", "gamma"])
def test_quantiles_of_one_hump_are_near_the_truth(family: str, median_s: float, sigma: float) -> None:
    random = np.random.default_rng(1)
    if family == "lognormal":
        values = median_s * np.exp(sigma * random.standard_normal(400))
    else:
        values = random.gamma(1 / sigma**2, median_s * sigma**2, 400)
    seen = histogram(values)
    for q in (0.5, 0.9, 0.95):
        # Plain spreading is up to 2.2 times the truth here. Where most lie in one bucket, the fit leans to the worse.
        assert 0.85 <= float(seen.quantile(q)) / float(np.quantile(values, q)) <= 1.2


def test_a_limit_in_a_wide_bucket() -> None:
    # ITLs of 8 to 14 ms, an SLA of 15 ms: every one keeps it, and the bucket from 10 to 25 ms does not say so.
    values = np.random.default_rng(2).uniform(0.008, 0.014, 200)
    seen = histogram(values)
    assert seen.share_below(0.015) > 0.9
    assert float(seen.quantile(0.95)) == pytest.approx(0.0137, rel=0.15)
    assert Histogram.share_below(seen, 0.015) < 0.75, "plain spreading would call it an outage"


def test_without_a_sum_it_is_a_plain_histogram() -> None:
    counts = np.zeros(len(BOUNDS) + 1)
    counts[3] = 10
    seen = LatencyHistogram(BOUNDS, counts, math.nan)
    assert float(seen.quantile(0.5)) == pytest.approx(0.0625)
    assert seen.share_below(0.0625) == pytest.approx(0.5)


@given(
    st.lists(st.floats(1e-4, 40.0), min_size=1, max_size=60),
    st.lists(st.floats(0.0, 1.0), min_size=2, max_size=6),
    st.floats(0.1, 10.0),
)
def test_the_counts_hold_whatever_the_fit(values: list[float], shares: list[float], factor: float) -> None:
    seen = histogram(np.array(values))
    for bound in BOUNDS:
        assert seen.share_below(float(bound)) == pytest.approx(np.mean(np.array(values) <= bound), abs=1e-6)
    quantiles = seen.quantile(np.sort(shares))
    assert np.all(np.diff(quantiles) >= -1e-12)
    assert np.all(np.isfinite(quantiles))
    limits = np.sort(np.concatenate([quantiles, BOUNDS]))
    below = [seen.share_below(float(limit)) for limit in limits]
    assert np.all(np.diff(below) >= -1e-9)
    assert float(seen.scaled(factor).quantile(0.5)) == pytest.approx(factor * float(seen.quantile(0.5)), rel=1e-6)
