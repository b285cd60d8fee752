"""Dynamo 1.6's planner as a policy: what is forecast, found and carried out, tick by tick."""

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from planner.core.engines import Engines
from planner.core.types import Pool, PoolState, Role, Sla
from planner.whatif.policies.dynamo import Options, parse
from planner.whatif.policies.dynamo_actuate import Reductions, Supply, cuts_of, supply_of
from planner.whatif.policies.dynamo_load import Workers
from planner.whatif.simulator.simulation import WorkerLoad
from profiler.errors import InputError
from profiler.timing import engine_timing, transfer_timing


def worker(number=0, *, waiting=0, running=0, usage=0.0):
    return WorkerLoad(number, waiting, running, usage, 100_000)


def pools(p=1, d=1, **states):
    return {"p": states.get("p_state", PoolState(p, p)), "d": states.get("d_state", PoolState(d, d))}


class Driver:
    """Looks at a policy every five seconds."""

    def __init__(self, policy, observe):
        self.policy, self.observe, self.now_s = policy, observe, 0.0

    def look(self, states, *, loads=None, arrivals=175, times=1, isl=1000):
        ready = {name: [worker(k) for k in range(state.ready)] for name, state in states.items()}
        for _ in range(times):
            self.now_s += self.policy.interval_s
            self.policy.watch({**ready, **(loads or {})})
            seen = self.observe(states, arrivals=arrivals, isl=isl, interval_s=self.policy.interval_s)
            plan = self.policy.decide(seen, self.now_s)
        return plan


@pytest.fixture
def drive(make_setting, observe):
    def make(options, **setting):
        return Driver(parse(options, make_setting(**setting)), observe)

    return make


class TestThroughput:
    def test_the_rate_over_the_capacity_of_one_engine_rounded_up(self, drive):
        driver = drive("throughput,constant")
        assert driver.look(pools(), times=35) == {"p": 1, "d": 1}
        plan = driver.look(pools())
        # 35 requests/s of 1,000/200: the least squares of both tables, then what each bears within 200 and 10 ms
        sizing = driver.policy.sizing
        shape = driver.policy._forecast.next(0.0)[1]
        assert (shape.isl, shape.osl) == (1000.0, 200.0)
        rates = [model.capacity(shape, 200.0, 10.0).rps for model in sizing._models.values()]
        assert plan == {"p": int(np.ceil(35.0 / rates[0])), "d": int(np.ceil(35.0 / rates[1]))}
        # a batch of four prompts takes 200 ms: 20 requests/s. 45 of 1,100 tokens fill half a cache: 10 ms, 22.5
        assert rates[0] == pytest.approx(20.0, rel=0.05)
        assert rates[1] == pytest.approx(22.5, rel=0.1)
        assert plan == {"p": 2, "d": 2}

    def test_at_most_eight_workers_of_a_pool_at_once(self, drive):
        driver = drive("throughput,constant,interval_s=20")
        assert driver.look(pools(3, 4), arrivals=5000, times=4) == {"p": 11, "d": 12}
        few = drive("throughput,constant,max_change=2,interval_s=20")
        assert few.look(pools(9, 9), arrivals=1, times=4) == {"p": 7, "d": 7}

    def test_an_idle_interval_scales_to_the_minimum(self, drive):
        driver = drive("throughput,constant,interval_s=20")
        driver.look(pools(2, 2), times=4)
        assert driver.look(pools(2, 2), arrivals=0, isl=None, times=4) == {"p": 1, "d": 1}

    def test_before_any_request_completed_nothing_is_decided(self, drive):
        driver = drive("throughput,constant,interval_s=20")
        assert driver.look(pools(3, 3), isl=None, times=4) == {"p": 1, "d": 1}

    def test_the_ceiling_bounds_the_plan(self, drive):
        driver = drive("throughput,constant,interval_s=20", max_gpus=8)
        plan = driver.look(pools(1, 1), arrivals=5000, times=4)
        assert plan == {"p": 4, "d": 4}

    def test_while_workers_drain_nothing_is_carried_out(self, drive):
        driver = drive("throughput,constant,interval_s=20")
        draining = pools(d_state=PoolState(1, 1, 0, terminating=1))
        assert driver.look(draining, arrivals=5000, times=4) == {"p": 1, "d": 1}

    def test_unknown_supply_keeps_the_plan(self, drive, observe):
        driver = drive("throughput")
        assert driver.policy.decide(observe(None, arrivals=5000), 5.0) == {"p": 1, "d": 1}


