"""A replay carries plans out within the budget, counts what they cost, and shows policies what a pod would see."""

from collections.abc import Callable, Mapping, Sequence

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from planner.core.engines import Engines
from planner.core.settings import PlannerSettings
from planner.core.types import Known, Observation, Plan, Pool, Role, Sla, Unknown
from planner.whatif.policies.base import Policy, Setting
from planner.whatif.policies.static import Static
from planner.whatif.replay import _quantile, replay
from planner.whatif.simulator.simulation import Finished, Simulation, WorkerLoad
from planner.whatif.simulator.state import DRAINING, FREE, READY, STARTING
from tests.engines import AGGREGATED, DECODE, PREFILL, HandTrace, Row, aggregated, disaggregated, engine, poisson

NAMES = {AGGREGATED: "agg", PREFILL: "fill", DECODE: "dec"}
STARTUP_S = 25.0


def setting_of(engines: Engines, rows: list[Row], begin: Plan, max_gpus: int, startup_s: float = STARTUP_S) -> Setting:
    pools: Mapping[Role, Pool] = {
        role: Pool(NAMES[role], role, timing.gpus, 0, 64)
        for role, timing in zip(engines.roles, engines.timing, strict=True)
    }
    return Setting(
        engines=engines,
        profiles={},
        pools=pools,
        settings=PlannerSettings(sla=Sla(ttft_ms=500.0, itl_ms=50.0), pools=tuple(pools.values()), max_gpus=max_gpus),
        start=begin,
        startup_s=startup_s,
        routing="least_loaded",
        trace=HandTrace(rows),
    )


class Scripted(Policy):
    """Plans by tick; the last one stays. Keeps what it was shown."""

    def __init__(self, plans: list[Plan], interval_s: float = 10.0) -> None:
        self.interval_s = interval_s
        self._plans = plans
        self.seen: list[Observation] = []
        self.times: list[float] = []

    def decide(self, observation: Observation, now_s: float) -> Plan:
        self.seen.append(observation)
        self.times.append(now_s)
        return self._plans[min(len(self.seen), len(self._plans)) - 1]


class Blind(Scripted):
    """Does not look."""

    observes = False


def steady(span_s: float, gap_s: float = 0.5, isl: int = 100, osl: int = 10) -> list[Row]:
    return [(float(t * 1000), isl, osl, 0) for t in np.arange(0.0, span_s + 1e-9, gap_s)]


def test_a_policy_that_does_not_look_changes_nothing_but_what_it_is_shown() -> None:
    setting = setting_of(aggregated(engine()), steady(60.0), {"agg": 1}, 4)
    plans: list[Plan] = [{"agg": 2}, {"agg": 1}]
    looks, blind = Scripted(plans), Blind(plans)
    outcomes = [replay(setting, policy, "x") for policy in (looks, blind)]
    assert outcomes[0].as_json() | {"wall_s": 0, "simulated_requests_per_s": 0} == outcomes[1].as_json() | {
        "wall_s": 0,
        "simulated_requests_per_s": 0,
    }
    assert outcomes[0].ticks == outcomes[1].ticks
    assert any(isinstance(seen.pools, Known) for seen in looks.seen)
    assert all(isinstance(part, Unknown) for seen in blind.seen for part in (seen.arrivals, seen.pools, seen.lengths))


class Hurried(Scripted):
    """Hurries where more than so many a second arrive. Keeps what it was shown at glances."""

    glances = 2

    def __init__(self, plans: list[Plan], most_rps: float) -> None:
        super().__init__(plans, interval_s=12.0)
        self._most_rps = most_rps
        self.glanced: list[tuple[float, int]] = []

    def hurries(self, observation: Observation) -> bool:
        assert isinstance(observation.arrivals, Known)
        assert isinstance(observation.pools, Unknown)
        self.glanced.append((observation.interval_s, observation.arrivals.value))
        return observation.arrivals.value / observation.interval_s > self._most_rps


