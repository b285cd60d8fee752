"""What holds of every tick, whatever was seen before it."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import TypeAdapter

from planner.core.decide import Planner
from planner.core.forecast import ForecastSettings
from planner.core.stabilise import Behaviour, Direction, RatePolicy
from planner.core.state import Decision, PlannerState
from planner.core.types import Known, LengthSample, Level, Observation, PoolState, Sla, Unknown
from tests.property.core.strategies import absent, gone, lengths, supplies
from tests.unit.core.cases import GONE, SLA, pair, planner, seen

INTERVAL_S = 10.0

#: Small and quick: the forecast has tests of its own.
FORECAST = ForecastSettings(
    history_bins=20, min_fit_bins=8, autoregressive_lags=2, residuals=10, coarse_bins=0, refit_every=6, min_outcomes=2
)

STATE, OBSERVATION, DECISION = TypeAdapter(PlannerState), TypeAdapter(Observation), TypeAdapter(Decision)

quick = settings(deadline=None, max_examples=20)

behaviours = st.sampled_from(
    [
        Behaviour(),
        Behaviour(up=Direction(), down=Direction()),
        Behaviour(
            up=Direction(policies=(RatePolicy(kind="percent", value=50, period_s=30),)),
            down=Direction(window_s=30, tolerance=0.1, policies=(RatePolicy(kind="workers", value=2, period_s=30),)),
        ),
        Behaviour(up=Direction(window_s=20.0, tolerance=0.1)),
    ]
)

planners = st.builds(
    lambda least, span, gpus, behaviour, sla, spend: planner(
        pools=pair(least=least, most=least + span, decode_gpus=gpus),
        max_gpus=24,
        behaviour=behaviour,
        sla=sla,
        forecast=FORECAST,
        error_budget={"max_spend": spend},
        lengths_stale_after_s=40.0,
    ),
    st.integers(1, 4),
    st.integers(0, 12),
    st.sampled_from([1, 2]),
    behaviours,
    st.sampled_from([SLA, Sla(100.0, 15.0), Sla(10.0, 50.0), Sla(2000.0, 4.0, 0.9), Sla(1.0, 1.0)]),
    st.sampled_from([0.0, 0.06]),
)

arrivals = st.one_of(st.just(0), st.integers(0, 200), st.integers(1000, 40_000)).map(Known)
shares = st.floats(0.0, 1.0).map(Known)


@st.composite
def observations(
    draw: st.DrawFn, *, known: bool = False, missing: st.SearchStrategy[Unknown | Known[float]] = gone
) -> Observation:
    """Any observation; with `known` one whose arrivals, lengths and supply are known."""

    def maybe(strategy: st.SearchStrategy[Known[object]]) -> object:
        return draw(strategy if known else st.one_of(strategy, strategy, strategy, missing))

    supply = draw(supplies(missing=missing))
    if not known and draw(st.integers(0, 9)) == 0:
        supply.pop(draw(st.sampled_from(["prefill", "decode"])))
    sample = draw(st.one_of(lengths, st.just(LengthSample((1000,), (100,), (0,)))))
    unread = st.sampled_from([GONE, Known(supply, 61.0)])
    return Observation(
        interval_s=INTERVAL_S,
        arrivals=maybe(arrivals),  # type: ignore[arg-type]
        dispersion=maybe(st.floats(0.0, 20.0).map(Known)),  # type: ignore[arg-type]
        lengths=Known(sample) if known or draw(st.booleans()) else draw(st.sampled_from([GONE, Known(sample, 61.0)])),
        pools=Known(supply) if known or draw(st.integers(0, 4)) else draw(unread),
        attainment=maybe(shares),  # type: ignore[arg-type]
        mean_ttft_ms=maybe(st.floats(1.0, 1e4).map(Known)),  # type: ignore[arg-type]
        mean_itl_ms=maybe(st.floats(1.0, 100.0).map(Known)),  # type: ignore[arg-type]
    )


gaps = st.sampled_from([10.0, 10.0, 10.0, 11.0, 0.0, 65.0, 4000.0])
histories = st.lists(st.tuples(observations(), gaps), max_size=4)


def after(made: Planner, history: list[tuple[Observation, float]]) -> tuple[PlannerState, float]:
    state, now = PlannerState(), 1.7e9
    for observation, gap in history:
        now += gap
        _, state = made.decide(state, observation, now)
    return state, now + INTERVAL_S


def gpus(made: Planner, plan: dict[str, int]) -> int:
    return sum(made.settings.pools_by_name[name].gpus_per_worker * count for name, count in plan.items())


# -- 1. the same inputs, the same decision -----------------------------------------------------------------------------


@quick
@given(planners, histories, observations())
def test_the_same_inputs_give_the_same_decision(
    made: Planner, history: list[tuple[Observation, float]], observation: Observation
) -> None:
    state, now = after(made, history)
    copy = STATE.validate_python(STATE.dump_python(state))
    first, again = made.decide(state, observation, now), made.decide(state, observation, now)
    assert again == first
    assert state == copy


@quick
@given(planners, histories, observations(missing=absent))
def test_state_observation_and_settings_from_json_give_the_same_decision(
    made: Planner, history: list[tuple[Observation, float]], observation: Observation
) -> None:
    state, now = after(made, history)
    decision, later = made.decide(state, observation, now)
    read = STATE.validate_json(STATE.dump_json(state))
    assert read == state
    other = Planner(type(made.settings).model_validate_json(made.settings.model_dump_json()), made.capacity)
    again, later_again = other.decide(read, OBSERVATION.validate_json(OBSERVATION.dump_json(observation)), now)
    assert again == decision
    assert STATE.dump_json(later_again) == STATE.dump_json(later)
    assert DECISION.dump_json(again) == DECISION.dump_json(decision)
    assert DECISION.dump_json(DECISION.validate_json(DECISION.dump_json(decision))) == DECISION.dump_json(decision)


# -- 2., 3. budget and bounds ------------------------------------------------------------------------------------------


@settings(deadline=None, max_examples=40)
@given(planners, histories, observations())
def test_budget_and_bounds(made: Planner, history: list[tuple[Observation, float]], observation: Observation) -> None:
    state, now = after(made, history)
    decision, _ = made.decide(state, observation, now)
    plan, pools = dict(decision.plan), made.settings.pools_by_name
    floor = {name: pool.min_workers for name, pool in pools.items()}
    if decision.level is Level.LAST_GOOD:
        assert plan == (state.last_good or {})
    elif decision.level is Level.MODEL:
        for name, count in plan.items():
            # A maximum and a minimum hold whatever was there.
            assert pools[name].min_workers <= count <= pools[name].max_workers
            # No rule and no clamp raises a pool above what was asked for it, now or before.
            assert count <= max(decision.wanted[name], decision.current[name])
        if gpus(made, floor) <= made.settings.max_gpus:
            assert gpus(made, plan) <= made.settings.max_gpus
        else:
            assert plan == floor
            assert "budget_below_minimum" in decision.reasons
    else:
        for name, count in plan.items():
            # Without demand nothing is lowered, be it above maximum or budget; what is added keeps both.
            assert count >= decision.current[name]
            assert count <= max(pools[name].max_workers, decision.current[name])
        if gpus(made, plan) > made.settings.max_gpus:
            assert "over_budget_kept" in decision.reasons
            assert plan == dict(decision.current) or gpus(made, floor) > made.settings.max_gpus
        else:
            assert all(count >= floor[name] for name, count in plan.items()) or (
                gpus(made, {n: max(c, floor[n]) for n, c in decision.current.items()}) > made.settings.max_gpus
            )


@quick
@given(planners, histories, observations())
def test_every_decision_explains_itself(
    made: Planner, history: list[tuple[Observation, float]], observation: Observation
) -> None:
    state, now = after(made, history)
    decision, later = made.decide(state, observation, now)
    assert decision.reasons
    assert decision.at_s == now
    for name, count in decision.plan.items():
        if decision.current:
            before = decision.current[name]
            assert (f"{name}:scale_up" in decision.reasons) == (count > before)
            assert (f"{name}:scale_down" in decision.reasons) == (count < before)
        if decision.level is Level.MODEL and count != decision.wanted[name]:
            assert any(clamp.startswith(f"{name}: ") for clamp in decision.clamps)
    if decision.level is not Level.LAST_GOOD:
        assert later.last_good == decision.plan
    # 6. an SLA out of reach is said.
    if decision.level is Level.MODEL and decision.chosen is not None:
        assert ("sla_unreachable" in decision.reasons) == (not decision.sla_reachable)
        assert (decision.nearest is None) == decision.sla_reachable
        if made.settings.sla.ttft_ms <= 10.0:
            assert not decision.sla_reachable
            assert decision.nearest is not None
            assert decision.nearest.ttft_ms > made.settings.sla.ttft_ms


# -- 5. unknown is not zero --------------------------------------------------------------------------------------------

BREAKABLE = ("arrivals", "dispersion", "lengths", "attainment", "mean_ttft_ms", "mean_itl_ms", "pools")


@dataclass(frozen=True)
class Broken:
    """Readings of an observation that are to be broken, and how; pools lose their queues and KV usage too."""

    names: frozenset[str]
    by: Unknown | Known[float]

    def of(self, observation: Observation) -> Observation:
        changes: dict[str, object] = {}
        for name in self.names:
            reading = getattr(observation, name)
            if name in {"lengths", "pools"} and isinstance(self.by, Known):
                changes[name] = Known(reading.value, 61.0)
            else:
                changes[name] = self.by
        return replace(observation, **changes)  # type: ignore[arg-type]


broken = st.builds(Broken, st.frozensets(st.sampled_from(BREAKABLE), min_size=1), gone)


@settings(deadline=None, max_examples=40)
@given(planners, histories, observations(known=True), broken)
def test_unknown_demand_or_supply_never_scales_down(
    made: Planner, history: list[tuple[Observation, float]], whole: Observation, part: Broken
) -> None:
    state, now = after(made, history)
    observation = part.of(whole)
    decision, _ = made.decide(state, observation, now)
    assert isinstance(whole.pools, Known)
    if "pools" in part.names:
        assert decision.plan == (state.last_good or {})
        assert decision.reasons[0].startswith("supply unknown: ")
    elif "arrivals" in part.names:
        assert all(decision.plan[name] >= pool.desired for name, pool in whole.pools.value.items())
        assert any(reason.startswith("arrivals unknown: ") for reason in decision.reasons)
    elif "lengths" in part.names and state.lengths is None and whole.arrivals != Known(0):
        assert all(decision.plan[name] >= pool.desired for name, pool in whole.pools.value.items())
        assert "no request has completed yet" in decision.reasons


@quick
@given(st.lists(st.tuples(gone, supplies(1, 12)), min_size=1, max_size=12), st.integers(1, 3))
def test_no_run_of_unknown_ticks_ever_lowers_a_pool(
    ticks: list[tuple[Unknown | Known[int], dict[str, PoolState]]], least: int
) -> None:
    made = planner(pools=pair(least=least, most=12), forecast=FORECAST)
    state, now = PlannerState(), 1000.0
    for arrived in (3000, 2500, 3500):
        now += INTERVAL_S
        decision, state = made.decide(state, seen(arrived), now)
    for reading, supply in ticks:
        now += INTERVAL_S
        decision, state = made.decide(state, seen(reading, supply), now)
        assert decision.level in {Level.HOLD, Level.REACTIVE}
        assert all(decision.plan[name] >= pool.desired for name, pool in supply.items())


@settings(deadline=None, max_examples=6)
@given(planners, st.integers(0, 20), st.integers(0, 20))
def test_real_zero_traffic_ends_at_the_minimum(made: Planner, prefill: int, decode: int) -> None:
    state, now = PlannerState(), 1000.0
    supply = {"prefill": PoolState(prefill, prefill), "decode": PoolState(decode, decode)}
    decision, state = made.decide(state, seen(0, supply), now)
    # Slowly, where the rules say so: two workers in thirty seconds.
    for _ in range(40):
        now += INTERVAL_S
        supply = {name: PoolState(count, count) for name, count in decision.plan.items()}
        decision, state = made.decide(state, seen(0, supply), now)
    assert decision.level is Level.MODEL
    tolerance = made.settings.behaviour.down.tolerance
    for name, pool in made.settings.pools_by_name.items():
        assert decision.plan[name] - pool.min_workers <= tolerance * decision.plan[name]


# -- 4. more load, a looser SLA, a larger budget -----------------------------------------------------------------------


def decided(made: Planner, state: PlannerState, arrived: int, supply: dict[str, PoolState], now: float) -> Decision:
    return made.decide(state, seen(arrived, supply), now)[0]


rises = st.tuples(st.integers(0, 8000), st.floats(1.0, 10.0))


@quick
@given(st.lists(st.integers(0, 5000), max_size=3), rises, supplies(1, 12))
def test_more_arrivals_never_want_fewer_gpus(
    before: list[int], rise: tuple[int, float], supply: dict[str, PoolState]
) -> None:
    # Until a candidate is fitted the last value forecasts alone, which rises with what came.
    made = planner(max_gpus=1000, pools=pair(most=200), forecast=FORECAST)
    state, now = PlannerState(), 1000.0
    for arrived in before:
        now += INTERVAL_S
        _, state = made.decide(state, seen(arrived, supply), now)
    now += INTERVAL_S
    arrived, factor = rise
    less = decided(made, state, arrived, supply, now)
    more = decided(made, state, math.ceil(arrived * factor), supply, now)
    assert gpus(made, dict(more.wanted)) >= gpus(made, dict(less.wanted))
    assert more.plan["prefill"] + more.plan["decode"] >= less.plan["prefill"] + less.plan["decode"]


@quick
@given(histories, observations(known=True), st.floats(1.0, 5.0), st.floats(1.0, 5.0))
def test_a_looser_sla_never_wants_more_gpus(
    history: list[tuple[Observation, float]], observation: Observation, ttft: float, itl: float
) -> None:
    tight = planner(max_gpus=1000, pools=pair(most=300), forecast=FORECAST)
    sla = Sla(SLA.ttft_ms * ttft, SLA.itl_ms * itl)
    loose = replace(tight, settings=tight.settings.model_copy(update={"sla": sla}))
    state, now = after(tight, history)
    strict, _ = tight.decide(state, observation, now)
    slack, _ = loose.decide(state, observation, now)
    if strict.sla_reachable and "sla_not_reached_within_limits" not in strict.reasons:
        assert gpus(tight, dict(slack.wanted)) <= gpus(tight, dict(strict.wanted))


@quick
@given(histories, observations(known=True), st.integers(2, 60), st.integers(0, 60))
def test_a_larger_budget_never_predicts_less(
    history: list[tuple[Observation, float]], observation: Observation, small: int, more: int
) -> None:
    tight = planner(max_gpus=small, pools=pair(most=40), forecast=FORECAST)
    wide = replace(tight, settings=tight.settings.model_copy(update={"max_gpus": small + more}))
    state, now = after(tight, history)
    one, _ = tight.decide(state, observation, now)
    two, _ = wide.decide(state, observation, now)
    assert one.predicted_attainment is not None
    assert two.predicted_attainment is not None
    assert one.target == two.target
    if one.sla_reachable and one.limit in {"budget", "max_workers"}:
        # A plan within the tolerance of its target stays, where a smaller budget took the best that it could.
        assert two.predicted_attainment >= one.predicted_attainment - (0.02 if two.limit == "tolerance" else 1e-9)
    if one.limit not in {"budget", "max_workers"}:
        assert two.wanted == one.wanted or not one.sla_reachable


# -- 10. starting workers are supply that comes ------------------------------------------------------------------------


@quick
@given(planners, histories, observations(), st.integers(0, 20))
def test_how_many_workers_still_start_changes_no_sized_plan(
    made: Planner, history: list[tuple[Observation, float]], observation: Observation, starting: int
) -> None:
    state, now = after(made, history)
    decision, _ = made.decide(state, observation, now)
    if not isinstance(observation.pools, Known):
        return
    later = {
        name: replace(pool, ready=max(0, pool.desired - starting), starting=min(starting, pool.desired))
        for name, pool in observation.pools.value.items()
    }
    again, _ = made.decide(state, replace(observation, pools=Known(later, observation.pools.age_s)), now)
    if decision.level in {Level.MODEL, Level.LAST_GOOD}:
        assert again.wanted == decision.wanted
        if any(reason.endswith(":backlog") for reason in (*decision.reasons, *again.reasons)):
            # Fewer that serve may keep what is there, and never ask for more.
            assert all(again.plan[name] <= max(count, again.current[name]) for name, count in decision.plan.items())
        else:
            assert again.plan == decision.plan
    elif starting > 0:
        # A queue is no reason for more while what was asked for is still coming.
        floor = {name: pool.min_workers for name, pool in made.settings.pools_by_name.items()}
        for name, count in again.plan.items():
            if later[name].desired > 0:
                assert count <= max(again.current[name], floor[name])


@quick
@given(st.integers(1, 4000), supplies(1, 12), st.integers(2, 10), st.floats(0.0, 500.0))
def test_repeated_ticks_while_workers_start_never_raise_the_plan(
    arrived: int, supply: dict[str, PoolState], ticks: int, waiting: float
) -> None:
    # The load and the queue stay, nothing gets ready, every plan is asked for: the first plan is the last.
    made = planner(max_gpus=1000, pools=pair(most=200), forecast=FORECAST)
    state, now, first = PlannerState(), 1000.0, None
    asked = {name: pool.desired for name, pool in supply.items()}
    for _ in range(ticks):
        now += INTERVAL_S
        coming = {
            name: PoolState(count, 1, max(0, count - 1), waiting_requests=Known(waiting))
            for name, count in asked.items()
        }
        decision, state = made.decide(state, seen(arrived, coming), now)
        asked = dict(decision.plan)
        first = first or asked
        assert all(asked[name] <= first[name] for name in asked)


def test_the_strategies_reach_all_levels() -> None:
    levels: dict[Level, int] = {}

    @settings(deadline=None, max_examples=60, database=None, derandomize=True)
    @given(planners, histories, observations())
    def look(made: Planner, history: list[tuple[Observation, float]], observation: Observation) -> None:
        state, now = after(made, history)
        level = made.decide(state, observation, now)[0].level
        levels[level] = levels.get(level, 0) + 1

    look()
    assert set(levels) == set(Level), levels
