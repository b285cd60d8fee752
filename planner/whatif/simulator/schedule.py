"""What a worker's next iteration holds: prompts, decodes, what was handed over, and who gives way when blocks run out.

Scheduling follows vLLM's V1 scheduler: running decodes first, then prefills in progress, then the waiting queue in
order of arrival, within max_num_batched_tokens, max_num_seqs and free KV blocks; when blocks run out the request
admitted last is preempted and recomputed. Unlike vLLM, a prompt's blocks are reserved whole at admission.

A decode worker that begins a hand-off posts its copies before it launches the iteration, which is longer by that. On
an idle worker no iteration waits for it; the hand-off's own time holds it in either case.
"""

from __future__ import annotations

from planner.whatif.simulator.batch import blocks_for, blocks_of_segment, join, leave
from planner.whatif.simulator.compiled import kernel
from planner.whatif.simulator.durations import hand_off_ms, linear_ms
from planner.whatif.simulator.heaps import append, pop, prepend, start_transfer
from planner.whatif.simulator.state import DECODE, FILL, FRESH, HEAD, JOIN, NONE, POOLS, WAIT, Sim


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
    capacity = s.engines[worker.engine].capacity_blocks
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
    if s.lists[w + POOLS, WAIT, HEAD] == NONE:
        return
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
        start_transfer(s, slot, now + hand_off_ms(s, s.transfer_ms, s.requests[slot].isl))
        worker.posted += hand_off_ms(s, s.post_ms, s.requests[slot].isl)


@kernel
def _schedule_prompts(s: Sim, w: int, budget: int, limit: int) -> float:
    """Fill the iteration's token budget with prompts that are ready by iteration `limit`; returns their time, or 0."""
    worker = s.workers[w]
    engine = worker.engine
    tokens, attention, before, first = 0, 0.0, 0, True
    slot = s.lists[w + POOLS, FILL, HEAD]
    # What the running batch takes in this very iteration is no longer free.
    free = s.engines[engine].capacity_blocks - blocks_of_segment(s, w, 1)
    while budget > 0:
        if slot == NONE:
            slot = s.lists[w + POOLS, WAIT, HEAD]
            if slot == NONE or s.requests[slot].source != NONE or s.requests[slot].ready > limit:
                break
            need = blocks_for(s.requests[slot].prompt, s.engines[engine].block)
            if worker.seats >= s.engines[engine].max_seqs or worker.blocks + need > free:
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
        attention += s.engines[engine].attention * (float(start + chunk) ** 2 - float(start) ** 2)
        s.requests[slot].chunk = chunk
        tokens += chunk
        budget -= chunk
        slot = s.requests[slot].next
    if tokens == 0:
        return 0.0
    linear = linear_ms(s, engine, 0, float(before + tokens))
    if before > 0:
        linear -= linear_ms(s, engine, 0, float(before))
    if worker.heap_count > 0:
        hidden = linear_ms(s, engine, 1, float(before + tokens))
        if before > 0:
            hidden -= linear_ms(s, engine, 1, float(before))
        # Launched while the last iteration ran, as far as that was long enough.
        linear = max(hidden, linear - worker.last_ms) if s.engines[engine].exposed else hidden
    return max(linear + attention, s.engines[engine].floor_ms)


@kernel
def choose(s: Sim, w: int, now: float, limit: int) -> float:
    """Choose the next iteration from what is ready by iteration `limit`; returns the time of its prompts, or 0."""
    worker = s.workers[w]
    _free_blocks(s, w)
    if worker.pool == DECODE:
        _join_arrived(s, w, limit)
        admit_remote(s, w, now)
    if s.lists[w + POOLS, FILL, HEAD] != NONE or s.lists[w + POOLS, WAIT, HEAD] != NONE:
        return _schedule_prompts(s, w, s.engines[worker.engine].max_batched_tokens - worker.heap_count, limit)
    return 0.0
