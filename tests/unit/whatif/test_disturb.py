"""Each disturbance of a replay does what it says, and nothing else."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from planner.core.types import Known, Observation, Plan, PoolState, Role, Unknown
from planner.whatif.graph import load_profiles
from planner.whatif.outcome import Outcome
from planner.whatif.policies.base import Policy, Setting
from planner.whatif.policies.static import Static
from planner.whatif.replay import replay
from planner.whatif.robustness import DISTURBANCES, Disturbance, expand_disturbances, make_disturbance
from planner.whatif.robustness.lengths import DriftingLengths
from planner.whatif.robustness.metrics import MissingMetrics
from planner.whatif.robustness.profile import WrongProfile
from planner.whatif.robustness.workers import FailingStarts, SlowWorkers
from planner.whatif.simulator.simulation import Finished, Simulation, WorkerLoad
from planner.whatif.traces import collect
from profiler.errors import InputError
from tests.engines import DECODE, PREFILL, HandTrace, Row, aggregated, disaggregated, engine, poisson, transfer
from tests.unit.cli.conftest import PROFILES
from tests.unit.whatif.test_replay import Scripted, setting_of, steady


class Watching(Scripted):
    """Keeps what it watched, too."""

    watches = True

    def __init__(self, plans: list[Plan], interval_s: float = 10.0) -> None:
        super().__init__(plans, interval_s)
        self.watched: list[Mapping[str, Sequence[WorkerLoad]]] = []

    def watch(self, workers: Mapping[str, Sequence[WorkerLoad]]) -> None:
        self.watched.append(workers)


def disturbed(setting: Setting, policy: Policy, disturbance: Disturbance) -> Outcome:
    return replay(disturbance.world(setting), policy, "p", disturbance=disturbance)


def figures(outcome: Outcome) -> dict[str, Any]:
    """All that a clock did not measure; arrays as lists, and NaN equal to itself."""
    line = {name: np.nan_to_num(column, nan=-1.0).tolist() for name, column in vars_of(outcome.timeline).items()}
    return {**vars_of(outcome), "timeline": line, "wall_s": 0.0}


def vars_of(thing: object) -> dict[str, Any]:
    return {name: getattr(thing, name) for name in thing.__dataclass_fields__}  # type: ignore[attr-defined]


def busy_setting() -> Setting:
    rng = np.random.default_rng(7)
    rows: list[Row] = [
        (float(t), int(i), int(o), int(h))
        for t, i, o, h in zip(
            poisson(0.02, 1500, 7), rng.integers(50, 900, 1500), rng.integers(1, 120, 1500), rng.integers(0, 40, 1500),
            strict=True,
        )
    ]  # fmt: skip
    return setting_of(disaggregated(engine(), engine()), rows, {"fill": 1, "dec": 2}, 16, startup_s=15.0)


PLANS: list[Plan] = [{"fill": 2, "dec": 3}, {"fill": 2, "dec": 5}, {"fill": 3, "dec": 2}, {"fill": 1, "dec": 4}]


@pytest.mark.parametrize(
    "nothing",
    [
        Disturbance(),
        WrongProfile(1.0),
        DriftingLengths(1.0, 1.0),
        MissingMetrics(20.0, 0.0),
        SlowWorkers(share=0.0),
    ],
)
def test_what_disturbs_by_nothing_changes_no_bit(nothing: Disturbance) -> None:
    setting = busy_setting()
    usual, other = Watching(PLANS), Watching(PLANS)
    plain, same = replay(setting, usual, "p"), disturbed(setting, other, nothing)
    assert figures(plain) == figures(same)
    assert usual.seen == other.seen
    assert usual.watched == other.watched


def rounded(observation: Observation) -> Observation:
    """A sum of two kinds' KV usage is off in its last bit."""
    assert isinstance(observation.pools, Known)
    pools = {}
    for name, pool in observation.pools.value.items():
        assert isinstance(pool.kv_usage, Known)
        pools[name] = replace(pool, kv_usage=Known(round(pool.kv_usage.value, 12)))
    return replace(observation, pools=Known(pools))


