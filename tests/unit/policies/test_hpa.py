"""The HPA against worked examples of the algorithm in the Kubernetes documentation and the controller's source."""

import pytest

from planner.core.types import Known, PoolState, Role
from planner.whatif.policies.hpa import Hpa, desired_workers, parse
from planner.whatif.policies.hpa_targets import batch_within, prompts_within
from profiler.errors import InputError


def pool(desired, ready=None, waiting=0.0, running=0.0, kv=0.0):
    ready = desired if ready is None else ready
    loads = {"waiting_requests": Known(waiting), "running_requests": Known(running), "kv_usage": Known(kv)}
    return PoolState(desired, ready, desired - ready, **loads)


class TestReplicaCalculator:
    # documentation: metric 200m against a target of 100m doubles, 50m halves
    @pytest.mark.parametrize(("total", "wanted"), [(4 * 200.0, 8), (4 * 50.0, 2), (0.0, 0)])
    def test_the_count_follows_the_ratio(self, total, wanted):
        assert desired_workers(4, 4, 0, total, 100.0) == wanted

    def test_figures_of_the_controllers_own_tests(self):
        # five pods at 12000 against 20000: 3; three ready ones at 20000, 10000, 30000 against 15000: 4
        assert desired_workers(5, 5, 0, 5 * 12000.0, 20000.0) == 3
        assert desired_workers(3, 3, 0, 60000.0, 15000.0) == 4

    def test_a_fraction_of_a_worker_is_a_whole_one(self):
        assert desired_workers(4, 4, 0, 4 * 126.0, 100.0) == 6  # 5.04
        assert desired_workers(3, 3, 0, 3 * 130.0, 100.0) == 4  # 3.9

    def test_float_noise_is_no_fraction(self):
        assert desired_workers(1, 1, 0, 3 * 1.1, 1.1) == 3

    @pytest.mark.parametrize(("per_pod", "wanted"), [(110.0, 10), (90.0, 10), (111.0, 12), (89.0, 9), (100.0, 10)])
    def test_within_a_tenth_of_the_target_nothing_moves(self, per_pod, wanted):
        assert desired_workers(10, 10, 0, 10 * per_pod, 100.0) == wanted

    def test_tolerance_is_on_the_ratio_not_on_the_count(self):
        # ratio 1.12 of 4 workers: one more is 25 %, and 11 % of 10 would not be seen by a tolerance on counts
        assert desired_workers(4, 4, 0, 4 * 112.0, 100.0) == 5
        assert desired_workers(4, 4, 0, 4 * 109.0, 100.0) == 4

    def test_starting_workers_count_as_zero_on_the_way_up(self):
        # 2 ready at 300, 2 starting: 600 / (4 * 100) = 1.5 of 4 pods
        assert desired_workers(4, 2, 2, 600.0, 100.0) == 6

    def test_workers_that_start_are_not_asked_for_again(self):
        # 1 ready at 400 asked for 4; with 3 starting the ratio is 1.0 of 4
        assert desired_workers(1, 1, 0, 400.0, 100.0) == 4
        assert desired_workers(4, 1, 3, 400.0, 100.0) == 4

    def test_damping_may_stop_a_rise_but_not_turn_it(self):
        # 2 ready at 120 ask for more; with 2 at zero the ratio is 0.6, the other way
        assert desired_workers(4, 2, 2, 240.0, 100.0) == 4

    def test_starting_workers_count_as_at_target_on_the_way_down(self):
        # 3 ready at 20, 1 starting: (60 + 100) / 400 = 0.4 of 4 pods is 2, where the ready alone would make 1
        assert desired_workers(4, 3, 1, 60.0, 100.0) == 2

    def test_a_longer_list_of_pods_does_not_turn_the_direction(self):
        # 5 pods while 3 are asked for: 0.8 of 5 is 4, more than present although less is wanted
        assert desired_workers(3, 4, 1, 4 * 75.0, 100.0) == 3

    def test_pods_that_were_never_made_do_not_turn_the_direction_either(self):
        # 8 asked for, 3 pods there: 2 ready at 300 and 1 starting ask for 600 / 100 = 6, fewer although more is wanted
        assert desired_workers(8, 2, 1, 600.0, 100.0) == 8

    def test_without_a_ready_worker_there_is_no_metric(self):
        assert desired_workers(3, 0, 3, 1000.0, 100.0) == 3


