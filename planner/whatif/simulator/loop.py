"""The event loop: arrivals, iteration ends and hand-offs in order of time, and the gateway between them."""

from __future__ import annotations

from planner.whatif.simulator.batch import retire_if_empty
from planner.whatif.simulator.compiled import entry, kernel
from planner.whatif.simulator.heaps import append, end_transfer, pop, take_slot
from planner.whatif.simulator.segment import begin_segment, cut_segment, end_segment, reach
from planner.whatif.simulator.state import (
    DECODE,
    FIRST,
    HEAD,
    JOIN,
    LEAST_LOADED,
    NEED_ARRIVALS,
    NEED_SLOTS,
    NEVER,
    NONE,
    OUTPUT_FULL,
    POOLS,
    REACHED,
    READY,
    SECONDS,
    STARTING,
    WAIT,
    Floats,
    Ints,
    Sim,
)


@kernel
def _pick_worker(s: Sim, pool: int) -> int:
    """The gateway's choice among the pool's ready workers; NONE when there is none."""
    count = s.totals[0].workers
    cursor = s.engines[pool].cursor
    best, least = NONE, 0
    for step in range(count):
        w = cursor + step
        if w >= count:
            w -= count
        if s.workers[w].state != READY or s.workers[w].pool != pool:
            continue
        if s.engines[pool].routing != LEAST_LOADED:
            best = w
            break
        if best == NONE or s.workers[w].in_flight < least:
            best, least = w, s.workers[w].in_flight
            if least == 0:
                break
    if best != NONE:
        s.engines[pool].cursor = best + 1 if best + 1 < count else 0
    return best


@kernel
def _dispatch(s: Sim, pool: int, w: int, now: float) -> bool:
    """Hand the first of the pool's waiting requests to worker w; whether the worker idles and must begin now."""
    slot = pop(s, pool, WAIT)
    s.requests[slot].worker = w
    s.workers[w].in_flight += 1
    s.workers[w].wait_count += 1
    return reach(s, w, WAIT, slot, now)


@kernel
def _arrive(s: Sim, now: float, isl: int, osl: int, hit: int) -> None:
    """A request reaches the gateway; one that no worker could ever hold is refused."""
    s.totals[0].arrived += 1
    s.per_second[int(now / 1000.0) % SECONDS] += 1
    pool = DECODE if s.totals[0].disaggregated == 1 else FIRST
    if isl + osl > s.engines[pool].most_tokens or isl > s.engines[FIRST].most_tokens:
        s.totals[0].failed += 1
        return
    slot = take_slot(s)
    s.requests[slot].arrival = now
    s.requests[slot].first = -1.0
    s.requests[slot].streamed = 0.0
    s.requests[slot].isl, s.requests[slot].osl, s.requests[slot].hit = isl, osl, hit
    s.requests[slot].prompt = isl
    s.requests[slot].computed = hit
    s.requests[slot].chunk = 0
    s.requests[slot].generated = 0
    s.requests[slot].blocks = 0
    s.requests[slot].source = NONE
    append(s, FIRST, WAIT, slot)


@kernel
def _release_source(s: Sim, slot: int, now: float) -> int:
    """A hand-off ended: the prefill worker's blocks are free; that worker if it idles and must begin now, else NONE."""
    source = s.requests[slot].source
    s.requests[slot].source = NONE
    s.workers[source].blocks -= s.requests[slot].source_blocks
    if s.lists[source + POOLS, WAIT, HEAD] != NONE:
        if s.workers[source].seg_steps == 0:
            return source
        cut_segment(s, source, now)
    else:
        retire_if_empty(s, source, now)
    return NONE


@entry
def retire(s: Sim, w: int, now: float) -> None:
    """End worker w if it drains and holds nothing more."""
    retire_if_empty(s, w, now)


@entry
def advance(s: Sim, until_ms: float, arrival: Floats, isl: Ints, osl: Ints, hit: Ints, last_chunk: bool) -> int:
    """Run to `until_ms`, or until the caller is needed.

    Args:
        s: the simulation.
        until_ms: events up to and including this time are carried out.
        arrival: ms, ascending; with isl, osl and hit the current chunk of the trace, shape (n,).
        isl: prompt tokens.
        osl: output tokens.
        hit: prompt tokens found in the prefix cache, less than isl.
        last_chunk: no arrivals follow this chunk.

    Returns:
        REACHED, or what the caller must mend before it calls again: NEED_ARRIVALS, NEED_SLOTS, OUTPUT_FULL.
    """
    chunk = len(arrival)
    # One event completes at most one batch.
    room = len(s.out) - s.heap.shape[1]
    # What the event at hand leaves to do before the next: a worker that idles and has work, a second one, and a pool
    # whose waiting requests may be handed out. Each is done in one place of this loop, as every call is inlined.
    idle, second, waiting, now = NONE, NONE, NONE, 0.0
    while True:
        if idle != NONE:
            begin_segment(s, idle, now)
            idle, second = second, NONE
            continue
        if waiting != NONE:
            w = _pick_worker(s, waiting) if s.lists[waiting, WAIT, HEAD] != NONE else NONE
            if w == NONE:
                waiting = NONE
            elif _dispatch(s, waiting, w, now):
                idle = w
            continue
        following = s.totals[0].next_arrival
        if following >= chunk and not last_chunk:
            return NEED_ARRIVALS
        if s.totals[0].free_slot == NONE:
            return NEED_SLOTS
        if s.totals[0].out >= room:
            return OUTPUT_FULL
        now, w = NEVER, NONE
        for candidate in range(s.totals[0].workers):
            if s.workers[candidate].event < now:
                now, w = s.workers[candidate].event, candidate
        kind = 0
        if s.totals[0].transfers > 0 and s.transfers[0].key < now:
            now, kind = s.transfers[0].key, 1
        if following < chunk and arrival[following] < now:
            now, kind = arrival[following], 2
        if now > until_ms or now == NEVER:
            s.totals[0].clock = until_ms
            return REACHED
        s.totals[0].clock = now
        s.totals[0].events += 1
        if kind == 2:
            s.totals[0].next_arrival = following + 1
            _arrive(s, now, isl[following], osl[following], hit[following])
            waiting = FIRST
        elif kind == 1:
            slot = end_transfer(s)
            idle = _release_source(s, slot, now)
            if reach(s, s.requests[slot].worker, JOIN, slot, now):
                idle, second = s.requests[slot].worker, idle
        elif s.workers[w].state == STARTING:
            s.workers[w].state = READY
            s.workers[w].event = NEVER
            waiting = s.workers[w].pool
        else:
            end_segment(s, w, now)
            idle, waiting = w, DECODE