def test_workers_of_another_kind_that_are_no_slower_are_counted_as_if_there_were_one_kind() -> None:
    # Only which of two equally loaded workers drains may differ, so that no pool shrinks here.
    growing: list[Plan] = [{"fill": 0, "dec": 0}, {"fill": 2, "dec": 3}, {"fill": 3, "dec": 5}]
    setting = replace(busy_setting(), start={"fill": 0, "dec": 0})
    usual, other = Watching(growing), Watching(growing)
    plain, same = replay(setting, usual, "p"), disturbed(setting, other, SlowWorkers(factor=1.0))
    assert [rounded(one) for one in usual.seen] == [rounded(one) for one in other.seen]
    assert usual.watched == other.watched
    assert figures(plain) == figures(same)
    pools = usual.seen[0].pools
    assert isinstance(pools, Known)
    # Before any worker is there, all waits at the gateway, and is counted once.
    assert pools.value["fill"].waiting_requests == Known(float(plain.ticks[0].arrivals))


# -- the profile -------------------------------------------------------------------------------------------------------


def run(setting: Setting, rows: list[Row]) -> dict[tuple[int, int], tuple[float, float]]:
    """TTFT and ITL by (ISL, OSL), which no two requests share."""
    batches: list[Finished] = []
    simulation = Simulation(setting.engines, HandTrace(rows), "least_loaded", batches.append)
    for role in setting.engines.roles:
        simulation.add_worker(role, 0.0)
    simulation.run_to(1e7)
    return {
        (int(i), int(o)): (float(t), float(g))
        for b in batches
        for i, o, t, g in zip(b.isl, b.osl, b.ttft_ms, b.itl_ms, strict=True)
    }


@pytest.mark.parametrize("ahead", [False, True])
def test_with_every_time_scaled_all_latencies_scale(ahead: bool) -> None:
    # A fleet whose times are all 0.8 does in 0.8 of the time what comes in 0.8 of the time.
    one = engine(
        attention=1e-5, front_ms=3.0, front_token_ms=0.01, ahead=ahead, behind_ms=6.0, mixed_request_ms=0.2,
        shared_ms=1.0, stream_ms=0.05, bend=1e-9,
    )  # fmt: skip
    for engines in (aggregated(one), disaggregated(one, one, transfer(post_ms=1.5, post_token_ms=0.001))):
        setting = setting_of(engines, [], {}, 8)
        rng = np.random.default_rng(2)
        rows: list[Row] = [
            (float(t), 100 + i, int(rng.integers(2, 60)), 0) for i, t in enumerate(poisson(0.02, 200, 2))
        ]
        faster = run(WrongProfile(0.8).believed(setting), [(0.8 * t, i, o, h) for t, i, o, h in rows])
        usual = run(setting, rows)
        assert usual.keys() == faster.keys()
        assert len(usual) == 200
        for request, (ttft, itl) in usual.items():
            assert faster[request] == pytest.approx((0.8 * ttft, 0.8 * itl), rel=1e-6), request


def test_the_tables_of_a_wrong_profile_are_scaled_and_its_capacities_are_not() -> None:
    profiles = {Role(p.meta.role): p for p in load_profiles([PROFILES])}
    assert set(profiles) == {PREFILL, DECODE}
    setting = replace(busy_setting(), profiles=profiles)
    wrong = WrongProfile(1.2).believed(setting)
    for role, profile in setting.profiles.items():
        told = wrong.profiles[role]
        assert told.meta == profile.meta
        if profile.prefill is not None and told.prefill is not None:
            isl = profile.prefill.tokens
            np.testing.assert_allclose(told.prefill.ttft_ms(isl), 1.2 * profile.prefill.ttft_ms(isl))
        for table, rows in profile.samples.items():
            for name, column in rows.items():
                factor = 1.2 if name.endswith("_ms") else 1 / 1.2 if "throughput" in name else 1.0
                np.testing.assert_allclose(told.samples[table][name], factor * column)
    assert wrong.engines.timing[0].kv_capacity_tokens == setting.engines.timing[0].kv_capacity_tokens


def test_the_engines_run_as_they_are_whatever_the_profile_says() -> None:
    setting = busy_setting()
    fixed = {"fill": 2, "dec": 3}
    wrong = WrongProfile(0.5)
    assert wrong.believed(setting).engines is not setting.engines
    assert figures(disturbed(setting, Static(fixed), wrong)) == figures(replay(setting, Static(fixed), "p"))


# -- lengths -----------------------------------------------------------------------------------------------------------


