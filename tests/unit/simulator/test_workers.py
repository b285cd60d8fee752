"""Workers come and go: start-up, draining, cancelling, routing, and the GPU time that each of them costs."""

import pytest

from planner.core.types import Role
from tests.engines import AGGREGATED, DECODE, PREFILL, Run, aggregated, disaggregated, engine, finish, start

exactly = pytest.approx
HOUR_MS = 3_600_000.0


def gpu_ms(run: Run) -> float:
    return run.simulation.gpu_hours() * HOUR_MS


def test_requests_wait_at_the_gateway_until_a_worker_is_ready() -> None:
    run = start(aggregated(engine()), [(100.0, 100, 1, 0), (150.0, 100, 1, 0)], 0)
    run.simulation.add_worker(AGGREGATED, 500.0)
    run.to(400.0)
    supply = run.simulation.supply(AGGREGATED)
    assert (supply.ready, supply.starting, supply.waiting, supply.running) == (0, 1, 2, 0)
    run.to(1e4)
    assert run.ttft == exactly([400.0 + 11.0, 350.0 + 11.0 + 11.0])
    supply = run.simulation.supply(AGGREGATED)
    assert (supply.ready, supply.starting, supply.waiting, supply.running) == (1, 0, 0, 0)


def test_a_draining_worker_finishes_its_streams_and_takes_no_new_ones() -> None:
    # A on worker 0 for 11 + 99 x 5.1 ms, B on worker 1; C arrives while worker 0 drains.
    rows = [(0.0, 100, 100, 0), (1.0, 100, 200, 0), (60.0, 100, 1, 0), (5000.0, 100, 1, 0)]
    run = start(aggregated(engine(kv_ms=0.0, gpus=2)), rows, 2).to(50.0)
    run.simulation.drain_worker(AGGREGATED)
    supply = run.simulation.supply(AGGREGATED)
    assert (supply.ready, supply.draining) == (1, 1)
    assert run.simulation.gpus() == 4
    a_done = 11.0 + 99 * 5.1
    run.to(a_done - 0.01)
    assert run.simulation.gpus() == 4
    run.to(a_done + 0.01)
    assert run.simulation.gpus() == 2
    assert run.simulation.supply(AGGREGATED).draining == 0
    run.to(6000.0)
    assert run.end[0] == exactly(a_done)
    # C shared worker 1 with B: it was not alone, and B's decode rode along free of charge.
    assert run.ttft[2] > 11.0
    assert run.simulation.total("completed") == 4
    # The window ends with the last arrival; worker 0 counts until its last request left, with both of its GPUs.
    assert gpu_ms(run) == exactly(2 * (a_done + 5000.0))


def test_requests_that_wait_on_a_draining_worker_are_served_by_it() -> None:
    rows = [(0.0, 100, 100, 0), (1.0, 100, 1, 0), (9999.0, 1, 1, 0)]
    run = start(aggregated(engine(seqs=1, kv_ms=0.0)), rows, 1).to(10.0)
    run.simulation.drain_worker(AGGREGATED)
    run.to(9000.0)
    done = 11.0 + 99 * 5.1 + 11.0
    assert run.end == exactly([done - 11.0, done])
    assert run.simulation.gpus() == 0
    assert gpu_ms(run) == exactly(done)
    # The third finds nobody; it waits at the gateway.
    assert run.to(20_000.0).simulation.supply(AGGREGATED).waiting == 1
    run.simulation.add_worker(AGGREGATED, 30_000.0)
    assert run.to(40_000.0).end[2] == exactly(30_010.01)


def test_an_idle_worker_ends_as_soon_as_it_is_drained() -> None:
    run = start(aggregated(engine()), [(900.0, 100, 1, 0)], 2).to(300.0)
    run.simulation.drain_worker(AGGREGATED)
    assert run.simulation.gpus() == 1
    assert gpu_ms(run.to(1000.0)) == exactly(300.0 + 900.0)


