"""The simulator in the limits where queueing theory knows the answer.

Long runs with fixed seeds: the tolerances are those of the sampling, and are said with each test.
"""

import heapq

import numpy as np
import pytest
from scipy.stats import poisson as poisson_law

from planner.whatif.simulator.simulation import Routing
from tests.engines import Row, aggregated, disaggregated, engine, finish, poisson, transfer

#: One prompt of 100 tokens fills the token budget and takes 11 ms: a server with constant service time.
ONE_AT_A_TIME = engine(batched=100)
SERVICE_MS = 11.0


def prompts(arrivals: np.ndarray) -> list[Row]:
    return [(float(t), 100, 1, 0) for t in arrivals]


def mean_and_error(waits: np.ndarray) -> tuple[float, float]:
    """Mean wait and its standard error, from 40 batch means: waits of neighbours are alike, those of batches not."""
    batches = waits[: len(waits) // 40 * 40].reshape(40, -1).mean(axis=1)
    return float(batches.mean()), float(batches.std(ddof=1) / np.sqrt(40))


@pytest.mark.parametrize("load", [0.3, 0.7, 0.9])
def test_one_prefill_worker_is_m_d_1(load: float) -> None:
    """Pollaczek-Khinchine: a mean wait of load S / (2 (1 - load)), within four standard errors."""
    run = finish(aggregated(ONE_AT_A_TIME), prompts(poisson(load / SERVICE_MS, 400_000, 1)))
    mean, error = mean_and_error(run.ttft - SERVICE_MS)
    expected = load * SERVICE_MS / (2 * (1 - load))
    assert error < 0.05 * expected
    assert abs(mean - expected) < 4 * error


@pytest.mark.parametrize("load", [0.3, 0.7])
@pytest.mark.parametrize("kind", ["two", "exponential", "lognormal"])
def test_one_worker_with_one_seat_is_m_g_1(kind: str, load: float) -> None:
    """Pollaczek-Khinchine: a mean wait of rate E[S^2] / (2 (1 - load)), within four standard errors.

    One seat, so that prompts do not share an iteration; S = 1 + 0.2 ISL ms. The moments are those of the law from which
    the lengths are drawn, taken over many more of them than are simulated; their own error is far below the waits'.
    """

    def lengths(count: int, seed: int) -> np.ndarray:
        rng = np.random.default_rng(seed)
        if kind == "two":
            return rng.choice([2, 100], count)
        drawn = rng.exponential(60.0, count) if kind == "exponential" else rng.lognormal(3.5, 0.8, count)
        return np.maximum(1, drawn).astype(int)

    service = 1.0 + 0.2 * lengths(4_000_000, 20)
    rate = load / service.mean()
    isl = lengths(200_000, 21)
    rows: list[Row] = [(float(t), int(n), 1, 0) for t, n in zip(poisson(rate, len(isl), 22), isl, strict=True)]
    timing = engine(fixed_ms=1.0, token_ms=0.2, step_ms=0.1, seqs=1)
    run = finish(aggregated(timing), rows)
    mean, error = mean_and_error(run.ttft - (1.0 + 0.2 * run.isl))
    expected = rate * (service**2).mean() / (2 * (1 - load))
    assert error < 0.05 * expected
    assert abs(mean - expected) < 4 * error


def crommelin_wait_ms(workers: int, load: float) -> float:
    """Exact mean wait of M/D/c: of all that is in the system, what is in service has left one service time later.

    N(t + S) = max(N(t) - c, 0) + Poisson(rate S) (Crommelin 1932); its stationary law by iteration on states that are
    cut where less than 1e-12 lies beyond, then Little's law.
    """
    states = 40 * workers + 100
    arrivals = poisson_law.pmf(np.arange(states), load * workers)
    law = np.zeros(states)
    law[0] = 1.0
    for _ in range(2000):
        left = np.concatenate([[law[: workers + 1].sum()], law[workers + 1 :]])
        law = np.convolve(left, arrivals)[:states]
    assert law[-1] < 1e-12
    assert law.sum() == pytest.approx(1.0, abs=1e-9)
    in_system = float(law @ np.arange(states))
    return (in_system - load * workers) / (load * workers) * SERVICE_MS


def test_the_exact_wait_of_one_server_is_pollaczek_khinchine() -> None:
    assert crommelin_wait_ms(1, 0.8) == pytest.approx(0.8 * SERVICE_MS / (2 * 0.2), rel=1e-6)


@pytest.mark.parametrize("routing", ["round_robin", "least_loaded"])
@pytest.mark.parametrize("workers", [1, 2, 4, 8])
def test_workers_with_constant_service_are_m_d_c(workers: int, routing: Routing) -> None:
    """Exact, request by request, although the gateway has no shared queue.

    A gateway that assigns on arrival is no M/G/c: a request may wait while another worker idles. With constant service,
    though, requests leave one shared queue in the order in which they came, request n on the worker that n - c left, so
    taking turns is M/D/c itself; so is joining the shortest queue: while all are busy it takes turns. The mean is also
    held against the exact one, within four standard errors.
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
    mean, error = mean_and_error(run.ttft - SERVICE_MS)
    exact = crommelin_wait_ms(workers, load)
    assert error < 0.1 * exact
    assert abs(mean - exact) < 4 * error


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
