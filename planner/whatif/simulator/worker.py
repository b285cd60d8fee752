"""One worker: which requests run in its next iterations, how long these take, and what they leave behind.

A *segment* is a run of iterations over an unchanged batch. While nothing joins, nothing ends and no block runs out,
every iteration adds one token to each running request and the iteration time is linear in the KV tokens between two
nodes of the table; the time of k iterations is then an arithmetic series, and k of them cost as much as one. An
arrival cuts the segment at the next iteration boundary, so the result is that of stepping one by one.

Scheduling follows vLLM's V1 scheduler: running decodes first, then prefills in progress, then the waiting queue in
order of arrival, within max_num_batched_tokens, max_num_seqs and free KV blocks; when blocks run out the request
admitted last is preempted and recomputed. Unlike vLLM, a prompt's blocks are reserved whole at admission.

An engine that schedules ahead decides an iteration when the one before it begins: what comes to a busy worker is not
looked at until the iteration after that. Each request therefore carries the iteration from which it may be scheduled.
An iteration for which nothing was decided is decided when it begins.
"""

from __future__ import annotations

import math

from planner.whatif.simulator.compiled import kernel
from planner.whatif.simulator.heaps import (
    append,
    give_slot,
    heap_remove,
    pop,
    prepend,
    sift_up,
    start_transfer,
)
from planner.whatif.simulator.state import (
    ANY,
    DECODE,
    DRAINING,
    FILL,
    FIRST,
    FREE,
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
def blocks_for(tokens: int, block: int) -> int:
    """KV blocks that hold this many tokens."""
    return (tokens + block - 1) // block


@kernel
def linear_ms(s: Sim, pool: int, behind: int, tokens: float) -> float:
    """Prompt time without attention, by the tokens of the iteration, alone (0) or beside decodes (1)."""
    place = tokens / s.engines[pool].prefill_step
    last = s.prefill_ms.shape[2] - 2
    node = min(int(place), last)
    low = s.prefill_ms[pool, behind, node]
    return low + (s.prefill_ms[pool, behind, node + 1] - low) * min(place - node, 1.0)


@kernel
def transfer_ms(s: Sim, tokens: int) -> float:
    """Hand-off time of a prompt's KV."""
    place = tokens / s.totals[0].transfer_step
    node = min(int(place), s.transfer_ms.shape[0] - 2)
    low = s.transfer_ms[node]
    return low + (s.transfer_ms[node + 1] - low) * min(place - node, 1.0)


@kernel
def blocks_of_segment(s: Sim, w: int, steps: int) -> int:
    """New KV blocks that the running batch takes in its next `steps` iterations."""
    worker = s.workers[w]
    block = s.engines[worker.pool].block
    whole = steps // block
    need = whole * worker.heap_count
    iteration = worker.iteration + whole * block
    for j in range(steps - whole * block):
        need += s.phase[w, (iteration + j) % block]
    return need


@kernel
def join(s: Sim, w: int, slot: int, context: int) -> None:
    """Put a request with `context` KV tokens into the running batch."""
    worker = s.workers[w]
    s.requests[slot].context = context
    s.requests[slot].joined = worker.iteration
    block = s.engines[worker.pool].block
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
    block = s.engines[worker.pool].block
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
        s.engines[worker.pool].worker_ms += max(0.0, end - worker.born)


@kernel
def _requeue(s: Sim, w: int, slot: int) -> None:
    """Send a preempted request to the queue's front; what it had is recomputed, but for its prefix hit."""
    request = s.requests[slot]
    request.prompt = request.isl + request.generated
    request.computed = request.hit if request.generated == 0 else 0
    request.blocks = 0
    # The worker knows of it, whatever its hand-off still had to wait for.
    s.requests[slot].ready = s.workers[w].iteration
    prepend(s, w + POOLS, WAIT, slot)
    s.workers[w].wait_count += 1
    s.totals[0].preempted += 1


@kernel
def _last_admitted(s: Sim, w: int) -> int:
    """Place in the heap of the running request that was admitted last; the batch is not empty."""
    last, latest = 0, -1
    for place in range(s.workers[w].heap_count):
        sequence = s.requests[s.heap[w, place].slot].sequence
        if sequence > latest:
            last, latest = place, sequence
    return last


@kernel
def _preempt_running(s: Sim, w: int, place: int) -> None:
    """Preempt the running request at a place in the heap."""
    slot = s.heap[w, place].slot
    s.requests[slot].generated += s.workers[w].iteration - s.requests[slot].joined
    leave(s, w, place)
    _requeue(s, w, slot)


@kernel
def _preempt_held(s: Sim, w: int, slot: int) -> None:
    """Preempt a request that holds blocks but does not run yet."""
    worker = s.workers[w]
    worker.blocks -= s.requests[slot].blocks
    worker.seats -= 1
    _requeue(s, w, slot)


@kernel
def _free_blocks(s: Sim, w: int) -> None:
    """Preempt until the next iteration's new blocks fit, the last admitted first."""
    worker = s.workers[w]
    capacity = s.engines[worker.pool].capacity_blocks
    while worker.heap_count > 0 and worker.blocks + blocks_of_segment(s, w, 1) > capacity:
        last = _last_admitted(s, w)
        filling = s.lists[w + POOLS, FILL, HEAD]
        if filling != NONE and (
            worker.heap_count == 1 or s.requests[filling].sequence > s.requests[s.heap[w, last].slot].sequence
        ):
            _preempt_held(s, w, pop(s, w + POOLS, FILL))
        elif worker.heap_count == 1 and s.lists[w + POOLS, JOIN, HEAD] != NONE:
            _preempt_held(s, w, pop(s, w + POOLS, JOIN))
        else:
            # The last one goes too where only hand-offs under way hold the rest: it comes again when they run.
            _preempt_running(s, w, last)


@kernel
def _join_arrived(s: Sim, w: int, limit: int) -> None:
    """Take what has been handed over, and is ready by iteration `limit`, into the batch, as far as its blocks fit."""
    worker = s.workers[w]
    block, capacity = s.engines[DECODE].block, s.engines[DECODE].capacity_blocks
    while s.lists[w + POOLS, JOIN, HEAD] != NONE:
        slot = s.lists[w + POOLS, JOIN, HEAD]
        if s.requests[slot].ready > limit:
            return
        need = blocks_of_segment(s, w, 1) + (1 if s.requests[slot].isl % block == 0 else 0)
        fits = worker.blocks + need <= capacity
        if not fits and worker.heap_count > 0:
            return
        pop(s, w + POOLS, JOIN)
        if fits:
            join(s, w, slot, s.requests[slot].isl)
            prepend(s, w + POOLS, FRESH, slot)
        else:
            _preempt_held(s, w, slot)


@kernel
def admit_remote(s: Sim, w: int, now: float) -> None:
    """On a decode worker: reserve blocks for waiting hand-offs and start their transfers, in order."""
    worker = s.workers[w]
    block = s.engines[DECODE].block
    # What the running batch takes in this very iteration is no longer free.
    free = s.engines[DECODE].capacity_blocks - blocks_of_segment(s, w, 1)
    while s.lists[w + POOLS, WAIT, HEAD] != NONE:
        slot = s.lists[w + POOLS, WAIT, HEAD]
        if s.requests[slot].source == NONE:
            return  # preempted here: it is recomputed as a prompt
        need = blocks_for(s.requests[slot].isl, block)
        if worker.seats >= s.engines[DECODE].max_seqs or worker.blocks + need > free:
            return
        pop(s, w + POOLS, WAIT)
        worker.wait_count -= 1
        s.requests[slot].blocks = need
        worker.blocks += need
        worker.seats += 1
        s.requests[slot].sequence = s.totals[0].sequence
        s.totals[0].sequence += 1
        start_transfer(s, slot, now + transfer_ms(s, s.requests[slot].isl))


@kernel
def _schedule_prompts(s: Sim, w: int, budget: int, limit: int) -> float:
    """Fill the iteration's token budget with prompts that are ready by iteration `limit`; returns their time, or 0."""
    worker = s.workers[w]
    pool = worker.pool
    tokens, attention, before, first = 0, 0.0, 0, True
    slot = s.lists[w + POOLS, FILL, HEAD]
    # What the running batch takes in this very iteration is no longer free.
    free = s.engines[pool].capacity_blocks - blocks_of_segment(s, w, 1)
    while budget > 0:
        if slot == NONE:
            slot = s.lists[w + POOLS, WAIT, HEAD]
            if slot == NONE or s.requests[slot].source != NONE or s.requests[slot].ready > limit:
                break
            need = blocks_for(s.requests[slot].prompt, s.engines[pool].block)
            if worker.seats >= s.engines[pool].max_seqs or worker.blocks + need > free:
                break
            pop(s, w + POOLS, WAIT)
            worker.wait_count -= 1
            append(s, w + POOLS, FILL, slot)
            s.requests[slot].blocks = need
            worker.blocks += need
            worker.seats += 1
            s.requests[slot].sequence = s.totals[0].sequence
            s.totals[0].sequence += 1
        start = s.requests[slot].computed
        chunk = min(s.requests[slot].prompt - start, budget)
        cached = s.requests[slot].hit if s.requests[slot].generated == 0 else 0
        if first:
            # Only the first prompt can be in its second chunk or later; it goes on along its own curve.
            before = start - cached
            first = False
        attention += s.engines[pool].attention * (float(start + chunk) ** 2 - float(start) ** 2)
        s.requests[slot].chunk = chunk
        tokens += chunk
        budget -= chunk
        slot = s.requests[slot].next
    if tokens == 0:
        return 0.0
    linear = linear_ms(s, pool, 0, float(before + tokens))
    if before > 0:
        linear -= linear_ms(s, pool, 0, float(before))
    if worker.heap_count > 0:
        hidden = linear_ms(s, pool, 1, float(before + tokens))
        if before > 0:
            hidden -= linear_ms(s, pool, 1, float(before))
        # Launched while the last iteration ran, as far as that was long enough.
        linear = max(hidden, linear - worker.last_ms) if s.engines[pool].exposed else hidden
    return max(linear + attention, s.engines[pool].floor_ms)


@kernel
def _choose(s: Sim, w: int, now: float, limit: int) -> float:
    """Choose the next iteration from what is ready by iteration `limit`; returns the time of its prompts, or 0."""
    worker = s.workers[w]
    pool = worker.pool
    _free_blocks(s, w)
    if pool == DECODE:
        _join_arrived(s, w, limit)
        admit_remote(s, w, now)
    if s.lists[w + POOLS, FILL, HEAD] != NONE or s.lists[w + POOLS, WAIT, HEAD] != NONE:
        return _schedule_prompts(s, w, s.engines[pool].max_batched_tokens - worker.heap_count, limit)
    return 0.0


@kernel
def begin_segment(s: Sim, w: int, now: float) -> None:
    """Choose what runs next on worker w, from `now` on; without work the worker idles."""
    worker = s.workers[w]
    pool = worker.pool
    ahead = s.engines[pool].prompt_lag > 0
    prompts = _choose(s, w, now, worker.iteration if ahead else ANY)
    if ahead and worker.heap_count == 0 and prompts == 0.0:
        # Nothing was decided, so nothing runs by which what waits could be missed.
        prompts = _choose(s, w, now, ANY)
    running = worker.heap_count
    worker.seg_start = now
    if prompts > 0.0:
        if running > 0:
            prompts = _mixed_ms(s, pool, prompts, _decode_ms(s, w, pool, running), running)
        worker.seg_steps, worker.seg_first, worker.seg_growth = 1, prompts, 0.0
    elif running > 0:
        worker.seg_first = _decode_ms(s, w, pool, running)
        worker.seg_steps = 1 if s.lists[w + POOLS, FRESH, HEAD] != NONE else _segment_length(s, w, pool, running)
        place = min(int(worker.kv / s.engines[pool].kv_step), s.decode_ms.shape[2] - 2)
        rise = s.decode_ms[pool, running, place + 1] - s.decode_ms[pool, running, place]
        worker.seg_growth = rise / s.engines[pool].kv_step * running
    else:
        worker.seg_steps = 0
        worker.event = NEVER
        retire_if_empty(s, w, now)
        return
    worker.event = now + elapsed(s, w, worker.seg_steps)


@kernel
def _mixed_ms(s: Sim, pool: int, prompts: float, decode: float, running: int) -> float:
    """An iteration of prompts and decodes that take so long apart; never less than the decodes."""
    together = prompts + s.engines[pool].mixed_per_request * running + (decode - s.engines[pool].shared_ms)
    # Prompts take the floor at least, so that decodes alone can only be longer where more than the floor is saved.
    return max(together, decode) if s.engines[pool].shared_ms > s.engines[pool].floor_ms else together


@kernel
def _decode_ms(s: Sim, w: int, pool: int, running: int) -> float:
    place = s.workers[w].kv / s.engines[pool].kv_step
    node = min(int(place), s.decode_ms.shape[2] - 2)
    low = s.decode_ms[pool, running, node]
    return low + (s.decode_ms[pool, running, node + 1] - low) * min(place - node, 1.0)


@kernel
def _segment_length(s: Sim, w: int, pool: int, running: int) -> int:
    """Iterations until a request ends or becomes ready, a KV node is crossed or blocks might run out; at least 1."""
    worker = s.workers[w]
    steps = s.heap[w, 0].key - worker.iteration
    if s.engines[pool].prompt_lag > 0:
        for kind in (WAIT, JOIN):
            slot = s.lists[w + POOLS, kind, HEAD]
            if slot != NONE and s.requests[slot].ready > worker.iteration:
                steps = min(steps, s.requests[slot].ready - worker.iteration)
    node = int(worker.kv / s.engines[pool].kv_step) + 1
    if node < s.decode_ms.shape[2] - 1:
        steps = min(steps, int((node * s.engines[pool].kv_step - worker.kv) / running) + 1)
    # Every running request takes at most one block in `block` iterations.
    spare = (s.engines[pool].capacity_blocks - worker.blocks) // running
    return max(1, min(steps, spare * s.engines[pool].block))


@kernel
def elapsed(s: Sim, w: int, steps: int) -> float:
    """Time of the first `steps` iterations of the segment: an arithmetic series."""
    worker = s.workers[w]
    return worker.seg_first * steps + worker.seg_growth * (steps * (steps - 1) * 0.5)


@kernel
def reach(s: Sim, w: int, kind: int, slot: int, now: float) -> None:
    """A request comes to worker w, for its WAIT or its JOIN list."""
    worker = s.workers[w]
    s.requests[slot].ready = worker.iteration
    append(s, w + POOLS, kind, slot)
    if worker.seg_steps == 0:
        begin_segment(s, w, now)
        return
    cut_segment(s, w, now)
    lag = s.engines[worker.pool].prompt_lag if kind == WAIT else s.engines[worker.pool].join_lag
    s.requests[slot].ready = worker.iteration + worker.seg_steps + lag


@kernel
def cut_segment(s: Sim, w: int, now: float) -> None:
    """Something changed for worker w: end its segment at the first iteration boundary at or after `now`."""
    worker = s.workers[w]
    steps = worker.seg_steps
    if steps == 0:
        begin_segment(s, w, now)
        return
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
    pool = worker.pool
    while s.lists[w + POOLS, FILL, HEAD] != NONE:
        slot = s.lists[w + POOLS, FILL, HEAD]
        chunk = s.requests[slot].chunk
        s.requests[slot].computed += chunk
        s.requests[slot].chunk = 0
        s.totals[0].prefilled_tokens += chunk
        if s.requests[slot].computed < s.requests[slot].prompt:
            return  # the budget ended here: this one goes on, those behind it have not begun
        pop(s, w + POOLS, FILL)
        if pool == FIRST and s.totals[0].disaggregated == 1:
            # Its blocks stay here until the decode worker has fetched them.
            worker.seats -= 1
            worker.in_flight -= 1
            s.requests[slot].source = w
            s.requests[slot].source_blocks = s.requests[slot].blocks
            append(s, DECODE, WAIT, slot)
            continue
        if s.requests[slot].generated == 0:
            s.requests[slot].first = now
            s.requests[slot].streamed = s.engines[pool].stream_ms * decoded
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
            s.requests[slot].streamed = s.engines[worker.pool].stream_ms * decoded
    while worker.heap_count > 0 and s.heap[w, 0].key <= worker.iteration:
        slot = s.heap[w, 0].slot
        leave(s, w, 0)
        complete(s, w, slot, now)
    _end_prompts(s, w, now, decoded)
