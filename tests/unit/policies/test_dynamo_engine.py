"""Dynamo 1.6's questions to its model, on a plane that is easy to compute with."""

import pytest

from planner.core.types import Role
from planner.whatif.policies.dynamo_engine import EngineModel, Limits, Load, Shape, batches, discount
from planner.whatif.policies.dynamo_regression import Pass

LIMITS = Limits(batched_tokens=4000, seqs=64, kv_tokens=100_000, context_tokens=10_000)


def model_of(role, passes, limits=LIMITS):
    model = EngineModel(role, limits)
    for held, time_ms in passes:
        model.regression.add(held, time_ms)
    assert model.ready
    return model


@pytest.fixture
def prefill():
    """10 ms + 0.02 ms a token: attention varies less than it would need to count."""
    passes = [(Pass(1, tokens), 10.0 + 0.02 * tokens) for tokens in (100, 500, 1000, 2000, 4000)]
    return model_of(Role.PREFILL, passes)


@pytest.fixture
def decode():
    """4 ms + 0.05 ms a request + 0.0001 ms a KV token."""
    passes = [
        (Pass(0, 0, n, kv), 4.0 + 0.05 * n + 0.0001 * kv) for n, kv in ((1, 500), (8, 9000), (20, 5000), (60, 90_000))
    ]
    return model_of(Role.DECODE, [*passes, (Pass(0, 0, 40, 10_000), 4.0 + 2.0 + 1.0)])


@pytest.fixture
def mixed():
    """4 ms + 0.02 ms a token of either kind + 0.0001 ms of attention."""
    held = (
        Pass(1, 100, 5, 9000),
        Pass(1, 900, 9, 900),
        Pass(2, 400, 8),
        Pass(1, 50, 60, 50_000),
        Pass(1, 9, 9, 20_000),
    )
    passes = [(one, 4.0 + 0.0001 * one.features[0] + 0.02 * one.features[1]) for one in held]
    return model_of(Role.AGGREGATED, passes)


class TestCapacity:
    def test_prefill_takes_the_batch_with_the_most_requests_within_the_ttft(self, prefill):
        # 1,000 tokens take 30 ms, two of them 50, four 90: 33.3, 40 and 44.4 requests/s
        one = prefill.capacity(Shape(1000, 100), 49.0, 10.0)
        assert (one.rps, one.ttft_ms, one.eligible) == (pytest.approx(33.33, abs=0.01), pytest.approx(30.0), True)
        assert prefill.capacity(Shape(1000, 100), 500.0, 10.0).rps == pytest.approx(44.44, abs=0.01)

    def test_an_sla_that_cannot_be_met_sizes_by_the_fastest_batch(self, prefill):
        found = prefill.capacity(Shape(1000, 100), 20.0, 10.0)
        assert not found.eligible
        assert found.rps == pytest.approx(44.44, abs=0.01)

    def test_prompts_longer_than_a_pass_go_in_chunks(self, prefill):
        # 9,000 tokens: two passes of 4,000 at 90 ms, one of 1,000 at 30 ms
        assert prefill.capacity(Shape(9000, 100), 500.0, 10.0).ttft_ms == pytest.approx(210.0)

    def test_cached_tokens_are_not_computed_but_never_more_than_95_percent(self, prefill):
        assert Shape(1000, 100, 0.5).computed == 500
        assert Shape(1010, 100, 1.0).computed == 51  # 50.5
        assert discount(float("nan")) == 0.0
        assert Shape(1000, 100, 0.5).context == 1050
        # 500 tokens, eight at a time: 8 / 90 ms
        assert prefill.capacity(Shape(1000, 100, 0.5), 500.0, 10.0).rps == pytest.approx(88.9, abs=0.1)

    def test_decode_takes_the_largest_batch_within_the_itl(self, decode):
        # context 1,000: 0.15 ms a request, 40 of them take 10 ms: 40 / (200 * 10 ms) = 20 requests/s
        found = decode.capacity(Shape(900, 200), 1.0, 10.001)
        assert (found.rps, found.itl_ms) == (pytest.approx(20.0, rel=1e-3), pytest.approx(10.0))

    def test_decode_is_bounded_by_kv_and_seats(self, decode):
        # 100,000 / 2,000 = 50 of 64 seats: 4 + 50 * 0.25 ms, though the SLA would bear more
        assert decode.capacity(Shape(1900, 200), 1.0, 99.0).itl_ms == pytest.approx(16.5)
        assert decode.capacity(Shape(400, 200), 1.0, 99.0).itl_ms == pytest.approx(4.0 + 64 * 0.1)
        assert decode.capacity(Shape(200_000, 200), 1.0, 99.0) is None

    def test_aggregated_balances_prompts_and_answers(self, mixed):
        # batch 20 of 1,000/100 needs 200 prompt tokens a pass; ITL = 4 + 0.0001 * (21,000 + 20,100) + 0.02 * 220
        found = mixed.capacity(Shape(1000, 100), 1e9, 12.52)
        assert found.itl_ms == pytest.approx(12.51)
        assert found.rps == pytest.approx(20 / (100 * 12.51) * 1000)
        # TTFT: a pass of those 200 and the prompt's own 1,000 = 4 + 0.0001 * (21,000 + 720,600) + 0.02 * 1,220
        assert found.ttft_ms == pytest.approx(102.56)

    def test_passes_of_one_kind_say_nothing_of_another(self, mixed, decode):
        assert mixed.regression.time_ms(Pass(0, 0, 10, 10_000)) is None
        assert decode.regression.time_ms(Pass(1, 100, 10, 10_000)) is None
        assert EngineModel(Role.AGGREGATED, LIMITS).capacity(Shape(100, 100), 1.0, 1.0) is None

    def test_without_a_shape_there_is_no_capacity(self, prefill, decode):
        assert prefill.capacity(Shape(0, 100), 1.0, 1.0) is None
        assert decode.capacity(Shape(100, 0), 1.0, 1.0) is None
        assert EngineModel(Role.DECODE, LIMITS).capacity(Shape(100, 100), 1.0, 1.0) is None

    def test_batches_are_thinned_out_to_128(self):
        assert batches(0) == []
        assert batches(3) == [1, 2, 3]
        many = batches(1000)
        assert (len(many), many[0], many[1], many[-1]) == (128, 1, 8, 1000)


