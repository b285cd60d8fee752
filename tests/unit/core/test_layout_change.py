from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pytest

from planner.core.capacity import CapacityModel, Evaluator, Prediction
from planner.core.demand import Demand, Lengths
from planner.core.in_place import Rolling
from planner.core.layout_change import LayoutOption, LayoutReview, LayoutSettings, pieces, review
from planner.core.types import Pool, Role, Sla

SLA = Sla(500.0, 50.0, 0.95)
ONE = np.ones(1)
DEMAND = Demand(0.0, 1.0, Lengths(ONE * 100, ONE * 10, ONE * 0))


@dataclass(frozen=True)
class Rated(Evaluator, CapacityModel):
    """All requests attain from so many requests per second and worker downwards, or none ever do."""

    per_worker: float
    rate_rps: float = 0.0
    best: float = 1.0
    name: str = "rated"
    roles: tuple[Role, ...] = (Role.AGGREGATED,)

    def evaluator(self, demand: Demand, sla: Sla) -> Evaluator:  # noqa: ARG002 - part of the interface
        return self

    def at_rate(self, rate_rps: float) -> Evaluator:
        return Rated(self.per_worker, rate_rps, self.best)

    def predict(self, workers: dict[Role, int]) -> Prediction:  # type: ignore[override]
        can = workers[Role.AGGREGATED] * self.per_worker
        share = self.best * min(1.0, can / self.rate_rps if self.rate_rps else 1.0)
        return Prediction(share, share, share, {Role.AGGREGATED: self.rate_rps / max(can, 1e-9)}, 10.0, 100.0)

    def ceiling(self) -> Prediction:
        return Prediction(self.best, self.best, self.best, {Role.AGGREGATED: 0.0}, 10.0, 100.0)

    def nearest(self) -> Sla:
        return SLA


def option(tp: int, per_worker: float, *, best: float = 1.0, startup_s: float = 100.0) -> LayoutOption:
    pool = Pool("chat", Role.AGGREGATED, tp, 1, 64)
    role = Role.AGGREGATED
    return LayoutOption({role: (tp, 1)}, Rated(per_worker, best=best), (pool,), {role: startup_s})


def compare(
    present: LayoutOption,
    *others: LayoutOption,
    rates: tuple[float, ...] = (40.0,) * 6,
    max_gpus: int = 64,
    rolling: Rolling | None = None,
    **set_: float,
) -> LayoutReview:
    return review(
        LayoutSettings(enabled=True, **set_),  # type: ignore[arg-type]
        present,
        [present, *others],
        DEMAND,
        rates,
        SLA,
        target=0.95,
        tolerance=0.0,
        max_gpus=max_gpus,
        serving={"chat": 4},
        lead_time_s=60.0,
        rolling={"chat": rolling} if rolling is not None else None,
    )


def test_a_layout_that_saves_more_than_its_change_costs_is_proposed() -> None:
    """Four workers of TP4 do what eight of TP1 would: 16 GPUs against 8."""
    found = compare(option(4, 10.0), option(1, 5.0))
    proposal = found.proposal
    assert proposal is not None
    assert (proposal.old, proposal.new) == ((4, 1), (1, 1))
    assert (proposal.old_workers, proposal.new_workers) == (4, 8)
    (other,) = found.others
    assert other.gain_gpu_s == (16 - 8) * 3600.0
    # 24 GPUs while the new ones start and the first half drains, 16 while the second does, less the 8 that stay.
    assert other.cost_gpu_s == (24 - 8) * 100.0 + (24 - 8) * 60.0 + (16 - 8) * 60.0
    assert "saves 28,800 GPU-s" in found.why


def test_what_the_horizon_does_not_earn_is_not_proposed() -> None:
    assert compare(option(4, 10.0), option(1, 5.0), horizon_s=500.0).proposal is None
    (other,) = compare(option(4, 10.0), option(1, 5.0), horizon_s=500.0).others
    assert "must be earned 1.5 times" in other.why_not
    # 8 GPUs saved for 500 s are 4,000 GPU-s, above the cost of 3,040 but below one and a half times that.
    assert compare(option(4, 10.0), option(1, 5.0), horizon_s=500.0, margin=1.0).proposal is not None


def test_a_slow_start_costs_more() -> None:
    assert compare(option(4, 10.0), option(1, 5.0, startup_s=3000.0)).proposal is None


