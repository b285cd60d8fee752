"""The closed form against arithmetic by hand, on an engine whose tables are straight lines."""

from __future__ import annotations

import math

import numpy as np
import pytest
from scipy.special import gammainc, ndtr

from planner.core.capacity import UncertainRate
from planner.core.closed_form import WAIT_SCALE, WAIT_SHAPE, ClosedForm
from planner.core.queueing import busy_share, erlang_c, gated_cycle
from planner.core.types import LengthSample, Role, Sla
from tests.engines import engine, transfer
from tests.unit.core.cases import AGGREGATED, DECODE, PREFILL, SLA, by_hand, demand, h200, sample

LOOSE = Sla(1e6, 1e6)


def both(prefill: int = 1, decode: int = 1) -> dict[Role, int]:
    return {PREFILL: prefill, DECODE: decode}


def test_a_lone_request() -> None:
    # Prompt 10 + 0.01 x 1000 = 20 ms, hand-off 2 + 0.002 x 1000 = 4 ms, a step of 1 request with 1000 + 50 KV tokens:
    # 5 + 0.1 + 1.05 = 6.15 ms.
    lone = by_hand().evaluator(demand(1.0), LOOSE).ceiling()
    assert lone.ttft_ms == pytest.approx(20.0 + 4.0 + 6.15)
    assert lone.itl_ms == pytest.approx(6.15)
    assert (lone.attainment, lone.ttft_attainment, lone.itl_attainment) == (1.0, 1.0, 1.0)
    assert lone.utilisation == {PREFILL: 0.0, DECODE: 0.0}


def test_a_lone_request_with_a_prefix_hit_and_attention() -> None:
    model = by_hand(attention=1e-5)
    lone = model.evaluator(demand(1.0, sample(hit=600)), LOOSE).ceiling()
    prompt = 10.0 + 0.01 * 400 + 1e-5 * (1000**2 - 600**2)
    assert lone.ttft_ms == pytest.approx(prompt + 4.0 + 6.15)


def test_a_single_output_token_has_no_itl() -> None:
    found = by_hand().evaluator(demand(1.0, sample(osl=1)), Sla(1e6, 0.001))
    assert found.ceiling().itl_attainment == 1.0
    assert found.predict(both()).itl_attainment == 1.0


def test_light_load_is_a_lone_request() -> None:
    found = by_hand().evaluator(demand(1e-6), SLA).predict(both())
    assert found.ttft_ms == pytest.approx(30.15, rel=1e-4)
    assert found.itl_ms == pytest.approx(6.15, rel=1e-6)
    assert found.attainment == pytest.approx(1.0, abs=1e-6)
    model = ClosedForm({AGGREGATED: engine()}, transfer())
    alone = model.evaluator(demand(1e-6), SLA)
    assert alone.predict({AGGREGATED: 1}).ttft_ms == pytest.approx(20.0, rel=1e-4)
    assert alone.predict({AGGREGATED: 1}).itl_ms == pytest.approx(6.15, rel=1e-4)


@pytest.mark.parametrize(("rate", "workers"), [(10.0, 1), (20.0, 1), (30.0, 2), (3.0, 3)])
def test_the_mean_batch_follows_littles_law(rate: float, workers: int) -> None:
    # n = r ITL(n) with r = rate / workers x 100 tokens / 1000 and ITL(n) = 5 + (0.1 + 0.001 x 1050) n, so that
    # n = 5 r / (1 - 1.15 r) and ITL = 5 / (1 - 1.15 r); never below the step of one request.
    r = rate / workers * 100 / 1000
    expected = max(6.15, 5.0 / (1.0 - 1.15 * r)) if 1.15 * r < 1 else math.inf
    found = by_hand(capacity=1_600_000, seqs=2000).evaluator(demand(rate), LOOSE).predict(both(decode=workers))
    assert found.itl_ms == pytest.approx(expected, rel=1e-3)