class TestNextRequest:
    def test_ttft_is_the_queue_and_the_mean_prompt(self, prefill):
        prefill.tune(Pass(1, 1000), 30.0)
        # (2,000 + 1,000) tokens in one pass: 70 ms; without the queue 30; with it twice as long 110 and, 5,000
        # being more than a pass, 90 + 30
        load = Load(Pass(), 0.0, Pass(2, 2000))
        assert prefill.ttft_ms(load, 0.0) == pytest.approx(70.0)
        assert prefill.ttft_ms(load, 0.0, queue_scale=0.0) == pytest.approx(30.0)
        assert prefill.ttft_ms(load, 0.0, queue_scale=2.0) == pytest.approx(120.0)
        assert prefill.ttft_ms(load, 0.5) == pytest.approx(40.0)

    def test_passes_without_prompts_shorten_the_mean_prompt(self, prefill):
        prefill.tune(Pass(), 0.0)
        assert prefill.next_isl == 0.0
        prefill.tune(Pass(2, 2000), 50.0)
        prefill.tune(Pass(), 0.0)
        assert prefill.next_isl == 500.0

    def test_itl_counts_what_waits_and_one_more(self, decode):
        decode.tune(Pass(0, 0, 4, 4000), 4.6)
        # 10 + 2 requests and 10,000 + 2,000 KV tokens, and one of 1,000: 4 + 0.65 + 1.3
        load = Load(Pass(0, 0, 10, 10_000), 5.5, Pass(0, 0, 2, 2000))
        assert decode.itl_ms(load) == pytest.approx(5.95)
        # twice as much, the one to come once: 4 + 1.25 + 2.5
        assert decode.itl_ms(load, decode_scale=2.0) == pytest.approx(7.75)

    def test_aggregated_itl_has_the_prompts_that_passes_have_on_average(self, mixed):
        mixed.tune(Pass(1, 300, 0, 0), 0.0)
        mixed.tune(Pass(0, 0, 0, 0), 0.0)
        # 150 tokens of one prompt: attention 11,325; with 10 decodes of 1,000: 4 + 0.0001 * 21,325 + 0.02 * 160
        assert mixed.itl_ms(Load(Pass(1, 900, 10, 10_000))) == pytest.approx(9.3325)
        # prompts that wait count as KV to come: 2,000 tokens and two requests more
        waiting = Load(Pass(0, 0, 10, 10_000), 0.0, Pass(2, 2000))
        assert mixed.itl_ms(waiting, with_queued_prompts=True) == pytest.approx(9.3325 + 0.2 + 0.04)
