"""The simulator in the limits where queueing theory knows the answer.

Long runs with fixed seeds: the tolerances are those of the sampling, and are said with each test.
"""

import heapq

import numpy as np
import pytest

from planner.core.queueing import erlang_c
from planner.whatif.simulator.simulation import Routing
from tests.engines import Row, aggregated, disaggregated, engine, finish, poisson, transfer

#: One prompt of 100 tokens fills the token budget and takes 11 ms: a server with constant service time.
ONE_AT_A_TIME = engine(batched=100)
SERVICE_MS = 11.0


def prompts(arrivals: np.ndarray) -> list[Row]:
    return [(float(t), 100, 1, 0) for t in arrivals]


@pytest.mark.parametrize("load", [0.3, 0.7, 0.9])
def test_one_prefill_worker_is_m_d_1(load: float) -> None:
    """Pollaczek-Khinchine: a mean wait of load S / (2 (1 - load)), within four standard errors of 40 batch means."""
    run = finish(aggregated(ONE_AT_A_TIME), prompts(poisson(load / SERVICE_MS, 400_000, 1)))
    batches = (run.ttft - SERVICE_MS).reshape(40, -1).mean(axis=1)
    error = batches.std(ddof=1) / np.sqrt(40)
    expected = load * SERVICE_MS / (2 * (1 - load))
    assert error < 0.05 * expected
    assert abs(batches.mean() - expected) < 4 * error


@pytest.mark.parametrize("routing", ["round_robin", "least_loaded"])
@pytest.mark.parametrize("workers", [1, 2, 4, 8])
def test_workers_with_constant_service_are_m_d_c(workers: int, routing: Routing) -> None:
    """Exact, request by request, although the gateway has no shared queue.

    A gateway that assigns on arrival is no M/G/c: a request may wait while another worker idles. With constant service,
    though, requests leave one shared queue in the order in which they came, request n on the worker that n - c left, so
    taking turns is M/D/c itself (Crommelin 1932); so is joining the shortest queue: while all are busy it takes turns.
    The mean is also held against Cosmetatos' approximation (1975), which is good to 2 %, and the sampling to 4 %.
    """
    load = 0.8
    arrivals = poisson(load * workers / SERVICE_MS, 100_000, 2)
    run = finish(aggregated(ONE_AT_A_TIME), prompts(arrivals), workers, routing=routing)
    free = [0.0] * workers
    expected = []
    for at in arrivals:
        done = max(heapq.heappop(free), at) + SERVICE_MS
        heapq.heappush(free, done)
        expected.append(done - at)
    np.testing.assert_allclose(run.ttft, expected, rtol=1e-7)
    m_m_c = erlang_c(workers, load * workers) * SERVICE_MS / (workers * (1 - load))
    correction = 1 + (1 - load) * (workers - 1) * (np.sqrt(4 + 5 * workers) - 2) / (16 * load * workers)
    assert run.ttft.mean() - SERVICE_MS == pytest.approx(0.5 * correction * m_m_c, rel=0.06)


def test_without_constant_service_the_shortest_queue_is_worse_than_one_queue_and_better_than_turns() -> None:
    """Two kinds of prompts, 2 and 100 tokens: one shared queue is the bound from below, taking turns from above."""
    workers, count = 4, 100_000
    length = np.random.default_rng(7).choice([2, 100], count)
    service = 1.0 + 0.2 * length
    arrivals = poisson(0.8 * workers / service.mean(), count, 3)
    rows: list[Row] = [(float(t), int(n), 1, 0) for t, n in zip(arrivals, length, strict=True)]
    # One seat, so that prompts do not share an iteration.
    timing = engine(fixed_ms=1.0, token_ms=0.2, step_ms=0.1, seqs=1)
    free = [0.0] * workers
    shared = 0.0
    for at, work in zip(arrivals, service, strict=True):
        begin = max(heapq.heappop(free), at)
        shared += begin - at
        heapq.heappush(free, begin + work)
    shared /= count
    waits = {
        routing: finish(aggregated(timing), rows, workers, routing=routing).ttft.mean() - service.mean()
        for routing in ("least_loaded", "round_robin")
    }
    assert 1.02 * shared < waits["least_loaded"] < 0.8 * waits["round_robin"]