def test_utilisation_of_decode_is_need_over_capacity() -> None:
    # At most 64 run: ITL(64) = 5 + 1.15 x 64 = 78.6 ms, hence 64 / 78.6 tokens a ms; 5 requests/s need 0.5.
    found = by_hand().evaluator(demand(5.0), LOOSE).predict(both())
    assert found.utilisation[DECODE] == pytest.approx(0.5 * 78.6 / 64)


def test_utilisation_of_prefill_is_its_busy_share() -> None:
    # 1 request/s, all of them alone: 20 ms of each second, but for those that come while another one runs.
    found = by_hand().evaluator(demand(1.0), LOOSE).predict(both())
    assert found.utilisation[PREFILL] == pytest.approx(0.02, abs=0.001)


@pytest.mark.parametrize("capacity", [20_000, 160_000])
def test_kv_bounds_the_batch(capacity: int) -> None:
    # 20,000 / 1050 = 19.05 requests at most: ITL = 26.9 ms.
    most = min(64.0, capacity / 1050)
    limit = most / (5.0 + 1.15 * most) * 10  # requests/s of 100 tokens
    model = by_hand(capacity=capacity)
    assert model.evaluator(demand(limit * 0.99), LOOSE).predict(both(9)).utilisation[DECODE] == pytest.approx(0.99)
    over = model.evaluator(demand(limit * 1.01), LOOSE).predict(both(9))
    assert over.utilisation[DECODE] == pytest.approx(1.01)
    assert over.attainment == 0.0


def test_overload_of_prefill() -> None:
    # A prompt adds 10 ms to a batch: 100 requests/s and more have no stationary queue.
    found = by_hand().evaluator(demand(150.0), LOOSE).predict(both(1, 64))
    assert found.attainment == 0.0
    assert found.ttft_attainment == 0.0
    assert found.itl_attainment > 0.99
    assert found.utilisation[PREFILL] == pytest.approx(1.5)
    assert found.ttft_ms == math.inf


def test_overload_of_decode() -> None:
    found = by_hand().evaluator(demand(50.0), LOOSE).predict(both(64, 1))
    assert found.attainment == 0.0
    assert found.utilisation[DECODE] == pytest.approx(5.0 * 78.6 / 64)
    assert found.utilisation[PREFILL] < 1.0
    assert found.itl_ms == math.inf


@pytest.mark.parametrize("rate", [60.0, 99.0, 150.0, 1000.0])
def test_overload_of_aggregated_workers(rate: float) -> None:
    # Prompts take rate x 10 ms of a second (the fixed part, beyond the floor of 5.1 ms, rides along at 4.9 ms each).
    model = ClosedForm({AGGREGATED: engine()}, transfer())
    found = model.evaluator(demand(rate), LOOSE).predict({AGGREGATED: 1})
    assert found.attainment == 0.0
    assert found.utilisation[AGGREGATED] == pytest.approx(rate * 0.0149 + rate * 0.1 * 78.6 / 64)


def test_prompts_beside_decodes_take_what_they_add_to_them() -> None:
    # 3 + 0.01 x 1000 ms beside decodes, of which both need the floor of 5.1 ms: 7.9 ms are added.
    model = ClosedForm({AGGREGATED: engine(behind_ms=3.0)}, transfer())
    found = model.evaluator(demand(150.0), LOOSE).predict({AGGREGATED: 1})
    assert found.utilisation[AGGREGATED] == pytest.approx(150.0 * 0.0079 + 150.0 * 0.1 * 78.6 / 64)
    # An idle worker takes the prompt alone.
    assert model.evaluator(demand(1e-6), SLA).predict({AGGREGATED: 1}).ttft_ms == pytest.approx(20.0, rel=1e-4)


