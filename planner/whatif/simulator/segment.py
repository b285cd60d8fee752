"""Segments: how long a worker runs on without a new decision, and what it leaves behind.

A *segment* is a run of iterations over an unchanged batch. While nothing joins, nothing ends and no block runs out,
every iteration adds one token to each running request and the iteration time is linear in the KV tokens between two
nodes of the table; the time of k iterations is then an arithmetic series, and k of them cost as much as one. An
arrival cuts the segment at the next iteration boundary, so the result is that of stepping one by one.

An engine that schedules ahead decides an iteration when the one before it begins: what comes to a busy worker is not
looked at until the iteration after that. Each request therefore carries the iteration from which it may be scheduled.
An iteration for which nothing was decided is decided when it begins.
"""

from __future__ import annotations

import math

from planner.whatif.simulator.batch import blocks_of_segment, complete, join, leave, retire_if_empty
from planner.whatif.simulator.compiled import kernel
from planner.whatif.simulator.durations import decode_ms, mixed_ms
from planner.whatif.simulator.heaps import append, pop
from planner.whatif.simulator.schedule import choose
from planner.whatif.simulator.state import (
    ANY,
    DECODE,
    FILL,
    FIRST,
    FRESH,
    HEAD,
    JOIN,
    NEVER,
    NONE,
    POOLS,
    WAIT,
    Sim,
)


@kernel
def begin_segment(s: Sim, w: int, now: float) -> None:
    """Choose what runs next on worker w, from `now` on; without work the worker idles."""
    worker = s.workers[w]
    engine = worker.engine
    ahead = s.engines[engine].prompt_lag > 0
    worker.posted = 0.0
    limit = worker.iteration if ahead else ANY
    while True:
        prompts = choose(s, w, now, limit)
        if limit == ANY or worker.heap_count > 0 or prompts > 0.0:
            break
        # Nothing was decided, so nothing runs by which what waits could be missed.
        limit = ANY
    running = worker.heap_count
    worker.seg_start = now
    if prompts > 0.0:
        if running > 0:
            prompts = mixed_ms(s, engine, prompts, decode_ms(s, w, engine, running), running)
        worker.seg_steps, worker.seg_first, worker.seg_growth = 1, prompts + worker.posted, 0.0
    elif running > 0:
        worker.seg_first = decode_ms(s, w, engine, running) + worker.posted
        alone = s.lists[w + POOLS, FRESH, HEAD] != NONE or worker.posted > 0.0
        worker.seg_steps = 1 if alone else _segment_length(s, w, engine, running)
        place = min(int(worker.kv / s.engines[engine].kv_step), s.decode_ms.shape[2] - 2)
        rise = s.decode_ms[engine, running, place + 1] - s.decode_ms[engine, running, place]
        worker.seg_growth = rise / s.engines[engine].kv_step * running
    else:
        worker.seg_steps = 0
        worker.event = NEVER
        retire_if_empty(s, w, now)
        return
    worker.event = now + elapsed(s, w, worker.seg_steps)


@kernel
def _segment_length(s: Sim, w: int, engine: int, running: int) -> int:
    """Iterations until a request ends or becomes ready, a KV node is crossed or blocks might run out; at least 1."""
    worker = s.workers[w]
    steps = s.heap[w, 0].key - worker.iteration
    if s.engines[engine].prompt_lag > 0:
        for kind in (WAIT, JOIN):
            slot = s.lists[w + POOLS, kind, HEAD]
            if slot != NONE and s.requests[slot].ready > worker.iteration:
                steps = min(steps, s.requests[slot].ready - worker.iteration)
    node = int(worker.kv / s.engines[engine].kv_step) + 1
    if node < s.decode_ms.shape[2] - 1:
        steps = min(steps, int((node * s.engines[engine].kv_step - worker.kv) / running) + 1)
    # Every running request takes at most one block in `block` iterations.
    spare = (s.engines[engine].capacity_blocks - worker.blocks) // running
    return max(1, min(steps, spare * s.engines[engine].block))


@kernel
def elapsed(s: Sim, w: int, steps: int) -> float:
    """Time of the first `steps` iterations of the segment: an arithmetic series."""
    worker = s.workers[w]
    return worker.seg_first * steps + worker.seg_growth * (steps * (steps - 1) * 0.5)


