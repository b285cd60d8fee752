"""A worker's running batch: who joins, who leaves, which KV blocks they hold; and the worker that ends when empty."""

from __future__ import annotations

import math

from planner.whatif.simulator.compiled import kernel
from planner.whatif.simulator.heaps import give_slot, heap_remove, sift_up
from planner.whatif.simulator.state import DRAINING, FIRST, FREE, NEVER, Sim


@kernel
def blocks_for(tokens: int, block: int) -> int:
    """KV blocks that hold this many tokens."""
    return (tokens + block - 1) // block


@kernel
def blocks_of_segment(s: Sim, w: int, steps: int) -> int:
    """New KV blocks that the running batch takes in its next `steps` iterations."""
    worker = s.workers[w]
    block = s.engines[worker.engine].block
    whole = steps // block
    need = whole * worker.heap_count
    place = worker.iteration % block
    for _ in range(steps - whole * block):
        need += s.phase[w, place]
        place += 1
        if place == block:
            place = 0
    return need


@kernel
def join(s: Sim, w: int, slot: int, context: int) -> None:
    """Put a request with `context` KV tokens into the running batch."""
    worker = s.workers[w]
    s.requests[slot].context = context
    s.requests[slot].joined = worker.iteration
    block = s.engines[worker.engine].block
    s.phase[w, (worker.iteration - context) % block] += 1
    worker.kv += context
    count = worker.heap_count
    s.heap[w, count].key = worker.iteration + s.requests[slot].osl - s.requests[slot].generated
    s.heap[w, count].slot = slot
    worker.heap_count = count + 1
    sift_up(s.heap[w], count)


@kernel
def leave(s: Sim, w: int, place: int) -> int:
    """Take a request out of the running batch, its blocks and its seat with it; returns its KV tokens."""
    worker = s.workers[w]
    slot = s.heap[w, place].slot
    grown = worker.iteration - s.requests[slot].joined
    context = s.requests[slot].context + grown
    block = s.engines[worker.engine].block
    s.phase[w, (s.requests[slot].joined - s.requests[slot].context) % block] -= 1
    worker.kv -= context
    worker.blocks -= s.requests[slot].blocks + blocks_for(context, block) - blocks_for(s.requests[slot].context, block)
    worker.seats -= 1
    heap_remove(s.heap[w], place, worker.heap_count)
    worker.heap_count -= 1
    return context


@kernel
def complete(s: Sim, w: int, slot: int, now: float) -> None:
    """Write a finished request out and free its slot."""
    request = s.requests[slot]
    place = s.totals[0].out
    s.out[place].arrival = request.arrival
    s.out[place].isl = request.isl
    s.out[place].osl = request.osl
    s.out[place].hit = request.hit
    front = s.engines[FIRST].front_ms + s.engines[FIRST].front_per_token * request.isl
    s.out[place].ttft = request.first - request.arrival + (front + request.streamed)
    more = request.osl - 1
    s.out[place].itl = (now - request.first) / more if more > 0 else math.nan
    s.totals[0].out = place + 1
    s.totals[0].completed += 1
    s.totals[0].generated_tokens += request.osl
    s.workers[w].in_flight -= 1
    give_slot(s, slot)


@kernel
def retire_if_empty(s: Sim, w: int, now: float) -> None:
    """End a draining worker that holds nothing more; its GPU time stops here."""
    worker = s.workers[w]
    if worker.state == DRAINING and worker.in_flight == 0 and worker.blocks == 0:
        worker.state = FREE
        worker.event = NEVER
        end = min(now, s.totals[0].window_ms)
        s.engines[worker.engine].worker_ms += max(0.0, end - worker.born)
