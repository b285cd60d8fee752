"""A layout change in a replay: both layouts serve, the budget holds at every moment, and its cost is counted."""

from __future__ import annotations

from dataclasses import replace

import pytest

from planner.core.settings import PlannerSettings
from planner.core.types import Observation, Plan, Pool, Sla
from planner.whatif.graph import split_change
from planner.whatif.outcome import Outcome
from planner.whatif.policies.base import Policy, Setting
from planner.whatif.policies.ours import Ours
from planner.whatif.replay import replay
from planner.whatif.table import change_words
from planner.whatif.transition import LayoutChange, Moment
from profiler.errors import InputError
from tests.engines import AGGREGATED, HandTrace, Row, aggregated, engine, poisson

STARTUP_S = 25.0


class Fixed(Policy):
    """Keeps a count; knows what either layout needs."""

    def __init__(self, count: int, needs: tuple[int, int]) -> None:
        self.interval_s, self._plan, self._needs = 5.0, {"agg": count}, needs
        self.switched_to: LayoutChange | None = None
        self.seen: list[Observation] = []

    def decide(self, observation: Observation, now_s: float) -> Plan:  # noqa: ARG002 - part of the interface
        self.seen.append(observation)
        return self._plan

    def needs_in(self, change: LayoutChange) -> tuple[int, int]:  # noqa: ARG002 - part of the interface
        return self._needs

    def switch(self, change: LayoutChange) -> None:
        self.switched_to = change
        self._plan = {"agg": self._needs[1]}


def setting_of(
    rows: list[Row], max_gpus: int, *, start: int = 4, startup_s: float = STARTUP_S, least: float = 1.0
) -> Setting:
    old, new = aggregated(engine(gpus=2, step_ms=5.0)), aggregated(engine(gpus=4, step_ms=2.0, fixed_ms=3.0))
    pool = Pool("agg", AGGREGATED, 2, 1, 64)
    change = LayoutChange(AGGREGATED, 60.0, (2, 1), (4, 1), new, Pool("agg", AGGREGATED, 4, 1, 64), least, 200.0)
    settings = PlannerSettings(sla=Sla(ttft_ms=500.0, itl_ms=50.0), pools=(pool,), max_gpus=max_gpus)
    return Setting(
        old, {}, {AGGREGATED: pool}, settings, {"agg": start}, startup_s, "least_loaded", HandTrace(rows), (), change
    )


def steady(span_s: float, gap_s: float = 0.5) -> list[Row]:
    return [(t * gap_s * 1000.0, 100, 20, 0) for t in range(int(span_s / gap_s))]


def changed(max_gpus: int, **more: float) -> tuple[Outcome, Fixed]:
    policy = Fixed(4, (4, 2))
    return replay(setting_of(steady(300.0), max_gpus, **more), policy, "fixed"), policy  # type: ignore[arg-type]


def test_with_room_the_new_workers_come_beside_the_old_ones() -> None:
    outcome, policy = changed(16)
    course = outcome.layout_change
    assert course is not None
    assert (course.reached, course.began_s, course.peak_gpus, course.least) == (True, 60.0, 16, 1.0)
    # Asked for at 60, serving at 85, when all old ones but the one that is busy end at once.
    assert course.ended_s == 90.0
    assert course.surge_gpu_s == 8 * 25.0
    assert course.requests == 60
    assert course.attained == 60
    assert policy.switched_to is not None
    assert outcome.peak_gpus == 16
    assert (course.pool, course.layouts, course.gpus) == ("agg", ("tp2", "tp4"), (2, 4))
    assert course.moments[0] == Moment(60.0, old=(4, 0, 0), new=(0, 2, 0))
    assert course.moments[5].at_s == 85.0
    assert course.moments[5].new == (2, 0, 0)
    assert course.moments[-1] == Moment(90.0, old=(0, 0, 0), new=(2, 0, 0))
    assert (outcome.failed, outcome.unfinished) == (0, 0)


def test_without_room_for_all_it_goes_piece_by_piece_within_the_budget() -> None:
    outcome, _ = changed(12)
    course = outcome.layout_change
    assert course is not None
    assert course.reached
    assert course.peak_gpus == outcome.peak_gpus == 12
    assert course.least == 1.0
    assert course.ended_s is not None
    assert course.ended_s >= 60.0 + 2 * STARTUP_S


def test_without_any_room_it_costs_capacity_or_does_not_happen() -> None:
    outcome, policy = changed(8)
    assert outcome.layout_change is not None
    assert not outcome.layout_change.reached
    assert policy.switched_to is None
    assert "rolled back" in change_words(outcome)
    outcome, _ = changed(8, least=0.5)
    assert outcome.layout_change is not None
    assert outcome.layout_change.reached
    assert outcome.layout_change.least == 0.5
    assert outcome.peak_gpus == 8


def test_the_policy_sees_one_pool_of_what_it_knows() -> None:
    _, policy = changed(16)
    for seen in policy.seen:
        state = seen.pools.value["agg"]  # type: ignore[union-attr]
        assert state.desired in {4, 2}
        if 60.0 < 5.0 * (policy.seen.index(seen) + 1) <= 90.0:
            assert state.desired == 4
    assert policy.seen[-1].pools.value["agg"].ready == 2  # type: ignore[union-attr]


def test_gpu_hours_count_both_layouts() -> None:
    outcome, _ = changed(16)
    # 8 GPUs to 60 s, 16 to 85, 8 (two new workers) to the last arrival at 299.5 s; one old worker of two GPUs has a
    # request of about a tenth of a second to end.
    by_hand = 8 * 60.0 + 16 * 25.0 + 8 * (299.5 - 85.0)
    assert by_hand < outcome.gpu_hours * 3600.0 < by_hand + 2 * 0.15


def test_our_planner_sizes_both_layouts_and_goes_on_with_the_other_model() -> None:
    setting = setting_of([(float(at), 100, 20, 0) for at in poisson(0.02, 6000, seed=1)], 32, start=1)
    policy = Ours(setting, setting.engines.closed_form)
    outcome = replay(setting, policy, "planner")
    course = outcome.layout_change
    assert course is not None
    assert course.reached
    assert policy.settings.pools_by_name["agg"].gpus_per_worker == 4
    assert change_words(outcome).startswith("layout change of ")
    assert outcome.as_json()["layout_change"]["steps"]


def test_a_longer_request_than_either_layout_holds_is_refused() -> None:
    setting = setting_of([(0.0, 1000, 10, 0), (100_000.0, 90_000, 10, 0)], 16)
    small = aggregated(engine(gpus=4, capacity=80_000))
    assert setting.change is not None
    outcome = replay(replace(setting, change=replace(setting.change, engines=small)), Fixed(4, (4, 2)), "fixed")
    assert outcome.failed == 1


@pytest.mark.parametrize("text", ["decode", "decode=4@10", "gateway=tp2@5", "decode=tp0@5", "decode=tp2"])
def test_a_change_that_cannot_be_read_says_how_it_is_written(text: str) -> None:
    with pytest.raises(InputError, match="decode=tp2@600"):
        split_change(text, [], 8, aggregated=False)
