"""AIBrix's autoscaler against the cases of its own tests."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from planner.core.types import PoolState, Role
from planner.whatif.policies.apa import Apa, Rules, guarded, parse, recommended
from planner.whatif.simulator.simulation import WorkerLoad
from profiler.errors import InputError


class TestRatio:
    # pkg/controller/podautoscaler/algorithm/apa_test.go: target 30
    @pytest.mark.parametrize(
        ("current", "value", "rules", "wanted"),
        [
            (2, 45.0, Rules(), 3),
            (2, 35.0, Rules(), 3),
            (2, 90.0, Rules(), 4),  # 6, at most the double
            (2, 90.0, Rules(max_up=2.5), 5),
            (6, 20.0, Rules(), 4),
            (6, 18.0, Rules(), 4),
            (6, 10.0, Rules(), 3),  # 2, at least the half
            (6, 5.0, Rules(max_down=2.5), 2),
            (2, 33.0, Rules(), 2),  # within the tolerances
            (2, 27.0, Rules(), 2),
            (10, 24.0, Rules(), 8),
            (10, 24.0, Rules(down_tolerance=0.2), 10),
        ],
    )
    def test_its_own_cases(self, current, value, rules, wanted):
        assert recommended(current, value / 30.0, rules) == wanted

    # autoscaler_test.go, …ConservativelyWhenReplicasPending: target 50, at most four times
    def test_workers_that_start_damp_it(self):
        rules = Rules(max_up=4.0)
        assert guarded(recommended(4, 90 / 50, rules), 4, 4, 90 / 50) == 8
        assert guarded(recommended(4, 90 / 50, rules), 4, 2, 90 / 50) == 4
        assert guarded(recommended(4, 10 / 50, rules), 4, 2, 10 / 50) == 3
        assert guarded(recommended(4, 150 / 50, rules), 4, 2, 150 / 50) == 6

    @given(
        current=st.integers(1, 50),
        pending=st.integers(0, 50),
        ratio=st.floats(0.0, 100.0),
    )
    def test_it_moves_by_a_factor_of_two_at_most_and_damping_does_not_turn_it(self, current, pending, ratio):
        wanted = recommended(current, ratio, Rules())
        assert current // 2 <= wanted <= 2 * current
        damped = guarded(wanted, current, max(0, current - pending), ratio)
        assert min(current, wanted) <= damped <= max(current, wanted)


class TestSync:
    def run(self, policy, observe, steps):
        """Plans of a pool that follows them at once; `steps` are (seconds, waiting per worker)."""
        current, plans = 1, []
        for at_s, waiting in steps:
            policy.watch({"a": [WorkerLoad(n, waiting, 0, 0.0, 100) for n in range(current)]})
            current = policy.decide(observe({"a": PoolState(current, current)}), float(at_s))["a"]
            plans.append(current)
        return plans

    def policy(self, setting, **rules):
        return Apa(setting, metric="queue", rules=Rules(**rules))

    def test_the_sync_period_is_10_s(self, aggregated):
        assert Apa(aggregated).interval_s == 10.0

    def test_it_doubles_at_once(self, aggregated, observe):
        assert self.run(self.policy(aggregated), observe, [(10, 100), (20, 100), (30, 100)]) == [2, 4, 8]

    def test_the_mean_of_the_window_goes_on_after_the_load_has_gone(self, aggregated, observe):
        # 100 once is a mean of 50 and 33 over two and three syncs: 5 and 3.3 times the target
        assert self.run(self.policy(aggregated), observe, [(10, 100), (20, 0), (30, 0)]) == [2, 4, 8]
        assert self.run(self.policy(aggregated, window_s=10.0), observe, [(10, 100), (20, 10), (30, 10)]) == [2, 2, 2]

    def test_a_fall_takes_the_lowest_recommendation_of_five_minutes(self, aggregated, observe):
        policy = self.policy(aggregated, window_s=10.0)
        steps = [(10, 10), (20, 20), (30, 20), (40, 20), (50, 8)]
        # 8 workers at 0.8 of the target would be 7; the first recommendation was 1
        assert self.run(policy, observe, steps) == [1, 2, 4, 8, 1]
        late = [*steps[:-1], *((at_s, 10) for at_s in range(50, 340, 10)), (340, 8)]
        assert self.run(self.policy(aggregated, window_s=10.0), observe, late)[-1] == 7

    def test_the_highest_is_another_rule(self, aggregated, observe):
        policy = self.policy(aggregated, window_s=10.0, highest_down=True)
        assert self.run(policy, observe, [(10, 10), (20, 20), (30, 20), (40, 20), (50, 8)]) == [1, 2, 4, 8, 8]

    def test_bounds_of_the_pool_hold(self, make_setting, observe):
        policy = Apa(make_setting(min_workers=2, max_workers=5), metric="queue", rules=Rules(window_s=10.0))
        loads = {"p": [WorkerLoad(n, 500, 0, 0.0, 100) for n in range(4)], "d": [WorkerLoad(0, 0, 0, 0.0, 100)]}
        policy.watch(loads)
        assert policy.decide(observe({"p": PoolState(4, 4), "d": PoolState(1, 1)}), 10.0) == {"p": 5, "d": 2}

    def test_without_metrics_or_replicas_nothing_moves(self, aggregated, observe):
        policy = self.policy(aggregated)
        assert policy.decide(observe(None), 10.0) == {"a": 1}
        policy.watch({"a": []})
        assert policy.decide(observe({"a": PoolState(3, 0, 3)}), 20.0) == {"a": 3}
        assert policy.decide(observe({"a": PoolState(0, 0)}), 30.0) == {"a": 0}


class TestMetrics:
    def test_the_samples_metrics_by_role(self, make_setting, observe):
        policy = Apa(make_setting(), rules=Rules(window_s=10.0))
        policy.watch({"p": [WorkerLoad(0, 20, 0, 0.9, 100)], "d": [WorkerLoad(0, 90, 0, 0.25, 100)] * 4})
        assert policy.decide(observe({"p": PoolState(1, 1), "d": PoolState(4, 4)}), 10.0) == {"p": 2, "d": 2}

    def test_concurrency_waits_for_the_load_test(self, make_setting, observe):
        policy = Apa(make_setting(), metric="concurrency", rules=Rules(window_s=10.0))
        policy.watch({name: [WorkerLoad(0, 50, 50, 0.0, 100)] for name in "pd"})
        states = {"p": PoolState(1, 1), "d": PoolState(1, 1)}
        assert policy.decide(observe(states, isl=None), 10.0) == {"p": 1, "d": 1}
        assert policy.decide(observe(states), 20.0) == {"p": 2, "d": 2}


class TestCommandLine:
    def test_forms(self, make_setting):
        setting = make_setting()
        assert parse("", setting)._targets == {Role.PREFILL: 10.0, Role.DECODE: 0.5}
        assert parse("kv", setting)._targets == {Role.PREFILL: 0.5, Role.DECODE: 0.5}
        assert parse("concurrency", setting)._targets == {}
        assert parse("target=3,decode_target=60", setting)._targets == {Role.PREFILL: 3.0, Role.DECODE: 60.0}
        sample = parse("window_s=30,down_tolerance=0.2,highest-down", setting)._scalers[Role.DECODE]._rules
        assert sample == Rules(window_s=30.0, down_tolerance=0.2, highest_down=True)

    @pytest.mark.parametrize("options", ["cpu", "kv=3", "aggregated_target=3", "highest-down=1"])
    def test_unknown_options_are_refused(self, make_setting, options):
        with pytest.raises(InputError, match="expected kv, queue, concurrency, target=NUMBER") as caught:
            parse(options, make_setting())
        assert caught.value.field == "--policy"

    @pytest.mark.parametrize("options", ["target=0", "max_up=0.5", "window_s=x"])
    def test_wrong_values_are_refused(self, make_setting, options):
        with pytest.raises(InputError, match="apa: "):
            parse(options, make_setting())
