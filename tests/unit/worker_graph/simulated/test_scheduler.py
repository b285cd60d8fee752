"""The simulated engine's scheduler against the slow reference of its rules, and what it conserves."""

import math
from dataclasses import replace

import numpy as np
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from profiler.timing import EngineTiming
from tests.engines import engine, transfer
from tests.stepwise import Request as Reference
from tests.stepwise import Stepwise
from tests.strategies import timings
from tests.unit.worker_graph.simulated.drive import Row, chain, serve, worker
from worker_graph.simulated.request import Event, Iterations, Kind, Request, State

FEW = settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.too_slow])


@st.composite
def workloads(draw: st.DrawFn) -> list[Row]:
    """Up to 30 requests with distinct prompt lengths, at arrivals that no iteration's end can meet by chance."""
    count = draw(st.integers(1, 30))
    rng = np.random.default_rng(draw(st.integers(0, 2**32)))
    arrival = rng.exponential(draw(st.sampled_from([0.5, 20.0, 200.0])), count).cumsum()
    isl = rng.permutation(np.arange(1, 151))[:count]
    osl = rng.integers(1, draw(st.sampled_from([3, 49])), count, endpoint=True)
    return [(float(a), int(i), int(o)) for a, i, o in zip(arrival, isl, osl, strict=True)]


def _submitted(rows: list[Row], **flags: bool) -> list[tuple[float, Request]]:
    return [(arrival, Request(isl, osl, name=str(n), **flags)) for n, (arrival, isl, osl) in enumerate(rows)]


def _preempted(events: list[Event | Iterations]) -> int:
    return sum(isinstance(event, Event) and event.kind is Kind.PREEMPTED for event in events)


def _check(requests: list[tuple[float, Request]], reference: list[Reference]) -> None:
    np.testing.assert_allclose([r.first_ms for _, r in requests], [r.first_ms for r in reference], rtol=1e-9)
    np.testing.assert_allclose([r.end_ms for _, r in requests], [r.end_ms for r in reference], rtol=1e-9)


@FEW
@given(timings(), workloads())
def test_an_aggregated_worker_is_the_reference(timing: EngineTiming, rows: list[Row]) -> None:
    reference = [Reference(*row) for row in rows]
    slow = Stepwise(timing)
    slow.run(reference)
    requests = _submitted(rows)
    events = serve(worker(timing), requests)
    _check(requests, reference)
    assert _preempted(events) == slow.preempted
    steps = sum(event.steps for event in events if isinstance(event, Iterations))
    assert steps == slow.iterations


@FEW
@given(timings(), workloads(), st.sampled_from([0.0, 1.7]))
def test_a_decode_worker_is_the_reference(timing: EngineTiming, rows: list[Row], post_ms: float) -> None:
    reference = [Reference(*row, remote=True) for row in rows]
    handoff = transfer(2.0 + 12.0 * post_ms, post_ms=post_ms, post_token_ms=0.01 * post_ms)
    slow = Stepwise(timing, handoff)
    slow.run(reference)
    requests = _submitted(rows, remote=True)
    events = serve(worker(timing, handoff), requests)
    _check(requests, reference)
    assert _preempted(events) == slow.preempted


@FEW
@given(timings(), workloads())
def test_a_prefill_worker_is_the_reference_when_its_hand_offs_are_fetched_at_once(
    timing: EngineTiming, rows: list[Row]
) -> None:
    # Blocks do not bind: the reference frees them before the iteration that begins as a prompt ends, a fetch after.
    timing = replace(timing, kv_capacity_tokens=100_000)
    reference = [Reference(*row) for row in rows]
    Stepwise(timing, decodes=False).run(reference)
    requests = _submitted([(arrival, isl, 1) for arrival, isl, _ in rows], hand_off=True)
    scheduler = worker(timing)
    coming = [*requests]
    while coming or scheduler.next_event_ms() < math.inf:
        now = scheduler.next_event_ms()
        if coming and coming[0][0] <= now:
            now, request = coming.pop(0)
            scheduler.submit(request, now)
        for event in scheduler.advance(now):
            if isinstance(event, Event) and event.kind is Kind.FINISHED:
                assert scheduler.release(event.request.name, now)
    _check(requests, reference)
    assert scheduler.blocks == scheduler.held == 0


@FEW
@given(timings(), workloads(), st.booleans())
def test_tokens_and_blocks_are_conserved_and_every_request_ends_once(
    timing: EngineTiming, rows: list[Row], remote: bool
) -> None:
    requests = _submitted(rows, remote=remote)
    scheduler = worker(timing)
    events = serve(scheduler, requests)
    told = [event for event in events if isinstance(event, Event)]
    for kind in (Kind.FIRST, Kind.FINISHED):
        assert sorted(e.request.name for e in told if e.kind is kind) == sorted(r.name for _, r in requests)
    assert [e.at_ms for e in told] == sorted(e.at_ms for e in told)
    done = [event for event in events if isinstance(event, Iterations)]
    generated = sum(event.steps * event.running + event.prompts for event in done)
    assert generated == sum(osl for _, _, osl in rows)
    gaps = sum(e.steps * (e.running - e.fresh) + len(e.gaps_ms) for e in done)
    assert gaps == generated - len(rows)
    assert (scheduler.blocks, scheduler.running, scheduler.moving, scheduler.next_event_ms()) == (0, 0, 0, math.inf)


