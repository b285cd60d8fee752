"""Our planner with other settings, and without its parts."""

from collections.abc import Mapping
from dataclasses import replace

import numpy as np
import pytest

from planner.core.capacity import UncertainRate
from planner.core.demand import Demand, Lengths
from planner.core.settings import PlannerSettings
from planner.core.types import Known, LengthSample, Observation, Plan, Pool, PoolState, Role, Sla, Unknown
from planner.whatif.policies import Setting, make_policy
from planner.whatif.policies.ablation import PARTS, MeanLengths, MeanRate, Taken
from planner.whatif.policies.ours import Ours
from profiler.errors import InputError
from tests.engines import DECODE, PREFILL, HandTrace, disaggregated, engine

SLA = Sla(500.0, 50.0)
POOLS: Mapping[Role, Pool] = {role: Pool(role.value, role, 1, 1, 8) for role in (PREFILL, DECODE)}


@pytest.fixture
def setting() -> Setting:
    settings = PlannerSettings(sla=SLA, pools=tuple(POOLS.values()), max_gpus=16, lead_time_s=60.0)
    start: Plan = {"prefill": 1, "decode": 1}
    engines = disaggregated(engine(), engine())
    return Setting(engines, {}, POOLS, settings, start, 60.0, "least_loaded", HandTrace([(0.0, 100, 10, 0)]))


def ours(setting: Setting, options: str) -> Ours:
    policy = make_policy(f"planner:{options}", setting)
    assert isinstance(policy, Ours)
    return policy


def seen() -> Observation:
    pool = PoolState(3, 2, 1, 0, waiting_requests=Known(7.0), running_requests=Known(5.0), kv_usage=Known(0.5))
    lengths = LengthSample((100, 900), (10, 50), (0, 0))
    return Observation(15.0, Known(100), Known(4.0), Known(lengths), Known({"prefill": pool, "decode": pool}, 2.0))


def demand() -> Demand:
    return Demand(40.0, 2.0, Lengths(np.array([100.0, 900.0]), np.array([10.0, 50.0]), np.array([0.0, 64.0])))


@pytest.mark.parametrize(
    ("options", "path", "value"),
    [
        ("surge.most=1.5", "surge.most", 1.5),
        ("error_budget.max_spend=0", "error_budget.max_spend", 0.0),
        ("forecast.history_bins=100", "forecast.history_bins", 100),
        ("horizon_intervals=0", "horizon_intervals", 0.0),
        ("lead_time_s=0", "lead_time_s", 0.0),
        ("down_window_s=0", "behaviour.down.window_s", 0.0),
        ("up_window_s=30", "behaviour.up.window_s", 30.0),
        ("without=lead-time", "lead_time_s", 0.0),
        ("without=surge", "surge.deviations", 1e9),
        ("without=ensemble", "forecast.min_outcomes", 10**9),
        ("without=residual", "residual.most", 1.0),
        ("without=error-budget", "error_budget.max_spend", 0.0),
        ("without=tolerance", "attainment_tolerance", 0.0),
        ("without=down-window", "behaviour.down.window_s", 0.0),
    ],
)
def test_one_setting_is_changed_and_no_other(setting: Setting, options: str, path: str, value: float) -> None:
    found = ours(setting, options).settings
    inner: object = found
    for name in path.split("."):
        inner = getattr(inner, name)
    assert inner == value
    changed = [name for name in PlannerSettings.model_fields if getattr(found, name) != getattr(setting.settings, name)]
    assert changed == [path.partition(".")[0]]


@pytest.mark.parametrize(
    "options",
    [
        "surge=1",
        "surge.most.more=1",
        "pools=1",
        "max_gpus=9",
        "sla=1",
        "forecast.scored_steps=1",
        "model_config=1",
        "=1",
    ],
)
def test_what_is_no_setting_of_a_variant_is_refused(setting: Setting, options: str) -> None:
    with pytest.raises(InputError, match="unknown option"):
        ours(setting, options)


def test_a_part_that_there_is_not_is_refused(setting: Setting) -> None:
    with pytest.raises(InputError, match=r"without=sense.*\n?.*without=lead-time"):
        ours(setting, "without=sense")


def test_readings_are_withheld() -> None:
    assert Taken().seen(seen()) == seen()
    assert isinstance(Taken(("burst",)).seen(seen()).dispersion, Unknown)
    queues, counts = (Taken((name,)).seen(seen()).pools for name in ("queue", "starting"))
    assert isinstance(queues, Known)
    assert isinstance(counts, Known)
    for pool in queues.value.values():
        assert isinstance(pool.waiting_requests, Unknown)
        assert (pool.desired, pool.running_requests, pool.kv_usage) == (3, Known(5.0), Known(0.5))
    assert {(pool.desired, pool.ready, pool.starting) for pool in counts.value.values()} == {(2, 2, 0)}
    assert queues.age_s == counts.age_s == 2.0
    gone = replace(seen(), pools=Unknown("gone"))
    assert Taken(("queue", "starting")).seen(gone) == gone


def test_the_planner_is_shown_what_is_left(setting: Setting) -> None:
    policy = ours(setting, "without=burst,without=queue")
    shown: list[Observation] = []
    policy.on_decision = lambda _, observation, __: shown.append(observation)
    policy.decide(seen(), 15.0)
    assert shown == [Taken(("burst", "queue")).seen(seen())]


def test_mean_lengths_are_those_of_one_mean_request(setting: Setting) -> None:
    whole, workers = setting.engines.closed_form, {PREFILL: 2, DECODE: 2}
    mean = Lengths(np.array([500.0]), np.array([30.0]), np.array([32.0]))
    wanted = whole.evaluator(replace(demand(), lengths=mean), SLA).predict(workers)
    assert MeanLengths(whole).evaluator(demand(), SLA).predict(workers) == wanted
    assert whole.evaluator(demand(), SLA).predict(workers) != wanted
    slower = whole.slowed({DECODE: 1.3}).evaluator(replace(demand(), lengths=mean), SLA).predict(workers)
    assert MeanLengths(whole).slowed({DECODE: 1.3}).evaluator(demand(), SLA).predict(workers) == slower


def test_a_mean_rate_is_certain(setting: Setting) -> None:
    whole, workers, rates = setting.engines.closed_form, {PREFILL: 2, DECODE: 2}, [10.0, 40.0, 70.0]
    wanted = whole.evaluator(demand(), SLA).predict(workers)
    certain = UncertainRate(MeanRate(whole).evaluator(demand(), SLA), rates).predict(workers)
    assert certain.ttft_ms == pytest.approx(wanted.ttft_ms)
    assert certain.utilisation == pytest.approx(wanted.utilisation)
    uncertain = UncertainRate(whole.evaluator(demand(), SLA), rates).predict(workers)
    assert uncertain.ttft_ms != pytest.approx(wanted.ttft_ms)
    slower = whole.slowed({DECODE: 1.3}).evaluator(demand(), SLA)
    assert MeanRate(whole).slowed({DECODE: 1.3}).evaluator(demand(), SLA).at_rate(1.0).predict(
        workers
    ) == slower.predict(workers)


def test_all_is_every_part(setting: Setting) -> None:
    whole, every = ours(setting, "without=all"), ours(setting, ",".join(f"without={name}" for name in PARTS))
    assert whole.settings == every.settings
    assert whole.capacity.name == every.capacity.name == "closed-form of the mean rate of mean lengths"