class TestLoad:
    def test_one_worker_up_each_time_while_every_prefill_engine_has_a_queue(self, drive):
        driver = drive("load")
        busy = {"p": [worker(0, waiting=30)]}
        assert driver.look(pools(1, 1), loads=busy) == {"p": 2, "d": 1}
        # the second one starts: nothing more is asked for
        starting = pools(p_state=PoolState(2, 1, 1))
        assert driver.look(starting, loads=busy, times=5) == {"p": 2, "d": 1}
        # it is ready, and without a queue of its own
        both = {"p": [worker(0, waiting=30), worker(1)]}
        assert driver.look(pools(2, 1), loads=both) == {"p": 2, "d": 1}

    def test_one_worker_down_as_soon_as_the_queues_of_this_moment_allow(self, drive):
        driver = drive("load")
        driver.look(pools(1, 1), loads={"p": [worker(0, waiting=30)]})
        assert driver.look(pools(4, 3), times=80) == {"p": 3, "d": 2}

    def test_decode_by_kv(self, drive):
        driver = drive("load")
        full = [worker(k, running=70, usage=0.8) for k in range(2)]
        one = [full[0], worker(1, running=20, usage=0.2)]
        assert driver.look(pools(1, 2), loads={"d": one})["d"] == 1  # as at the start: no decision
        assert driver.look(pools(1, 2), loads={"d": full})["d"] == 3

    def test_a_reduction_needs_a_second_look_while_workers_start(self, drive):
        driver = drive("load")
        driver.look(pools(1, 1), loads={"d": [worker(0, running=90, usage=1.0)]})
        starting = pools(1, 1, d_state=PoolState(2, 1, 1))
        idle = {"d": [worker(0, running=1, usage=0.01)]}
        assert driver.look(starting, loads=idle)["d"] == 2
        assert driver.look(starting, loads=idle)["d"] == 1


class TestHybrid:
    def test_load_scaling_stays_above_what_throughput_finds(self, drive):
        driver = drive("hybrid,constant")
        assert driver.look(pools(1, 1), times=35) == {"p": 1, "d": 1}
        assert driver.look(pools(1, 1)) == {"p": 2, "d": 2}
        assert driver.look(pools(3, 3), times=3) == {"p": 2, "d": 2}
        assert driver.look(pools(2, 2), times=3) == {"p": 2, "d": 2}
        assert driver.policy.sizing.floor == (2, 2)


class TestThresholds:
    def test_neither_table_nor_sla_matter(self, drive):
        driver = drive("thresholds")
        assert driver.look(pools(1, 1), loads={"d": [worker(0, running=95, usage=0.99)]}) == {"p": 1, "d": 1}
        # one request waits for room that its 1,000 tokens do not find
        over = {"d": [worker(0, running=95, waiting=1, usage=0.995)]}
        assert driver.look(pools(1, 1), loads=over) == {"p": 1, "d": 2}
        assert drive("thresholds,latency").look(pools(1, 1), loads={"d": [worker(0, running=9, usage=0.41)]})["d"] == 2


class TestAggregated:
    @pytest.fixture
    def setting(self, make_setting, prefill, decode):
        both = replace(decode, samples={**decode.samples, **prefill.samples})
        timing = engine_timing(both, both, limits_of=both)
        made = make_setting()
        return replace(
            made,
            engines=Engines((Role.AGGREGATED,), (timing,), transfer_timing([])),
            profiles={Role.AGGREGATED: both},
            pools={Role.AGGREGATED: Pool("a", Role.AGGREGATED, 1)},
            settings=made.settings.model_copy(update={"sla": Sla(200.0, 100.0)}),
            start={"a": 1},
        )

    @pytest.mark.parametrize("mode", ["throughput", "load", "hybrid", "thresholds"])
    def test_every_mode_decides(self, setting, observe, mode):
        driver = Driver(parse(f"{mode},constant,interval_s=40", setting), observe)
        # passes of prompts and decodes of several sizes; the first five make the model ready
        for running, waiting in ((10, 0), (30, 400), (50, 0), (70, 400), (90, 0), (80, 400), (90, 400)):
            busy = {"a": [worker(0, waiting=waiting, running=running, usage=running / 90)]}
            driver.look({"a": PoolState(1, 1)}, loads=busy, arrivals=500)
        plan = driver.look({"a": PoolState(1, 1)}, loads=busy, arrivals=500)
        assert plan["a"] > 1
        idle = Driver(parse(f"{mode},constant,interval_s=40", setting), observe)
        plan = idle.look({"a": PoolState(4, 4)}, arrivals=1, isl=100, times=24)
        assert plan["a"] < 4

    def test_a_profile_without_prompts_is_refused(self, setting, decode):
        without = replace(setting, profiles={Role.AGGREGATED: decode})
        with pytest.raises(InputError, match="dynamo needs it for prefill"):
            parse("", without)
        assert parse("thresholds", without).interval_s == 5.0

    def test_prompts_may_be_described_by_a_profile_of_their_own(self, setting, prefill, decode):
        apart = replace(setting, profiles={Role.AGGREGATED: decode}, sources=(prefill, decode))
        model, both = parse("", apart).sizing._models, parse("", setting).sizing._models
        assert model[Role.AGGREGATED].regression.samples == both[Role.AGGREGATED].regression.samples


