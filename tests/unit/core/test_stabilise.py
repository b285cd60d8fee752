"""The rules of the Kubernetes HorizontalPodAutoscaler, with the numbers of its documentation."""

from __future__ import annotations

import pytest

from planner.core.stabilise import Behaviour, Direction, Memory, RatePolicy, Stabilised, remember, stabilise

FREE = Direction()


def workers(value: float, period_s: float = 60.0) -> RatePolicy:
    return RatePolicy(kind="workers", value=value, period_s=period_s)


def percent(value: float, period_s: float = 60.0) -> RatePolicy:
    return RatePolicy(kind="percent", value=value, period_s=period_s)


def step(behaviour: Behaviour, memory: Memory, current: int, wanted: int, at_s: float) -> Stabilised:
    """One tick whose count is carried out."""
    found = stabilise(behaviour, memory, current, wanted, at_s)
    return Stabilised(found.workers, remember(behaviour, found.memory, found.workers - current, at_s), found.rules)


def walk(behaviour: Behaviour, current: int, wanted: list[int], interval_s: float = 10.0) -> list[int]:
    """The counts of ticks in a row, each carried out at once."""
    memory, counts = Memory(), []
    for k, count in enumerate(wanted):
        found = step(behaviour, memory, current, count, 100.0 + k * interval_s)
        current, memory = found.workers, found.memory
        counts.append(current)
    return counts


# -- what is remembered ----------------------------------------------------------------------------------------------


def test_only_what_lasts_delays_a_scale_down() -> None:
    behaviour = Behaviour(up=FREE, down=Direction(window_s=60.0))
    for lasting, kept in ((None, 9), (5, 5)):
        up = stabilise(behaviour, Memory(((90.0, 2),)), 2, 9, 100.0, lasting=lasting)
        assert up.workers == 9
        assert stabilise(behaviour, up.memory, 9, 3, 110.0).workers == kept


# -- windows -----------------------------------------------------------------------------------------------------------


def test_down_takes_the_highest_of_its_window() -> None:
    behaviour = Behaviour(up=FREE, down=Direction(window_s=30.0))
    # the 9 at 110 s counts until 140 s
    assert walk(behaviour, 10, [10, 9, 4, 5, 4, 4, 3, 3, 3, 3, 3]) == [10, 10, 10, 10, 9, 5, 5, 4, 4, 3, 3]


def test_up_takes_the_lowest_of_its_window() -> None:
    behaviour = Behaviour(up=Direction(window_s=30.0), down=FREE)
    assert walk(behaviour, 2, [2, 8, 6, 7, 9, 9, 9, 9]) == [2, 2, 2, 2, 6, 6, 7, 9]


def test_no_window_follows_at_once() -> None:
    assert walk(Behaviour(up=FREE, down=FREE), 3, [7, 2, 5]) == [7, 2, 5]


def test_default_scales_up_at_once_and_down_after_a_minute_and_a_half() -> None:
    counts = walk(Behaviour(), 2, [8] + [3] * 11)
    assert counts == [8] * 10 + [3, 3]


def test_what_is_asked_for_stands_for_the_past_at_first() -> None:
    # A restart knows nothing of the last minutes: one quiet interval must not undo them.
    assert walk(Behaviour(), 8, [1] * 11) == [8] * 10 + [1]
    assert walk(Behaviour(up=Direction(window_s=20.0)), 2, [6] * 4) == [2, 2, 2, 6]
    assert walk(Behaviour(), 2, [6]) == [6]


def test_ticks_further_apart_than_the_window_still_scale_down() -> None:
    assert walk(Behaviour(), 8, [1, 1], interval_s=300.0) == [8, 1]


def test_rules_are_named() -> None:
    up = Behaviour(up=Direction(window_s=30.0))
    assert stabilise(up, Memory(((90.0, 2),)), 2, 8, 100.0).rules == ("up_window",)
    assert stabilise(Behaviour(), Memory(((90.0, 9),)), 9, 2, 100.0).rules == ("down_window",)
    assert stabilise(Behaviour(), Memory(((90.0, 5),)), 9, 2, 100.0) == Stabilised(
        5, Memory(((90.0, 5), (100.0, 2))), ("down_window",)
    )
    assert stabilise(Behaviour(), Memory(((90.0, 2),)), 2, 2, 100.0).rules == ()


# -- tolerance ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("current", "wanted", "expected"), [(10, 11, 10), (10, 12, 12), (10, 9, 10), (10, 8, 8), (9, 10, 10), (0, 1, 1)]
)
def test_a_tenth_is_tolerated(current: int, wanted: int, expected: int) -> None:
    both = Direction(tolerance=0.1)
    found = stabilise(Behaviour(up=both, down=both), Memory(), current, wanted, 0.0)
    assert found.workers == expected
    assert found.rules == (("tolerance",) if expected != wanted else ())


