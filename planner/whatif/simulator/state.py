"""The simulator's memory: flat arrays that the kernel reads and writes, and how they are laid out.

Times are milliseconds since the trace's start. A *slot* is a place for a request in flight; slots are reused, so memory
follows the requests in flight and not the length of the trace. A request sits in exactly one list at a time, linked
through `next`. Roles: pool 0 is prefill or aggregated, pool 1 is decode. Engines 0 and 1 are theirs; from 2 on come the
engines of other layouts, whose workers may be in a pool beside its own.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple, cast

import numpy as np
from numpy.typing import NDArray

from profiler.timing import EngineTiming, TransferTiming

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]
#: A structured array; the kernel reads its fields as attributes of its elements.
Records = NDArray[np.record]

NEVER = np.inf
NONE = -1

# Pools.
FIRST, DECODE = 0, 1

# Life of a worker. FREE is a place without a worker.
FREE, STARTING, READY, DRAINING = 0, 1, 2, 3

# Gateway routing.
ROUND_ROBIN, LEAST_LOADED = 0, 1

# Why `advance` returned.
REACHED, NEED_ARRIVALS, NEED_SLOTS, OUTPUT_FULL = 0, 1, 2, 3

# Lists of requests. Owners 0 and 1 are the gateway's pools (WAIT only: no worker was ready); worker w is owner w +
# POOLS.
POOLS = 2
WAIT, FILL, JOIN, FRESH = 0, 1, 2, 3
HEAD, TAIL = 0, 1

#: Whole seconds of arrival counts kept for the index of dispersion; longer than any tick interval in use.
SECONDS = 4096

#: Whole iterations that pass on a busy worker which schedules ahead: the one that is decided when a prompt comes; for a
#: hand-off also the one in which the worker looks for finished transfers, and the one that is decided by its end.
PROMPT_LAG, JOIN_LAG = 1, 3
#: Beyond every iteration number: whatever waits may be scheduled.
ANY = 2**62


def _fields(integers: str, floats: str = "") -> np.dtype[np.void]:
    return np.dtype([(name, np.int64) for name in integers.split()] + [(name, np.float64) for name in floats.split()])


#: One per engine. `cursor`, `routing` and `most_tokens` are of the pool of the same number: where the gateway's next
#: choice starts, how it chooses, and the longest request that every worker can hold; `worker_ms` is the time of workers
#: that are gone;
#: `attention` is in ms per token^2, `floor_ms` the iteration at batch 1 without KV, `shared_ms` what a mixed iteration
#: saves and `mixed_per_request` what it adds for each request that decodes, `front_*` the TTFT outside the loop in ms
#: and in ms per prompt token, `stream_ms` that for each decode beside the first token, `*_step` the tokens between
#: nodes. `exposed`: what of a launch the iteration before it does not hide comes on top.
#: `*_lag`: whole iterations that a prompt and a hand-off wait on a busy worker, beside the rest of the running one.
ENGINE = _fields(
    "max_batched_tokens max_seqs capacity_blocks block routing cursor most_tokens prompt_lag join_lag exposed",
    "prefill_step kv_step attention floor_ms shared_ms mixed_per_request front_ms front_per_token stream_ms worker_ms",
)

#: One in all. `window_ms`: worker time is counted up to here, the last arrival; infinite until that is known.
TOTALS = _fields(
    "disaggregated arrived completed failed in_flight free_slot next_arrival out transfers preempted sequence"
    " prefilled_tokens generated_tokens workers events",
    "clock window_ms transfer_step",
)

#: A request in flight. `prompt`: tokens to prefill, isl or isl + generated after a preemption; `computed` of them, hits
#: included; `chunk`: of them in the running iteration; `blocks`: held on its worker at admission; `source`: the prefill
#: worker that still holds `source_blocks` for it; `context`, `joined`: KV tokens and iteration when it joined the
#: batch; `sequence`: order of admission; `ready`: iteration of its worker from which it may be scheduled; `streamed`:
#: ms that its first token waits in the front end for those of the decodes beside it.
REQUEST = _fields(
    "isl osl hit prompt computed chunk generated blocks source source_blocks worker context joined sequence ready next",
    "arrival first streamed",
)

#: A worker. `event`: end of its segment, or when it is ready; `kv`: KV tokens of the running batch at the segment's
#: start; `seats`: of max_num_seqs taken by running, prefilling, joining and requests in transfer; `in_flight`: what a
#: least-loaded gateway sees; `seg_*`: iterations, ms of the first and ms more with each further one; `last_ms`: of the
#: iteration that ended last; `posted`: ms of the next iteration for hand-offs that begin with it.
WORKER = _fields(
    "pool engine state iteration kv blocks seats in_flight wait_count heap_count seg_steps",
    "event born seg_start seg_first seg_growth last_ms posted",
)

#: A place in a heap: iteration number or time, and the request.
TURN = _fields("key slot")
TRANSFER = np.dtype([("key", np.float64), ("slot", np.int64)])

#: A finished request; `itl` is not a number for a single output token.
FINISHED = _fields("isl osl hit", "arrival ttft itl")


class Sim(NamedTuple):
    """All state of one simulation. Shapes: E engines, S slots, W workers, B = max_num_seqs + 1, N and K table nodes."""

    engines: Records  # (E,) ENGINE
    prefill_ms: Floats  # (E, 2, N) prompt time without attention at multiples of the step: alone, and beside decodes
    decode_ms: Floats  # (E, B, K) iteration time by running batch and KV node
    transfer_ms: Floats  # (N',) hand-off time at multiples of the transfer step
    post_ms: Floats  # (N'',) by how much the decode iteration with which it begins is longer, at the same steps
    totals: Records  # (1,) TOTALS
    per_second: Ints  # (SECONDS,) arrivals
    requests: Records  # (S,) REQUEST
    workers: Records  # (W,) WORKER
    lists: Ints  # (2 + W, 4, 2) heads and tails
    heap: Records  # (W, B) TURN: the running batch by the iteration number at which each request ends
    phase: Ints  # (W, largest block) running requests by the iteration residue at which they need a new block
    transfers: Records  # (S,) TRANSFER, a heap by end time
    out: Records  # FINISHED, taken out by the caller


def _prefill_table(timing: EngineTiming, nodes: int) -> Floats:
    both = np.stack([timing.prefill_ms, timing.behind_ms])
    table = np.repeat(both[:, -1:], nodes, axis=1)
    table[:, : both.shape[1]] = both
    return table


def _decode_table(timing: EngineTiming, batches: int, nodes: int) -> Floats:
    have_b, have_k = timing.decode_ms.shape
    table = np.empty((batches, nodes))
    table[:have_b, :have_k] = timing.decode_ms
    table[have_b:, :have_k] = timing.decode_ms[-1]
    table[:, have_k:] = table[:, have_k - 1 : have_k]
    return table


def new_sim(
    engines: tuple[EngineTiming, EngineTiming | None],
    transfer: TransferTiming,
    routing: int,
    *,
    others: Sequence[tuple[int, EngineTiming]] = (),
    slots: int = 4096,
    workers: int = 64,
    output: int = 16384,
) -> Sim:
    """An empty simulation of an aggregated graph (one engine) or a disaggregated one (prefill, decode).

    Args:
        engines: of the two pools.
        transfer: between them.
        routing: of the gateway.
        others: pool and timing of workers of other layouts; the first one is engine 2.
        slots: requests in flight at first.
        workers: at first.
        output: finished requests that are kept until they are taken out.
    """
    pair = (engines[0], engines[1] or engines[0], *(timing for _, timing in others))
    pool_of = (FIRST, DECODE, *(pool for pool, _ in others))
    batches = max(e.max_num_seqs for e in pair) + 1
    kv_nodes = max(e.decode_ms.shape[1] for e in pair)
    fill_nodes = max(len(e.prefill_ms) for e in pair)
    engine = np.zeros(len(pair), dtype=ENGINE)
    for row, e in zip(engine, pair, strict=True):
        row["max_batched_tokens"], row["max_seqs"] = e.max_num_batched_tokens, e.max_num_seqs
        row["capacity_blocks"], row["block"] = e.kv_capacity_tokens // e.block_size, e.block_size
        row["prefill_step"], row["kv_step"] = e.prefill_step_tokens, e.kv_step_tokens
        row["attention"], row["floor_ms"], row["routing"] = e.attention_ms_per_token2, e.floor_ms, routing
        row["shared_ms"], row["front_ms"], row["front_per_token"] = e.shared_ms, e.front_ms, e.front_ms_per_token
        row["mixed_per_request"], row["exposed"], row["stream_ms"] = e.mixed_ms_per_request, e.exposed, e.stream_ms
        row["prompt_lag"], row["join_lag"] = (PROMPT_LAG, JOIN_LAG) if e.ahead else (0, 0)
    held = engine["capacity_blocks"] * engine["block"]
    for pool in (FIRST, DECODE):
        engine["most_tokens"][pool] = min(tokens for of, tokens in zip(pool_of, held, strict=True) if of == pool)
    totals = np.zeros(1, dtype=TOTALS)
    totals["disaggregated"] = int(engines[1] is not None)
    totals["window_ms"] = np.inf
    totals["transfer_step"] = transfer.step_tokens
    sim = Sim(
        engines=_records(engine),
        prefill_ms=np.stack([_prefill_table(e, fill_nodes) for e in pair]),
        decode_ms=np.stack([_decode_table(e, batches, kv_nodes) for e in pair]),
        transfer_ms=transfer.transfer_ms.astype(np.float64),
        post_ms=transfer.post_ms.astype(np.float64),
        totals=_records(totals),
        per_second=np.zeros(SECONDS, dtype=np.int64),
        requests=_records(np.zeros(slots, dtype=REQUEST)),
        workers=_records(np.zeros(workers, dtype=WORKER)),
        lists=np.full((POOLS + workers, 4, 2), NONE, dtype=np.int64),
        heap=_records(np.zeros((workers, batches), dtype=TURN)),
        phase=np.zeros((workers, max(e.block_size for e in pair)), dtype=np.int64),
        transfers=_records(np.zeros(slots, dtype=TRANSFER)),
        out=_records(np.zeros(max(output, 2 * batches), dtype=FINISHED)),
    )
    _chain_free(sim.requests, 0, NONE)
    sim.workers["event"] = NEVER
    return sim


def emptied(sim: Sim, *, slots: int = 4096) -> Sim:
    """An empty simulation of the same engines, routing and worker places; it shares the tables, which no one writes."""

    def zeros(array: NDArray[Any]) -> NDArray[Any]:
        # Not zeros_like: it writes every page at once, and most of them are never used.
        return np.zeros(array.shape, dtype=array.dtype)

    engines, totals = sim.engines.copy(), zeros(sim.totals)
    engines["cursor"] = engines["worker_ms"] = 0
    totals["disaggregated"], totals["transfer_step"] = sim.totals["disaggregated"], sim.totals["transfer_step"]
    totals["window_ms"] = np.inf
    new = sim._replace(
        engines=engines,
        totals=totals,
        per_second=zeros(sim.per_second),
        requests=_records(np.zeros(slots, dtype=REQUEST)),
        workers=zeros(sim.workers),
        lists=np.full_like(sim.lists, NONE),
        heap=zeros(sim.heap),
        phase=zeros(sim.phase),
        transfers=_records(np.zeros(slots, dtype=TRANSFER)),
        out=zeros(sim.out),
    )
    _chain_free(new.requests, 0, NONE)
    new.workers["event"] = NEVER
    return new


def _records(array: NDArray[np.void]) -> Records:
    """A structured array under the type that lets the kernel's fields pass the type checker."""
    return cast("Records", array)