def test_a_policy_that_hurries_has_its_tick_at_the_glance_and_the_next_an_interval_later() -> None:
    crowd = [(1000.0 * (30.0 + 0.1 * k), 100, 10, 0) for k in range(1, 60)]
    rows = sorted([*steady(60.0, gap_s=1.0), *crowd])
    policy = Hurried([{"agg": 1}], most_rps=3.0)
    replay(setting_of(aggregated(engine()), rows, {"agg": 1}, 4), policy, "x")
    # The crowd comes at 30.1 s and goes on for 6 s; the glances after the tick at 24 s are at 28 and 32 s.
    assert policy.times[:6] == [12.0, 24.0, 32.0, 36.0, 48.0, 60.0]
    assert [seen.interval_s for seen in policy.seen[:6]] == [12.0, 12.0, 8.0, 4.0, 12.0, 12.0]
    assert policy.glanced[:4] == [(4.0, 5), (8.0, 9), (4.0, 4), (8.0, 8)]
    arrivals = [seen.arrivals.value for seen in policy.seen if isinstance(seen.arrivals, Known)]
    assert sum(arrivals) == len(rows), "glances take nothing away"
    still = Hurried([{"agg": 1}], most_rps=1e9)
    replay(setting_of(aggregated(engine()), rows, {"agg": 1}, 4), still, "x")
    assert still.times[:4] == [12.0, 24.0, 36.0, 48.0]


@given(values=st.lists(st.floats(1e-3, 1e7), min_size=1, max_size=60), share=st.floats(0.01, 1.0))
def test_the_quantile_of_a_tick_is_numpys_bit_for_bit(values: list[float], share: float) -> None:
    assert _quantile(np.array(values), share) == float(np.quantile(np.array(values), share))


@given(asked=st.lists(st.tuples(st.integers(0, 5), st.integers(0, 5)), min_size=1, max_size=8), seed=st.integers(0, 99))
@settings(deadline=None, max_examples=30)
def test_the_supply_is_what_a_count_of_the_workers_gives(asked: list[tuple[int, int]], seed: int) -> None:
    engines = disaggregated(engine(), engine())
    rows: list[Row] = [(float(t), 400, 30, 0) for t in poisson(0.02, 1600, seed)]
    simulation = Simulation(engines, HandTrace(rows), "least_loaded", lambda _: None)
    now_s = 0.0
    for counts in asked:
        for role, count in zip(engines.roles, counts, strict=True):
            supply = simulation.supply(role)
            for _ in range(count - supply.ready - supply.starting):
                simulation.add_worker(role, 1000.0 * (now_s + 15.0))
            for _ in range(supply.ready + supply.starting - count):
                simulation.drain_worker(role)
        now_s += 10.0
        simulation.run_to(1000.0 * now_s)
        workers = simulation.raw.workers
        for number, role in enumerate(engines.roles):
            mine = [w for w in workers if w["engine"] == number]
            serving = [w for w in mine if w["state"] in (READY, DRAINING)]
            supply = simulation.supply(role)
            assert supply.ready == sum(w["state"] == READY for w in mine)
            assert supply.starting == sum(w["state"] == STARTING for w in mine)
            assert supply.draining == sum(w["state"] == DRAINING for w in mine)
            assert supply.running == sum(w["in_flight"] - w["wait_count"] for w in serving)
        assert simulation.gpus() == sum(w["state"] != FREE for w in workers)


def test_gpu_hours_and_counts_by_hand() -> None:
    # 2 workers of 2 GPUs; 4 are wanted at 10 s, 1 at 20 s: the two that start are cancelled and one idle one leaves.
    policy = Scripted([{"agg": 4}, {"agg": 1}])
    setting = setting_of(aggregated(engine(gpus=2)), steady(100.0, 10.0), {"agg": 2}, 64)
    outcome = replay(setting, policy, "scripted")
    worker_seconds = 100 + 20 + 2 * 10
    assert outcome.gpu_hours == pytest.approx(2 * worker_seconds / 3600)
    assert outcome.peak_gpus == 8
    assert (outcome.scale_ups, outcome.scale_downs) == (1, 1)
    assert outcome.span_s == 100.0
    assert (outcome.requests, outcome.completed, outcome.unfinished) == (11, 11, 0)
    assert outcome.attainment == 1.0
    assert [dict(t.starting) for t in outcome.ticks[:3]] == [{"agg": 2}, {"agg": 0}, {"agg": 0}]
    assert outcome.policy == "scripted"


def test_workers_serve_after_their_start_up() -> None:
    policy = Scripted([{"agg": 3}])
    outcome = replay(setting_of(aggregated(engine()), steady(60.0), {"agg": 1}, 8), policy, "up")
    assert [t.ready["agg"] for t in outcome.ticks[:4]] == [1, 1, 1, 3]
    assert [t.starting["agg"] for t in outcome.ticks[:4]] == [2, 2, 2, 0]
    # Starting ones count from the moment they are asked for.
    assert outcome.gpu_hours == pytest.approx((60 + 2 * 50) / 3600)
    assert outcome.scale_ups == 1


