"""The ledger of the SLA, by hand."""

from __future__ import annotations

import math

import pytest

from planner.core.error_budget import ErrorBudget, ErrorBudgetSettings, account, next_target

SETTINGS = ErrorBudgetSettings(window_s=1000.0, spend_s=100.0, max_spend=0.05, max_repay=0.0, reserve=0.0)


def target(offered: float, attained: float, settings: ErrorBudgetSettings = SETTINGS, rate_rps: float = 10.0) -> float:
    return next_target(settings, ErrorBudget(offered, attained), 0.95, rate_rps)


def test_a_surplus_lowers_the_target_by_its_share_of_the_coming_requests() -> None:
    # 970 of 1000 attained: 20 more than asked, over 10/s for 100 s
    assert target(1000, 970) == pytest.approx(0.95 - 20 / 1000)


def test_a_surplus_is_spent_no_faster_than_allowed() -> None:
    assert target(10_000, 10_000) == pytest.approx(0.90)
    assert target(10_000, 10_000, SETTINGS.model_copy(update={"max_spend": 0.0})) == 0.95


def test_a_deficit_does_not_raise_the_target_by_default() -> None:
    assert ErrorBudgetSettings().max_repay == 0.0
    assert target(1000, 900) == 0.95


def test_a_deficit_raises_it_where_wanted_and_never_near_one() -> None:
    repay = SETTINGS.model_copy(update={"max_repay": 0.02})
    assert target(1000, 940, repay) == pytest.approx(0.96)
    assert target(1000, 500, repay) == pytest.approx(0.97)
    assert target(1000, 500, SETTINGS.model_copy(update={"max_repay": 0.5})) == pytest.approx(0.975)


def test_a_reserve_is_kept_back_from_the_surplus() -> None:
    assert target(1000, 970, SETTINGS.model_copy(update={"reserve": 0.01})) == pytest.approx(0.95 - 10 / 1000)


def test_exactly_on_target_and_nothing_offered_change_nothing() -> None:
    assert target(1000, 950) == pytest.approx(0.95)
    assert target(0, 0) == 0.95
    assert target(1000, 1000, rate_rps=0.0) == 0.95


def test_requests_fade_with_the_window() -> None:
    ledger = account(SETTINGS, ErrorBudget(1000.0, 900.0), 200.0, 0.5, 100.0)
    fade = math.exp(-0.1)
    assert ledger.offered == pytest.approx(1000 * fade + 200, abs=1e-5)
    assert ledger.attained == pytest.approx(900 * fade + 100, abs=1e-5)


def test_an_unknown_attainment_only_ages() -> None:
    ledger = account(SETTINGS, ErrorBudget(1000.0, 900.0), 200.0, None, 1000.0)
    assert ledger.offered == pytest.approx(1000 / math.e, abs=1e-5)
    assert ledger.attained == pytest.approx(900 / math.e, abs=1e-5)