class TestSync:
    def run(self, policy, observe, prefill, decode, at_s):
        return policy.decide(observe({"p": prefill, "d": decode}), at_s)

    def policy(self, make_setting, metric="concurrency", target=10.0, **bounds):
        prefill = "concurrency" if metric == "kv" else metric
        targets = {(Role.PREFILL, prefill): target, (Role.DECODE, metric): target}
        return Hpa(make_setting(**bounds), metrics=(metric,), targets=targets)

    def test_the_sync_period_is_15_s(self, make_setting):
        assert self.policy(make_setting).interval_s == 15.0

    def test_up_at_once_by_four_pods_when_that_is_more_than_double(self, make_setting, observe):
        policy = self.policy(make_setting)
        plan = self.run(policy, observe, pool(1, running=1000.0), pool(2, running=1000.0), 15.0)
        assert plan == {"p": 5, "d": 6}

    def test_up_at_once_to_the_double_when_that_is_more_than_four_pods(self, make_setting, observe):
        plan = self.run(self.policy(make_setting), observe, pool(6, running=1e4), pool(2, running=20.0), 15.0)
        assert plan == {"p": 12, "d": 2}

    def test_every_period_has_its_own_allowance(self, make_setting, observe):
        policy = self.policy(make_setting)
        first = self.run(policy, observe, pool(1, running=1e4), pool(1, running=10.0), 15.0)
        second = self.run(policy, observe, pool(5, 5, running=1e4), pool(1, running=10.0), 30.0)
        assert (first["p"], second["p"]) == (5, 10)

    def test_down_only_when_five_minutes_agree(self, make_setting, observe):
        policy = self.policy(make_setting)
        steady, idle = pool(8, running=80.0), pool(8, running=20.0)
        self.run(policy, observe, steady, pool(1, running=10.0), 15.0)
        kept = [self.run(policy, observe, idle, pool(1, running=10.0), at_s)["p"] for at_s in range(30, 15 + 300, 15)]
        assert set(kept) == {8}
        # the last high recommendation is 300 s old now, and dropped; 100 % per period lets it fall to 2 at once
        assert self.run(policy, observe, idle, pool(1, running=10.0), 315.0)["p"] == 2

    def test_down_to_the_highest_of_the_window(self, make_setting, observe):
        policy = self.policy(make_setting)
        for at_s in range(15, 330, 15):
            load = 50.0 if at_s == 150 else 20.0
            plan = self.run(policy, observe, pool(8, running=load), pool(1, running=10.0), at_s)
        assert plan["p"] == 5

    def test_the_first_sync_records_the_present_count(self, make_setting, observe):
        policy = self.policy(make_setting)
        assert self.run(policy, observe, pool(8, running=0.0), pool(1, running=10.0), 15.0)["p"] == 8

    def test_bounds_of_the_pool_hold(self, make_setting, observe):
        policy = self.policy(make_setting, min_workers=2, max_workers=4)
        plan = self.run(policy, observe, pool(3, running=1e6), pool(2, running=0.0), 15.0)
        assert plan == {"p": 4, "d": 2}
        for at_s in range(30, 600, 15):
            plan = self.run(policy, observe, pool(4, running=0.0), pool(2, running=0.0), at_s)
        assert plan == {"p": 2, "d": 2}

    def test_a_count_out_of_bounds_is_brought_back_whatever_the_metric(self, make_setting, observe):
        policy = self.policy(make_setting, min_workers=2, max_workers=4)
        assert self.run(policy, observe, pool(9, running=1e6), pool(1, running=0.0), 15.0) == {"p": 4, "d": 2}

    def test_it_knows_nothing_of_a_gpu_budget(self, make_setting, observe):
        policy = self.policy(make_setting, max_gpus=2)
        assert self.run(policy, observe, pool(1, running=40.0), pool(1, running=40.0), 15.0) == {"p": 4, "d": 4}

    def test_unknown_metrics_change_nothing(self, make_setting, observe):
        policy = self.policy(make_setting)
        unknown = PoolState(3, 3)
        assert self.run(policy, observe, unknown, pool(2, running=40.0), 15.0) == {"p": 3, "d": 4}
        assert policy.decide(observe(None), 30.0) == {"p": 3, "d": 4}

    def test_metrics(self, make_setting, observe):
        state = pool(2, waiting=30.0, running=50.0, kv=0.9)
        for metric, target, prefill, decode in [("queue", 10.0, 3, 3), ("concurrency", 20.0, 4, 4), ("kv", 0.3, 6, 6)]:
            plan = self.run(self.policy(make_setting, metric, target), observe, state, state, 15.0)
            # a prefill pool under kv is scaled on concurrency: 80 / 0.3 asks for all that the rate allows
            assert plan == {"p": prefill, "d": decode}, metric

    def test_without_a_target_it_waits_for_the_load_test(self, make_setting, observe):
        policy = Hpa(make_setting())
        busy = {"p": pool(1, running=100.0), "d": pool(1, running=1000.0)}
        assert policy.decide(observe(busy, isl=None), 15.0) == {"p": 1, "d": 1}
        assert policy.decide(observe(busy), 30.0) == {"p": 5, "d": 5}


