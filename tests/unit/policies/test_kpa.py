"""The KPA against the worked examples of Knative's own tests of its autoscaler, and its properties."""

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from planner.core.types import Known, PoolState, Role
from planner.whatif.policies.kpa import Kpa, parse
from planner.whatif.policies.kpa_decider import Decider, KpaConfig
from profiler.errors import InputError

#: Knative's tests run with rates of 10 both ways; threshold and window are the defaults.
TEN = KpaConfig(max_up_rate=10.0, max_down_rate=10.0)

#: The fixtures of this folder make things; nothing of one example is left for the next.
FACTORIES = settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])


def pool(desired, ready=None, load=0.0):
    ready = desired if ready is None else ready
    return PoolState(
        desired, ready, desired - ready, waiting_requests=Known(load / 2), running_requests=Known(load / 2)
    )


def once(stable, panic, ready, *, target=10.0, config=TEN, decider=None):
    return (decider or Decider(config)).scale(stable, panic, target, ready, 1000.0)


class TestStableMode:
    def test_concurrency_over_target(self):
        assert once(50.0, 10.0, 1) == 5
        assert once(100.0, 10.0, 1) == 10
        assert once(51.0, 10.0, 1) == 6
        assert once(21.0, 26.0, 1, target=181.0) == 1

    def test_down_with_the_load(self):
        assert once(50.0, 50.0, 8) == 5
        assert once(0.0, 0.0, 1) == 0

    def test_a_tenth_at_most_on_the_way_down_and_tenfold_on_the_way_up(self):
        assert [once(1.0, 1.0, ready) for ready in (100, 10)] == [10, 1]
        assert [once(1000.0, 1001.0, ready) for ready in (1, 10)] == [10, 100]

    def test_a_rate_near_one_still_moves_by_one(self):
        slow = KpaConfig(max_up_rate=1.1, max_down_rate=1.1)
        # ceil(1.1 * 2) = 3 of 3 wanted; floor(100 / 1.1) = 90 where 1 is wanted
        assert once(3.0, 3.1, 2, target=1.0, config=slow) == 3
        assert once(1.0, 1.0, 100, config=slow) == 90

    def test_no_ready_worker_counts_as_one(self):
        assert once(1000.0, 888.0, 0) == 10

    def test_half_of_the_ready_ones_may_go_by_default(self):
        assert once(0.0, 0.0, 9, config=KpaConfig()) == 4

    def test_activation_scale_while_there_is_load(self):
        config = KpaConfig(activation_scale=2.0)
        assert once(0.0, 0.0, 1, config=config) == 0
        assert once(1.0, 0.0, 1, config=config) == 2


class TestPanicMode:
    def test_it_begins_when_twice_the_ready_workers_are_wanted(self):
        decider = Decider(TEN)
        assert once(50.0, 100.0, 1, decider=decider) == 10  # the panic window's figure, not the stable one's
        assert decider.panic_since_s == 1000.0
        calm = Decider(TEN)
        assert once(50.0, 190.0, 10, decider=calm) == 5  # 19 wanted of 10: not twice as many
        assert calm.panic_since_s is None
        once(50.0, 191.0, 10, decider=calm)  # 20 wanted
        assert calm.panic_since_s == 1000.0

    def test_the_larger_of_both_windows_counts(self):
        for stable, panic, wanted in ((50.0, 30.0, 50), (20.0, 30.0, 30)):
            decider = Decider(TEN, panic_since_s=995.0, panic_workers=5)
            assert once(stable, panic, 5, target=1.0, decider=decider) == wanted

    def test_load_that_falls_keeps_its_workers_until_a_stable_window_has_passed(self):
        decider = Decider(TEN)
        assert decider.scale(100.0, 100.0, 10.0, 1, 0.0) == 10
        assert decider.scale(100.0, 1000.0, 10.0, 10, 0.0) == 100
        assert decider.scale(1.0, 1.0, 10.0, 10, 30.0) == 100
        assert decider.scale(1.0, 1.0, 10.0, 10, 60.0) == 100
        assert decider.scale(1.0, 1.0, 10.0, 10, 61.0) == 1

    def test_a_slow_rise_does_not_extend_it(self):
        # 10 ready, 25 wanted; half a window later 41 of 40, then 56 of 55: the panic ends by the stable figure
        decider = Decider(TEN)
        assert decider.scale(11.0, 25.0, 1.0, 10, 0.0) == 25
        assert decider.scale(30.0, 41.0, 1.0, 40, 30.0) == 41
        assert decider.panic_since_s == 0.0
        assert decider.scale(50.0, 56.0, 1.0, 55, 62.0) == 50
        assert decider.panic_since_s is None

    def test_a_load_that_stays_twice_too_large_extends_it(self):
        decider = Decider(TEN)
        assert decider.scale(11.0, 25.0, 1.0, 10, 0.0) == 25
        assert decider.scale(30.0, 80.0, 1.0, 40, 30.0) == 80
        assert decider.panic_since_s == 30.0

    def test_exponential_growth_is_tracked(self):
        decider = Decider(TEN)
        loads = [(6, 1), (36, 6), (216, 36), (1296, 216), (1296, 1296)]
        assert [decider.scale(load, load, 1.0, ready, 0.0) for load, ready in loads] == [6, 36, 216, 1296, 1296]

    def test_a_new_one_begins_in_it_with_more_than_one_worker(self):
        assert Decider.started(TEN, 1, 5.0).panic_since_s is None
        started = Decider.started(TEN, 2, 5.0)
        assert (started.panic_since_s, started.panic_workers) == (5.0, 2)

    def test_the_delay_of_scale_downs(self):
        decider = Decider(KpaConfig(max_down_rate=10.0, panic_threshold_percent=1e4, scale_down_delay_s=300.0))
        seen = [decider.scale(load, load, 10.0, 1, at_s) for at_s, load in [(2.0, 40.0), (300.0, 0.0), (302.0, 0.0)]]
        assert seen == [4, 4, 0]