def test_lengths_drift_evenly_over_the_trace() -> None:
    rows: list[Row] = [(0.0, 100, 10, 90), (50_000.0, 100, 10, 90), (100_000.0, 100, 11, 99)]
    setting = replace(busy_setting(), trace=HandTrace(rows, size=2))
    trace = DriftingLengths(isl=2.0, osl=0.5).world(setting).trace
    for _ in range(2):
        found = collect(trace)
        assert found.arrival_s.tolist() == [0.0, 50.0, 100.0]
        assert found.isl.tolist() == [100, 150, 200]
        assert found.osl.tolist() == [10, 8, 6]
        # Of a prompt of 200 tokens, the last one at least is computed.
        assert found.prefix_hit_tokens.tolist() == [90, 135, 198]
    short = replace(setting, trace=HandTrace([(0.0, 5, 1, 4), (1000.0, 2, 1, 1)]))
    shrunk = collect(DriftingLengths(isl=0.55, osl=0.1).world(short).trace)
    # 0.55 of a token that was found rounds to one; the prompt's only one left is computed.
    assert (shrunk.isl.tolist(), shrunk.osl.tolist(), shrunk.prefix_hit_tokens.tolist()) == ([5, 1], [1, 1], [4, 0])


# -- metrics -----------------------------------------------------------------------------------------------------------


def test_missing_metrics_are_unknown_and_the_counts_are_not() -> None:
    setting = busy_setting()
    usual, blind = Watching(PLANS), Watching(PLANS)
    replay(setting, usual, "p")
    disturbed(setting, blind, MissingMetrics(at_s=20.0, for_s=30.0))
    gap = [20.0 < 10.0 * (tick + 1) <= 50.0 for tick in range(len(usual.seen))]
    assert gap[:6] == [False, False, True, True, True, False]
    for gone, before, after in zip(gap, usual.seen, blind.seen, strict=True):
        if not gone:
            assert before == after
            continue
        for reading in (
            "arrivals",
            "dispersion",
            "lengths",
            "ttft_ms",
            "itl_ms",
            "attainment",
            "mean_ttft_ms",
            "mean_itl_ms",
        ):
            assert isinstance(getattr(after, reading), Unknown), reading
        assert isinstance(before.pools, Known)
        assert isinstance(after.pools, Known)
        for name, pool in after.pools.value.items():
            assert isinstance(pool.waiting_requests, Unknown)
            assert isinstance(pool.running_requests, Unknown)
            assert isinstance(pool.kv_usage, Unknown)
            assert counts(pool) == counts(before.pools.value[name])
    for gone, before, after in zip(gap, usual.watched, blind.watched, strict=True):
        assert after == ({"fill": (), "dec": ()} if gone else before)


def counts(pool: PoolState) -> tuple[int, int, int, int]:
    return pool.desired, pool.ready, pool.starting, pool.terminating


# -- workers -----------------------------------------------------------------------------------------------------------


def test_a_third_of_the_workers_takes_half_as_long_again() -> None:
    # One request at a time, in turn to each of six workers: two of them are slow.
    setting = replace(setting_of(aggregated(engine()), steady(59.5, 0.5), {"agg": 6}, 8), routing="round_robin")
    batches: list[Finished] = []
    slow = SlowWorkers()
    replay(setting, Static({"agg": 6}), "p", disturbance=slow, on_finished=batches.append)
    ttft = np.concatenate([b.ttft_ms for b in batches])
    itl = np.concatenate([b.itl_ms for b in batches])
    fast = float(ttft.min())
    assert len(ttft) == 120
    assert (ttft > 1.2 * fast).sum() == 40
    assert ttft.max() == pytest.approx(1.5 * fast)
    assert itl.max() == pytest.approx(1.5 * itl.min(), rel=1e-3)


@pytest.mark.parametrize(("workers", "slow"), [(1, 0), (2, 1), (3, 1), (4, 1), (5, 2), (6, 2), (9, 3)])
def test_the_share_of_slow_workers_is_the_nearest_there_is(workers: int, slow: int) -> None:
    engines = aggregated(engine())
    setting = setting_of(engines, [], {"agg": 0}, 16)
    disturbance = SlowWorkers()
    simulation = Simulation(
        engines, setting.trace, "least_loaded", list[Finished]().append, disturbance.others(setting)
    )
    fleet = disturbance.fleet(simulation, setting)
    (role,) = engines.roles
    for _ in range(workers):
        fleet.add(role, 0.0)
    simulation.run_to(1.0)
    assert simulation.supply(role, 0).ready == slow
    assert simulation.supply(role).ready == workers - slow
    assert fleet.supply(role).ready == len(fleet.loads(role)) == workers
    for left in range(workers - 1, -1, -1):
        fleet.drain(role)
        assert fleet.supply(role).ready == left