def test_a_token_takes_longer_where_a_prompt_runs_beside_it() -> None:
    model = ClosedForm({AGGREGATED: engine(mixed_request_ms=0.5, capacity=1_600_000, seqs=2000)}, transfer())
    rate, tokens = 6.0 / 1000, 0.6  # per ms

    def itl(share: float) -> float:
        stretch = 1.0 / (1.0 - share)
        return 5.0 * stretch / (1.0 - 1.15 * tokens * stretch)

    beside = rate * 14.9
    expected = itl(beside)
    for _ in range(3):
        expected = itl(beside + tokens * 0.5 * -math.expm1(-rate * expected))
    found = model.evaluator(demand(6.0), LOOSE).predict({AGGREGATED: 1})
    assert found.itl_ms == pytest.approx(expected, rel=1e-3)
    assert found.itl_ms > 1.05 * itl(beside)
    # Each iteration of an overloaded worker holds a prompt.
    over = model.evaluator(demand(60.0), LOOSE).predict({AGGREGATED: 1})
    batch = 1_600_000 / 1050
    steps = 6.0 * (5.0 + 1.15 * batch) / batch
    assert over.utilisation[AGGREGATED] == pytest.approx(60.0 * 0.0149 + 6.0 * 0.5 + steps)


def test_posting_hand_offs_takes_a_share_of_the_decode_workers_time() -> None:
    made = engine()
    plain, posting = (
        ClosedForm({PREFILL: made, DECODE: made}, handoff).evaluator(demand(10.0), LOOSE).predict(both(8, 2))
        for handoff in (transfer(), transfer(post_ms=1.0, post_token_ms=0.009))
    )
    # 5 requests a second and worker, of 1000 tokens: 10 ms each are a twentieth of the time.
    base, tokens = 5.0, 1.15 * 0.5
    assert plain.itl_ms == pytest.approx(base / (1.0 - tokens), rel=1e-3)
    assert posting.itl_ms == pytest.approx((base / 0.95) / (1.0 - tokens / 0.95), rel=1e-3)
    assert posting.utilisation[DECODE] == pytest.approx(plain.utilisation[DECODE] / 0.95)
    assert posting.utilisation[PREFILL] == plain.utilisation[PREFILL]


def test_the_front_end_streams_the_others_tokens_first() -> None:
    for roles, workers in (((AGGREGATED,), 1), ((PREFILL, DECODE), 1)):
        plain, streamed = (
            ClosedForm(dict.fromkeys(roles, engine(stream_ms=ms)), transfer())
            .evaluator(demand(3.0), LOOSE)
            .predict(dict.fromkeys(roles, workers))
            for ms in (0.0, 0.1)
        )
        batch = 3.0 * 0.1 * plain.itl_ms  # requests a second, 100 tokens each
        assert streamed.ttft_ms - plain.ttft_ms == pytest.approx(0.1 * batch, rel=1e-3)


def test_no_workers_attain_nothing() -> None:
    evaluator = by_hand().evaluator(demand(1.0), LOOSE)
    assert evaluator.predict(both(0, 1)).attainment == 0.0
    assert evaluator.predict(both(1, 0)).attainment == 0.0
    alone = ClosedForm({AGGREGATED: engine()}, transfer()).evaluator(demand(1.0), LOOSE)
    assert alone.predict({AGGREGATED: 0}).attainment == 0.0


def test_itl_limit_below_a_lone_step_attains_nothing() -> None:
    found = by_hand().evaluator(demand(1.0), Sla(1e6, 6.1)).predict(both(8, 8))
    assert found.itl_attainment == 0.0


def test_share_within_the_itl_limit() -> None:
    # ITL(n) = 5 + 1.15 n within 28 ms up to n = 20; r = 0.6 makes n = 3 / 0.31 = 9.677. Equal contexts: the batch
    # varies by n; of that a request of mean length keeps 2 (1 - 1 + e^-1) = 2 / e.
    found = by_hand().evaluator(demand(6.0), Sla(1e6, 28.0)).predict(both(9, 1))
    n = 3.0 / 0.31
    expected = ndtr((20.0 - n - 1.0) / math.sqrt(n * 2.0 / math.e))
    assert found.itl_attainment == pytest.approx(float(expected), abs=1e-4)


