from __future__ import annotations

from dataclasses import replace
from fractions import Fraction

import pytest

from planner.core.foresee import Foreseen
from planner.core.foresee_in_place import foresee_in_place
from planner.core.in_place import InPlace, Relayout, Rolling, fewest_in_place, turn_in_place
from planner.core.transition import Heading, Intent, Scale, Seen, Side, Step, Turn, Write

OLD, NEW = Side("dgd", 2, 1, 2, 4), Side("dgd", 4, 1, 4, 2)
INTENT = Intent("Decode", OLD, NEW, promised=1.0, patience_s=600.0, began_s=1000.0, lacking=2, since_s=1000.0)
NOBODY, FOUR = Seen(0), Seen(0, 4, 4)


def next_turn(
    intent: Intent,
    desired: int,
    old: Seen,
    *,
    max_gpus: int,
    carried: int | None = None,
    rolling: Rolling | None = None,
) -> tuple[Turn, Write | Relayout | None]:
    seen = InPlace(desired, (2, 1), old, NOBODY, desired if carried is None else carried, rolling or Rolling())
    return turn_in_place(intent, seen, others_gpus=0, max_gpus=max_gpus, now_s=1010.0)


def test_one_more_is_asked_for_where_the_operator_takes_one_of_five_away() -> None:
    assert next_turn(INTENT, 4, FOUR, max_gpus=30)[1] == Scale(OLD, 5)
    assert next_turn(INTENT, 5, FOUR, max_gpus=30)[1] == Relayout(NEW)


def test_none_more_where_the_operator_takes_none_away() -> None:
    assert next_turn(INTENT, 4, FOUR, max_gpus=24, rolling=Rolling(0, 1))[1] == Relayout(NEW)


def test_without_room_for_what_was_promised_nothing_is_touched() -> None:
    turn, write = next_turn(INTENT, 4, FOUR, max_gpus=29)
    assert write is None
    assert "takes room for 5 of both layouts: 29 GPUs hold 4" in turn.text
    turn, write = next_turn(INTENT, 4, FOUR, max_gpus=64, rolling=Rolling(Fraction(1), 0))
    assert write is None
    assert "which the operator cannot promise" in turn.text


def test_less_than_all_may_be_promised() -> None:
    loose = replace(INTENT, promised=0.7)
    assert next_turn(loose, 4, FOUR, max_gpus=20)[1] == Scale(OLD, 3)
    draining = Seen(0, 3, 3, 1)
    assert next_turn(loose, 3, draining, max_gpus=18)[1] is None
    assert next_turn(loose, 3, draining, max_gpus=20)[1] == Relayout(NEW)


def test_the_template_waits_for_the_scaling_adapter() -> None:
    turn, write = next_turn(replace(INTENT, promised=0.7), 3, FOUR, max_gpus=20, carried=4)
    assert (turn.step, write) == (Step.SURGE, None)
    assert "3 workers are asked for, 4 still stand beside the template" in turn.text


def test_workers_that_may_still_come_in_the_old_layout_count() -> None:
    """Five are asked for, four are there, one drains: 20 GPUs for the new ones are not free until it is gone."""
    assert next_turn(INTENT, 5, Seen(0, 4, 4, 1), max_gpus=30)[1] is None


def test_a_layout_that_needs_more_workers_is_replaced_by_as_many() -> None:
    """Two of TP4 become four of TP2: while as many are asked for, each counts for a quarter."""
    back = replace(INTENT, old=NEW, new=OLD)
    assert fewest_in_place(back, Rolling(0, 1)) == 4
    assert fewest_in_place(back, Rolling()) == 5
    assert fewest_in_place(replace(back, promised=0.5), Rolling(0, 1)) == 2
    assert fewest_in_place(replace(back, promised=0.1, old=replace(NEW, workers=10)), Rolling(0, 1)) == 1


def test_a_rollback_promises_nothing() -> None:
    seen = InPlace(4, (4, 1), NOBODY, Seen(0, 4, 0), 4, Rolling())
    back = replace(INTENT, heading=Heading.BACK)
    assert turn_in_place(back, seen, others_gpus=0, max_gpus=24, now_s=0.0)[1] == Relayout(OLD)


@pytest.mark.parametrize(
    ("rolling", "count", "away", "beyond"),
    [
        (Rolling(), 3, 0, 1),
        (Rolling(), 8, 2, 2),
        (Rolling(0, 0), 8, 0, 1),
        (Rolling(3, 2), 2, 2, 2),
        (Rolling(Fraction(1, 2), Fraction(1, 10)), 5, 2, 1),
    ],
)
def test_shares_of_workers_away_are_rounded_down_and_those_beyond_up(
    rolling: Rolling, count: int, away: int, beyond: int
) -> None:
    assert (rolling.away(count), rolling.beyond(count)) == (away, beyond)


def course(promised: float, max_gpus: int, rolling: Rolling | None = None) -> Foreseen:
    return foresee_in_place(
        replace(INTENT, promised=promised),
        4,
        rolling or Rolling(),
        others_gpus=0,
        max_gpus=max_gpus,
        lead_s=(60.0, 100.0),
        drain_s=30.0,
    )


def test_its_course_is_what_the_operator_makes_of_it() -> None:
    """Three of five new workers come beside the four, then the other two as three of these go, then the last goes."""
    found = course(1.0, 30)
    assert found.reached
    assert found.moments == (
        (0.0, 4 * 2 + 3 * 4, 1.0),
        (100.0, 4 * 2 + 5 * 4, 1 / 4 + 3 / 2),
        (130.0, 1 * 2 + 5 * 4, 1 / 4 + 3 / 2),
        (200.0, 1 * 2 + 5 * 4, 5 / 2),
        (230.0, 5 * 4, 5 / 2),
    )
    assert found.gpu_s == 20 * 100 + 28 * 30 + 22 * 70 + 22 * 30
    assert (found.peak_gpus, found.least, found.missing_s) == (28, 1.0, 0.0)


def test_workers_that_go_first_are_missing_until_others_serve() -> None:
    found = course(0.7, 18)
    assert found.reached
    assert found.least == 0.75
    # The fourth drains for 30 s, the first new one starts in 100 s.
    assert found.missing_s == pytest.approx(0.25 * 130)
    assert found.peak_gpus <= 18


def test_where_there_is_no_room_it_does_not_begin() -> None:
    found = course(1.0, 18)
    assert not found.reached
    assert (found.gpu_s, found.duration_s) == (0.0, 0.0)
    assert not course(0.5, 64, Rolling(Fraction(1), 0)).reached


def test_an_operator_that_ends_all_first_leaves_none() -> None:
    found = course(0.0, 24, Rolling(Fraction(1), 0))
    assert found.reached
    assert found.least == 0.0
    assert found.missing_s >= 100.0
