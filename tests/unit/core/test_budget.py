"""Plans lowered to a budget, by hand."""

from __future__ import annotations

import pytest

from planner.core.budget import Fitted, fit_budget, gpus_of
from planner.core.types import Pool
from tests.unit.core.cases import DECODE, PREFILL


def two(prefill_gpus: int = 1, decode_gpus: int = 1, least: int = 1) -> dict[str, Pool]:
    return {
        "prefill": Pool("prefill", PREFILL, prefill_gpus, least),
        "decode": Pool("decode", DECODE, decode_gpus, least),
    }


def plan(prefill: int, decode: int) -> dict[str, int]:
    return {"prefill": prefill, "decode": decode}


def test_gpus_of() -> None:
    assert gpus_of(plan(3, 2), two(1, 8)) == 19


def test_a_plan_that_fits_stays() -> None:
    assert fit_budget(plan(3, 4), plan(1, 1), two(), 7) == Fitted(plan(3, 4), True)


@pytest.mark.parametrize(
    ("asked", "floor", "budget", "expected"),
    [
        # shares above the floor: 3/4 against 1/2, then 2/3, then 1/2 each: the first by name
        (plan(2, 4), plan(1, 1), 5, plan(2, 3)),
        (plan(2, 4), plan(1, 1), 4, plan(2, 2)),
        (plan(2, 4), plan(1, 1), 3, plan(2, 1)),
        (plan(2, 4), plan(1, 1), 2, plan(1, 1)),
        # 6 of 8 against 2 of 4; the floor of prefill holds
        (plan(4, 8), plan(2, 2), 9, plan(4, 5)),
        (plan(4, 8), plan(4, 2), 7, plan(4, 3)),
    ],
)
def test_workers_go_where_most_stand_above_the_floor(
    asked: dict[str, int], floor: dict[str, int], budget: int, expected: dict[str, int]
) -> None:
    assert fit_budget(asked, floor, two(), budget) == Fitted(expected, True)


def test_gpus_per_worker_count() -> None:
    # 2 x 1 + 3 x 4 = 14 on 10: one decode worker
    assert fit_budget(plan(2, 3), plan(1, 1), two(1, 4), 10) == Fitted(plan(2, 2), True)


def test_a_floor_that_does_not_fit_gives_way_to_the_minima_and_is_said() -> None:
    assert fit_budget(plan(4, 4), plan(4, 4), two(least=2), 6) == Fitted(plan(3, 3), False)
    assert fit_budget(plan(4, 4), plan(4, 4), two(least=3), 4) == Fitted(plan(3, 3), False)


def test_nothing_is_raised() -> None:
    assert fit_budget(plan(1, 2), plan(5, 5), two(least=3), 64) == Fitted(plan(1, 2), True)
    assert fit_budget(plan(1, 2), plan(5, 5), two(least=3), 2) == Fitted(plan(1, 2), False)


def test_a_pool_without_a_floor_may_go_to_zero_but_not_below_its_minimum_first() -> None:
    assert fit_budget({"prefill": 2}, {}, two(), 0) == Fitted({"prefill": 0}, True)
