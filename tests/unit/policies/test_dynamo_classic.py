"""Dynamo's classic formulas on numbers worked out by hand, and what it does with them."""

import math

import pytest

from planner.core.types import Pool, PoolState, Role
from planner.whatif.policies.dynamo_classic import (
    DynamoClassic,
    Interval,
    corrected_itl_ms,
    correction,
    decode_workers,
    fit_classic_budget,
    parse,
    prefill_workers,
)
from planner.whatif.policies.dynamo_tables import DecodeLookup, PrefillLookup
from profiler.errors import InputError

STATES = {"p": PoolState(1, 1), "d": PoolState(2, 2)}


def pools(prefill_gpus, decode_gpus, least=1):
    return (
        Pool("p", Role.PREFILL, prefill_gpus, min_workers=least),
        Pool("d", Role.DECODE, decode_gpus, min_workers=least),
    )


class TestFormulas:
    def test_prefill_counts_tokens_over_throughput(self):
        # 1,800 requests of 1,000 tokens in 180 s are 10,000 tokens/s; at 3,000 per GPU that is 3.33
        assert prefill_workers(1800, 1000, 180, factor=1.0, throughput=3000.0, gpus=1) == 4
        assert prefill_workers(1800, 1000, 180, factor=1.0, throughput=3000.0, gpus=2) == 2

    def test_prefill_shrinks_with_a_factor_below_one_and_never_grows_with_one_above(self):
        assert prefill_workers(1800, 1000, 180, factor=0.5, throughput=3000.0, gpus=1) == 2  # 1.67
        assert prefill_workers(1800, 1000, 180, factor=7.0, throughput=3000.0, gpus=1) == 4

    def test_decode_counts_tokens_over_throughput(self):
        # 1,800 requests of 200 tokens in 180 s are 2,000 tokens/s
        assert decode_workers(1800, 200, 180, throughput=900.0, gpus=1) == 3  # 2.22
        assert decode_workers(1800, 200, 180, throughput=900.0, gpus=2) == 2  # 1.11

    @pytest.mark.parametrize(("factor", "itl_ms"), [(2.0, 5.0), (0.5, 20.0), (0.0, 10.0), (-1.0, 10.0)])
    def test_the_itl_to_look_up(self, factor, itl_ms):
        assert corrected_itl_ms(10.0, factor) == itl_ms

    def test_factors_are_observed_over_table(self, prefill, decode):
        seen = Interval(requests=900.0, ttft_ms=75.0, itl_ms=8.0, isl=1000.0, osl=251.0, decode_workers=2)
        # duration 0.075 + 250 * 0.008 = 2.075 s; concurrency 900 / 2 * 2.075 / 180 = 5.1875 per worker
        assert seen.duration_s == pytest.approx(2.075)
        factors = correction(PrefillLookup(prefill), DecodeLookup(decode), seen, 180.0)
        # TTFT(1000) = 50 ms; usage 5.1875 * 1125.5 / 100,000 = 0.0584, cell 6/99, ITL 5 + 10 * 6/99 = 5.606 ms
        assert factors.prefill == pytest.approx(1.5)
        assert factors.decode == pytest.approx(8.0 / (5.0 + 10.0 * 6.0 / 99.0), rel=1e-3)

    def test_without_a_decode_worker_there_is_no_factor(self, prefill, decode):
        with pytest.raises(ZeroDivisionError):
            correction(PrefillLookup(prefill), DecodeLookup(decode), Interval(9, 50, 8, 1000, 200, 0), 180.0)


class TestBudget:
    def test_within_it_nothing_changes_but_the_minimum(self):
        assert fit_classic_budget(3, 4, pools(1, 1), 8) == (3, 4)
        assert fit_classic_budget(0, 0, pools(1, 1, least=2), 8) == (2, 2)

    def test_over_it_prefill_is_scaled_and_decode_gets_the_rest(self):
        # 12 of 8 GPUs: round(6 * 2/3) = 4, then 8 - 4
        assert fit_classic_budget(6, 6, pools(1, 1), 8) == (4, 4)

    def test_rounding_exceeds_the_budget(self):
        # 6 GPUs a prefill worker, 4 a decode worker, 10 GPUs: round(3 * 10/30) = 1 leaves 4, one worker;
        assert fit_classic_budget(3, 3, pools(6, 4), 10) == (1, 1)
        # 2 a prefill worker, 4 a decode worker, 8 GPUs: 2 * 2 + 5 * 4 = 24, round(2/3) = 1, round(6/4) = 2: 10 GPUs
        prefill, decode = fit_classic_budget(2, 5, pools(2, 4), 8)
        assert (prefill, decode) == (1, 2)
        assert prefill * 2 + decode * 4 == 10

    def test_the_minimum_exceeds_the_budget(self):
        # 31 GPUs; round(30 * 4/31) = 4 leaves nothing, and one decode worker comes anyway
        assert fit_classic_budget(30, 1, pools(1, 1), 4) == (4, 1)

    def test_halves_go_to_the_even_number(self):
        # 7 * 5/14 = 2.5 becomes 2
        assert fit_classic_budget(7, 7, pools(1, 1), 5) == (2, 3)


