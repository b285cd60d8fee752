"""KEDA's HPA against the controller's own test cases for an External metric, and its differences from a Pods metric."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from planner.core.types import Known, PoolState, Role
from planner.whatif.policies.hpa import desired_workers
from planner.whatif.policies.keda import THRESHOLD, Keda, external_workers, parse
from profiler.errors import InputError


def pool(desired, ready=None, waiting=0.0):
    ready = desired if ready is None else ready
    return PoolState(desired, ready, desired - ready, waiting_requests=Known(waiting), running_requests=Known(99.0))


class TestExternalMetric:
    # Figures of the controller's own tests of an External metric per pod: 8600 / 2150 is 4, 8600 / 2867 is 2.9997.
    # The third is within the tolerance: 8600 / (3 * 2867) = 0.9999.
    @pytest.mark.parametrize(
        ("pods", "total", "threshold", "wanted"),
        [(3, 8600.0, 2150.0, 4), (5, 8600.0, 2867.0, 3), (3, 8600.0, 2867.0, 3)],
    )
    def test_the_total_over_the_threshold(self, pods, total, threshold, wanted):
        assert external_workers(pods, total, threshold) == wanted

    def test_within_a_tenth_of_the_threshold_nothing_moves(self):
        assert external_workers(4, 4 * 5.5, 5.0) == 4
        assert external_workers(4, 4 * 5.51, 5.0) == 5
        assert external_workers(4, 4 * 4.5, 5.0) == 4
        assert external_workers(4, 4 * 3.7, 5.0) == 3

    def test_an_empty_queue_asks_for_none(self):
        assert external_workers(4, 0.0, 5.0) == 0

    def test_workers_that_start_count_as_pods_and_as_nothing_else(self):
        # 8 waiting at one ready worker, one starts: 8 / 5 is 2, where 2 are. A Pods metric asks for the same...
        assert external_workers(2, 8.0, 5.0) == 2
        assert desired_workers(2, 1, 1, 8.0, 5.0) == 2
        # ...but on the way down it takes the 3 that start for busy ones, which an External metric does not
        assert external_workers(4, 4.0, 5.0) == 1
        assert desired_workers(4, 1, 3, 4.0, 5.0) == 4

    def test_without_pods_the_total_alone_counts(self):
        assert external_workers(0, 12.0, 5.0) == 3
        assert external_workers(0, 0.0, 5.0) == 0

    @given(st.integers(0, 50), st.floats(0.0, 1e5), st.floats(0.0, 1e5))
    def test_a_longer_queue_never_asks_for_fewer(self, pods, total, more):
        assert external_workers(pods, total, 5.0) <= external_workers(pods, total + more, 5.0)


class TestScaledObject:
    def test_each_pool_by_its_own_queue(self, make_setting, observe):
        policy = Keda(make_setting())
        assert policy.interval_s == 15.0
        assert policy.decide(observe({"p": pool(1, waiting=11.0), "d": pool(2, waiting=0.0)}), 15.0) == {"p": 3, "d": 2}

    def test_what_runs_does_not_count(self, make_setting, observe):
        # a decode pool full to the brim has no queue: this is what the metric cannot see
        assert Keda(make_setting()).decide(observe({"p": pool(1), "d": pool(1)}), 15.0) == {"p": 1, "d": 1}

    def test_up_by_four_pods_per_sync(self, make_setting, observe):
        policy = Keda(make_setting())
        assert policy.decide(observe({"p": pool(1, waiting=1e4), "d": pool(1)}), 15.0)["p"] == 5
        assert policy.decide(observe({"p": pool(5, 1, waiting=1e4), "d": pool(1)}), 30.0)["p"] == 10

    def test_the_tolerance_is_of_all_pods(self, make_setting, observe):
        # 16 waiting, 5 per pod: 1.07 of what three pods bear, though but one of them is ready
        assert Keda(make_setting()).decide(observe({"p": pool(3, 1, waiting=16.0), "d": pool(1)}), 15.0)["p"] == 3

    def test_down_after_five_minutes_and_never_below_the_minimum(self, make_setting, observe):
        policy = Keda(make_setting(min_workers=2))
        idle = observe({"p": pool(6), "d": pool(2)})
        assert {policy.decide(idle, at_s)["p"] for at_s in range(15, 315, 15)} == {6}
        assert policy.decide(idle, 315.0)["p"] == 2

    def test_an_empty_answer_is_zero(self, make_setting, observe):
        # nothing is ready: 50 wait at the gateway, and no engine says so
        policy = parse("down_window_s=0", make_setting())
        assert policy.decide(observe({"p": pool(3, ready=0, waiting=50.0), "d": pool(1)}), 15.0)["p"] == 1

    def test_a_failed_query_changes_nothing(self, make_setting, observe):
        policy = parse("down_window_s=0", make_setting())
        assert policy.decide(observe({"p": PoolState(3, 3), "d": pool(1, waiting=11.0)}), 15.0) == {"p": 3, "d": 3}
        assert policy.decide(observe(None), 30.0) == {"p": 3, "d": 3}

    def test_a_cached_answer_is_given_again(self, make_setting, observe):
        fresh, cached = Keda(make_setting()), parse("cached_s=30", make_setting())
        for policy, second in ((fresh, 4), (cached, 2)):
            policy.decide(observe({"p": pool(1, waiting=10.0), "d": pool(1)}), 15.0)
            assert policy.decide(observe({"p": pool(2, waiting=20.0), "d": pool(1)}), 30.0)["p"] == second
            assert policy.decide(observe({"p": pool(2, waiting=30.0), "d": pool(1)}), 45.0)["p"] == 6


class TestCommandLine:
    def test_forms(self, make_setting):
        setting = make_setting()
        assert parse("", setting).thresholds == {Role.PREFILL: THRESHOLD, Role.DECODE: THRESHOLD}
        found = parse("threshold=2,decode_threshold=8", setting).thresholds
        assert found == {Role.PREFILL: 2.0, Role.DECODE: 8.0}
        assert parse("interval_s=30", setting).interval_s == 30.0

    def test_it_scales_an_aggregated_pool(self, aggregated, observe):
        assert parse("threshold=10", aggregated).decide(observe({"a": pool(2, waiting=35.0)}), 15.0) == {"a": 4}

    @pytest.mark.parametrize("options", ["queue", "aggregated_threshold=3", "cooldown_s=300"])
    def test_unknown_options_are_refused(self, make_setting, options):
        with pytest.raises(InputError, match="expected threshold=NUMBER, prefill_threshold") as caught:
            parse(options, make_setting())
        assert caught.value.field == "--policy"

    @pytest.mark.parametrize("options", ["threshold=0", "threshold=x", "cached_s=0", "cached_s"])
    def test_values_that_are_none_are_refused(self, make_setting, options):
        with pytest.raises(InputError, match=r"expected a .*number"):
            parse(options, make_setting())
