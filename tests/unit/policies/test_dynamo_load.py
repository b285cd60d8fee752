"""Dynamo 1.6's load decisions on figures worked out by hand."""

import pytest

from planner.core.types import Role
from planner.whatif.policies.dynamo_engine import EngineModel, Limits, Load
from planner.whatif.policies.dynamo_load import (
    Limit,
    Workers,
    decide_aggregated,
    decide_by_thresholds,
    decide_decode,
    decide_prefill,
)
from planner.whatif.policies.dynamo_regression import Pass

LIMITS = Limits(batched_tokens=8192, seqs=256, kv_tokens=100_000, context_tokens=10_000)
TTFT, ITL = Limit(200.0, 0.8), Limit(10.0, 0.8)


@pytest.fixture
def prefill():
    """10 ms + 0.02 ms a token; the mean prompt has 1,000."""
    model = EngineModel(Role.PREFILL, LIMITS)
    for tokens in (100, 500, 1000, 2000, 8000):
        model.regression.add(Pass(1, tokens), 10.0 + 0.02 * tokens)
    model.tune(Pass(1, 1000), 30.0)
    return model


@pytest.fixture
def decode():
    """4 ms + 0.0001 ms a KV token; the mean request holds 1,000."""
    model = EngineModel(Role.DECODE, LIMITS)
    for n, kv in ((1, 500), (9, 9000), (2, 40_000), (60, 90_000), (5, 100)):
        model.regression.add(Pass(0, 0, n, kv), 4.0 + 0.0001 * kv)
    model.tune(Pass(0, 0, 5, 5000), 4.5)
    return model


def queue(tokens):
    return Load(Pass(), 0.0, Pass(1 if tokens else 0, tokens))


def holds(kv, waiting=0):
    return Load(Pass(0, 0, 10, kv), 1.0, Pass(0, 0, 1 if waiting else 0, waiting))


def ready(count, pending=0, least=1):
    return Workers(count, pending, least)


class TestPrefill:
    def test_up_by_one_only_when_every_engine_is_above_the_sla(self, prefill):
        # 8,600 tokens and 1,000: a pass of 8,192 takes 173.8 ms, 1,408 take 38.2; with 7,990 the rest takes 26.0
        assert decide_prefill(prefill, [queue(8600), queue(8600)], ready(2), TTFT, 0.0) == 3
        assert decide_prefill(prefill, [queue(8600), queue(900_000)], ready(2), TTFT, 0.0) == 3
        assert decide_prefill(prefill, [queue(7990), queue(900_000)], ready(2), TTFT, 0.0) is None

    def test_down_when_the_queue_of_the_others_stays_within_the_rest_of_the_sla(self, prefill):
        # its own prefill takes 30 ms and leaves 0.8 * 170 = 136 ms; 3,390 tokens each are 6,780 on one: 135.6 ms more
        assert decide_prefill(prefill, [queue(3390), queue(3390)], ready(2), TTFT, 0.0) == 1
        assert decide_prefill(prefill, [queue(3410), queue(0)], ready(2), TTFT, 0.0) is None

    def test_a_prompt_that_alone_takes_longer_than_the_sla_calls_for_more_for_ever(self, prefill):
        for count in (1, 2, 40):
            assert decide_prefill(prefill, [queue(0)] * count, ready(count), Limit(29.0, 0.8), 0.0) == count + 1

    def test_not_below_the_least_nor_without_a_second_one(self, prefill):
        assert decide_prefill(prefill, [queue(0)] * 2, ready(2, least=2), TTFT, 0.0) == 2
        assert decide_prefill(prefill, [queue(0)], ready(1), TTFT, 0.0) is None
        assert decide_prefill(prefill, [queue(0)], ready(1, pending=1), TTFT, 0.0) == 1

    def test_cached_prefixes_shorten_the_queue(self, prefill):
        assert decide_prefill(prefill, [queue(8600)], ready(1), TTFT, 0.0) == 2
        assert decide_prefill(prefill, [queue(8600)], ready(1), TTFT, 0.5) is None

    def test_without_a_model_or_workers_it_cannot_tell(self, prefill):
        assert decide_prefill(EngineModel(Role.PREFILL, LIMITS), [queue(0)], ready(2), TTFT, 0.0) is None
        assert decide_prefill(prefill, [], ready(0), TTFT, 0.0) is None