class TestPolicy:
    def test_an_interval_by_hand(self, make_setting, observe):
        policy = DynamoClassic(make_setting(), corrected=False)
        assert policy.interval_s == 180.0
        plan = policy.decide(observe(STATES, arrivals=6300, interval_s=180.0), 180.0)
        # prefill: 35,000 tokens/s over 20,000; decode: 7,000 tokens/s, and the fullest cell with ITL <= 10 ms is 49/99:
        # 1,000 + 4,000 * 49/99 = 2,980 a GPU, 2.35 workers
        assert plan == {"p": 2, "d": 3}

    def test_correction_of_decode_asks_for_a_smaller_load(self, make_setting, observe):
        some = DynamoClassic(make_setting()).decide(observe(STATES, arrivals=6300, ttft_ms=500.0, itl_ms=12.0), 180.0)
        # duration 0.5 + 199 * 0.012 = 2.888 s, 50.5 a worker, usage 0.556, cell 55/99, ITL 10.56: factor 1.137;
        # ITL 8.80: cell 37/99, 2,495 a GPU, 2.81 workers; TTFT ten times the table's adds no prefill worker
        assert some == {"p": 2, "d": 3}
        slow = DynamoClassic(make_setting()).decide(observe(STATES, arrivals=6300, itl_ms=18.0), 180.0)
        # duration 3.682 s, 64.4 a worker, cell 70/99, ITL 12.07: factor 1.491; 6.71: cell 16/99, 1,646, 4.25 workers
        assert slow == {"p": 2, "d": 5}

    def test_correction_of_prefill_below_one_takes_workers_away(self, make_setting, observe):
        seen = observe(STATES, arrivals=6300, ttft_ms=20.0)
        assert DynamoClassic(make_setting()).decide(seen, 180.0)["p"] == 1  # 1.75 * 20/50
        assert DynamoClassic(make_setting(), corrected=False).decide(seen, 180.0)["p"] == 2

    @pytest.mark.parametrize("missing", [{"isl": None}, {"ttft_ms": None}, {"itl_ms": None}, {"itl_ms": math.nan}])
    def test_an_interval_with_a_nan_is_skipped(self, make_setting, observe, missing):
        policy = DynamoClassic(make_setting(), predictor="constant", corrected=False)
        plan = policy.decide(observe(STATES, arrivals=6300), 180.0)
        assert plan == {"p": 2, "d": 3}
        assert policy.decide(observe(STATES, **{"arrivals": 0, **missing}), 360.0) == plan
        # 95,000 tokens/s of prompts are 4.75 workers, 19,000 of output 6.38
        assert policy.decide(observe(STATES, arrivals=17_100), 540.0) == {"p": 5, "d": 7}

    def test_it_idles_at_the_last_plan_for_ever(self, make_setting, observe):
        policy = DynamoClassic(make_setting())
        plan = policy.decide(observe(STATES, arrivals=7200), 180.0)
        for k in range(2, 12):
            idle = observe(STATES, arrivals=0, isl=None, ttft_ms=None, itl_ms=None)
            assert policy.decide(idle, 180.0 * k) == plan

    def test_without_a_ready_decode_worker_the_interval_is_skipped(self, make_setting, observe):
        policy = DynamoClassic(make_setting())
        none = {"p": PoolState(1, 1), "d": PoolState(2, 0, 2)}
        assert policy.decide(observe(none, arrivals=7200), 180.0) == {"p": 1, "d": 1}

    def test_while_workers_start_what_is_decided_is_dropped(self, make_setting, observe):
        policy = DynamoClassic(make_setting(), predictor="constant", corrected=False)
        starting = {"p": PoolState(3, 1, 2), "d": PoolState(2, 2)}
        assert policy.decide(observe(starting, arrivals=6300), 180.0) == {"p": 1, "d": 1}
        assert policy.decide(observe(STATES, arrivals=6300), 360.0) == {"p": 2, "d": 3}

    def test_unknown_supply_is_no_decode_worker(self, make_setting, observe):
        assert DynamoClassic(make_setting()).decide(observe(None, arrivals=7200), 180.0) == {"p": 1, "d": 1}

    def test_budget_and_bounds_reach_the_plan(self, make_setting, observe):
        policy = DynamoClassic(make_setting(max_gpus=8, prefill_gpus=2, decode_gpus=4), corrected=False)
        # 65 requests/s: 65,000 tokens/s of prompts are 1.6 workers of 2 GPUs, 52,000 of output 4.4 of 4 GPUs: 24 GPUs;
        # round(2 * 8/24) = 1, round(6/4) = 2: 10 GPUs of 8
        assert policy.decide(observe(STATES, arrivals=11_700, osl=800), 180.0) == {"p": 1, "d": 2}
        bounded = DynamoClassic(make_setting(max_workers=2), corrected=False)
        assert bounded.decide(observe(STATES, arrivals=72_000), 180.0) == {"p": 2, "d": 2}

    def test_an_aggregated_graph_is_refused(self, aggregated):
        with pytest.raises(InputError, match="does not apply to an aggregated graph"):
            parse("", aggregated)


class TestCommandLine:
    def test_forms(self, make_setting):
        assert parse("", make_setting()).interval_s == 180.0
        policy = parse("constant,no-correction,interval_s=60", make_setting())
        assert policy.interval_s == 60.0
        assert not policy._corrected
        assert type(policy._isl).__name__ == "Constant"

    @pytest.mark.parametrize("options", ["prophet", "interval=60", "arima=1", "no-correction=yes"])
    def test_unknown_options_are_refused(self, make_setting, options):
        with pytest.raises(
            InputError, match="expected arima, arima-once, constant, no-correction or interval_s=SECONDS"
        ) as caught:
            parse(options, make_setting())
        assert caught.value.field == "--policy"

    @pytest.mark.parametrize("options", ["interval_s", "interval_s=0", "interval_s=soon", "interval_s=inf"])
    def test_an_interval_that_is_none_is_refused(self, make_setting, options):
        with pytest.raises(InputError, match="interval_s=NUMBER"):
            parse(options, make_setting())