class TestActuation:
    def test_what_is_asked_for_and_not_ready_counts_as_starting(self):
        pair = (Pool("p", Role.PREFILL, 1), Pool("d", Role.DECODE, 1))
        assert supply_of(pair, pools(p_state=PoolState(4, 2, 1))).workers[0].pending == 2
        assert supply_of(pair, pools(p_state=PoolState(4, 2, 1, terminating=1))).workers[0].pending == 0

    def test_reductions(self):
        supply = Supply((Workers(3, 2, 1), Workers(2, 0, 1)), draining=False)
        assert cuts_of((3, None), supply) == (3, None)
        assert cuts_of((4, 2), supply) == (None, None)
        assert cuts_of((0, 1), supply) == (1, 1)
        # decode is below its least, so prefill gives up no more than what starts
        assert cuts_of((1, None), Supply((Workers(3, 2, 1), Workers(1, 0, 2)), draining=False)) == (3, None)

    def test_a_reduction_is_confirmed_by_the_same_one_with_the_same_supply(self):
        supply = Supply((Workers(3, 2, 1), Workers(2, 0, 1)), draining=False)
        other = Supply((Workers(4, 1, 1), Workers(2, 0, 1)), draining=False)
        reductions = Reductions(5.0)
        assert reductions.confirm((2, None), supply, 5.0) is None
        assert reductions.confirm((3, None), supply, 10.0) is None
        assert reductions.confirm((3, None), other, 15.0) is None
        assert reductions.confirm((3, None), other, 19.9) is None
        assert reductions.confirm((3, None), other, 20.0) == (3, 2)


SPARE = st.integers(0, 3)


@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    st.sampled_from(["throughput", "load", "hybrid", "thresholds"]),
    st.lists(st.tuples(st.integers(0, 900), st.integers(0, 60), st.floats(0.0, 1.0), SPARE, SPARE), max_size=6),
    st.sampled_from([(1, 1), (2, 4), (4, 1)]),
)
def test_no_plan_exceeds_budget_or_bounds(make_setting, observe, mode, course, gpus):
    budget = 14
    policy = parse(
        f"{mode},constant,interval_s=10",
        make_setting(max_gpus=budget, prefill_gpus=gpus[0], decode_gpus=gpus[1], min_workers=1, max_workers=5),
    )
    driver, plan = Driver(policy, observe), {"p": 1, "d": 1}
    for arrivals, waiting, usage, slow_p, slow_d in course:
        slow = {"p": slow_p, "d": slow_d}
        states = {
            name: PoolState(count, max(1, count - slow[name]), min(slow[name], count - 1))
            for name, count in plan.items()
        }
        loads = {
            name: [worker(k, waiting=waiting, running=9, usage=usage) for k in range(state.ready)]
            for name, state in states.items()
        }
        plan = driver.look(states, loads=loads, arrivals=arrivals, times=2)
        assert plan["p"] * gpus[0] + plan["d"] * gpus[1] <= budget
        assert all(1 <= count <= 5 for count in plan.values())


class TestCommandLine:
    def test_forms(self, make_setting):
        made = parse("", make_setting())
        assert (made.interval_s, made.watches, made._options) == (5.0, True, Options())
        options = "hybrid,kalman,interval_s=60,load_interval_s=10,sensitivity=70,max_change=4"
        assert parse(options, make_setting())._options == Options("hybrid", "kalman", 60.0, 10.0, 70.0, 4)
        assert parse("thresholds,latency", make_setting())._options.target == "latency"

    @pytest.mark.parametrize("options", ["prophet", "interval=60", "load=1", "sla", "latency=yes"])
    def test_unknown_options_are_refused(self, make_setting, options):
        with pytest.raises(InputError, match="expected throughput, load, hybrid or thresholds") as caught:
            parse(options, make_setting())
        assert caught.value.field == "--policy"

    @pytest.mark.parametrize("options", ["interval_s=7", "interval_s=5", "hybrid,load_interval_s=180", "latency"])
    def test_options_that_do_not_fit_together_are_refused(self, make_setting, options):
        with pytest.raises(InputError):
            parse(options, make_setting())