class TestDecode:
    def test_up_by_one_only_when_every_engine_is_above_the_sla(self, decode):
        # 59,100 and the 1,000 of the one to come: 10.01 ms, be they running or waiting
        assert decide_decode(decode, [holds(59_100), holds(50_000, waiting=9100)], ready(2), ITL) == 3
        assert decide_decode(decode, [holds(58_900), holds(90_000)], ready(2), ITL) is None

    def test_down_when_the_others_stay_within_0_8_of_the_sla(self, decode):
        # 8 ms are 40,000: three with 26,000 become two with 39,000 and the one to come, exactly at it
        assert decide_decode(decode, [holds(25_900)] * 3, ready(3), ITL) == 2
        assert decide_decode(decode, [holds(26_100)] * 3, ready(3), ITL) is None

    def test_not_down_when_the_others_could_not_hold_the_kv(self, decode):
        wide = Limit(1000.0, 0.8)
        assert decide_decode(decode, [holds(49_900)] * 2, ready(2), wide) == 1
        assert decide_decode(decode, [holds(50_000)] * 2, ready(2), wide) is None


class TestAggregated:
    @pytest.fixture
    def mixed(self):
        """4 ms + 0.02 ms a token + 0.0001 ms of attention; prompts of 1,000, requests of 1,000 KV tokens."""
        model = EngineModel(Role.AGGREGATED, LIMITS)
        both = (
            Pass(1, 100, 5, 9000),
            Pass(1, 900, 9, 900),
            Pass(2, 400, 8),
            Pass(1, 50, 60, 50_000),
            Pass(1, 9, 9, 20_000),
        )
        for held in both:
            model.regression.add(held, 4.0 + 0.0001 * held.features[0] + 0.02 * held.features[1])
        model.tune(Pass(1, 1000), 0.0)
        for _ in range(63):
            model.tune(Pass(1, 1000, 5, 5000), 0.0)
        return model

    def test_up_when_one_says_so(self, mixed):
        # a lone prompt of 1,000 alone: attention 500,500, 74 ms; beside decodes all the more
        assert decide_aggregated(mixed, [holds(1000)], ready(1), Limit(50.0, 0.8), Limit(900.0, 0.8), 0.0) == (2, False)
        assert decide_aggregated(mixed, [holds(1000)], ready(1), Limit(900.0, 0.8), Limit(50.0, 0.8), 0.0) == (2, False)

    def test_down_only_when_both_do(self, mixed):
        wide, narrow = Limit(900.0, 0.8), Limit(90.0, 0.8)
        loads = [holds(1000), holds(1000)]
        assert decide_aggregated(mixed, loads, ready(2), wide, wide, 0.0) == (1, True)
        # ITL with a mean pass of prompts is 75 ms, above 0.8 of 90
        assert decide_aggregated(mixed, loads, ready(2), wide, narrow, 0.0) == (2, False)
        # TTFT is 74.35 ms now and would be 74.65 with all decodes on one
        assert decide_aggregated(mixed, loads, ready(2), Limit(74.5, 0.8), wide, 0.0) == (2, False)

    def test_without_a_model_it_cannot_tell(self):
        model = EngineModel(Role.AGGREGATED, LIMITS)
        assert decide_aggregated(model, [holds(0)], ready(1), TTFT, ITL, 0.0) is None


class TestThresholds:
    def test_prefill_by_queued_tokens_over_the_context_length(self):
        model = EngineModel(Role.PREFILL, LIMITS)
        decide = decide_by_thresholds
        assert decide(Role.PREFILL, model, [queue(0), queue(10_000)], ready(2), "throughput") == 3
        assert decide(Role.PREFILL, model, [queue(0), queue(9999)], ready(2), "throughput") is None
        assert decide(Role.PREFILL, model, [queue(999), queue(0)], ready(2), "throughput") == 1
        assert decide(Role.PREFILL, model, [queue(999), queue(0)], ready(2), "latency") is None
        assert decide(Role.PREFILL, model, [queue(0), queue(1000)], ready(2), "latency") == 3
        assert decide(Role.PREFILL, model, [queue(0), queue(0)], ready(2), "latency") == 1

    def test_decode_by_kv(self):
        model = EngineModel(Role.DECODE, LIMITS)
        decide = decide_by_thresholds
        assert decide(Role.DECODE, model, [holds(0), holds(90_000, waiting=10_001)], ready(2), "throughput") == 3
        assert decide(Role.DECODE, model, [holds(60_000)] * 3, ready(3), "throughput") is None
        assert decide(Role.DECODE, model, [holds(59_000)] * 3, ready(3), "throughput") == 2

    def test_not_down_when_the_others_would_go_up_at_once(self):
        # 59,000 on each of two are 118,000 on one
        model = EngineModel(Role.DECODE, LIMITS)
        assert decide_by_thresholds(Role.DECODE, model, [holds(59_000)] * 2, ready(2), "throughput") == 2