def test_what_is_unfinished_does_not_attain() -> None:
    # No worker at all: everything waits until the replay's patience ends.
    outcome = replay(setting_of(aggregated(engine()), steady(20.0), {"agg": 0}, 8), Static({"agg": 0}), "none")
    assert (outcome.requests, outcome.completed, outcome.failed, outcome.unfinished) == (41, 0, 0, 41)
    assert outcome.attainment == outcome.ttft_attainment == outcome.itl_attainment == 0.0
    assert outcome.gpu_hours == 0.0


def test_what_fails_does_not_attain() -> None:
    rows: list[Row] = [(0.0, 100, 10, 0), (10.0, 5000, 10, 0)]
    outcome = replay(setting_of(aggregated(engine(capacity=1600)), rows, {"agg": 1}, 8), Static({"agg": 1}), "one")
    assert (outcome.completed, outcome.failed, outcome.unfinished) == (1, 1, 0)
    assert outcome.attainment == 0.5


def test_an_empty_trace() -> None:
    outcome = replay(setting_of(aggregated(engine()), [], {"agg": 1}, 8), Static({"agg": 1}), "empty")
    assert (outcome.requests, outcome.completed, outcome.unfinished) == (0, 0, 0)
    assert outcome.span_s == 0.0
    assert outcome.gpu_hours == 0.0


def test_a_fixed_fleet_is_there_from_the_first_second() -> None:
    setting = setting_of(aggregated(engine(gpus=4)), steady(90.0), {"agg": 1}, 64)
    outcome = replay(setting, Static({"agg": 3}), "static")
    assert outcome.gpu_hours == pytest.approx(3 * 4 * 90 / 3600)
    assert outcome.peak_gpus == 12
    assert (outcome.scale_ups, outcome.scale_downs) == (0, 0)


def test_draining_workers_hold_their_part_of_the_budget() -> None:
    # Both workers decode for about a minute; one is drained, and until it is empty there is no GPU for prefill.
    rows: list[Row] = [(float(i), 100, 10_000, 0) for i in range(4)] + [(200_000.0, 100, 1, 0)]
    setting = setting_of(disaggregated(engine(), engine(kv_ms=0.0)), rows, {"fill": 1, "dec": 2}, 3, startup_s=5.0)
    outcome = replay(setting, Scripted([{"fill": 2, "dec": 1}]), "swap")
    held = [t.ready["fill"] + t.ready["dec"] + t.draining["dec"] + t.starting["fill"] for t in outcome.ticks]
    assert max(held) == 3
    assert outcome.ticks[0].draining["dec"] == 1
    assert outcome.ticks[0].starting["fill"] == 0
    assert outcome.ticks[-1].ready == {"fill": 2, "dec": 1}
    assert outcome.peak_gpus == 3
    assert outcome.completed == 5
    # One pool went up and one down, each once, however long it took.
    assert (outcome.scale_ups, outcome.scale_downs) == (1, 1)


@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(
    st.lists(st.tuples(st.integers(0, 9), st.integers(0, 9)), min_size=1, max_size=12),
    st.tuples(st.sampled_from([1, 2]), st.sampled_from([1, 4])),
    st.integers(8, 20),
    st.integers(0, 1000),
)
def test_the_budget_holds_at_every_tick(
    plans: list[tuple[int, int]], gpus: tuple[int, int], budget: int, seed: int
) -> None:
    rng = np.random.default_rng(seed)
    rows: list[Row] = [
        (float(t), int(i), int(o), 0)
        for t, i, o in zip(
            poisson(0.01, 400, seed), rng.integers(1, 2000, 400), rng.integers(1, 3000, 400), strict=True
        )
    ]
    engines = disaggregated(engine(gpus=gpus[0]), engine(gpus=gpus[1], kv_ms=0.0))
    setting = setting_of(engines, rows, {"fill": 1, "dec": 1}, budget, startup_s=7.0)
    policy = Scripted([{"fill": p, "dec": d} for p, d in plans], interval_s=5.0)
    outcome = replay(setting, policy, "scripted")
    held = [
        sum((t.ready[n] + t.starting[n] + t.draining[n]) * g for n, g in zip(("fill", "dec"), gpus, strict=True))
        for t in outcome.ticks
    ]
    assert max(held) <= outcome.peak_gpus <= budget
    for tick in outcome.ticks:
        for name in ("fill", "dec"):
            assert tick.ready[name] + tick.starting[name] <= tick.plan[name]
    assert outcome.requests == 400
    assert outcome.completed + outcome.failed + outcome.unfinished == 400
    changes = np.diff(np.array([(1, 1), *(plans[min(i, len(plans) - 1)] for i in range(len(outcome.ticks)))]), axis=0)
    assert outcome.scale_ups == (changes > 0).sum()
    assert outcome.scale_downs == (changes < 0).sum()