class TestConfig:
    def test_defaults_are_those_of_the_config_map(self):
        config = KpaConfig()
        assert (config.utilization_percent, config.window_s, config.panic_window_s) == (70.0, 60.0, 6)
        assert (config.panic_threshold_percent, config.max_up_rate, config.max_down_rate) == (200.0, 1000.0, 2.0)
        assert (config.scale_down_delay_s, config.activation_scale, config.weighted) == (0.0, 1.0, False)

    def test_the_panic_window_is_of_whole_seconds(self):
        assert KpaConfig(window_s=65.0).panic_window_s == 7
        assert KpaConfig(window_s=6.0, panic_window_percent=1.0).panic_window_s == 1


loads = st.lists(st.tuples(st.floats(0.0, 2000.0), st.floats(0.0, 2000.0), st.integers(0, 30)), min_size=1, max_size=30)


class TestProperties:
    @given(loads)
    def test_a_panic_never_lowers(self, history):
        decider, before = Decider(KpaConfig()), 0
        for tick, (stable, panic, ready) in enumerate(history):
            count = decider.scale(stable, panic, 10.0, ready, tick * 2.0)
            if decider.panic_since_s is None:
                before = 0
            else:
                assert count >= before
                before = count

    @given(loads, st.lists(st.floats(0.0, 500.0), min_size=30, max_size=30))
    def test_more_concurrency_never_asks_for_fewer(self, history, more):
        low, high = Decider(KpaConfig()), Decider(KpaConfig())
        for tick, ((stable, panic, ready), extra) in enumerate(zip(history, more, strict=False)):
            fewer = low.scale(stable, panic, 10.0, ready, tick * 2.0)
            assert fewer <= high.scale(stable + extra, panic + extra, 10.0, ready, tick * 2.0)

    @FACTORIES
    @given(history=st.lists(st.floats(0.0, 5000.0), min_size=1, max_size=60))
    def test_it_stays_within_the_bounds(self, make_setting, observe, history):
        policy, workers = parse("target=10", make_setting(min_workers=2, max_workers=9)), 2
        for second, load in enumerate(history, start=1):
            state = pool(workers, load=load)
            workers = policy.decide(observe({"p": state, "d": state}), float(second))["p"]
            assert (2 if second > 1 else 1) <= workers <= 9


def over(policy, observe, seconds, prefill, decode):
    """The plans of some seconds of the same load."""
    return [policy.decide(observe({"p": prefill, "d": decode}, interval_s=1.0), float(second)) for second in seconds]


