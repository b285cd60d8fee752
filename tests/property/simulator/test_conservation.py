"""What holds at every moment of every simulation: nothing is lost, nothing is made, and time may be cut anywhere."""

from dataclasses import dataclass, replace

import numpy as np
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from planner.core.engines import Engines
from planner.whatif.simulator import state
from planner.whatif.simulator.simulation import Routing, Simulation
from profiler.timing import EngineTiming
from tests.engines import PREFILL, Row, Run, aggregated, disaggregated, engine, start, transfer

QUICK = settings(max_examples=100, deadline=None, suppress_health_check=[HealthCheck.too_slow])
END_MS = 1e7


@dataclass(frozen=True)
class Case:
    """A small graph, its trace, and when workers come (+1) and go (-1)."""

    engines: Engines
    rows: list[Row]
    workers: int
    routing: Routing
    moves: tuple[tuple[float, int, int], ...] = ()

    def run(self, cuts: tuple[float, ...] = (), chunk: int = 65_536) -> Run:
        """The run to its end, stopping at each move and each cut."""
        run = start(self.engines, self.rows, self.workers, routing=self.routing, chunk=chunk)
        for at, _, move in sorted([(at, -1, 0) for at in cuts] + [(m[0], i, m[1]) for i, m in enumerate(self.moves)]):
            run.to(at)
            if move:
                role = self.engines.roles[0 if abs(move) == 1 else -1]
                if move > 0:
                    run.simulation.add_worker(role, at + 50.0)
                else:
                    run.simulation.drain_worker(role)
            check(run.simulation)
        run.to(END_MS)
        check(run.simulation)
        return run