def test_decode_saturated_by_seats() -> None:
    """Throughput is B / ITL(B). A seat idles for one step between two requests of 400, so within 1 %."""
    timing = engine(seqs=32, kv_ms=0.0)
    fast = engine(fixed_ms=0.1, token_ms=0.0, step_ms=0.01, request_ms=0.0, kv_ms=0.0, capacity=1_600_000)
    rows = [(i * 0.01, 16, 400, 0) for i in range(640)]
    run = finish(disaggregated(fast, timing, transfer(0.0, 0.0)), rows)
    throughput = 640 * 400 / run.end.max()
    assert throughput == pytest.approx(32 / (5.0 + 0.1 * 32), rel=0.01)
    # ITL is a little less than at 32, as seats are empty now and then.
    assert run.itl.mean() == pytest.approx(8.2, rel=0.01)


def test_decode_saturated_by_kv() -> None:
    """Ten requests of 16,000 + 200 tokens fit, so ten run although there are seats for more; within 2 %."""
    timing = engine(seqs=64, kv_ms=0.0, capacity=10 * 16_208)
    fast = engine(fixed_ms=0.1, token_ms=0.0, step_ms=0.01, request_ms=0.0, kv_ms=0.0, capacity=6_400_000)
    rows = [(i * 0.2, 16_000, 200, 0) for i in range(300)]
    run = finish(disaggregated(fast, timing, transfer(0.0, 0.0)), rows)
    assert 300 * 200 / run.end.max() == pytest.approx(10 / (5.0 + 0.1 * 10), rel=0.02)
    assert run.simulation.total("preempted") == 0


def test_littles_law_at_moderate_load() -> None:
    """n = rate OSL ITL(n) has n = 100 here. Tokens see a little more than the mean batch, so within 3 %."""
    timing = engine(seqs=512, kv_ms=0.0, capacity=1_600_000)
    fast = engine(fixed_ms=0.1, token_ms=0.0, step_ms=0.01, request_ms=0.0, kv_ms=0.0, capacity=1_600_000)
    count, osl = 20_000, 200
    rate = 100 / (osl * (5.0 + 0.1 * 100))
    rows = [(float(t), 16, osl, 0) for t in poisson(rate, count, 4)]
    run = finish(disaggregated(fast, timing, transfer(0.0, 0.0)), rows)
    residence = run.itl * (osl - 1)
    batch = residence.sum() / (run.arrival[-1] - run.arrival[0])
    assert batch == pytest.approx(100, rel=0.03)
    assert run.itl.mean() == pytest.approx(5.0 + 0.1 * 100, rel=0.03)
    # And Little's law itself, on what came out.
    assert batch == pytest.approx(count / run.arrival[-1] * residence.mean(), rel=0.001)


def test_a_gateway_of_more_workers_never_attains_less() -> None:
    """On the same trace, from one worker to ten; anomalies of list scheduling stay below 0.2 %."""
    rng = np.random.default_rng(5)
    count = 4000
    rows = [
        (float(t), int(i), int(o), 0)
        for t, i, o in zip(
            poisson(0.04, count, 6), rng.integers(50, 2000, count), rng.integers(1, 200, count), strict=True
        )
    ]
    timing = engine(token_ms=0.05, attention=1e-6, kv_ms=2e-4, batched=2048)
    shares = []
    for workers in range(1, 11):
        run = finish(aggregated(timing), rows, workers)
        within = (run.ttft <= 300.0) & ~(run.itl > 20.0)
        shares.append(float(within.mean()))
    assert min(np.diff(shares)) > -0.002
    assert shares[0] < 0.1
    assert shares[-1] > 0.95
