"""From scrapes to observations on a graph whose counters are moved by hand."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import ClassVar

import numpy as np
import pytest

from planner.connectors.base import Supply, WorkerStatus
from planner.core.types import Known, Observation, PoolState, Unknown
from planner.observe.base import Series
from tests.unit.observe.graphs import (
    ARRIVALS,
    DECODE,
    DECODE2,
    GATEWAY,
    PREFILL,
    SLA,
    START,
    FakeSource,
    gauges,
    histogram,
    observer,
    steady,
    supply,
    worker,
)

ISL, OSL = "vllm:request_prompt_tokens", "vllm:request_generation_tokens"
TTFT, TPOT, ITL = (
    "vllm:time_to_first_token_seconds",
    "vllm:request_time_per_output_token_seconds",
    "vllm:inter_token_latency_seconds",
)
PREFILL_STAGE = "smg_pd_prefill_duration_seconds"
TOKENS = (100, 200, 500, 1000, 2000)
SECONDS = (0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5)
OK = 'smg_http_responses_total{path="/v1/completions",status_code="200",error_code=""}'
FAILED = 'smg_http_responses_total{path="/v1/completions",status_code="502",error_code="prefill_request_failed"}'
BAD = 'smg_http_responses_total{path="/v1/completions",status_code="400",error_code="invalid_json"}'


def reason(reading: object) -> str:
    assert isinstance(reading, Unknown), reading
    return reading.reason


def value(reading: object) -> float:
    assert isinstance(reading, Known), reading
    return reading.value  # type: ignore[no-any-return]


def pool(observation: Observation, name: str) -> PoolState:
    assert isinstance(observation.pools, Known)
    return observation.pools.value[name]


def served(
    source: FakeSource, at_s: float, *, isl: list[int], osl: list[int], ttft: list[float], tpot: list[float]
) -> None:
    """A scrape of the graph after these requests completed."""
    prefill, decode = list(np.array(ttft) * 0.75), list(np.array(ttft) * 0.25)
    counted = {ARRIVALS: 100.0 + len(isl), OK: float(len(isl)), FAILED: 0.0}
    source.scrape(GATEWAY, at_s, counted | histogram(PREFILL_STAGE, SECONDS, prefill))
    cache = {"vllm:prefix_cache_queries_total": float(sum(isl)), "vllm:prefix_cache_hits_total": 0.25 * sum(isl)}
    # The prefill engine sees an answer of one token, with an ITL of 0.
    fooled = histogram(OSL, TOKENS, [1] * len(isl)) | histogram(TPOT, SECONDS, [0.0] * len(isl))
    source.scrape(PREFILL, at_s, gauges() | histogram(ISL, TOKENS, isl) | fooled | cache)
    gaps = [one for one, n in zip(tpot, osl, strict=True) for _ in range(n - 1)]
    for address, part in ((DECODE, slice(0, None, 2)), (DECODE2, slice(1, None, 2))):
        latencies = histogram(TTFT, SECONDS, decode[part]) | histogram(TPOT, SECONDS, tpot[part])
        latencies |= histogram(ITL, SECONDS, gaps[part])
        lengths = histogram(ISL, TOKENS, isl[part]) | histogram(OSL, TOKENS, osl[part])
        source.scrape(address, at_s, gauges() | latencies | lengths)


# -- arrivals ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("offset_s", [0.0, 0.3, 0.99])
def test_arrivals_are_the_rate_over_the_scrapes_times_the_interval(offset_s: float) -> None:
    source, made = FakeSource(), None
    made = observer(source)
    steady(source, START + 100, rate=3.0)
    counts = []
    for tick in range(20, 100, 10):
        observation = made.observe(supply(), 10.0, START + tick + offset_s)
        counts.append(value(observation.arrivals))
        assert isinstance(observation.arrivals, Known)
        assert observation.arrivals.age_s == pytest.approx(offset_s)
    assert counts == [30] * len(counts)


def test_no_arrival_is_counted_twice_or_lost_when_scrapes_and_ticks_do_not_align() -> None:
    source = FakeSource()
    made = observer(source)
    rng = np.random.default_rng(7)
    steady(source, START, period_s=5.0)
    total, counts, first = 0.0, [], None
    for k in range(1, 400):
        source.scrape(GATEWAY, START + 3.0 * k, {ARRIVALS: 100.0 + total})
        total += float(rng.poisson(6))
        if k % 3 == 0:
            # Every third scrape of 3 s, a tick of 9 s, now and then late.
            seen = made.observe(supply(), 9.0, START + 3.0 * k + rng.uniform(0.0, 2.9))
            counts.append(value(seen.arrivals))
            first = total if first is None else first
    assert first is not None
    assert sum(counts[1:]) == pytest.approx(total - first, abs=12)


def test_a_glance_counts_since_the_last_observation_and_takes_nothing_from_the_next() -> None:
    source = FakeSource()
    made, plain = observer(source), observer(source)
    steady(source, START + 30, rate=3.0)
    made.observe(supply(), 10.0, START + 20.0)
    plain.observe(supply(), 10.0, START + 20.0)
    for later_s, count in ((4.0, 12), (7.5, 21)):
        glance = made.glance(START + 20.0 + later_s)
        assert value(glance.arrivals) == count
        assert glance.interval_s == float(int(later_s)), "what the scrapes cover"
        assert reason(glance.lengths)
        assert reason(glance.pools)
    assert made.observe(supply(), 10.0, START + 30.0) == plain.observe(supply(), 10.0, START + 30.0)


def test_a_glance_asks_a_source_that_keeps_only_what_it_was_last_asked_for_for_all() -> None:
    class Recording(FakeSource):
        asked: ClassVar[list[tuple[str, ...]]] = []

        def read(self, names: Sequence[str], supply: Supply, span_s: float, now_s: float) -> Sequence[Series]:
            self.asked.append(tuple(names))
            return super().read(names, supply, span_s, now_s)

    source = Recording()
    made = observer(source)
    steady(source, START + 25, rate=3.0)
    made.observe(supply(), 10.0, START + 20.0)
    made.glance(START + 24.0)
    assert source.asked[0] == source.asked[1]


def test_a_glance_without_news_or_without_a_gateway_is_unknown() -> None:
    source = FakeSource()
    made = observer(source)
    assert reason(made.glance(START).arrivals) == "no gateway is known"
    steady(source, START + 20, rate=3.0)
    made.observe(supply(gateways=(GATEWAY, "other:1")), 10.0, START + 20.0)
    assert reason(made.glance(START + 20.5).arrivals).startswith(f"gateway {GATEWAY} tells of no arrivals since")
    steady(source, START + 25, rate=3.0, from_s=START + 21)
    assert reason(made.glance(START + 25.0).arrivals).startswith("gateway other:1 tells of no arrivals since")
    made.observe(supply(gateways=()), 10.0, START + 25.0)
    assert reason(made.glance(START + 26.0).arrivals) == "no gateway is known"


def test_zero_traffic_is_known() -> None:
    source = FakeSource()
    steady(source, START + 30, rate=0.0)
    observation = observer(source).observe(supply(), 10.0, START + 30)
    assert observation.arrivals == Known(0)
    # Not even a counter before the first request; what shows that it is the gateway is enough.
    for scrapes in source.scrapes.values():
        scrapes[:] = [(at, {name: v for name, v in samples.items() if name != ARRIVALS}) for at, samples in scrapes]
    assert reason(observer(source).observe(supply(), 10.0, START + 30).arrivals) == (
        "gateway 10.0.0.1:29000 exports no smg_http_requests_total"
    )
    sign = {'smg_worker_liveness_fallback_total{stage="selection"}': 0.0}
    source.scrapes[GATEWAY] = [(at, {**samples, **sign}) for at, samples in source.scrapes[GATEWAY]]
    assert observer(source).observe(supply(), 10.0, START + 30).arrivals == Known(0)
    assert reason(observer(source).observe(supply(), 10.0, START + 30).ttft_ms).startswith("no gateway exports")


def test_other_paths_are_not_requests() -> None:
    source = FakeSource()
    for at in range(30):
        other = 'smg_http_requests_total{method="POST",path="/workers"}'
        source.scrape(GATEWAY, START + at, {ARRIVALS: 2.0 * at, other: 50.0 * at})
    assert value(observer(source).observe(supply(), 10.0, START + 29).arrivals) == 20


def test_two_gateways_add_up_and_a_missing_one_leaves_nothing() -> None:
    source = FakeSource()
    steady(source, START + 30, rate=2.0)
    both = supply(gateways=(GATEWAY, "10.0.0.9:29000"))
    seen = observer(source).observe(both, 10.0, START + 30)
    assert reason(seen.arrivals) == "gateway 10.0.0.9:29000 not in the metrics"
    assert reason(seen.dispersion) == reason(seen.arrivals)
    for at in range(31):
        source.scrape("10.0.0.9:29000", START + at, {ARRIVALS: 5.0 * at})
    assert value(observer(source).observe(both, 10.0, START + 30).arrivals) == 70


def test_a_gateway_that_has_gone_counts_to_its_end() -> None:
    source = FakeSource()
    steady(source, START + 40, rate=1.0)
    for at in range(26):
        source.scrape("10.0.0.9:29000", START + at, {ARRIVALS: 5.0 * at})
    made = observer(source)
    both = supply(gateways=(GATEWAY, "10.0.0.9:29000"))
    assert value(made.observe(both, 10.0, START + 20).arrivals) == 60
    assert value(made.observe(supply(), 10.0, START + 30).arrivals) == 60
    assert value(made.observe(supply(), 10.0, START + 40).arrivals) == 10


def test_stale_and_partial() -> None:
    source = FakeSource()
    steady(source, START + 30)
    made = observer(source, stale_after_s=20.0)
    made.observe(supply(), 10.0, START + 30)
    # Young enough: the rate of the last window is the best that is known.
    again = made.observe(supply(), 10.0, START + 45)
    assert again.arrivals == Known(20, 15.0)
    assert reason(again.lengths) == "nothing was scraped since the last tick"
    late = made.observe(supply(), 10.0, START + 51)
    assert late.arrivals == Unknown("gateway 10.0.0.1:29000 was last read 21 s ago, 20 s allowed", 21.0)
    assert late.gaps == ("1 of 1 prefill workers have no metrics", "2 of 2 decode workers have no metrics")
    assert reason(pool(late, "decode").kv_usage).endswith("10.0.0.3:8000 was last read 21 s ago, 20 s allowed")
    assert reason(late.ttft_ms) == "no metrics of any gateway"
    assert pool(late, "decode").ready == 2


def test_an_arrivals_counter_that_is_no_number() -> None:
    source = FakeSource()
    steady(source, START + 20)
    source.scrape(GATEWAY, START + 21, {ARRIVALS: math.nan})
    assert reason(observer(source).observe(supply(), 10.0, START + 21).arrivals) == (
        "smg_http_requests_total of 10.0.0.1:29000 is nan"
    )


def test_one_scrape_is_no_rate() -> None:
    source = FakeSource()
    steady(source, START)
    assert reason(observer(source).observe(supply(), 10.0, START + 0.5).arrivals) == (
        "gateway 10.0.0.1:29000 was read only once so far"
    )
    assert reason(observer(source).observe(supply(gateways=()), 10.0, START).arrivals) == "the graph names no gateway"


# -- dispersion --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("burst", [1, 5])
@pytest.mark.parametrize("gateways", [1, 2])
def test_dispersion_of_bursts_over_one_or_two_gateways(burst: int, gateways: int) -> None:
    source, rng = FakeSource(), np.random.default_rng(11)
    addresses = [GATEWAY, "10.0.0.9:29000"][:gateways]
    made, found = observer(source), []
    totals = np.zeros(gateways)
    graph = supply(gateways=addresses)
    for at in range(1500):
        # Bursts of a fixed size, each request at a random gateway; a rate that doubles over the time.
        arrivals = burst * rng.poisson(10.0 * (1.0 + at / 1500))
        totals += rng.multinomial(arrivals, np.full(gateways, 1.0 / gateways))
        for address, total in zip(addresses, totals, strict=True):
            source.scrape(address, START + at, {ARRIVALS: float(total)})
            source.scrapes[address] = source.scrapes[address][-80:]
        if at % 10 == 9:
            index = made.observe(graph, 10.0, START + at).dispersion
            if at < 10:
                assert reason(index).endswith("12 are needed")
            elif at > 80:
                found.append(value(index))
    assert np.mean(found) == pytest.approx(burst, rel=0.2)


def test_no_arrivals_have_no_dispersion() -> None:
    source, made = FakeSource(), None
    made = observer(source)
    steady(source, START + 60, rate=0.0)
    for tick in range(10, 61, 10):
        index = made.observe(supply(), 10.0, START + tick).dispersion
    assert reason(index) == "no arrivals to take it from"


# -- what completed ----------------------------------------------------------------------------------------------------


def drawn(n: int = 4000) -> dict[str, list[float]]:
    rng = np.random.default_rng(2)
    return {
        "isl": list(rng.integers(50, 1900, n).astype(float)),
        "osl": list(rng.integers(2, 300, n).astype(float)),
        "ttft": list(rng.gamma(4.0, 0.08, n)),
        "tpot": list(rng.gamma(9.0, 0.004, n)),
    }


def completed(**options: float) -> tuple[Observation, dict[str, list[float]], FakeSource]:
    """One tick in which 4000 requests complete."""
    source = FakeSource()
    served(source, START, isl=[], osl=[], ttft=[], tpot=[])
    requests = drawn()
    osl = [int(one) for one in requests["osl"]]
    served(source, START + 10, isl=requests["isl"], osl=osl, ttft=requests["ttft"], tpot=requests["tpot"])  # type: ignore[arg-type]
    scale = options.get("speed_up", 1.0)
    return observer(source, **options).observe(supply(), 10.0 * scale, (START + 10) * scale), requests, source


def test_latencies_of_the_two_stages() -> None:
    seen, requests, _ = completed()
    ttft, tpot = 1000 * np.array(requests["ttft"]), 1000 * np.array(requests["tpot"])
    assert value(seen.mean_ttft_ms) == pytest.approx(ttft.mean(), rel=1e-9)
    assert value(seen.itl_ms) == pytest.approx(np.quantile(tpot, 0.9), rel=0.05)
    # The stages were one multiple of each other here; taken as independent they spread a little less.
    assert value(seen.ttft_ms) == pytest.approx(np.quantile(ttft, 0.9), rel=0.12)
    assert value(seen.mean_itl_ms) == pytest.approx(
        1000 * np.average(requests["tpot"], weights=np.array(requests["osl"]) - 1), rel=0.02
    )
    truth = ((ttft <= SLA.ttft_ms) & (tpot <= SLA.itl_ms)).mean()
    assert value(seen.attainment) == pytest.approx(truth, abs=0.04)


def test_lengths_come_from_decode_and_hits_from_prefill() -> None:
    seen, requests, _ = completed()
    assert isinstance(seen.lengths, Known)
    sample = seen.lengths.value
    assert len(sample) == 512
    assert np.mean(sample.isl) == pytest.approx(np.mean(requests["isl"]), rel=0.01)
    assert np.mean(sample.osl) == pytest.approx(np.mean(requests["osl"]), rel=0.02)
    assert np.mean(sample.prefix_hit_tokens) == pytest.approx(0.25 * np.mean(requests["isl"]), rel=0.02)
    assert all(0 <= hit < isl for hit, isl in zip(sample.prefix_hit_tokens, sample.isl, strict=True))
    assert abs(np.corrcoef(sample.isl, sample.osl)[0, 1]) < 0.05
    for column in (sample.isl, sample.osl):
        assert abs(np.corrcoef(np.arange(512), column)[0, 1]) < 0.1
    assert min(sample.osl) >= 1
    again, _, _ = completed()
    assert again.lengths == seen.lengths


def test_failed_requests_do_not_attain_and_wrong_ones_do_not_count() -> None:
    good, _, source = completed()
    at, samples = source.scrapes[GATEWAY][-1]
    source.scrapes[GATEWAY][0][1][BAD] = 0.0  # type: ignore[index]
    source.scrapes[GATEWAY][-1] = (at, {**samples, FAILED: 1000.0, BAD: 5000.0})
    bad = observer(source).observe(supply(), 10.0, START + 10)
    assert value(bad.attainment) == pytest.approx(0.8 * value(good.attainment))
    source.scrapes[GATEWAY][-1] = (at, {ARRIVALS: 110.0, OK: 0.0, FAILED: 10.0})
    source.scrapes[GATEWAY][0] = (START, {ARRIVALS: 100.0, OK: 0.0, FAILED: 0.0, "up": 1.0})
    assert observer(source).observe(supply(), 10.0, START + 10).attainment == Known(0.0)


def test_nothing_completed() -> None:
    source = FakeSource()
    served(source, START, isl=[], osl=[], ttft=[], tpot=[])
    served(source, START + 10, isl=[], osl=[], ttft=[], tpot=[])
    seen = observer(source).observe(supply(), 10.0, START + 10)
    for reading in (seen.ttft_ms, seen.itl_ms, seen.attainment, seen.lengths, seen.mean_ttft_ms, seen.mean_itl_ms):
        assert reason(reading).startswith("no request completed")


def test_a_worker_started_since_and_one_gone_since_both_count() -> None:
    source = FakeSource()
    steady(source, START + 20)
    bounds = (100, 200)
    for at in range(8):
        source.scrape(
            "10.0.0.8:8000",
            START + at,
            gauges() | histogram(ISL, bounds, [50] * at) | histogram(OSL, bounds, [50] * at),
        )
    started = {"process_start_time_seconds": START + 14.0}
    for at in (16, 18, 20):
        new = gauges() | started | histogram(ISL, bounds, [150] * 10) | histogram(OSL, bounds, [150] * 10)
        source.scrape("10.0.0.7:8000", START + at, new)
    made = observer(source)
    decode = [worker(DECODE, "decode"), worker(DECODE2, "decode")]
    made.observe(supply(worker(PREFILL, "prefill"), *decode, worker("10.0.0.8:8000", "decode")), 5.0, START + 5)
    after = supply(worker(PREFILL, "prefill"), *decode, worker("10.0.0.7:8000", "decode"))
    seen = made.observe(after, 15.0, START + 20)
    assert isinstance(seen.lengths, Known)
    # 2 more of the one before it went, and all 10 of the new one.
    assert (
        sorted(seen.lengths.value.isl).count(200) + sum(one > 100 for one in seen.lengths.value.isl if one != 200) == 10
    )
    assert sum(one <= 100 for one in seen.lengths.value.isl) == 2
    assert seen.gaps == ()


def test_speed_up_scales_the_gateways_time_and_the_samples_age() -> None:
    slow, _, _ = completed()
    fast, _, _ = completed(speed_up=20.0)
    # 10 s of the wall are 200 s of the planner: the same counts, and the engine's own stage is in its seconds already.
    assert fast.arrivals == slow.arrivals
    assert fast.interval_s == 200.0
    assert value(fast.itl_ms) == value(slow.itl_ms)
    assert value(fast.mean_ttft_ms) == pytest.approx((0.25 + 20 * 0.75) * value(slow.mean_ttft_ms))
    source = FakeSource()
    steady(source, START + 10)
    assert observer(source, speed_up=20.0).observe(supply(), 40.0, 20 * (START + 10.5)).arrivals == Known(4, 10.0)


# -- load --------------------------------------------------------------------------------------------------------------


def test_load_of_the_pools() -> None:
    source = FakeSource()
    steady(source, START + 9)
    source.scrape(GATEWAY, START + 10, {ARRIVALS: 120.0})
    source.scrape(PREFILL, START + 10, gauges(7, 2, 0.1))
    source.scrape(DECODE, START + 10, gauges(1, 20, 0.5))
    source.scrape(DECODE2, START + 10, gauges(0, 10, 0.9))
    seen = observer(source).observe(supply(), 10.0, START + 12)
    decode = pool(seen, "decode")
    assert (decode.waiting_requests, decode.running_requests) == (Known(1.0, 2.0), Known(30.0, 2.0))
    assert value(decode.kv_usage) == pytest.approx(0.7)
    assert pool(seen, "prefill").waiting_requests == Known(7.0, 2.0)
    assert (decode.desired, decode.ready) == (2, 2)


def test_a_ready_worker_without_metrics_is_a_gap_and_one_that_starts_is_none() -> None:
    source = FakeSource()
    steady(source, START + 10)
    prefill, decode = worker(PREFILL, "prefill"), worker(DECODE, "decode")
    seen = observer(source).observe(supply(prefill, decode, worker("10.0.0.8:8000", "decode")), 10.0, START + 10)
    assert seen.gaps == ("1 of 2 decode workers have no metrics",)
    assert reason(pool(seen, "decode").waiting_requests) == (
        "1 of 2 decode workers have no metrics: 10.0.0.8:8000 is not in the metrics"
    )
    assert isinstance(pool(seen, "prefill").waiting_requests, Known)
    for status in (WorkerStatus.STARTING, WorkerStatus.TERMINATING):
        one = worker("10.0.0.8:8000", "decode", status)
        assert observer(source).observe(supply(prefill, decode, one), 10.0, START + 10).gaps == ()
    none = observer(source).observe(supply(prefill), 10.0, START + 10)
    assert reason(pool(none, "decode").waiting_requests) == "no decode worker is ready"
    assert none.gaps == ()


@pytest.mark.parametrize("wrong", [math.nan, -1.0, math.inf])
def test_a_gauge_that_is_no_number_is_a_gap(wrong: float) -> None:
    source = FakeSource()
    steady(source, START + 9)
    source.scrape(PREFILL, START + 10, gauges())
    source.scrape(DECODE, START + 10, gauges(waiting=wrong))
    source.scrape(DECODE2, START + 10, gauges(3, 4, 0.5))
    seen = observer(source).observe(supply(), 10.0, START + 10)
    assert reason(pool(seen, "decode").waiting_requests) == f"vllm:num_requests_waiting of {DECODE} is {wrong:g}"
    assert pool(seen, "decode").running_requests == Known(4.0)
    assert seen.gaps == ("1 of 2 decode workers have unusable metrics",)


# -- failures ----------------------------------------------------------------------------------------------------------


def test_a_source_that_fails_leaves_the_counts() -> None:
    source = FakeSource()
    steady(source, START + 40)
    made = observer(source)
    before = made.observe(supply(), 10.0, START + 10)
    source.error = "Prometheus at http://p:9090 cannot be reached: refused"
    seen = made.observe(supply(), 10.0, START + 20)
    for name in ("arrivals", "dispersion", "lengths", "ttft_ms", "itl_ms", "attainment", "mean_ttft_ms", "mean_itl_ms"):
        assert getattr(seen, name) == Unknown(source.error)
    assert pool(seen, "decode").desired == 2
    assert reason(pool(seen, "decode").waiting_requests) == source.error
    source.error = None
    # What came while it was away is counted by its rate, once.
    assert made.observe(supply(), 10.0, START + 30).arrivals == before.arrivals == Known(20)


def test_a_connector_that_fails_leaves_the_metrics() -> None:
    source = FakeSource()
    steady(source, START + 40)
    made = observer(source)
    none = made.observe(None, 10.0, START + 10, "the API server refused")
    assert {reason(none.pools), reason(none.arrivals), reason(none.ttft_ms)} == {"the API server refused"}
    made.observe(supply(), 10.0, START + 20)
    seen = made.observe(None, 10.0, START + 30, "the API server refused")
    assert seen.arrivals == Known(20)
    assert reason(seen.pools) == "the API server refused"
    assert seen.gaps == ()


def test_other_graphs_are_not_read() -> None:
    source = FakeSource()
    steady(source, START + 20)
    for at in range(21):
        source.scrape("10.9.9.9:29000", START + at, {ARRIVALS: 1000.0 * at})
        source.scrape("10.9.9.8:8000", START + at, gauges(100, 100, 1.0))
    seen = observer(source).observe(supply(), 10.0, START + 20)
    assert value(seen.arrivals) == 20
    assert value(pool(seen, "decode").waiting_requests) == 0


def test_other_gateways() -> None:
    source = FakeSource()
    for at in range(21):
        source.scrape(GATEWAY, START + at, {'vllm_router_processed_requests_total{worker="http://w"}': 3.0 * at})
        source.scrape(DECODE, START + at, {"dynamo_frontend_requests_total": 5.0 * at} | gauges())
    only = Supply({}, (), (GATEWAY,))
    assert value(observer(source, "vllm-router").observe(only, 10.0, START + 20).arrivals) == 30
    assert value(observer(source, "dynamo").observe(Supply({}, (), (DECODE,)), 10.0, START + 20).arrivals) == 50
    for at in range(21):
        source.scrape(GATEWAY, START + at, {'vllm_router_pd_requests_total{route="/v1/completions"}': 1.0 * at})
    # Every request passes two workers then.
    assert value(observer(source, "vllm-router").observe(only, 10.0, START + 20).arrivals) == 10