@st.composite
def cases(draw: st.DrawFn, *, moving: bool = True) -> Case:
    """Tight engines under load, with workers that come and go."""
    block = draw(st.sampled_from([1, 16]))

    def timing(gpus: int) -> EngineTiming:
        return engine(
            token_ms=0.05,
            attention=draw(st.sampled_from([0.0, 1e-4])),
            kv_ms=0.002,
            bend=draw(st.sampled_from([0.0, 1e-6])),
            capacity=block * draw(st.integers(150 // block, 1500 // block)),
            seqs=draw(st.integers(1, 16)),
            batched=draw(st.sampled_from([16, 100, 4000])),
            block=block,
            gpus=gpus,
        )

    handoff = transfer(post_token_ms=draw(st.sampled_from([0.0, 0.01])))
    engines = aggregated(timing(1)) if draw(st.booleans()) else disaggregated(timing(2), timing(1), handoff)
    count = draw(st.integers(0, 60))
    rng = np.random.default_rng(draw(st.integers(0, 2**32)))
    arrival = np.round(
        rng.exponential(draw(st.sampled_from([0.5, 10.0, 60.0])), count).cumsum(), draw(st.integers(0, 6))
    )
    isl, osl = rng.integers(1, 180, count), rng.integers(1, draw(st.sampled_from([2, 60])), count)
    hit = ((isl - 1) * rng.choice([0.0, 0.9], count)).astype(int)
    rows = sorted((float(a), int(i), int(o), int(h)) for a, i, o, h in zip(arrival, isl, osl, hit, strict=True))
    moves = draw(
        st.lists(st.tuples(st.floats(1.0, 2000.0), st.sampled_from([-2, -1, 1, 2])), max_size=6)
        if moving
        else st.just([])
    )
    numbered = tuple((float(at), move, i) for i, (at, move) in enumerate(sorted(moves)))
    return Case(
        engines, rows, draw(st.integers(1, 3)), draw(st.sampled_from(["round_robin", "least_loaded"])), numbered
    )


def _list(raw: state.Sim, owner: int, kind: int) -> list[int]:
    slots, slot = [], int(raw.lists[owner, kind, state.HEAD])
    while slot != state.NONE:
        slots.append(slot)
        slot = int(raw.requests["next"][slot])
    return slots


def check(simulation: Simulation) -> None:
    """The kernel's counters against a recount from the requests that it holds."""
    raw, total = simulation.raw, simulation.total
    assert total("arrived") == total("completed") + total("failed") + total("in_flight")
    workers = range(total("workers"))
    blocks, seats, kv = (dict.fromkeys(workers, 0) for _ in range(3))
    placed = _list(raw, state.FIRST, state.WAIT) + _list(raw, state.DECODE, state.WAIT)
    fetched = _list(raw, state.DECODE, state.WAIT)
    for move in raw.transfers[: total("transfers")]:
        slot = int(move["slot"])
        request = raw.requests[slot]
        placed.append(slot)
        fetched.append(slot)
        blocks[int(request["worker"])] += int(request["blocks"])
        seats[int(request["worker"])] += 1
    for w in workers:
        worker = raw.workers[w]
        size = int(raw.engines["block"][worker["pool"]])
        waiting = _list(raw, w + state.POOLS, state.WAIT)
        fetched += [slot for slot in waiting if raw.requests["source"][slot] != state.NONE]
        assert len(waiting) == worker["wait_count"]
        held = _list(raw, w + state.POOLS, state.FILL) + _list(raw, w + state.POOLS, state.JOIN)
        for slot in held:
            blocks[w] += int(raw.requests["blocks"][slot])
            seats[w] += 1
        running = [int(entry["slot"]) for entry in raw.heap[w][: worker["heap_count"]]]
        for slot in running:
            request = raw.requests[slot]
            context = int(request["context"] + worker["iteration"] - request["joined"])
            grown = -(-context // size) + -(-int(request["context"]) // size) * -1
            blocks[w] += int(request["blocks"]) + grown
            seats[w] += 1
            kv[w] += context
        assert set(_list(raw, w + state.POOLS, state.FRESH)) <= set(running)
        placed += waiting + held + running
    for slot in fetched:
        blocks[int(raw.requests["source"][slot])] += int(raw.requests["source_blocks"][slot])
    # Every request in flight is in one place.
    assert len(placed) == len(set(placed)) == total("in_flight")
    for w in workers:
        worker, pool = raw.workers[w], int(raw.workers["pool"][w])
        capacity = int(raw.engines["capacity_blocks"][pool])
        assert (blocks[w], seats[w], kv[w]) == (worker["blocks"], worker["seats"], worker["kv"])
        if worker["state"] == state.FREE:
            assert blocks[w] == seats[w] == worker["in_flight"] == 0
            continue
        # What the iterations under way take is in use as well: one here, as it was one when they began.
        size = int(raw.engines["block"][pool])
        growth = int(raw.phase[w, worker["iteration"] % size]) if worker["seg_steps"] > 0 else 0
        assert worker["blocks"] + growth <= capacity
        assert worker["seats"] <= raw.engines["max_seqs"][pool]
        _check_work_is_conserved(raw, w)
    for pool, role in enumerate(simulation.engines.roles):
        assert not _list(raw, pool, state.WAIT) or simulation.supply(role).ready == 0


def _check_work_is_conserved(raw: state.Sim, w: int) -> None:
    """A worker idles only when it has nothing to do, or no room for the head of its queue."""
    worker, waiting = raw.workers[w], _list(raw, w + state.POOLS, state.WAIT)
    if worker["state"] == state.STARTING or worker["seg_steps"] > 0:
        return
    assert worker["heap_count"] == 0
    assert not _list(raw, w + state.POOLS, state.FILL)
    assert not _list(raw, w + state.POOLS, state.JOIN)
    if waiting:
        engine_of, request = raw.engines[worker["pool"]], raw.requests[waiting[0]]
        need = -(-int(request["prompt"]) // int(engine_of["block"]))
        full = worker["blocks"] + need > engine_of["capacity_blocks"]
        assert full or worker["seats"] >= engine_of["max_seqs"]


def same(a: Run, b: Run) -> None:
    """Bit for bit the same results."""
    for name in ("arrival", "isl", "osl", "hit", "ttft", "itl"):
        assert getattr(a, name).tobytes() == getattr(b, name).tobytes(), name
    for name in ("completed", "failed", "preempted", "prefilled_tokens", "generated_tokens", "events"):
        assert a.simulation.total(name) == b.simulation.total(name), name
    assert a.simulation.gpu_hours() == b.simulation.gpu_hours()


@QUICK
@given(cases(), st.lists(st.floats(0.1, 3000.0), max_size=12))
def test_requests_tokens_and_blocks_are_conserved(case: Case, cuts: list[float]) -> None:
    run = case.run(tuple(cuts))
    total = run.simulation.total
    assert total("arrived") == len(case.rows)
    assert total("completed") == len(run.ttft)
    assert total("generated_tokens") == run.osl.sum()
    if total("in_flight") == 0:
        raw = run.simulation.raw
        for name in ("blocks", "seats", "kv", "in_flight", "wait_count"):
            assert not raw.workers[name].any(), name
        assert run.simulation.exhausted
    else:
        # Only where a pool lost all its workers is anything left at the end.
        assert min(run.simulation.supply(role).ready for role in case.engines.roles) == 0
    if total("preempted") == 0 and total("in_flight") == 0:
        assert total("prefilled_tokens") == (run.isl - run.hit).sum()
    elif total("in_flight") == 0:
        assert total("prefilled_tokens") >= (run.isl - run.hit).sum()


@QUICK
@given(cases(moving=False))
def test_all_that_can_fit_completes(case: Case) -> None:
    run = case.run()
    capacity = [t.kv_capacity_tokens // t.block_size for t in case.engines.timing]
    size = case.engines.timing[0].block_size
    fits = [-(-isl // size) <= capacity[0] and -(-(isl + osl) // size) <= capacity[-1] for _, isl, osl, _ in case.rows]
    assert run.simulation.total("completed") == sum(fits)
    assert run.simulation.total("failed") == len(fits) - sum(fits)


@QUICK
@given(cases(), st.lists(st.floats(0.1, 3000.0), max_size=30), st.integers(1, 7))
def test_results_do_not_depend_on_when_time_is_cut_nor_on_chunks(case: Case, cuts: list[float], chunk: int) -> None:
    once = case.run()
    same(once, case.run())
    same(once, case.run(tuple(cuts)))
    same(once, case.run(chunk=chunk))
    same(once, case.run(tuple(cuts), chunk))


@QUICK
@given(cases(moving=False))
def test_no_request_beats_the_hardware(case: Case) -> None:
    run = case.run()
    first, last = case.engines.timing[0], case.engines.timing[-1]
    alone = first.prompt_ms(run.isl, run.hit)
    if first.max_num_batched_tokens < run.isl.sum():
        # A prompt that begins in what another left of the budget shares its fixed part, and goes on along its curve.
        alone = alone - first.prefill_ms[0]
    if case.engines.roles[0] == PREFILL:
        alone = alone + case.engines.transfer.at(run.isl)
        if run.simulation.total("preempted") == 0:
            alone = alone + last.iteration_ms(np.ones(len(run.isl)), run.isl)
    assert (run.ttft >= alone * (1 - 1e-9)).all()
    decoded = ~np.isnan(run.itl)
    assert (run.itl[decoded] >= last.floor_ms * (1 - 1e-9)).all()
    if run.simulation.total("preempted") == 0:
        step = last.iteration_ms(np.ones(len(run.isl)), run.isl)
        assert (run.itl[decoded] >= step[decoded] * (1 - 1e-9)).all()


@QUICK
@given(cases(moving=False), st.floats(1.5, 4.0))
def test_a_slower_engine_of_one_seat_is_slower_for_everyone(case: Case, factor: float) -> None:
    """Without batching there are no anomalies: every completion comes later, not only their mean."""
    timing = case.engines.timing[0]
    timing = replace(timing, max_num_seqs=1, decode_ms=timing.decode_ms[:2])
    slower = replace(
        timing,
        prefill_ms=timing.prefill_ms * factor,
        decode_ms=timing.decode_ms * factor,
        floor_ms=timing.floor_ms * factor,
    )
    quick = replace(case, engines=aggregated(timing), workers=1).run()
    slow = replace(case, engines=aggregated(slower), workers=1).run()
    assert (slow.end >= quick.end * (1 - 1e-9)).all()
