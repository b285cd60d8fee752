"""WVA's second analyser against the examples of its own tests."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from planner.core.types import Known, Pool, PoolState, Role
from planner.whatif.policies.wva_capacity import Capacity, EngineLimits, bucket_of, derived_k2
from planner.whatif.policies.wva_hpa import ExternalHpa, behaviour
from planner.whatif.policies.wva_loop import Variant
from planner.whatif.policies.wva_metrics import Lengths, MeanLengths, Peaks, Replica
from planner.whatif.policies.wva_v2 import (
    Balance,
    Thresholds,
    WvaV2,
    gateway_demand,
    lengths_of,
    parse,
    replica_demand,
)
from planner.whatif.simulator.simulation import WorkerLoad
from profiler.errors import InputError
from profiler.schema import Limits


def replica(tokens, capacity=16_000, waiting=0):
    return Replica(waiting, tokens / capacity, capacity)


class TestCapacity:
    SHORT, LONG = MeanLengths(100.0, 50.0, 0.0), MeanLengths(100.0, 600.0, 0.0)

    def capacity(self, limits=None):
        return Capacity(limits or EngineLimits(), kv=0.8, queue=5.0)

    # internal/engines/analyzers/saturation_v2/analyzer_test.go: figures of each case
    def test_memory_binds_a_calm_worker(self):
        assert self.capacity().of(replica(5000), self.SHORT) == 12_800

    def test_a_saturated_queue_shows_what_compute_sustains(self):
        assert self.capacity().of(replica(8000, waiting=6), self.SHORT) == 8000
        assert self.capacity().of(replica(4000, waiting=10), self.SHORT) == 4000
        # beyond k1 memory still binds
        assert self.capacity().of(replica(15_000, waiting=10), self.SHORT) == 12_800

    def test_what_was_seen_is_remembered(self):
        capacity = self.capacity()
        capacity.of(replica(8000, waiting=6), self.SHORT)
        assert capacity.of(replica(6000, waiting=2), self.SHORT) == 8000

    def test_for_the_same_answers_only(self):
        capacity = self.capacity()
        capacity.of(replica(8000, waiting=6), self.SHORT)
        assert capacity.of(replica(6000, waiting=2), self.LONG) == 12_800

    def test_the_mean_of_ten_sightings(self):
        capacity = self.capacity()
        for tokens in [1000] * 5 + [8000] * 5 + [10_000] * 5:
            capacity.of(replica(tokens, waiting=5), self.SHORT)
        assert capacity.of(replica(0), self.SHORT) == 9000

    def test_derived_from_the_engines_limits(self):
        # 2,048 * 100 / 600 = 341 requests, at most 256; of 500 + 50 tokens
        assert derived_k2(EngineLimits(2048, 256), MeanLengths(500.0, 100.0, 0.0)) == 140_800
        # 2,048 * 10 / 4,010 = 5.1 requests of 4,005 tokens
        assert derived_k2(EngineLimits(2048, 256), MeanLengths(4000.0, 10.0, 0.0)) == 20_454
        assert derived_k2(EngineLimits(), MeanLengths(4000.0, 0.0, 0.0)) == 0

    def test_a_prefill_worker_sustains_one_step_of_its_engine(self):
        # of each request it generates one token: 8,192 / 4,001 requests of 4,000.5
        assert derived_k2(EngineLimits(), lengths_of(Role.PREFILL, MeanLengths(4000.0, 1000.0, 0.0))) == 8190

    def test_without_lengths_memory_binds(self):
        assert self.capacity().of(replica(5000, waiting=2), MeanLengths(0.0, 0.0, 0.0)) == 12_800

    def test_limits_come_from_the_profile(self):
        assert EngineLimits.of(Limits(max_num_seqs=64)) == EngineLimits(8192, 64)
        assert EngineLimits.of(Limits(max_num_batched_tokens=2048)) == EngineLimits(2048, 256)

    def test_buckets(self):
        assert [bucket_of(osl) for osl in (99.9, 100.0, 499.9, 500.0)] == ["short", "medium", "medium", "long"]


class TestDemand:
    LENGTHS = MeanLengths(1000.0, 200.0, 0.25)

    def test_tokens_in_the_cache_and_of_the_queue(self):
        waiting = replica(5000, waiting=3)
        assert replica_demand(waiting, Role.DECODE, self.LENGTHS) == 5000 + 3 * 1200
        assert replica_demand(waiting, Role.AGGREGATED, self.LENGTHS) == 5000 + 3 * 1200
        assert replica_demand(waiting, Role.PREFILL, self.LENGTHS) == 5000 + 3 * 1000

    def test_means_are_rounded_once(self):
        # its own example: three waiting requests of 100.9 tokens are 302, not 300
        assert replica_demand(replica(0, waiting=3), Role.PREFILL, MeanLengths(100.9, 0.0, 0.0)) == 302

    def test_what_waits_at_the_gateway_may_hit_the_prefix_cache(self):
        assert gateway_demand(4, Role.PREFILL, self.LENGTHS) == 4 * 750.0
        assert gateway_demand(4, Role.DECODE, self.LENGTHS) == 4 * 950.0


class TestBalance:
    def test_required_over_the_scale_up_threshold(self):
        # 17,000 / 0.85 = 20,000 tokens on workers of 5,000: two ready, one coming, one missing
        assert Balance(5000.0, 2, 1, 17_000.0).missing(0.85) == 1
        assert Balance(5000.0, 2, 0, 17_000.0).missing(0.85) == 2
        assert Balance(5000.0, 2, 2, 17_000.0).missing(0.85) == 0
        assert Balance(5000.0, 2, 0, 17_001.0).missing(0.85) == 3

    def test_spare_under_the_scale_down_boundary(self):
        # 7,000 / 0.70 = 10,000 tokens: two of five workers; those that start do not count
        assert Balance(5000.0, 5, 0, 7000.0).superfluous(0.70) == 3
        assert Balance(5000.0, 3, 2, 7000.0).superfluous(0.70) == 1
        assert Balance(5000.0, 2, 0, 7001.0).superfluous(0.70) == 0

    def test_a_capacity_that_is_not_known_moves_nothing(self):
        assert Balance(0.0, 0, 2, 1e6).missing(0.85) == Balance(0.0, 0, 2, 1e6).superfluous(0.70) == 0

    @given(
        capacity=st.floats(1.0, 1e6), ready=st.integers(1, 50), pending=st.integers(0, 10), load=st.floats(0.01, 100.0)
    )
    def test_it_never_wants_both_and_lands_between_the_thresholds(self, capacity, ready, pending, load):
        balance = Balance(capacity, ready, pending, load * capacity)
        more, fewer = balance.missing(0.85), balance.superfluous(0.70)
        assert not (more and fewer)
        if more:
            after = ready + pending + more
            assert balance.demand <= 0.85 * capacity * after * (1 + 1e-9)
            assert balance.demand >= 0.85 * capacity * (after - 1) * (1 - 1e-9)
        if fewer:
            assert balance.demand <= 0.70 * capacity * (ready - fewer) * (1 + 1e-9)


class TestPolicy:
    def decide(self, policy, observe, pools, until_s=75, **kwargs):
        """The last plan under a constant load; `pools` are (current, ready, KV usage, waiting per worker) by name."""
        plan = {name: current for name, (current, *_) in pools.items()}
        for at_s in range(15, until_s + 15, 15):
            workers, states = {}, {}
            for name, (_, most, kv, waiting) in pools.items():
                ready = min(most, plan[name])
                workers[name] = [WorkerLoad(n, waiting, 1, kv, 100_000) for n in range(ready)]
                queue = Known(float(waiting * ready))
                states[name] = PoolState(plan[name], ready, plan[name] - ready, waiting_requests=queue)
            policy.watch(workers)
            plan = policy.decide(observe(states, **kwargs), float(at_s))
        return plan

    def test_it_jumps_to_what_is_missing(self, aggregated, observe):
        # 50,000 tokens and 100 waiting of 1,200 on a worker that, seen saturated, sustains 50,000: 170,000 / 0.85 is 4
        assert self.decide(WvaV2(aggregated), observe, {"a": (1, 1, 0.5, 100)}) == {"a": 4}

    def test_starting_workers_are_supply(self, aggregated, observe):
        assert self.decide(WvaV2(aggregated), observe, {"a": (4, 1, 0.5, 100)}) == {"a": 4}
        assert self.decide(WvaV2(aggregated), observe, {"a": (3, 1, 0.5, 100)}) == {"a": 4}

    def test_it_falls_to_what_the_demand_needs_after_the_window_of_the_hpa(self, aggregated, observe):
        # 8 workers of 80,000 tokens hold 10,000 each: 80,000 / 0.70 leaves 2, after 240 s
        quiet = {"a": (8, 8, 0.1, 0)}
        assert self.decide(WvaV2(aggregated), observe, quiet, until_s=240) == {"a": 8}
        assert self.decide(WvaV2(aggregated), observe, quiet, until_s=255) == {"a": 2}

    def test_no_role_shrinks_while_another_must_grow(self, make_setting):
        setting = make_setting()
        p, d = (setting.pools[role] for role in (Role.PREFILL, Role.DECODE))
        calm = Variant(p, 1, None, [Replica(0, 0.0, 100_000)])
        # 50,000 tokens that it holds at most and 100 prompts of 1,000: 150,000 / 0.85 on workers of 50,000 is 4
        busy = Variant(p, 1, None, [Replica(100, 0.5, 100_000)])
        quiet = Variant(d, 6, None, [Replica(0, 0.01, 100_000)] * 6)
        lengths = MeanLengths(1000.0, 200.0, 0.0)
        assert WvaV2(setting).analyse([busy, quiet], lengths) == {"p": 4, "d": 6}
        assert WvaV2(setting).analyse([calm, quiet], lengths) == {"p": 1, "d": 1}

    def test_requests_at_the_gateway_count(self, aggregated, observe):
        policy = WvaV2(aggregated)
        state = PoolState(1, 1, 0, waiting_requests=Known(200.0))
        for at_s in range(15, 90, 15):
            policy.watch({"a": [WorkerLoad(0, 0, 1, 0.0, 100_000)]})
            plan = policy.decide(observe({"a": state}), float(at_s))
        # 200 of 1,200 tokens over 0.85 on workers of 80,000
        assert plan == {"a": 4}

    @given(
        current=st.integers(1, 12), pending=st.integers(0, 3), kv=st.floats(0.0, 1.0), waiting=st.integers(0, 500),
        most=st.integers(1, 12),
    )  # fmt: skip
    def test_bounds_hold(self, current, pending, kv, waiting, most):
        pool = Pool("a", Role.AGGREGATED, 1, 1, most)
        hpa = ExternalHpa(pool, behaviour(0.0, 0.0))
        balance = Balance(80_000.0, current, pending, current * (kv * 100_000 + waiting * 1200.0))
        wanted = current + balance.missing(0.85) - balance.superfluous(0.70)
        assert 1 <= hpa.sync(current, wanted, 15.0) <= most


class TestHpa:
    POOL = Pool("a", Role.AGGREGATED, 1, 1, 100)

    def test_ten_pods_in_150_s(self):
        hpa = ExternalHpa(self.POOL, behaviour(0.0, 240.0))
        current, plans = 1, []
        for at_s in range(15, 330, 15):
            current = hpa.sync(current, 50, float(at_s))
            plans.append(current)
        assert plans == [11] * 10 + [21] * 10 + [31]

    @pytest.mark.parametrize(("current", "wanted", "done"), [(10, 11, 10), (10, 9, 10), (10, 12, 12), (9, 10, 10)])
    def test_the_tolerance_is_on_the_ratio(self, current, wanted, done):
        assert ExternalHpa(self.POOL, behaviour(0.0, 0.0)).sync(current, wanted, 15.0) == done

    def test_a_window_upwards_waits_for_the_lowest_wish(self):
        hpa = ExternalHpa(self.POOL, behaviour(240.0, 240.0))
        assert [hpa.sync(1, 5, float(at_s)) for at_s in (15, 120, 240, 255)] == [1, 1, 1, 5]

    def test_no_metric_and_no_replicas_change_nothing(self):
        hpa = ExternalHpa(self.POOL, behaviour(0.0, 0.0))
        assert hpa.sync(3, None, 15.0) == 3
        assert hpa.sync(0, 5, 30.0) == 0


class TestMetrics:
    def test_peaks_are_a_minutes_and_of_ready_workers(self):
        peaks = Peaks()
        peaks.add({"a": [WorkerLoad(0, 7, 1, 0.9, 100), WorkerLoad(1, 1, 1, 0.1, 100)]}, 0.0)
        peaks.add({"a": [WorkerLoad(0, 2, 1, 0.3, 100)]}, 15.0)
        assert peaks.of("a") == [Replica(7, 0.9, 100)]
        peaks.add({"a": [WorkerLoad(0, 1, 1, 0.2, 100)]}, 60.0)
        assert peaks.of("a") == [Replica(2, 0.3, 100)]
        assert peaks.of("b") == []

    def test_lengths_are_means_of_five_minutes(self, observe):
        lengths = Lengths()
        assert lengths.means(0.0) is None
        lengths.add(observe({}, isl=100, osl=10).lengths.value, 0.0)
        lengths.add(observe({}, isl=300, osl=30).lengths.value, 200.0)
        assert lengths.means(200.0) == MeanLengths(200.0, 20.0, 0.0)
        assert lengths.means(300.0) == MeanLengths(300.0, 30.0, 0.0)
        assert lengths.means(500.0) is None


class TestCommandLine:
    def test_forms(self, make_setting):
        assert parse("", make_setting())._limits == Thresholds()
        tuned = parse("up=0.95,down=0.5,kv=0.9,queue=8,interval_s=30", make_setting())
        assert tuned._limits == Thresholds(0.9, 8.0, 0.95, 0.5)
        assert tuned._options.interval_s == 30.0

    @pytest.mark.parametrize("options", ["up=85", "down=2", "kv_spare=0.1", "v1"])
    def test_what_is_wrong_is_refused(self, make_setting, options):
        with pytest.raises(InputError, match="wva-v2: "):
            parse(options, make_setting())