def test_the_least_loaded_worker_is_drained() -> None:
    rows = [(0.0, 100, 50, 0), (1.0, 100, 50, 0), (2.0, 100, 50, 0), (900.0, 100, 1, 0)]
    run = start(aggregated(engine()), rows, 2, routing="round_robin").to(20.0)
    run.simulation.drain_worker(AGGREGATED)
    assert run.simulation.raw.workers["state"][:2].tolist() == [2, 3]


def test_a_starting_worker_is_cancelled_first_and_never_serves() -> None:
    run = start(aggregated(engine()), [(50.0, 100, 1, 0), (900.0, 100, 1, 0)], 1)
    run.simulation.add_worker(AGGREGATED, 400.0)
    run.simulation.add_worker(AGGREGATED, 500.0)
    run.to(200.0)
    assert run.simulation.gpus() == 3
    run.simulation.drain_worker(AGGREGATED)
    supply = run.simulation.supply(AGGREGATED)
    assert (supply.ready, supply.starting, supply.draining) == (1, 1, 0)
    run.to(450.0)
    # Of two starting ones, that which would be ready last was cancelled.
    assert run.simulation.supply(AGGREGATED).ready == 2
    run.to(600.0)
    assert run.simulation.supply(AGGREGATED).ready == 2
    assert gpu_ms(run.to(1000.0)) == exactly(900.0 + 900.0 + 200.0)


def test_draining_an_empty_pool_does_nothing() -> None:
    run = start(aggregated(engine()), [(900.0, 100, 1, 0)], 0).to(10.0)
    run.simulation.drain_worker(AGGREGATED)
    assert run.simulation.gpus() == 0


def test_a_place_is_used_again_with_a_clean_slate() -> None:
    rows = [(0.0, 100, 30, 0), (2000.0, 100, 5, 0)]
    run = start(aggregated(engine(kv_ms=0.0)), rows, 1).to(20.0)
    run.simulation.drain_worker(AGGREGATED)
    run.to(1000.0)
    run.simulation.add_worker(AGGREGATED, 1500.0)
    run.to(3000.0)
    assert run.simulation.raw.totals["workers"][0] == 1
    assert run.ttft[1] == exactly(11.0)
    assert run.itl[1] == exactly(5.1)
    assert gpu_ms(run) == exactly(11.0 + 29 * 5.1 + 1000.0)


def test_more_workers_than_places() -> None:
    run = start(aggregated(engine()), [(float(i), 100, 20, 0) for i in range(200)], 100)
    assert run.simulation.gpus() == 100
    run.to(10_000.0)
    assert run.simulation.total("completed") == 200
    assert run.simulation.supply(AGGREGATED).ready == 100


def test_more_requests_than_slots_and_output_places() -> None:
    run = finish(aggregated(engine(fixed_ms=2000.0)), [(i * 0.01, 100, 1, 0) for i in range(40_000)], 8)
    assert run.simulation.total("completed") == 40_000
    assert len(run.ttft) == 40_000
    assert len(run.simulation.raw.requests) > 4096


def test_a_draining_prefill_worker_stays_until_its_last_hand_off_ends() -> None:
    rows = [(0.0, 100, 5, 0), (500.0, 100, 1, 0)]
    run = start(disaggregated(engine(), engine()), rows, {PREFILL: 2, DECODE: 0}).to(50.0)
    for _ in range(2):
        run.simulation.drain_worker(PREFILL)
    # The idle one is gone, the other holds a prompt that nobody fetches yet.
    assert run.simulation.gpus() == 1
    run.simulation.add_worker(DECODE, 200.0)
    run.to(202.19)
    assert run.simulation.gpus() == 2
    run.to(202.21)
    assert run.simulation.gpus() == 1
    # Two prefill workers until 50 and 202.2 ms, one decode worker asked for at 50 ms; the window ends at 500 ms.
    assert gpu_ms(run.to(600.0)) == exactly(50.0 + 202.2 + 450.0)


def test_starting_workers_cost_and_the_window_ends_with_the_last_arrival() -> None:
    run = start(aggregated(engine(gpus=4)), [(0.0, 100, 1, 0), (1000.0, 100, 500, 0)], 1).to(400.0)
    run.simulation.add_worker(AGGREGATED, 5000.0)
    assert gpu_ms(run) == exactly(4 * 400.0)
    assert gpu_ms(run.to(700.0)) == exactly(4 * (700.0 + 300.0))
    assert gpu_ms(run.to(9000.0)) == exactly(4 * (1000.0 + 600.0))


