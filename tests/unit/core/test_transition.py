from __future__ import annotations

from dataclasses import replace

import pytest

from planner.core.foresee import foresee
from planner.core.transition import (
    Clear,
    Create,
    Heading,
    Intent,
    Retire,
    Save,
    Scale,
    Seen,
    Side,
    Step,
    turn,
    turned_back,
)

OLD, NEW = Side("decode", 2, 1, 2, 4), Side("decode-tp4", 4, 1, 4, 2)
INTENT = Intent("Decode", OLD, NEW, promised=1.0, patience_s=600.0, began_s=1000.0, lacking=2, since_s=1000.0)
SERVING = Seen(4, 4, 4)


def next_turn(old: Seen | None, new: Seen | None, *, intent: Intent = INTENT, max_gpus: int = 16, **more: float):
    seen = {"decode": old, "decode-tp4": new}
    facts = {"others_gpus": 0, "now_s": 1010.0, **more}
    return turn(intent, seen, max_gpus=max_gpus, **facts)  # type: ignore[arg-type]


def test_the_new_object_is_made_first_and_a_retired_one_is_taken_into_use_again() -> None:
    assert next_turn(SERVING, None).write == Create(NEW)
    assert next_turn(SERVING, Seen(0, retired=True)).write == Create(NEW)


def test_with_room_for_both_all_new_workers_come_at_once() -> None:
    assert next_turn(SERVING, Seen(0)).write == Scale(NEW, 2)


def test_workers_that_drain_hold_their_gpus() -> None:
    assert next_turn(replace(SERVING, terminating=2), Seen(0)).write == Scale(NEW, 1)


def test_without_room_for_all_they_come_as_room_is_made_by_those_whose_stead_serves() -> None:
    assert next_turn(SERVING, Seen(0), max_gpus=12).write == Scale(NEW, 1)
    waiting = next_turn(SERVING, Seen(1, 1, 0), max_gpus=12)
    assert waiting.write is None
    assert "until these serve" in waiting.text
    half = replace(INTENT, lacking=1)
    assert next_turn(SERVING, Seen(1, 1, 1), max_gpus=12, intent=half).write == Scale(OLD, 2)
    assert next_turn(Seen(2, 2, 2, 2), Seen(1, 1, 1), max_gpus=12, intent=half).write is None
    assert next_turn(Seen(2, 2, 2), Seen(1, 1, 1), max_gpus=12, intent=half).write == Scale(NEW, 2)


def test_without_any_room_nothing_goes_that_was_promised_to_serve() -> None:
    stuck = next_turn(SERVING, Seen(0), max_gpus=8)
    assert stuck.write is None
    assert "no room" in stuck.text
    loosened = next_turn(SERVING, Seen(0), max_gpus=8, intent=replace(INTENT, promised=0.5))
    assert loosened.write == Scale(OLD, 2)
    assert loosened.missing == 0.5
    assert "50% of the capacity is missing" in loosened.text


def test_old_workers_go_in_halves_once_all_new_ones_serve() -> None:
    served = replace(INTENT, lacking=0)
    new = Seen(2, 2, 2)
    assert next_turn(SERVING, Seen(2, 2, 1), intent=replace(INTENT, lacking=1)).step is Step.SERVE
    assert next_turn(SERVING, new, intent=served).write == Scale(OLD, 2)
    draining = next_turn(Seen(2, 2, 2, 2), new, intent=served)
    assert (draining.step, draining.write) == (Step.DRAIN, None)
    assert next_turn(Seen(2, 2, 2), new, intent=served).write == Scale(OLD, 0)
    assert next_turn(Seen(0, 0, 0, 1), new, intent=served).write is None
    assert next_turn(Seen(0), new, intent=served).write == Retire(OLD, NEW)
    assert next_turn(Seen(0, retired=True), new, intent=served).write == Clear()


def test_progress_is_recorded_and_none_of_it_for_too_long_turns_back() -> None:
    saved = next_turn(SERVING, Seen(2, 2, 1)).write
    assert isinstance(saved, Save)
    assert (saved.intent.lacking, saved.intent.since_s) == (1, 1010.0)
    crashing = Seen(2, 2, 0, trouble="CrashLoopBackOff: exit code 1")
    assert next_turn(SERVING, crashing, now_s=1600.0).write is None
    back = next_turn(SERVING, crashing, now_s=1601.0).write
    assert isinstance(back, Save)
    assert back.intent.heading is Heading.BACK
    assert "CrashLoopBackOff" in back.intent.why_back


def test_a_rollback_ends_what_does_not_serve_then_brings_the_old_workers_back() -> None:
    back = turned_back(INTENT, "asked")
    assert next_turn(Seen(2, 2, 2), Seen(2, 2, 1), intent=back).write == Scale(NEW, 1)
    assert next_turn(Seen(2, 2, 2), Seen(1, 1, 1), intent=back, max_gpus=12).write == Scale(OLD, 4)
    assert next_turn(SERVING, Seen(0), intent=back).write == Retire(NEW, OLD)
    assert next_turn(SERVING, None, intent=back).write == Clear()


def test_more_load_makes_the_new_pool_larger_or_turns_back_when_it_does_not_start() -> None:
    grown = replace(INTENT, lacking=3)
    assert next_turn(SERVING, Seen(0), intent=grown, max_gpus=32, wanted=6).write == Scale(NEW, 3)
    failing = next_turn(SERVING, Seen(2, 2, 0, trouble="Unschedulable"), intent=grown, wanted=6).write
    assert isinstance(failing, Save)
    assert failing.intent.heading is Heading.BACK


def test_the_last_ones_go_where_workers_are_numbered() -> None:
    """The first of the new group does not serve, the second does: one fewer would end the one that serves."""
    back = turned_back(INTENT, "asked")
    numbered = Seen(2, 2, 1, by_index=(False, True))
    assert next_turn(Seen(2, 2, 2), numbered, intent=back, max_gpus=12).write is None


@pytest.mark.parametrize(
    ("max_gpus", "promised", "reached", "peak", "least"),
    [(16, 1.0, True, 16, 1.0), (12, 1.0, True, 12, 1.0), (8, 1.0, False, 8, 1.0), (8, 0.5, True, 8, 0.5)],
)
def test_its_course_is_foreseen(max_gpus: int, promised: float, reached: bool, peak: int, least: float) -> None:
    lead_s = {"decode": 60.0, "decode-tp4": 100.0}
    course = foresee(
        replace(INTENT, promised=promised), 4, others_gpus=0, max_gpus=max_gpus, lead_s=lead_s, drain_s=30.0
    )
    assert (course.reached, course.peak_gpus, course.least) == (reached, peak, least)


def test_the_cost_of_a_surge_is_what_both_pools_hold_until_the_old_one_is_gone() -> None:
    lead_s = {"decode": 60.0, "decode-tp4": 100.0}
    course = foresee(INTENT, 4, others_gpus=0, max_gpus=16, lead_s=lead_s, drain_s=30.0)
    # 16 GPUs while the new ones start, 16 while the first half drains, 12 while the second does.
    assert course.gpu_s == 16 * 100.0 + 16 * 30.0 + 12 * 30.0
    assert course.duration_s == 160.0
    tight = foresee(replace(INTENT, promised=0.5), 4, others_gpus=0, max_gpus=8, lead_s=lead_s, drain_s=30.0)
    # Half of the capacity is away while two old workers drain and the first new one starts, then again for the second.
    assert tight.missing_s == 0.5 * (30.0 + 100.0) * 2
