"""Pinball loss, quantiles of residuals and weights, by hand."""

from __future__ import annotations

import math

import numpy as np
import pytest
from pydantic import ValidationError

from planner.core.forecast import ForecastSettings
from planner.core.forecast.conformal import (
    at_step,
    empirical_quantile,
    pinball_loss,
    quantile_rates,
    residual_quantiles,
)
from planner.core.forecast.state import CandidateState, Loss, rounded
from planner.core.forecast.weights import score, spanned, weights

SETTINGS = ForecastSettings(last_value_bins=3, prior_strength=10, scored_steps=(1, 4))
Z90 = 1.2815515655446004


def test_pinball_loss_by_hand() -> None:
    # two under the outcome costs 0.9 each, two over costs 0.1 each
    assert pinball_loss(10, 8, 0.9) == pytest.approx(1.8)
    assert pinball_loss(10, 12, 0.9) == pytest.approx(0.2)
    assert pinball_loss(10, 10, 0.9) == 0.0
    assert pinball_loss(10, 8, 0.5) == pinball_loss(10, 12, 0.5) == 1.0


def test_empirical_quantile_by_hand() -> None:
    nine = [1.0, 2, 3, 4, 5, 6, 7, 8, 9]
    # rank (9 + 1) * 0.9 = 9; * 0.5 = 5; * 0.25 = 2.5; beyond the ends the ends
    assert empirical_quantile(nine, 0.9) == pytest.approx(9)
    assert empirical_quantile(nine, 0.5) == 5
    assert empirical_quantile(nine, 0.25) == 2.5
    assert empirical_quantile(nine, 0.99) == 9
    assert empirical_quantile(nine, 0.01) == 1
    assert empirical_quantile([4.0], 0.3) == 4


def test_without_residuals_the_prior_is_that_of_counting() -> None:
    # sqrt(3 * (1 + 1/3)) / 2 = 1
    by_step = residual_quantiles(SETTINGS, ((), ()), (0.1, 0.5, 0.9), dispersion=3.0)
    assert by_step == [pytest.approx([-Z90, 0.0, Z90], abs=1e-12)] * 2


def test_residuals_are_shrunk_to_the_prior_and_far_steps_to_near_ones() -> None:
    ten = tuple(1000 * r for r in range(1, 11))  # residuals 1..10; rank 11 * 0.9 = 9.9: 9.9
    first, second = residual_quantiles(SETTINGS, (ten, ()), (0.9,), dispersion=3.0)
    assert first == [pytest.approx((10 * 9.9 + 10 * Z90) / 20)]
    assert second == first
    _, second = residual_quantiles(SETTINGS, (ten, (2000,)), (0.9,), dispersion=3.0)
    assert second == [pytest.approx((1 * 2 + 10 * first[0]) / 11)]


def test_steps_between_are_linear_and_beyond_grow_like_a_random_walk() -> None:
    by_step = [[1.0], [4.0]]
    assert at_step(by_step, (1, 4), 1) == [1.0]
    assert at_step(by_step, (1, 4), 2) == [2.0]
    assert at_step(by_step, (1, 4), 4) == [4.0]
    assert at_step(by_step, (1, 4), 16) == [8.0]
    assert at_step(by_step, (3, 4), 1) == [1.0]


def test_quantile_rates_by_hand() -> None:
    # 0.9 requests/s over 10 s are 9 requests, root 3: (3 + 1)^2 / 10, (3 - 5)^2 is below zero
    rates = quantile_rates(np.array([0.9]), np.array([[-5.0], [1.0]]), bin_s=10.0)
    assert rates.tolist() == [[0.0], [1.6]]


def candidate(name: str, own: float, reference: float, outcomes: int = 50) -> CandidateState:
    return CandidateState(name, losses=(Loss(own, reference, outcomes), Loss(own, reference, outcomes)))


def test_weights_by_hand() -> None:
    settings = ForecastSettings(scored_steps=(1, 4), weight_power=2, weight_cut=0.1)
    found = weights(settings, [candidate("a", 2, 2), candidate("b", 1, 2), candidate("c", 8, 2)], "abc", 4)
    # scores 1, 1/2, 4; squares of 0.5 over them: 1/4, 1, 1/64; the last is cut
    assert found == pytest.approx({"a": 0.2, "b": 0.8, "c": 0.0})


def test_the_reference_holds_all_the_weight_until_one_is_proven() -> None:
    settings = ForecastSettings(scored_steps=(1, 4), min_outcomes=20)
    young = [candidate("a", 2, 2, 19), candidate("b", 1, 2, 19)]
    assert weights(settings, young, "ab", 4) == {"a": 1.0, "b": 0.0}


def test_an_unavailable_candidate_has_no_weight_and_a_dominant_one_stands_alone() -> None:
    rows = [candidate("a", 2, 2), candidate("b", 1, 2)]
    assert weights(SETTINGS, rows, "a", 4) == {"a": 1.0, "b": 0.0}
    assert weights(SETTINGS, rows, "ab", 4) == {"a": 0.0, "b": 1.0}


def test_no_traffic_forecast_by_all_is_a_tie() -> None:
    assert weights(SETTINGS, [candidate("a", 0, 0), candidate("b", 0, 0)], "ab", 4) == {"a": 0.5, "b": 0.5}


def test_scores_are_of_the_steps_that_a_forecast_spans() -> None:
    assert [spanned((1, 4, 12), steps).stop for steps in (1, 2, 4, 5, 12, 30)] == [1, 2, 2, 3, 3, 4]
    losses = [Loss(1, 2, 50), Loss(3, 2, 50)]
    assert score(SETTINGS, losses[spanned((1, 4), 1)]) == pytest.approx(0.5)
    assert score(SETTINGS, losses) == pytest.approx(1.0)
    assert score(SETTINGS, (Loss(1, 2, 1),)) is None


def test_rounded_to_six_digits() -> None:
    assert rounded(math.pi * 1e5) == 314159.0
    assert rounded(1 / 3) == 0.333333


@pytest.mark.parametrize("bad", [{"scored_steps": (4, 1)}, {"scored_levels": ()}, {"scored_steps": (0,)}, {"x": 1}])
def test_settings_are_checked(bad: dict[str, object]) -> None:
    with pytest.raises(ValidationError):
        ForecastSettings.model_validate(bad)