@pytest.mark.parametrize(("rate", "workers", "slack_ms"), [(20.0, 1, 15.0), (60.0, 1, 40.0), (90.0, 3, 5.0)])
def test_share_within_the_ttft_limit(rate: float, workers: int, slack_ms: float) -> None:
    # Equal prompts of 20 ms, 10 of them shared by a batch. Those that find all workers busy (Erlang C) wait as long as
    # WAIT_SCALE x (a cycle and its variance over its mean) x (half, and by load those of their batch before them).
    r = rate / 1000 / workers
    load = r * 10.0
    cycle, batch = gated_cycle(r, 10.0, 10.0)
    busy = erlang_c(workers, workers * busy_share(r, cycle))
    variance = batch * 10.0**2 / workers * (1.0 + load**2 / (1.0 - load**2) / workers)
    wait = WAIT_SCALE * (cycle + variance / cycle) * (0.5 + load * (0.5 + 0.5 / workers))
    decode = by_hand().evaluator(demand(1e-6), SLA)  # the pool behind it idles: 4 ms of hand-off, a step of 6.15 ms
    found = decode.at_rate(rate).predict(both(workers, 4000))
    assert found.ttft_ms == pytest.approx(20.0 + 4.0 + 6.15 + busy * wait, rel=0.01)
    limited = by_hand().evaluator(demand(rate), Sla(30.15 + slack_ms, 50.0)).predict(both(workers, 4000))
    expected = 1.0 - busy * (1.0 - gammainc(WAIT_SHAPE, slack_ms * WAIT_SHAPE / wait))
    assert limited.ttft_attainment == pytest.approx(float(expected), abs=0.005)
    assert 0.2 < limited.ttft_attainment < 0.99


def test_noise_helps_no_batch_that_is_beyond_the_limit() -> None:
    # n = 9.68 requests at r = 0.6, and 5 + 1.15 x 8 = 14.2 ms allow 8: a burst-free moment would, their mean does not.
    for dispersion in (1.0, 20.0):
        calm = by_hand().evaluator(demand(6.0, dispersion=dispersion), Sla(1e6, 14.2)).predict(both(9, 1))
        assert calm.itl_attainment == 0.0


def test_nearest_raises_only_what_is_out_of_reach() -> None:
    # Half the prompts are 1000 tokens long (30.15 ms), half 3000 (10 + 30 + 8 + 8.15 = 56.15 ms).
    mixed = LengthSample((1000, 3000) * 10, (100,) * 20, (0,) * 20)
    near = by_hand().evaluator(demand(1.0, mixed), Sla(40.0, 50.0)).nearest()
    assert near.ttft_ms == pytest.approx(56.15)
    assert near.itl_ms == 50.0
    assert near.attainment == 0.95
    half = by_hand().evaluator(demand(1.0, mixed), Sla(40.0, 50.0, 0.5)).nearest()
    assert half == Sla(40.0, 50.0, 0.5) or half.ttft_ms < 56.15
    both_near = by_hand().evaluator(demand(1.0, mixed), Sla(1.0, 1.0)).nearest()
    assert both_near.ttft_ms == pytest.approx(56.15)
    assert both_near.itl_ms == pytest.approx(8.15)


def test_the_nearest_sla_counts_requests_that_keep_both_limits() -> None:
    # Half have long prompts, the other half long contexts: each limit alone could stay at the better half's latency.
    halves = LengthSample((3000, 100), (2, 12_000), (0, 0))
    wanted = Sla(20.0, 6.0, 0.5)
    near = by_hand().evaluator(demand(1.0, halves), wanted).nearest()
    assert by_hand().evaluator(demand(1.0, halves), near).ceiling().attainment >= 0.5