def test_the_load_of_the_whole_horizon_counts_not_that_of_a_moment() -> None:
    """At a low load one small worker does; at the peak the large one is the cheaper one."""
    small, large = option(1, 1.0), option(4, 40.0)
    assert compare(small, large, rates=(1.0,) * 6).proposal is None
    assert compare(small, large, rates=(1.0, 40.0, 40.0, 40.0, 40.0, 1.0), max_gpus=128).proposal is not None


def test_a_cheaper_layout_that_misses_the_target_is_not_proposed() -> None:
    found = compare(option(4, 10.0), option(1, 5.0, best=0.9))
    assert found.proposal is None
    assert found.others[0].why_not == "does not meet the target"


def test_a_dearer_layout_is_proposed_where_the_present_one_cannot_meet_the_target() -> None:
    found = compare(option(1, 10.0, best=0.5), option(4, 10.0))
    assert found.proposal is not None
    assert "meets the target" in found.why


def test_without_room_it_is_proposed_only_where_capacity_may_be_missing() -> None:
    found = compare(option(4, 10.0), option(1, 5.0), max_gpus=16)
    assert found.proposal is None
    assert "no room" in found.others[0].why_not
    loose = compare(option(4, 10.0), option(1, 5.0), max_gpus=16, least_capacity=0.5)
    assert loose.proposal is not None
    assert loose.proposal.missing_s > 0
    assert "of the capacity is missing" in loose.why


def test_missing_capacity_is_part_of_the_cost() -> None:
    tight = compare(option(4, 10.0), option(1, 5.0), max_gpus=16, least_capacity=0.5).others[0]
    proposal = compare(option(4, 10.0), option(1, 5.0), max_gpus=16, least_capacity=0.5).proposal
    assert proposal is not None
    assert tight.cost_gpu_s is not None
    assert tight.cost_gpu_s >= proposal.missing_s * 16


def test_a_change_where_the_workers_stand_costs_what_its_operator_makes_of_it() -> None:
    """So many are asked for that eight serve all through, ten, and they come in turns."""
    beside, in_place = (
        compare(option(4, 10.0), option(1, 5.0), rolling=rolling).others[0].cost_gpu_s for rolling in (None, Rolling())
    )
    assert beside is not None
    assert in_place is not None
    assert in_place > beside
    horizon_s = 1.5 * (beside + in_place) / 2 / 8
    assert compare(option(4, 10.0), option(1, 5.0), horizon_s=horizon_s).proposal is not None
    found = compare(option(4, 10.0), option(1, 5.0), horizon_s=horizon_s, rolling=Rolling())
    assert found.proposal is None
    assert f"changing costs {in_place:,.0f}" in found.others[0].why_not


def test_a_change_where_the_workers_stand_needs_room_for_both_layouts_of_all_that_serve() -> None:
    assert compare(option(4, 10.0), option(1, 5.0), max_gpus=50, rolling=Rolling()).proposal is not None
    found = compare(option(4, 10.0), option(1, 5.0), max_gpus=49, rolling=Rolling())
    assert "no room to change with 100%" in found.others[0].why_not
    # Side by side takes 24.
    assert compare(option(4, 10.0), option(1, 5.0), max_gpus=49).proposal is not None
    # And 40 where the operator takes none away before others serve.
    assert compare(option(4, 10.0), option(1, 5.0), max_gpus=40, rolling=Rolling(0, 1)).proposal is not None


def test_layouts_of_as_many_gpus_are_not_told_apart_in_one_object() -> None:
    role, pool = Role.AGGREGATED, Pool("chat", Role.AGGREGATED, 4, 1, 64)
    wide = LayoutOption({role: (2, 2)}, Rated(30.0), (pool,), {role: 100.0})
    assert compare(option(4, 10.0), wide).proposal is not None
    found = compare(option(4, 10.0), wide, rolling=Rolling())
    assert found.proposal is None
    assert found.others[0].why_not.startswith("holds as many GPUs")


@pytest.mark.parametrize(("n", "expected"), [(3, (1.0, 2.0, 3.0)), (12, (2.0, 4.0, 6.0, 8.0, 10.0, 12.0))])
def test_each_piece_of_the_horizon_is_its_highest_rate(n: int, expected: tuple[float, ...]) -> None:
    assert pieces([float(i + 1) for i in range(n)]) == expected