@FEW
@given(timings(), workloads(), st.integers(0, 2**32))
def test_settling_and_looking_change_nothing(timing: EngineTiming, rows: list[Row], seed: int) -> None:
    plain, watched = _submitted(rows), _submitted(rows)
    serve(worker(timing), plain)
    scheduler, rng = worker(timing), np.random.default_rng(seed)
    coming, now, generated = [*watched], 0.0, 0
    seen = dict.fromkeys((request for _, request in watched), 0)
    while coming or scheduler.next_event_ms() < math.inf:
        now += float(rng.exponential(30.0))
        while coming and coming[0][0] <= now:
            at, request = coming.pop(0)
            scheduler.submit(request, at)
        look = scheduler.settle if rng.random() < 0.5 else scheduler.advance
        generated += sum(e.steps * e.running + e.prompts for e in look(now) if isinstance(e, Iterations))
        for request, before in seen.items():
            seen[request] = scheduler.tokens(request, now)
            assert before <= seen[request] <= request.osl
    np.testing.assert_allclose([r.end_ms for _, r in watched], [r.end_ms for _, r in plain], rtol=1e-9)
    assert generated == sum(seen.values()) == sum(osl for _, _, osl in rows)


@FEW
@given(timings(), workloads(), st.integers(0, 2**32), st.sampled_from(["local", "remote", "hand_off"]))
def test_an_abort_at_any_time_frees_everything(timing: EngineTiming, rows: list[Row], seed: int, how: str) -> None:
    requests = _submitted(rows, remote=how == "remote", hand_off=how == "hand_off")
    scheduler, rng = worker(timing), np.random.default_rng(seed)
    for at, request in requests:
        scheduler.submit(request, at)
    now = requests[-1][0]
    for _, request in rng.permutation(np.array(requests, dtype=object)):
        now += float(rng.exponential(5.0))
        scheduler.abort(request, now)
    scheduler.advance(now + 1e6)
    assert (scheduler.blocks, scheduler.running, scheduler.held, scheduler.next_event_ms()) == (0, 0, 0, math.inf)
    assert {request.state for _, request in requests} == {State.GONE}
    # Seats too: the worker serves as if new.
    again = Request(100, 20)
    serve(scheduler, [(now + 2e6, again)])
    fresh = Request(100, 20)
    serve(worker(timing), [(0.0, fresh)])
    assert again.end_ms - again.arrival_ms == np.float64(fresh.end_ms).round(6) or math.isclose(
        again.end_ms - again.arrival_ms, fresh.end_ms, rel_tol=1e-6
    )


def test_tokens_are_counted_within_a_segment() -> None:
    scheduler = worker(engine(fixed_ms=10.0, token_ms=0.0, step_ms=5.0, request_ms=0.0, kv_ms=0.0))
    request = Request(16, 100)
    scheduler.submit(request, 0.0)
    scheduler.advance(10.0)
    assert scheduler.next_event_ms() == 10.0 + 99 * 5.0
    for now, tokens in [(10.0, 1), (14.9, 1), (15.0, 2), (59.9, 10), (60.0, 11)]:
        scheduler.advance(now)
        assert scheduler.tokens(request, now) == tokens


def test_blocks_of_a_hand_off_are_held_until_released() -> None:
    scheduler = worker(engine(capacity=160, fixed_ms=10.0, token_ms=0.0))
    first, second = (Request(100, 1, name=name, hand_off=True) for name in "ab")
    scheduler.submit(first, 0.0)
    scheduler.submit(second, 0.0)
    scheduler.advance(1000.0)
    assert (first.state, second.state, scheduler.blocks) == (State.HELD, State.WAITING, 7)
    assert not scheduler.release("c", 1500.0)
    assert scheduler.release("a", 2000.0)
    scheduler.advance(3000.0)
    assert second.first_ms == 2010.0
    assert not scheduler.release("a", 3000.0)


def test_blocks_that_nobody_fetches_expire() -> None:
    scheduler = worker(engine(fixed_ms=10.0, token_ms=0.0), hold_ms=500.0)
    request = Request(100, 1, name="a", hand_off=True)
    events = serve(scheduler, [(0.0, request)])
    assert [(e.kind, e.at_ms) for e in events if isinstance(e, Event)][-1] == (Kind.EXPIRED, 510.0)
    assert scheduler.blocks == 0


def test_an_unconfirmed_hand_off_waits_for_its_prefill_worker() -> None:
    timing = engine(step_ms=5.0, request_ms=0.0, kv_ms=0.0)
    early, late = (Request(100, 3, remote=True, confirmed=False) for _ in range(2))
    for request, confirmed_ms, first_ms in [(early, 1.0, 7.0), (late, 50.0, 55.0)]:
        scheduler = worker(timing, transfer(base_ms=2.0, token_ms=0.0))
        scheduler.submit(request, 0.0)
        scheduler.confirm(request, confirmed_ms)
        scheduler.advance(1000.0)
        assert request.first_ms == first_ms
    gone = Request(100, 3, remote=True, confirmed=False)
    scheduler = worker(timing)
    scheduler.submit(gone, 0.0)
    scheduler.advance(100.0)
    scheduler.abort(gone, 100.0)
    assert scheduler.blocks == scheduler.moving == 0


def test_a_full_decode_worker_holds_its_prefill_worker_up() -> None:
    prefill = worker(engine(capacity=512, fixed_ms=10.0, token_ms=0.0))
    decode = worker(engine(capacity=512, step_ms=10.0))
    pairs = chain([prefill], [decode], [(0.0, 400, 50), (1.0, 400, 50), (2.0, 400, 50)])
    # The third prompt waits for the blocks that the second leaves when the first has been decoded.
    assert pairs[2][0].first_ms > pairs[0][1].end_ms
    assert prefill.blocks == decode.blocks == 0