@kernel
def reach(s: Sim, w: int, kind: int, slot: int, now: float) -> bool:
    """A request comes to worker w, for its WAIT or its JOIN list; whether the worker idles and must begin now."""
    worker = s.workers[w]
    s.requests[slot].ready = worker.iteration
    append(s, w + POOLS, kind, slot)
    if worker.seg_steps == 0:
        return True
    cut_segment(s, w, now)
    lag = s.engines[worker.engine].prompt_lag if kind == WAIT else s.engines[worker.engine].join_lag
    s.requests[slot].ready = worker.iteration + worker.seg_steps + lag
    return False


@kernel
def cut_segment(s: Sim, w: int, now: float) -> None:
    """Something changed for worker w, which is busy: end its segment at the first boundary at or after `now`."""
    worker = s.workers[w]
    steps = worker.seg_steps
    if steps == 1:
        return
    target = now - worker.seg_start
    half = 0.5 * worker.seg_growth
    linear = worker.seg_first - half
    if half > 0.0:
        guess = int((math.sqrt(linear * linear + 4.0 * half * max(target, 0.0)) - linear) / (2.0 * half))
    else:
        guess = int(target / linear)
    guess = max(1, min(guess, steps))
    while guess > 1 and elapsed(s, w, guess - 1) >= target:
        guess -= 1
    while guess < steps and elapsed(s, w, guess) < target:
        guess += 1
    worker.seg_steps = guess
    worker.event = worker.seg_start + elapsed(s, w, guess)


@kernel
def _end_prompts(s: Sim, w: int, now: float, decoded: int) -> None:
    """Book the prompt chunks of the iteration that ended beside so many decodes; move on the prompts that are whole."""
    worker = s.workers[w]
    while s.lists[w + POOLS, FILL, HEAD] != NONE:
        slot = s.lists[w + POOLS, FILL, HEAD]
        chunk = s.requests[slot].chunk
        s.requests[slot].computed += chunk
        s.requests[slot].chunk = 0
        s.totals[0].prefilled_tokens += chunk
        if s.requests[slot].computed < s.requests[slot].prompt:
            return  # the budget ended here: this one goes on, those behind it have not begun
        pop(s, w + POOLS, FILL)
        if worker.pool == FIRST and s.totals[0].disaggregated == 1:
            # Its blocks stay here until the decode worker has fetched them.
            worker.seats -= 1
            worker.in_flight -= 1
            s.requests[slot].source = w
            s.requests[slot].source_blocks = s.requests[slot].blocks
            append(s, DECODE, WAIT, slot)
            continue
        if s.requests[slot].generated == 0:
            s.requests[slot].first = now
            s.requests[slot].streamed = s.engines[worker.engine].stream_ms * decoded
        s.requests[slot].generated += 1
        if s.requests[slot].generated >= s.requests[slot].osl:
            worker.seats -= 1
            worker.blocks -= s.requests[slot].blocks
            complete(s, w, slot, now)
        else:
            join(s, w, slot, s.requests[slot].prompt)


@kernel
def end_segment(s: Sim, w: int, now: float) -> None:
    """Book the iterations that worker w has just ended. Prompts that are done wait in the decode pool's list."""
    worker = s.workers[w]
    steps = worker.seg_steps
    worker.last_ms = worker.seg_first + worker.seg_growth * (steps - 1)
    worker.blocks += blocks_of_segment(s, w, steps)
    decoded = worker.heap_count
    worker.kv += decoded * steps
    worker.iteration += steps
    worker.seg_steps = 0
    while s.lists[w + POOLS, FRESH, HEAD] != NONE:
        slot = pop(s, w + POOLS, FRESH)
        if s.requests[slot].first < 0.0:
            s.requests[slot].first = now
            s.requests[slot].streamed = s.engines[worker.engine].stream_ms * decoded
    while worker.heap_count > 0 and s.heap[w, 0].key <= worker.iteration:
        slot = s.heap[w, 0].slot
        leave(s, w, 0)
        complete(s, w, slot, now)
    _end_prompts(s, w, now, decoded)