def test_each_direction_has_its_own_tolerance() -> None:
    behaviour = Behaviour(up=FREE, down=Direction(tolerance=0.3))
    assert stabilise(behaviour, Memory(), 10, 11, 0.0).workers == 11
    assert stabilise(behaviour, Memory(), 10, 7, 0.0).workers == 10


# -- policies ----------------------------------------------------------------------------------------------------------


def test_documented_scale_down_of_80() -> None:
    # "The number of replicas is 80 and the target has to be scaled down to 10": 10 % takes 8, then 7.2 rounded up to 8,
    # … and when the number of replicas falls below 40, 4 pods a minute.
    down = Direction(policies=(workers(4), percent(10)))
    counts = walk(Behaviour(up=FREE, down=down), 80, [10] * 16, interval_s=60.0)
    assert counts == [72, 64, 57, 51, 45, 40, 36, 32, 28, 24, 20, 16, 12, 10, 10, 10]


def test_documented_default_scale_up() -> None:
    # "The greater of 4 pods or 100 % of the running ones are added every 15 seconds."
    up = Direction(policies=(workers(4, 15.0), percent(100, 15.0)))
    assert walk(Behaviour(up=up), 1, [100] * 6, interval_s=15.0) == [5, 10, 20, 40, 80, 100]


def test_a_period_counts_what_was_moved_in_it() -> None:
    up = Direction(policies=(workers(4, 60.0),))
    assert walk(Behaviour(up=up), 2, [20] * 8) == [6, 6, 6, 6, 6, 6, 10, 10]
    half = Direction(policies=(percent(50, 30.0),))
    # of the workers at the period's start: 10 -> 15 within 30 s, in two moves
    assert walk(Behaviour(up=half), 10, [12, 20, 20, 20]) == [12, 15, 15, 18]


def test_percent_rounds_so_that_small_pools_move() -> None:
    tenth = Direction(policies=(percent(10),))
    both = Behaviour(up=tenth, down=tenth)
    assert stabilise(both, Memory(), 1, 9, 0.0).workers == 2
    assert stabilise(both, Memory(), 5, 1, 0.0).workers == 4
    assert stabilise(both, Memory(), 10, 99, 0.0).workers == 11


def test_the_most_permissive_policy_counts_in_both_directions() -> None:
    both = Direction(policies=(workers(2), percent(50)))
    behaviour = Behaviour(up=both, down=both)
    assert stabilise(behaviour, Memory(), 10, 99, 0.0).workers == 15
    assert stabilise(behaviour, Memory(), 2, 99, 0.0).workers == 4
    assert stabilise(behaviour, Memory(), 10, 1, 0.0).workers == 5
    assert stabilise(behaviour, Memory(), 2, 1, 0.0) == Stabilised(1, Memory(((0.0, 2), (0.0, 1))), ())
    assert stabilise(behaviour, Memory(), 10, 99, 0.0).rules == ("up_policy",)
    assert stabilise(behaviour, Memory(), 10, 1, 0.0).rules == ("down_policy",)


def test_a_spent_policy_holds_and_never_turns_back() -> None:
    memory = Memory(changed=((95.0, 6),))
    up = Behaviour(up=Direction(policies=(workers(4),)))
    assert stabilise(up, memory, 10, 20, 100.0).workers == 10
    down = Behaviour(down=Direction(policies=(workers(4),)))
    assert stabilise(down, Memory(changed=((95.0, -6),)), 10, 2, 100.0).workers == 10


def test_changes_of_the_other_direction_do_not_count() -> None:
    both = Direction(policies=(workers(4),))
    memory = Memory(changed=((95.0, -4),))
    assert stabilise(Behaviour(up=both, down=both), memory, 6, 20, 100.0).workers == 10


def test_only_what_a_policy_looks_back_to_is_remembered() -> None:
    behaviour = Behaviour(up=Direction(policies=(workers(4, 60.0),)))
    old = Memory(changed=((40.0, 1), (41.0, 2), (90.0, 3)))
    assert remember(behaviour, old, 5, 100.0).changed == ((41.0, 2), (90.0, 3), (100.0, 5))
    assert remember(behaviour, old, 0, 100.0).changed == ((41.0, 2), (90.0, 3))
    assert remember(Behaviour(), old, 5, 100.0).changed == ()


def test_recommendations_are_forgotten_after_the_longer_window() -> None:
    behaviour = Behaviour(up=Direction(window_s=5.0), down=Direction(window_s=60.0))
    memory = Memory(((39.0, 9), (40.0, 8)))
    assert stabilise(behaviour, memory, 8, 8, 100.0).memory.recommended == ((40.0, 8), (100.0, 8))