def _chain_free(requests: Records, first: int, after: int) -> None:
    """Link the slots from `first` on into the list of free ones, and `after` behind them."""
    requests["next"][first:] = np.arange(first + 1, len(requests) + 1)
    requests["next"][-1] = after


def _grown(array: NDArray[Any], length: int) -> NDArray[Any]:
    more = np.zeros((length - len(array), *array.shape[1:]), dtype=array.dtype)
    return np.concatenate([array, more])


def with_more_slots(sim: Sim) -> Sim:
    """The same simulation with twice the request slots; called when none is free."""
    old = len(sim.requests)
    requests = _grown(sim.requests, 2 * old)
    _chain_free(requests, old, int(sim.totals["free_slot"][0]))
    sim.totals["free_slot"] = old
    return sim._replace(requests=requests, transfers=_grown(sim.transfers, 2 * old))


def with_more_workers(sim: Sim) -> Sim:
    """The same simulation with twice the worker places."""
    old = len(sim.workers)
    workers = _grown(sim.workers, 2 * old)
    workers["event"][old:] = NEVER
    lists = _grown(sim.lists, POOLS + 2 * old)
    lists[POOLS + old :] = NONE
    return sim._replace(workers=workers, lists=lists, heap=_grown(sim.heap, 2 * old), phase=_grown(sim.phase, 2 * old))