def test_every_second_start_fails_and_what_never_comes_holds_its_gpus_until_it_is_given_up() -> None:
    # Asked for at 10 s: the first comes after 25 s, the second after 50, the third after 25, the fourth never. It is
    # given up 60 s after that, and the one asked for in its place, at 70 s, comes in time: at 95 s.
    setting = setting_of(aggregated(engine(gpus=2)), steady(200.0, 10.0), {"agg": 1}, 64)
    policy = Scripted([{"agg": 5}])
    outcome = disturbed(setting, policy, FailingStarts(give_up_s=60.0))
    ready = {int(tick.at_s): tick.ready["agg"] for tick in outcome.ticks}
    assert [ready[at] for at in (10, 30, 40, 50, 60, 70, 90, 100, 200)] == [1, 1, 3, 3, 4, 4, 4, 5, 5]
    assert all(tick.ready["agg"] + tick.starting["agg"] == 5 for tick in outcome.ticks)
    assert outcome.gpu_hours == pytest.approx(2 * (200 + 4 * 190) / 3600)
    assert outcome.peak_gpus == 10
    assert outcome.scale_ups == 1
    assert policy.seen[1].pools.value["agg"].starting == 4  # type: ignore[union-attr]


def test_a_scale_down_takes_what_never_comes_first_and_it_is_not_given_up_again() -> None:
    setting = setting_of(aggregated(engine()), steady(200.0, 10.0), {"agg": 1}, 64)
    plans: list[Plan] = [{"agg": 5}, *[{"agg": 5}] * 4, {"agg": 4}]
    outcome = disturbed(setting, Scripted(plans), FailingStarts(give_up_s=100.0))
    at_60 = next(tick for tick in outcome.ticks if tick.at_s == 60.0)
    assert (at_60.ready["agg"], at_60.starting["agg"], at_60.draining["agg"]) == (4, 0, 0)
    assert all(tick.ready["agg"] == 4 for tick in outcome.ticks if tick.at_s >= 60.0)
    assert outcome.gpu_hours == pytest.approx((200 + 3 * 190 + 50) / 3600)


# -- by name -----------------------------------------------------------------------------------------------------------


def test_disturbances_by_name() -> None:
    assert make_disturbance(None) == Disturbance()
    assert make_disturbance("optimistic-profile") == WrongProfile(0.8)
    assert make_disturbance("pessimistic-profile:factor=1.5") == WrongProfile(1.5)
    assert make_disturbance("missing-metrics:at_s=60,for_s=30") == MissingMetrics(60.0, 30.0)
    assert expand_disturbances(["slow-workers", "all"]) == [
        "slow-workers",
        *(n for n in DISTURBANCES if n != "slow-workers"),
    ]


@pytest.mark.parametrize(
    ("spec", "words"),
    [
        ("nothing", "unknown disturbance"),
        ("missing-metrics:when=3", "unknown option 'when'"),
        ("missing-metrics:at_s=soon", "at_s is 'soon'"),
        ("missing-metrics:at_s", "at_s"),
        ("optimistic-profile:factor=0", "factor is 0"),
        ("slow-workers:share=nan", "share is nan"),
        ("drifting-lengths:isl=-1", "isl is -1"),
        ("failing-starts:give_up_s=-1", "give_up_s is -1"),
    ],
)
def test_what_is_wrong_is_named(spec: str, words: str) -> None:
    with pytest.raises(InputError) as error:
        make_disturbance(spec)
    assert words in str(error.value)
    assert error.value.field == "--disturb"


def test_what_would_disturb_nothing_is_refused() -> None:
    with pytest.raises(InputError, match="the trace ends at 60 s"):
        MissingMetrics(at_s=60.0).check(busy_setting(), 60.0)
    with pytest.raises(InputError, match="start-up"):
        FailingStarts().check(replace(busy_setting(), startup_s=0.0), 60.0)
