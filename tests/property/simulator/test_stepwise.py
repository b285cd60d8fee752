"""Many iterations at once must give what one iteration at a time gives."""

import numpy as np
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from profiler.timing import EngineTiming
from tests.engines import Row, aggregated, disaggregated, engine, finish, transfer
from tests.stepwise import Request, Stepwise
from tests.strategies import timings

SLOW = settings(max_examples=100, deadline=None, suppress_health_check=[HealthCheck.too_slow])


@st.composite
def workloads(draw: st.DrawFn) -> list[Row]:
    """Up to 30 requests with distinct prompt lengths, at arrivals that no iteration's end can meet by chance."""
    count = draw(st.integers(1, 30))
    rng = np.random.default_rng(draw(st.integers(0, 2**32)))
    arrival = rng.exponential(draw(st.sampled_from([0.5, 20.0, 200.0])), count).cumsum()
    isl = rng.permutation(np.arange(1, 151))[:count]
    osl = rng.integers(1, draw(st.sampled_from([3, 49])), count, endpoint=True)
    hit = (isl * rng.choice([0.0, 0.6], count)).astype(int)
    return [(float(a), int(i), int(o), int(h)) for a, i, o, h in zip(arrival, isl, osl, hit, strict=True)]


def _compare(requests: list[Request], rows: list[Row], engine: EngineTiming, ttft: np.ndarray, end: np.ndarray) -> None:
    # The front end stands beside the loop: it is in each TTFT and delays nothing.
    front = engine.front_end_ms([row[1] for row in rows]) + [r.streamed_ms for r in requests]
    ttft, end = ttft - front, end - front
    arrival = np.array([row[0] for row in rows])
    np.testing.assert_allclose(ttft + arrival, [r.first_ms for r in requests], rtol=1e-6)
    np.testing.assert_allclose(end, [r.end_ms for r in requests], rtol=1e-6)


@SLOW
@given(timings(), workloads())
@example(engine(capacity=208, batched=16, seqs=12, token_ms=0.05), [(0.0, 100, 40, 0), (1.0, 90, 40, 0)])
def test_an_aggregated_worker(timing: EngineTiming, rows: list[Row]) -> None:
    requests = [Request(*row) for row in rows]
    slow = Stepwise(timing)
    slow.run(requests)
    run = finish(aggregated(timing), rows)
    _compare(requests, rows, timing, run.ttft, run.end)
    assert run.simulation.total("preempted") == slow.preempted
    assert run.simulation.total("events") <= slow.iterations + len(rows) + 1


#: A hand-off that had come, but was not known to the scheduler yet, loses its blocks and is computed as a prompt.
PREEMPTED_BEFORE_IT_JOINED: list[Row] = [
    (0.425, 63, 3, 0), (0.483, 50, 3, 0), (0.655, 24, 2, 14), (0.789, 1, 2, 0), (1.703, 67, 3, 40), (1.943, 40, 3, 24),
    (1.948, 139, 1, 83), (1.994, 82, 3, 49), (2.202, 69, 3, 41), (4.977, 70, 3, 0), (5.151, 33, 1, 19),
]  # fmt: skip


@SLOW
@given(timings(), workloads(), st.sampled_from([0.0, 1.7]))
@example(engine(capacity=221, batched=60, seqs=3, block=1, token_ms=0.05, ahead=True), PREEMPTED_BEFORE_IT_JOINED, 0.0)
def test_a_decode_worker_behind_a_prefill_worker(timing: EngineTiming, rows: list[Row], post_ms: float) -> None:
    # The prefill worker never lacks blocks here, so the decode worker cannot hold it up and each is stepped alone.
    prefill = engine(batched=120, seqs=5, front_ms=2.0, front_token_ms=0.01, ahead=timing.ahead)
    handoff = transfer(2.0 + 12.0 * post_ms, post_ms=post_ms, post_token_ms=0.01 * post_ms)
    prompts = [Request(arrival, isl, osl, hit) for arrival, isl, osl, hit in rows]
    Stepwise(prefill, decodes=False).run(prompts)
    requests = [Request(p.end_ms, p.isl, p.osl, p.hit, remote=True) for p in prompts]
    slow = Stepwise(timing, handoff)
    slow.run(requests)
    run = finish(disaggregated(prefill, timing, handoff), rows)
    _compare(requests, rows, prefill, run.ttft, run.end)
    assert run.simulation.total("preempted") == slow.preempted