def test_what_a_policy_sees() -> None:
    # 21 requests in the first interval, none in the second, then one that ends it.
    rows = [*steady(10.0, 0.5), (25_000.0, 100, 1, 0)]
    policy = Scripted([{"agg": 2}])
    outcome = replay(setting_of(aggregated(engine()), rows, {"agg": 2}, 8), policy, "seen")
    assert policy.times == [10.0, 20.0, 30.0]
    first, second, third = policy.seen
    assert [o.arrivals for o in policy.seen] == [Known(21), Known(0), Known(1)]
    assert sum(t.arrivals for t in outcome.ticks) == 22
    # Two arrivals in each second: no dispersion at all.
    assert first.dispersion == Known(0.0)
    assert isinstance(first.lengths, Known)
    assert set(first.lengths.value.isl) == {100}
    assert set(first.lengths.value.osl) == {10}
    assert len(first.lengths.value) == 20
    assert isinstance(first.ttft_ms, Known)
    assert first.ttft_ms.value == pytest.approx(11.0)
    assert first.attainment == Known(1.0)
    # The request that arrived at 10 s ended in the second interval.
    assert isinstance(second.lengths, Known)
    assert len(second.lengths.value) == 1
    assert isinstance(third.itl_ms, Unknown)
    assert isinstance(third.pools, Known)
    assert third.pools.value["agg"].ready == 2


class Watching(Scripted):
    """Keeps what it was shown of every worker."""

    watches = True

    def __init__(self, plans: list[Plan], interval_s: float) -> None:
        super().__init__(plans, interval_s)
        self.workers: list[Mapping[str, Sequence[WorkerLoad]]] = []

    def watch(self, workers: Mapping[str, Sequence[WorkerLoad]]) -> None:
        assert len(self.workers) == len(self.seen), "before each decision"
        self.workers.append(workers)


def test_what_a_policy_sees_of_every_worker() -> None:
    engines = aggregated(engine(capacity=1_600))
    policy = Watching([{"agg": 2}], interval_s=3.0)
    replay(setting_of(engines, steady(30.0, 0.2, isl=300, osl=60), {"agg": 2}, max_gpus=8), policy, "watching")
    busy = 0
    for observation, workers in zip(policy.seen, policy.workers, strict=True):
        pools = observation.pools
        assert isinstance(pools, Known)
        pool, loads = pools.value["agg"], workers["agg"]
        assert [load.number for load in loads] == [0, 1]
        assert {load.kv_capacity_tokens for load in loads} == {1_600}
        assert Known(float(sum(load.waiting for load in loads))) == pool.waiting_requests
        assert Known(float(sum(load.running for load in loads))) == pool.running_requests
        assert isinstance(pool.kv_usage, Known)
        assert sum(load.kv_usage for load in loads) / 2 == pytest.approx(pool.kv_usage.value)
        busy += sum(load.running for load in loads)
    assert busy > 0


def test_no_completion_is_unknown_and_not_zero() -> None:
    policy = Scripted([{"agg": 0}])
    replay(setting_of(aggregated(engine()), steady(10.0), {"agg": 0}, 8), policy, "none")
    first = policy.seen[0]
    assert first.arrivals == Known(21)
    for value in (first.lengths, first.ttft_ms, first.itl_ms, first.attainment):
        assert isinstance(value, Unknown)


def test_finished_requests_are_handed_out_once() -> None:
    batches: list[Finished] = []
    progress: list[float] = []
    taken: Callable[[Finished], None] = batches.append
    setting = setting_of(aggregated(engine()), steady(40.0), {"agg": 1}, 8)
    outcome = replay(setting, Static({"agg": 1}), "static", on_finished=taken, on_progress=progress.append)
    assert sum(len(b.arrival_ms) for b in batches) == outcome.completed == 81
    assert progress == [60.0]


def test_a_replay_repeats_itself() -> None:
    rng = np.random.default_rng(11)
    rows: list[Row] = [
        (float(t), int(i), int(o), 0)
        for t, i, o in zip(poisson(0.02, 2000, 12), rng.integers(1, 900, 2000), rng.integers(1, 300, 2000), strict=True)
    ]

    def once() -> dict[str, object]:
        policy = Scripted([{"fill": 2, "dec": 3}, {"fill": 1, "dec": 1}, {"fill": 3, "dec": 2}])
        setting = setting_of(disaggregated(engine(), engine()), rows, {"fill": 1, "dec": 1}, 8)
        result = replay(setting, policy, "scripted").as_json()
        return {k: v for k, v in result.items() if k not in ("wall_s", "simulated_requests_per_s")}

    assert once() == once()
