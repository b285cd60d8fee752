"""Figures of a histogram against the values that it was made from."""

from __future__ import annotations

import math

import numpy as np
import pytest

from planner.observe.histogram import Histogram, SumOf, from_cumulative, merge

BOUNDS = np.array([1.0, 2.0, 5.0, 10.0, 20.0])


def made(values: np.ndarray, total: float | None = None) -> Histogram:
    counts = np.histogram(values, np.concatenate([[-1e-9], BOUNDS + 1e-9, [np.inf]]))[0].astype(float)
    return Histogram(BOUNDS, counts, float(values.sum()) if total is None else total)


@pytest.mark.parametrize("seed", range(5))
def test_the_mean_of_the_shape_is_the_exported_mean(seed: int) -> None:
    values = np.minimum(np.random.default_rng(seed).gamma(1.0 + seed, 2.0, 4000), 20.0)
    histogram = made(values)
    assert histogram.sample(20_000).mean() == pytest.approx(values.mean(), rel=1e-3)
    assert histogram.n == 4000


def test_a_limit_inside_a_wide_bucket_is_better_than_linear() -> None:
    # All within (5, 10], close to 5: evenly spread, half of them would miss a limit of 7.5.
    values = 5.0 + 5.0 * np.random.default_rng(1).beta(1, 8, 2000)
    truth = float((values <= 7.5).mean())
    histogram = made(values)
    linear = made(values, total=math.nan)
    assert linear.share_below(7.5) == pytest.approx(0.5)
    assert abs(histogram.share_below(7.5) - truth) < 0.2 < abs(linear.share_below(7.5) - truth)


def test_values_on_a_bound_are_put_on_it() -> None:
    histogram = made(np.full(50, 10.0))
    assert histogram.quantile([0.01, 0.5, 1.0]) == pytest.approx(10.0)
    assert histogram.share_below(9.99) == 0.0
    assert histogram.share_below(10.0) == 1.0


def test_quantile_and_share_are_inverse() -> None:
    histogram = made(np.random.default_rng(3).exponential(4.0, 3000))
    for q in (0.05, 0.3, 0.5, 0.9, 0.95):
        assert histogram.share_below(float(histogram.quantile(q))) == pytest.approx(q, abs=1e-6)


def test_above_the_last_bound_the_sum_says_how_far() -> None:
    histogram = Histogram(BOUNDS, np.array([0.0, 0, 0, 0, 0, 10.0]), 10 * 50.0)
    assert float(histogram.quantile(0.5)) == pytest.approx(50.0)
    assert histogram.share_below(20.0) == 0.0
    assert histogram.share_below(50.0) == pytest.approx(0.5)
    unknown = Histogram(BOUNDS, np.array([5.0, 0, 0, 0, 0, 5.0]), math.nan)
    assert float(unknown.quantile(0.9)) == 20.0
    assert unknown.share_below(1e9) == 0.5


def test_a_sum_that_does_not_belong_to_the_buckets_leaves_even_spread() -> None:
    counts = np.array([0.0, 0, 100, 0, 0, 0])
    for total in (100.0, 900.0, math.nan, math.inf):
        assert float(Histogram(BOUNDS, counts, total).quantile(0.5)) == pytest.approx(3.5)


def test_merging_keeps_what_all_have() -> None:
    one = ({1.0: 2.0, 2.0: 3.0, 5.0: 4.0, math.inf: 4.0}, 6.0)
    other = ({1.0: 1.0, 5.0: 5.0, math.inf: 6.0}, 20.0)
    merged = merge([one, other])
    assert merged is not None
    assert merged.bounds.tolist() == [1.0, 5.0]
    assert merged.counts.tolist() == [3.0, 6.0, 1.0]
    assert merged.total == 26.0
    assert merge([]) is None
    assert from_cumulative({math.inf: 3.0}, 1.0) is None
    assert from_cumulative({1.0: 3.0, 2.0: 4.0}, 1.0) is None


def test_counts_that_fall_between_buckets_are_read_as_not_falling() -> None:
    histogram = from_cumulative({1.0: 5.0, 2.0: 4.0, math.inf: 6.0}, 7.0)
    assert histogram is not None
    assert histogram.counts.tolist() == [5.0, 0.0, 1.0]


def test_scaling() -> None:
    histogram = made(np.random.default_rng(3).exponential(4.0, 3000))
    assert histogram.scaled(20.0).mean == pytest.approx(20.0 * histogram.mean)
    assert histogram.scaled(20.0).share_below(100.0) == pytest.approx(histogram.share_below(5.0))


def test_a_sum_of_two_stages() -> None:
    rng = np.random.default_rng(5)
    first, second = rng.uniform(0, 10, 20_000), rng.exponential(1.5, 20_000)
    both = SumOf(made(first), made(second))
    truth = first + second
    assert both.mean == pytest.approx(truth.mean(), rel=1e-6)
    for q in (0.1, 0.5, 0.95):
        assert float(both.quantile(q)) == pytest.approx(float(np.quantile(truth, q)), rel=0.06)
    assert both.share_below(8.0) == pytest.approx(float((truth <= 8.0).mean()), abs=0.02)