class TestLoadTest:
    def test_prompts_in_a_row_fill_the_ttft(self, make_setting, prefill):
        # 1,000 tokens take 50 ms: four in 200 ms
        assert prompts_within(prefill, make_setting().sla, 1000.0) == pytest.approx(4.0)

    def test_the_batch_fills_the_itl(self, make_setting, decode):
        # 5 + 10 usage <= 10 at half of 100,000 tokens: 50 requests of 1,000; the table's steps are 1/11 apart
        assert batch_within(decode, make_setting().sla, 1000.0) == pytest.approx(50.0, abs=5.0)

    def test_targets_are_kept_from_then_on(self, make_setting, observe):
        policy, states = Hpa(make_setting()), {"p": pool(1), "d": pool(1)}
        policy.decide(observe(states, isl=1000), 15.0)
        before = dict(policy.targets)
        policy.decide(observe(states, isl=3000), 30.0)
        assert policy.targets == before
        assert before[Role.PREFILL, "concurrency"] == pytest.approx(1.0)


class TestCommandLine:
    def test_forms(self, make_setting):
        setting = make_setting()
        p, d = (Role.PREFILL, "concurrency"), (Role.DECODE, "concurrency")
        assert parse("", setting).targets == {}
        assert parse("concurrency, target=3", setting).targets == {p: 3.0, d: 3.0}
        assert parse("target=3,decode_target=60", setting).targets == {p: 3.0, d: 60.0}
        assert parse("queue,target=4", setting).targets == {(Role.PREFILL, "queue"): 4.0, (Role.DECODE, "queue"): 4.0}

    def test_a_target_of_kv_usage_is_not_given_to_the_prefill_pool(self, make_setting):
        assert parse("kv,target=0.8", make_setting()).targets == {(Role.DECODE, "kv"): 0.8}
        assert parse("kv,prefill_target=3", make_setting()).targets == {(Role.PREFILL, "concurrency"): 3.0}

    def test_several_metrics_take_targets_by_name(self, make_setting):
        found = parse("queue,kv,queue_target=4,prefill_queue_target=2,kv_target=0.7", make_setting()).targets
        assert found == {(Role.PREFILL, "queue"): 2.0, (Role.DECODE, "queue"): 4.0, (Role.DECODE, "kv"): 0.7}

    @pytest.mark.parametrize("options", ["queue,kv,target=3", "queue,kv,decode_target=3", "queue,concurrency_target=3"])
    def test_a_target_that_no_metric_takes_is_refused(self, make_setting, options):
        with pytest.raises(InputError, match=r"no pool takes .*target; expected a target of a metric"):
            parse(options, make_setting())

    @pytest.mark.parametrize(
        ("options", "right"),
        [
            ("down_window_s=-1", "from 0 to 3600"),
            ("tolerance=1", "from 0 to 0.99"),
            ("up_select=most", "up_select=max|min|disabled"),
            ("up_pods=0", "1 or more"),
            ("interval_s=0", "from 1 to 3600"),
        ],
    )
    def test_values_that_the_controller_cannot_have_are_refused(self, make_setting, options, right):
        with pytest.raises(InputError) as caught:
            parse(options, make_setting())
        assert right in str(caught.value)

    def test_the_sync_period_is_an_option(self, make_setting):
        assert parse("interval_s=30", make_setting()).interval_s == 30.0

    @pytest.mark.parametrize("options", ["cpu", "queue=3", "aggregated_target=3", "targets=3"])
    def test_unknown_options_are_refused(self, make_setting, options):
        with pytest.raises(InputError, match="expected queue, concurrency, kv, target=NUMBER") as caught:
            parse(options, make_setting())
        assert caught.value.field == "--policy"

    @pytest.mark.parametrize("options", ["target", "target=", "target=x", "target=0", "target=-1", "target=nan"])
    def test_values_that_are_no_target_are_refused(self, make_setting, options):
        with pytest.raises(InputError, match="expected a positive number, target=NUMBER"):
            parse(options, make_setting())

    def test_it_scales_an_aggregated_pool(self, aggregated, observe):
        plan = parse("target=10", aggregated).decide(observe({"a": pool(2, running=40.0)}), 15.0)
        assert plan == {"a": 4}