def test_a_worker_that_ends_after_the_last_arrival_counts_up_to_it() -> None:
    # It drains until 11 + 199 x 5.1 ms; the last arrival is at 100 ms, and nobody looks before 9 s.
    run = start(aggregated(engine(kv_ms=0.0)), [(0.0, 100, 200, 0), (100.0, 100, 1, 0)], 2).to(50.0)
    run.simulation.drain_worker(AGGREGATED)
    run.simulation.drain_worker(AGGREGATED)
    run.to(9000.0)
    assert run.simulation.gpus() == 0
    assert gpu_ms(run) == exactly(100.0 + 50.0)


@pytest.mark.parametrize("role", [AGGREGATED, PREFILL, DECODE])
def test_round_robin_and_least_loaded(role: Role) -> None:
    # A is long, B short and done when C comes: round robin sends C to A's worker, least loaded to the idle one.
    one = engine(seqs=1, kv_ms=0.0)
    rows = [(0.0, 100, 100, 0), (1.0, 100, 1, 0), (300.0, 100, 1, 0)]
    a_done = 11.0 + 99 * 5.1
    if role == AGGREGATED:
        engines, alone = aggregated(one), 11.0
    elif role == DECODE:
        engines, alone = disaggregated(engine(), one), 11.0 + 2.2 + 5.1
        a_done = 11.0 + 2.2 + 100 * 5.1
    else:
        # The same for prefill: A's prompt is long.
        rows = [(0.0, 60_000, 1, 0), (1.0, 100, 1, 0), (300.0, 100, 1, 0)]
        engines, alone = disaggregated(engine(seqs=1), engine(kv_ms=0.0)), 11.0 + 2.2 + 5.1
        a_done = 610.0
    workers = {AGGREGATED: 2} if role == AGGREGATED else {PREFILL: 1, DECODE: 1, role: 2}
    least = finish(engines, rows, workers)
    assert least.ttft[2] == exactly(alone)
    turns = finish(engines, rows, workers, routing="round_robin")
    # What follows the wait: a prompt's whole way, or from the hand-off on where prefill did not wait.
    after = alone - 11.0 if role == DECODE else alone
    assert turns.ttft[2] == exactly(a_done - 300.0 + after)


def test_the_supply_by_role() -> None:
    run = start(disaggregated(engine(), engine(kv_ms=0.0)), [(0.0, 1000, 100, 0)], {PREFILL: 2, DECODE: 3})
    run.to(5.0)
    prefill, decode = run.simulation.supply(PREFILL), run.simulation.supply(DECODE)
    assert (prefill.ready, prefill.running, decode.ready, decode.running) == (2, 1, 3, 0)
    assert prefill.kv_usage == exactly(63 / 20_000)
    run.to(100.0)
    prefill, decode = run.simulation.supply(PREFILL), run.simulation.supply(DECODE)
    assert (prefill.running, decode.running, prefill.kv_usage) == (0, 1, 0.0)
    assert decode.kv_usage >= 63 / 30_000


def test_arrivals_of_each_second() -> None:
    rows = [(t, 10, 1, 0) for t in (0.0, 999.0, 1000.0, 2500.0, 2600.0, 4100.0)]
    run = start(aggregated(engine()), rows).to(3000.0)
    assert run.simulation.seconds_since_last().tolist() == [2, 1, 2]
    run.to(5000.0)
    assert run.simulation.seconds_since_last().tolist() == [0, 1]


def test_counts_of_seconds_are_used_again_without_what_was_there_before() -> None:
    lap_ms = 4_096_000.0
    rows = [(500.0, 10, 1, 0), (600.0, 10, 1, 0), (lap_ms + 500.0, 10, 1, 0)]
    run = start(aggregated(engine()), rows).to(lap_ms - 96_000.0)
    assert run.simulation.seconds_since_last()[0] == 2
    run.to(lap_ms + 2000.0)
    assert run.simulation.seconds_since_last()[-2:].tolist() == [1, 0]