class TestPolicy:
    def policy(self, make_setting, options="target=10,utilization_percent=100", **bounds):
        return parse(options, make_setting(**bounds))

    def test_it_scrapes_each_second_and_decides_every_other(self, make_setting, observe):
        policy = self.policy(make_setting)
        assert policy.interval_s == 1.0
        plans = over(policy, observe, range(1, 4), pool(1, load=50.0), pool(1, load=10.0))
        assert plans == [{"p": 1, "d": 1}, {"p": 5, "d": 1}, {"p": 5, "d": 1}]

    def test_it_aims_at_seventy_percent_of_the_limit(self, make_setting, observe):
        plans = over(self.policy(make_setting, "target=10"), observe, range(1, 3), pool(1, load=50.0), pool(1))
        assert plans[-1]["p"] == 8  # 50 / 7

    def test_a_burst_is_seen_within_the_panic_window(self, make_setting, observe):
        policy = self.policy(make_setting)
        over(policy, observe, range(1, 61), pool(2, load=10.0), pool(1, load=10.0))
        # the panic window holds 5 seconds of 10 and one of 310: 60 on average, thrice the two workers' 20
        plans = over(policy, observe, range(61, 63), pool(2, load=310.0), pool(1, load=10.0))
        assert plans[-1]["p"] == 11  # (4 * 10 + 2 * 310) / 6 = 110

    def test_it_falls_after_the_panic_and_never_below_the_minimum(self, make_setting, observe):
        policy = self.policy(make_setting, min_workers=2)
        assert over(policy, observe, range(1, 3), pool(2, load=100.0), pool(2))[-1]["p"] == 10
        # the threshold is last crossed while 100 is in the panic window with two ready
        plans = over(policy, observe, range(3, 80), pool(10), pool(2))
        assert {plan["p"] for plan in plans[:50]} == {10}
        assert plans[-1]["p"] == 5  # at most half of the ten that are ready
        assert over(policy, observe, range(80, 83), pool(2), pool(2))[-1]["p"] == 2

    def test_scale_to_zero_is_off(self, make_setting, observe):
        policy = self.policy(make_setting, min_workers=0)
        assert over(policy, observe, range(1, 100), pool(1), pool(1))[-1] == {"p": 1, "d": 1}

    def test_unknown_concurrency_changes_nothing(self, make_setting, observe):
        policy = self.policy(make_setting)
        assert over(policy, observe, range(1, 5), PoolState(1, 1), pool(1, load=30.0))[-1] == {"p": 1, "d": 3}
        assert policy.decide(observe(None), 5.0) == {"p": 1, "d": 3}

    def test_the_load_test_sets_the_aim_of_the_hpa(self, make_setting, observe):
        policy = Kpa(make_setting())
        assert policy.decide(observe({"p": pool(1, load=90.0), "d": pool(1)}, isl=None), 2.0) == {"p": 1, "d": 1}
        policy.decide(observe({"p": pool(1), "d": pool(1)}, isl=1000), 4.0)
        # 4 prompts of 1,000 tokens fit 200 ms, a quarter of them is aimed at: one, 70 % of the limit
        assert policy.limits[Role.PREFILL] == pytest.approx(1.0 / 0.7)
        kept = dict(policy.limits)
        policy.decide(observe({"p": pool(1), "d": pool(1)}, isl=3000), 6.0)
        assert policy.limits == kept

    def test_it_scales_an_aggregated_pool(self, aggregated, observe):
        policy = parse("target=10,utilization_percent=100", aggregated)
        assert policy.decide(observe({"a": pool(1, load=40.0)}), 2.0) == {"a": 4}


class TestCommandLine:
    def test_forms(self, make_setting):
        setting = make_setting()
        assert parse("", setting).config == KpaConfig()
        assert parse("target=3,decode_target=60", setting).limits == {Role.PREFILL: 3.0, Role.DECODE: 60.0}
        found = parse("window_s=120,panic_threshold_percent=150,weighted", setting).config
        assert found == KpaConfig(window_s=120.0, panic_threshold_percent=150.0, weighted=True)

    @pytest.mark.parametrize("options", ["rps", "weighted=1", "aggregated_target=3"])
    def test_unknown_options_are_refused(self, make_setting, options):
        with pytest.raises(InputError, match="expected target=NUMBER, prefill_target") as caught:
            parse(options, make_setting())
        assert caught.value.field == "--policy"

    @pytest.mark.parametrize("options", ["target=0", "max_down_rate=1", "window_s=5", "utilization_percent=101"])
    def test_values_that_knative_refuses_are_refused(self, make_setting, options):
        with pytest.raises(InputError, match=r"expected a .*number"):
            parse(options, make_setting())
