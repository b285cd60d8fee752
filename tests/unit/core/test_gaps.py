"""Incomplete metrics lower no pool, and nothing else changes."""

from __future__ import annotations

from dataclasses import replace

from planner.core.record import DecisionRecord, from_line, to_line
from planner.core.stabilise import Behaviour, Direction
from planner.core.state import PlannerState
from planner.core.types import Level, PoolState
from tests.unit.core.cases import pair, planner, run, seen

GAPS = ("2 of 4 decode workers have no metrics",)
AT_ONCE = Behaviour(up=Direction(), down=Direction())


def pools(prefill: int, decode: int) -> dict[str, PoolState]:
    return {"prefill": PoolState(prefill, prefill), "decode": PoolState(decode, decode)}


def test_a_gap_holds_what_would_be_lowered_and_says_so() -> None:
    made = planner(behaviour=AT_ONCE)
    quiet = seen(10, pools(10, 8))
    decisions, _ = run(made, [quiet] * 8)
    assert decisions[-1].plan == {"prefill": 1, "decode": 1}
    held, _ = run(made, [quiet] * 7 + [replace(quiet, gaps=GAPS)])
    decision = held[-1]
    assert decision.plan == {"prefill": 10, "decode": 8}
    assert decision.level is Level.MODEL
    assert {"prefill:metrics_incomplete", "decode:metrics_incomplete", "no_change"} <= set(decision.reasons)
    assert "decode: not lowered to 1, 2 of 4 decode workers have no metrics" in decision.clamps
    # The next tick without a gap lowers as if there had been none.
    freed, _ = run(made, [*[quiet] * 6, replace(quiet, gaps=GAPS), quiet])
    assert freed[-1].plan == {"prefill": 1, "decode": 1}


def test_a_gap_does_not_keep_a_pool_from_growing() -> None:
    made = planner(behaviour=AT_ONCE)
    busy = seen(3000, pools(1, 8), gaps=GAPS)
    decisions, _ = run(made, [busy] * 8)
    assert decisions[-1].plan["prefill"] > 1
    assert decisions[-1].plan["decode"] == 8
    assert "prefill:scale_up" in decisions[-1].reasons


def test_growth_beside_a_held_pool_stays_within_the_budget() -> None:
    made = planner(behaviour=AT_ONCE, max_gpus=12)
    busy = seen(3000, pools(1, 8))
    free, _ = run(made, [busy] * 8)
    assert free[-1].plan["prefill"] > 4
    decisions, _ = run(made, [replace(busy, gaps=GAPS)] * 8)
    assert decisions[-1].plan == {"prefill": 4, "decode": 8}
    assert "prefill:budget" in decisions[-1].reasons
    over, _ = run(made, [replace(busy, gaps=GAPS, pools=replace(busy.pools, value=pools(1, 20)))] * 8)
    assert over[-1].plan == {"prefill": 1, "decode": 20}
    assert "over_budget_kept" in over[-1].reasons


def test_no_traffic_at_all_lowers_nothing_either() -> None:
    made = planner(pools=pair(least=1), behaviour=AT_ONCE)
    idle = seen(0, pools(3, 3))
    idle = replace(idle, lengths=replace(idle.lengths, value=replace(idle.lengths.value, isl=(), osl=())))
    decisions, _ = run(made, [idle] * 8)
    assert decisions[-1].plan == {"prefill": 1, "decode": 1}
    held, _ = run(made, [*[idle] * 7, replace(idle, gaps=GAPS)])
    assert held[-1].plan == {"prefill": 3, "decode": 3}
    assert "decode:metrics_incomplete" in held[-1].reasons


def test_gaps_survive_the_record_and_old_records_have_none() -> None:
    made = planner()
    observation = seen(10, gaps=GAPS)
    decision, _ = made.decide(PlannerState(), observation, 1000.0)
    record = DecisionRecord("t", "g", "closed-form", (), made.settings, PlannerState(), observation, decision)
    line = to_line(record)
    assert from_line(line, source="journal", number=1) == record
    old = line.replace(',"gaps":["2 of 4 decode workers have no metrics"]', "")
    assert old != line
    assert from_line(old, source="journal", number=1).observation.gaps == ()
