"""One tick after another: levels, staleness, partial supply, clamps, starting workers, gaps."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest

from planner.core.decide import Planner
from planner.core.readings import usable
from planner.core.stabilise import Behaviour, Direction, RatePolicy
from planner.core.state import Decision, PlannerState
from planner.core.types import Known, LengthSample, Level, Observation, PoolState, Sla, Unknown
from tests.unit.core.cases import (
    AGGREGATED,
    GONE,
    SLA,
    h200_aggregated,
    pair,
    planner,
    pools,
    run,
    sample,
    seen,
    settle,
    single,
)

NAN, INF = math.nan, math.inf

#: 300 requests/s of 1000 + 100 tokens: six prefill workers and more, and two or three for decode.
BUSY = 3000


def tick(
    observation: Observation, made: Planner | None = None, state: PlannerState | None = None
) -> tuple[Decision, PlannerState]:
    return (made or planner()).decide(state or PlannerState(), observation, 1000.0)


# -- readings ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("value", "age_s", "why"),
    [
        (NAN, 0.0, "not a number: nan"),
        (INF, 0.0, "not a number: inf"),
        (-INF, 0.0, "not a number: -inf"),
        (-1.0, 0.0, "negative: -1.0"),
        (-1, 0.0, "negative: -1"),
        (5.0, 61.0, "stale: 61 s old, 60 s allowed"),
        (5.0, NAN, "stale: nan s old, 60 s allowed"),
    ],
)
def test_unusable(value: float, age_s: float, why: str) -> None:
    found = usable(Known(value, age_s), 60.0)
    assert isinstance(found, Unknown)
    assert found.reason == why


def test_usable() -> None:
    for reading in (Known(0), Known(0.0), Known(5, 60.0), Known(sample())):
        assert usable(reading, 60.0) is reading
    assert usable(GONE, 60.0) is GONE


# -- levels ------------------------------------------------------------------------------------------------------------


def test_model() -> None:
    decision, _, _, _ = settle(planner(), BUSY)
    assert decision.level is Level.MODEL
    assert decision.plan == decision.wanted
    assert decision.sla_reachable
    assert decision.nearest is None
    assert decision.reasons[0] in {"sized_for_ttft", "sized_for_itl"}
    assert decision.target is not None
    assert decision.predicted_attainment is not None
    assert decision.predicted_attainment >= decision.target
    assert decision.demand is not None
    assert decision.demand.mean_isl == 1000
    assert decision.demand.mean_osl == 100
    assert decision.demand.median_rps == pytest.approx(300.0)
    assert decision.chosen in decision.candidates
    assert min(decision.plan.values()) > 1


def test_reactive_adds_a_quarter_to_saturated_pools_only() -> None:
    supply = pools(8, 8)
    supply["decode"] = replace(supply["decode"], waiting_requests=Known(33.0))  # above 4 per ready worker
    supply["prefill"] = replace(supply["prefill"], waiting_requests=Known(32.0))
    decision, state = tick(seen(GONE, supply))
    assert decision.level is Level.REACTIVE
    assert decision.plan == {"prefill": 8, "decode": 10}
    assert decision.reasons == ("decode:saturated", "arrivals unknown: the exporter is down", "decode:scale_up")
    assert decision.limit == "unknown_demand"
    assert decision.wanted == {}
    assert decision.forecast == Unknown("arrivals unknown: the exporter is down")
    assert state.last_good == decision.plan


def test_reactive_on_kv_usage_adds_at_least_one() -> None:
    supply = pools(1, 1)
    supply["decode"] = replace(supply["decode"], kv_usage=Known(0.91))
    supply["prefill"] = replace(supply["prefill"], kv_usage=Known(0.9))
    decision, _ = tick(seen(GONE, supply))
    assert decision.plan == {"prefill": 1, "decode": 2}


@pytest.mark.parametrize("reading", [Known(1000.0, 61.0), Known(NAN), Known(INF), Known(-5.0), GONE])
def test_reactive_does_not_act_on_what_is_no_reading(reading: Known[float] | Unknown) -> None:
    decision, _ = tick(seen(GONE, pools(2, 2, waiting_requests=reading, kv_usage=reading)))
    assert decision.level is Level.HOLD
    assert decision.plan == {"prefill": 2, "decode": 2}


def test_reactive_waits_for_what_it_asked_for() -> None:
    full = Known(1.0)
    for coming in (PoolState(5, 4, 1, kv_usage=full), PoolState(5, 4, kv_usage=full)):
        decision, _ = tick(seen(GONE, {"prefill": PoolState(1, 1), "decode": coming}))
        assert decision.level is Level.REACTIVE
        assert decision.plan == {"prefill": 1, "decode": 5}
        assert decision.reasons[-1] == "no_change"


def test_reactive_keeps_maximum_and_budget() -> None:
    full = pools(8, 8, kv_usage=Known(1.0))
    decision, _ = tick(seen(GONE, full), planner(pools=pair(most=9)))
    assert decision.plan == {"prefill": 9, "decode": 9}
    decision, _ = tick(seen(GONE, full), planner(max_gpus=17))
    assert sum(decision.plan.values()) == 17
    assert "decode:budget" in decision.reasons


def test_hold_keeps_what_is_there_over_budget_and_maximum_and_says_so() -> None:
    decision, _ = tick(seen(GONE, pools(8, 8)), planner(pools=pair(most=4), max_gpus=10))
    assert decision.level is Level.HOLD
    assert decision.plan == {"prefill": 8, "decode": 8}
    assert "over_budget_kept" in decision.reasons
    assert "budget_below_minimum" not in decision.reasons


def test_hold_still_brings_a_pool_to_its_minimum() -> None:
    # A graph that starts at nothing completes nothing: without its minimum it would never start.
    nothing = {"prefill": PoolState(0, 0), "decode": PoolState(3, 3)}
    for observation in (seen(GONE, nothing), seen(5, nothing, lengths=GONE)):
        decision, _ = tick(observation, planner(pools=pair(least=2, most=8)))
        assert decision.plan == {"prefill": 2, "decode": 3}
        assert "prefill:min_workers" in decision.reasons
        assert decision.reasons[-1] == "prefill:scale_up"


def test_a_minimum_is_no_reason_to_leave_the_budget() -> None:
    # A pool above its maximum stays as it is, and its GPUs count.
    supply = {"prefill": PoolState(0, 0), "decode": PoolState(12, 12)}
    decision, _ = tick(seen(GONE, supply), planner(pools=pair(most=4, decode_gpus=2), max_gpus=24))
    assert decision.plan == {"prefill": 0, "decode": 12}
    assert "prefill:budget" in decision.reasons


def test_hold_until_a_request_has_completed() -> None:
    decision, _ = tick(seen(100, pools(3, 3), lengths=GONE))
    assert decision.level is Level.HOLD
    assert decision.plan == {"prefill": 3, "decode": 3}
    assert decision.reasons == ("no request has completed yet", "no_change")
    decision, _ = tick(seen(100, pools(3, 3), lengths=LengthSample((), (), ())))
    assert decision.level is Level.HOLD


@pytest.mark.parametrize("supply", [GONE, Known({"prefill": PoolState(1, 1)}), Known({}), Known(pools(), 61.0)])
def test_last_good_where_not_all_of_the_supply_is_known(supply: Known[dict[str, PoolState]] | Unknown) -> None:
    made = planner()
    good, state, _, now = settle(made, BUSY)
    decision, after = made.decide(state, replace(seen(BUSY), pools=supply), now + 10.0)
    assert decision.level is Level.LAST_GOOD
    assert decision.plan == good.plan
    assert decision.limit == "unknown_supply"
    assert decision.current == {}
    assert decision.reasons[0].startswith("supply unknown: ")
    assert after.last_good == state.last_good
    assert after.forecast != state.forecast  # what came is learned all the same


def test_missing_pools_are_named() -> None:
    decision, _ = tick(seen(5, {}))
    assert decision.reasons == ("supply unknown: pools not found: decode, prefill",)


def test_nothing_is_asked_for_before_anything_is_known() -> None:
    decision, state = tick(seen(BUSY, GONE))
    assert decision.level is Level.LAST_GOOD
    assert decision.plan == {}
    assert state.last_good is None


def test_levels_recover_by_themselves() -> None:
    made = planner()
    _, state, supply, now = settle(made, BUSY)
    levels = []
    for observation in (
        seen(GONE, supply),
        seen(BUSY, GONE),
        seen(BUSY, supply),
        seen(GONE, {name: replace(pool, waiting_requests=Known(0.0)) for name, pool in supply.items()}),
        seen(BUSY, supply),
    ):
        now += 10.0
        decision, state = made.decide(state, observation, now)
        levels.append(decision.level)
    assert levels == [Level.HOLD, Level.LAST_GOOD, Level.MODEL, Level.REACTIVE, Level.MODEL]


# -- unknown is not zero -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "arrivals", [GONE, Known(0, 61.0), Known(NAN), Known(INF), Known(-1)], ids=["gone", "stale", "nan", "inf", "neg"]
)
def test_unknown_arrivals_never_scale_down(arrivals: Known[int] | Unknown) -> None:
    made = planner()
    busy, state, supply, now = settle(made, BUSY)
    for k in range(1, 9):
        decision, state = made.decide(state, seen(arrivals, supply), now + 10.0 * k)
        assert decision.plan == busy.plan
        assert decision.level is Level.HOLD
        assert decision.reasons[0].startswith("arrivals unknown: ")


@pytest.mark.parametrize("interval_s", [0.0, -10.0, NAN, INF])
def test_an_interval_without_length_has_no_rate(interval_s: float) -> None:
    decision, _ = tick(seen(0, pools(4, 4), interval_s=interval_s))
    assert decision.level is Level.HOLD
    assert decision.plan == {"prefill": 4, "decode": 4}


def test_zero_traffic_scales_down_to_the_minimum_after_the_window() -> None:
    made = planner(pools=pair(least=2, most=32))
    busy, state, supply, now = settle(made, BUSY, supply=pools(2, 2))
    assert sum(busy.plan.values()) > 4
    plans = []
    for k in range(1, 20):
        decision, state = made.decide(state, seen(0, supply, lengths=GONE), now + 10.0 * k)
        supply = {name: PoolState(count, count) for name, count in decision.plan.items()}
        plans.append(decision.plan)
    assert plans[0] == busy.plan
    assert plans[5] == busy.plan  # 60 s
    assert plans[-1] == {"prefill": 2, "decode": 2}


def test_zero_traffic_from_the_start_needs_a_whole_horizon() -> None:
    made = planner(lead_time_s=30.0, horizon_intervals=1.0)  # four bins
    decisions, state = run(made, [seen(0, pools(4, 4), lengths=GONE)] * 16)
    assert [d.level for d in decisions[:4]] == [Level.HOLD] * 3 + [Level.MODEL]
    assert decisions[3].reasons == ("no_traffic", "prefill:down_window", "decode:down_window", "no_change")
    assert all(d.plan == {"prefill": 4, "decode": 4} for d in decisions[:10])
    assert decisions[-1].plan == {"prefill": 1, "decode": 1}
    assert state.last_good == {"prefill": 1, "decode": 1}


def test_lengths_are_carried_and_only_old_ones_keep_workers() -> None:
    made = planner(lengths_stale_after_s=100.0)
    busy, state, supply, now = settle(made, BUSY)
    lowered = None
    for k in range(1, 25):
        arrivals = BUSY if k <= 11 else 20
        decision, state = made.decide(state, seen(arrivals, supply, lengths=GONE), now + 10.0 * k)
        assert decision.level is Level.MODEL
        assert decision.demand is not None
        assert decision.demand.mean_isl == 1000
        lowered = decision
    assert lowered is not None
    assert lowered.plan == busy.plan
    assert "decode:lengths_stale" in lowered.reasons
    assert any("lengths are 240 s old" in clamp for clamp in lowered.clamps)


def test_stale_lengths_are_not_learned() -> None:
    observation = replace(seen(BUSY), lengths=Known(sample(), 61.0))
    _, state = tick(observation)
    assert state.lengths is None


def test_lengths_of_a_tick_are_thinned_and_the_oldest_forgotten() -> None:
    made = planner(sample_size=16, sample_per_tick=4)
    big = LengthSample(tuple(range(100, 116)), (10,) * 16, (0,) * 16)
    _, state = run(made, [seen(BUSY, lengths=big)])
    assert state.lengths is not None
    assert state.lengths.isl == (100, 104, 108, 112)
    _, state = run(made, [seen(BUSY, lengths=sample(n=4))] * 4, state, start_s=1010.0)
    assert state.lengths is not None
    assert state.lengths.isl == (1000,) * 16


# -- bounds ------------------------------------------------------------------------------------------------------------


def test_a_pool_above_its_maximum_comes_down_at_once() -> None:
    made = planner(pools=pair(most=8))
    decision, _ = tick(seen(BUSY, pools(20, 20)), made)
    assert decision.plan == {"prefill": 8, "decode": 8}
    assert "prefill:budget" in decision.reasons
    assert "prefill: 20 after stabilisation, 8 by budget or maximum" in decision.clamps


def test_pools_above_the_budget_come_down_to_it_but_not_below_what_is_wanted() -> None:
    made = planner(max_gpus=12)
    decision, _ = tick(seen(BUSY, pools(20, 20)), made)
    assert sum(decision.plan.values()) == 12
    assert all(decision.plan[name] >= decision.wanted[name] for name in decision.plan)


def test_a_budget_below_the_minimum_is_said() -> None:
    made = planner(pools=pair(least=4), max_gpus=6)
    decision, _ = tick(seen(BUSY, pools(4, 4)), made)
    assert decision.plan == {"prefill": 4, "decode": 4}
    assert "budget_below_minimum" in decision.reasons
    assert decision.limit == "budget"


def test_a_budget_that_is_too_small_is_used_and_said() -> None:
    made = planner(max_gpus=3)
    decision, _, _, _ = settle(made, BUSY)
    assert sum(decision.plan.values()) == 3
    assert decision.limit == "budget"
    assert "sla_not_reached_within_limits" in decision.reasons
    assert decision.sla_reachable


def test_rules_of_scale_ups_hold_no_pool_below_its_minimum() -> None:
    slow = Behaviour(up=Direction(window_s=300.0))
    made = planner(pools=pair(least=3, most=8), behaviour=slow)
    decision, _ = tick(seen(1, pools(1, 5)), made)
    assert decision.plan["prefill"] == 3
    assert "prefill:min_workers" in decision.reasons
    one = Behaviour(up=Direction(policies=(RatePolicy(kind="workers", value=1, period_s=60),)))
    decision, _ = tick(seen(1, pools(1, 5)), planner(pools=pair(least=3, most=8), behaviour=one))
    assert decision.plan["prefill"] == 3


def test_policies_count_the_moves_that_were_made() -> None:
    # Old lengths keep what the rules let go: nothing moved. A budget takes what the window holds: that moved.
    two = Direction(policies=(RatePolicy(kind="workers", value=2, period_s=3600),))
    made = planner(behaviour=Behaviour(down=two), lengths_stale_after_s=5.0)
    _, state = run(made, [seen(10, pools(1, 1))])
    decision, state = made.decide(state, seen(10, pools(9, 9), lengths=GONE), 1010.0)
    assert "decode:lengths_stale" in decision.reasons
    assert state.memory["decode"].changed == ()
    held = planner(behaviour=Behaviour(down=Direction(window_s=60.0, policies=two.policies)), max_gpus=10)
    decision, state = tick(seen(10, pools(9, 9)), held)
    assert sum(decision.plan.values()) == 10
    assert sum(change for memory in state.memory.values() for _, change in memory.changed) == -8


# -- an SLA out of reach -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("sla", [Sla(10.0, 50.0), Sla(500.0, 2.0), Sla(1.0, 1.0)])
def test_an_sla_out_of_reach_is_said_with_the_nearest_and_still_carries_the_load(sla: Sla) -> None:
    decision, _, _, _ = settle(planner(sla=sla), BUSY)
    assert not decision.sla_reachable
    assert "sla_unreachable" in decision.reasons
    assert decision.limit == "sla"
    assert decision.nearest is not None
    assert decision.nearest.ttft_ms >= sla.ttft_ms
    assert decision.nearest.itl_ms >= sla.itl_ms
    assert decision.nearest != sla
    assert sum(decision.plan.values()) > 2
    reached, _, _, _ = settle(planner(sla=SLA), BUSY)
    assert reached.sla_reachable
    # The nearest one is within reach.
    near, _, _, _ = settle(planner(sla=decision.nearest), 4)
    assert near.sla_reachable


# -- supply that comes -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("waiting", [0.0, 200.0])
def test_no_cascade_while_workers_start(waiting: float) -> None:
    # One supply starts for two minutes, the other is ready at once: every plan is the same, but that the first keeps
    # what it has asked for while two hundred wait for its few workers.
    made = planner(lead_time_s=120.0)
    _, before, supply, now = settle(made, 100)
    plans: dict[bool, list[dict[str, int]]] = {}
    for starts in (True, False):
        state = before
        asked, plans[starts] = {name: pool.desired for name, pool in supply.items()}, []
        for k in range(1, 13):
            there = {name: 1 if starts else count for name, count in asked.items()}
            coming = {
                name: PoolState(count, there[name], count - there[name], waiting_requests=Known(waiting))
                for name, count in asked.items()
            }
            decision, state = made.decide(state, seen(BUSY, coming), now + 10.0 * k)
            asked = dict(decision.plan)
            plans[starts].append(asked)
    if waiting:
        assert plans[True] == [plans[False][0]] * 12
    else:
        assert plans[True] == plans[False]
    assert sum(plans[True][-1].values()) > 4


def test_what_waits_keeps_every_pool_until_it_is_worked_off() -> None:
    # A decode worker of these engines takes far more than the load, so prefill is what requests wait for.
    made = planner(behaviour=Behaviour(down=Direction(window_s=0.0)))
    _, state, _, now = settle(made, 100)

    def plan(waiting: Known[float] | Unknown, ready: int = 6) -> Decision:
        supply = {"prefill": PoolState(6, ready, 6 - ready, waiting_requests=waiting), "decode": PoolState(5, 5)}
        return made.decide(state, seen(100, supply), now + 10.0)[0]

    low = plan(Known(0.0))
    assert low.plan["prefill"] < 6 > low.plan["decode"]
    held = plan(Known(900.0))
    assert held.plan == {"prefill": 6, "decode": 5}
    assert held.wanted == low.wanted, "the arrivals ask for no more"
    assert {"prefill:backlog", "decode:backlog"} <= set(held.reasons)
    assert any(
        clamp.startswith("prefill: not lowered to") and "900 waiting for prefill" in clamp for clamp in held.clamps
    )
    # For an interval after it, too, and no longer.
    supply = {"prefill": PoolState(6, 6, waiting_requests=Known(0.0)), "decode": PoolState(5, 5)}
    decision, after = made.decide(
        state, seen(100, supply | {"prefill": replace(supply["prefill"], waiting_requests=Known(900.0))}), now + 10.0
    )
    for k, plans in ((2, held.plan), (3, low.plan)):
        decision, after = made.decide(after, seen(100, supply), now + 10.0 * k)
        assert decision.plan == plans
        assert any("an interval ago 900 waiting for prefill" in clamp for clamp in decision.clamps) is (k == 2)
    # What six workers do in two seconds is none, and more than nothing is one where none serves.
    assert plan(Known(3.0)).plan == low.plan
    assert plan(Known(3.0), ready=0).plan == held.plan
    assert plan(GONE).plan == low.plan


def test_a_steady_load_asks_for_no_more_while_its_workers_start() -> None:
    made = planner(lead_time_s=120.0)
    first, state, asked = None, PlannerState(), {"prefill": 1, "decode": 1}
    for k in range(12):
        coming = {name: PoolState(count, 1, count - 1) for name, count in asked.items()}
        decision, state = made.decide(state, seen(BUSY, coming), 1000.0 + 10.0 * k)
        asked = dict(decision.plan)
        first = first or asked
        assert asked == first
    assert sum(asked.values()) > 4


def test_no_reactive_cascade_while_workers_start() -> None:
    made = planner()
    supply, state = pools(4, 4, kv_usage=Known(1.0)), PlannerState()
    plans = []
    for k in range(10):
        decision, state = made.decide(state, seen(GONE, supply), 1000.0 + 10.0 * k)
        plans.append(decision.plan)
        supply = {name: PoolState(count, 4, count - 4, kv_usage=Known(1.0)) for name, count in decision.plan.items()}
    assert plans == [{"prefill": 5, "decode": 5}] * 10


# -- time --------------------------------------------------------------------------------------------------------------


def test_after_a_gap_the_state_still_serves() -> None:
    made = planner()
    busy, state, supply, now = settle(made, BUSY)
    for gap in (95.0, 7200.0):
        decision, _ = made.decide(state, seen(BUSY, supply), now + gap)
        assert decision.level is Level.MODEL
        assert all(decision.plan[name] >= busy.plan[name] - 1 for name in busy.plan)


def test_a_repeated_tick_changes_no_forecast() -> None:
    made = planner()
    _, state, supply, now = settle(made, BUSY)
    first, again = made.decide(state, seen(BUSY, supply), now + 10.0)
    second, _ = made.decide(again, seen(BUSY, supply), now + 10.0)
    assert first.plan == second.plan
    assert first.forecast == second.forecast


def test_aggregated_graph() -> None:
    made = planner(h200_aggregated(), single(most=32))
    supply = {"agg": PoolState(1, 1)}
    decision, _, _, _ = settle(made, BUSY, supply=supply)
    assert decision.level is Level.MODEL
    assert decision.plan["agg"] > 1
    assert decision.chosen is not None
    assert set(decision.chosen.workers) == {AGGREGATED}