def test_ceiling_judges_each_request_by_its_own_lengths() -> None:
    mixed = LengthSample((1000, 3000), (100, 100), (0, 0))
    found = by_hand().evaluator(demand(1.0, mixed), Sla(40.0, 7.0)).ceiling()
    assert (found.ttft_attainment, found.itl_attainment, found.attainment) == (0.5, 0.5, 0.5)
    other_way = by_hand().evaluator(demand(1.0, mixed), Sla(40.0, 8.2)).ceiling()
    assert (other_way.ttft_attainment, other_way.itl_attainment, other_way.attainment) == (0.5, 1.0, 0.5)


def test_no_prediction_is_above_the_ceiling() -> None:
    # Contexts of 1050 and 20,050: the mean step is within the limit, that of the long requests is not.
    mixed = LengthSample((1000,) * 19 + (20_000,), (100,) * 20, (0,) * 20)
    evaluator = by_hand().evaluator(demand(0.1, mixed), Sla(1e6, 15.0))
    assert evaluator.ceiling().itl_attainment == pytest.approx(0.95)
    assert evaluator.predict(both(8, 8)).itl_attainment <= 0.95 + 1e-9


def test_at_rate_shares_lengths_and_changes_the_rate() -> None:
    evaluator = h200().evaluator(demand(10.0), SLA)
    other = evaluator.at_rate(300.0)
    assert other.facts is evaluator.facts
    assert other.predict(both(4, 1)) == h200().evaluator(demand(300.0), SLA).predict(both(4, 1))


# -- an uncertain rate -------------------------------------------------------------------------------------------------


def test_uncertain_rate_weighs_by_requests() -> None:
    evaluator = by_hand().evaluator(demand(1.0), SLA)
    rates = [1.0, 3.0, 3.0, 9.0]
    mean = UncertainRate(evaluator, rates).predict(both())
    each = {rate: evaluator.at_rate(rate).predict(both()) for rate in rates}
    weights = {1.0: 1 / 16, 3.0: 6 / 16, 9.0: 9 / 16}
    assert each[9.0].attainment == 0.0
    assert each[3.0].attainment > 0.0
    for name in ("attainment", "ttft_attainment", "itl_attainment", "itl_ms"):
        expected = sum(weight * getattr(each[rate], name) for rate, weight in weights.items())
        assert getattr(mean, name) == pytest.approx(expected)
    for role in (PREFILL, DECODE):
        expected = sum(weight * each[rate].utilisation[role] for rate, weight in weights.items())
        assert mean.utilisation[role] == pytest.approx(expected)


def test_one_rate_is_certain() -> None:
    evaluator = by_hand().evaluator(demand(1.0), SLA)
    assert UncertainRate(evaluator, [3.0]).predict(both()) == evaluator.at_rate(3.0).predict(both())
    assert UncertainRate(evaluator, [3.0] * 5).predict(both()).attainment == pytest.approx(
        evaluator.at_rate(3.0).predict(both()).attainment
    )


def test_rates_of_zero() -> None:
    evaluator = by_hand().evaluator(demand(1.0), SLA)
    nothing = UncertainRate(evaluator, [0.0, 0.0]).predict(both())
    assert nothing.attainment == pytest.approx(1.0)
    some = UncertainRate(evaluator, [0.0, 2.0]).predict(both())
    assert some.attainment == pytest.approx(evaluator.at_rate(2.0).predict(both()).attainment)
    # A worker less than none, at no rate, weighs nothing though its latency is not finite.
    assert np.isfinite(UncertainRate(evaluator, [0.0, 2.0]).predict(both()).itl_ms)


def test_ceiling_and_nearest_do_not_depend_on_the_rates() -> None:
    evaluator = by_hand().evaluator(demand(1.0), Sla(10.0, 50.0))
    uncertain = UncertainRate(evaluator, [1.0, 100.0])
    assert uncertain.ceiling() == evaluator.ceiling()
    assert uncertain.nearest() == evaluator.nearest()
    assert uncertain.at_rate(7.0).predict(both()) == evaluator.at_rate(7.0).predict(both())
