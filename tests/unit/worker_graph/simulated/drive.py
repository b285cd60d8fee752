"""Schedulers driven at exact times, without HTTP: one worker, or a prefill worker in front of a decode worker."""

from __future__ import annotations

import heapq
import math
from collections.abc import Iterable, Sequence

from profiler.timing import EngineTiming, TransferTiming
from tests.engines import transfer
from worker_graph.simulated.request import Event, Iterations, Kind, Request
from worker_graph.simulated.scheduler import Scheduler
from worker_graph.simulated.timing import WorkerTiming

#: arrival in ms, ISL, OSL.
Row = tuple[float, int, int]


def worker(timing: EngineTiming, handoff: TransferTiming | None = None, *, hold_ms: float = math.inf) -> Scheduler:
    return Scheduler(WorkerTiming.of(timing, handoff or transfer(), role="aggregated"), hold_ms=hold_ms)


def serve(scheduler: Scheduler, requests: Iterable[tuple[float, Request]]) -> list[Event | Iterations]:
    """Submit each request at its time and run to the end; the blocks are counted at every event."""
    events: list[Event | Iterations] = []
    coming = sorted(requests, key=lambda pair: pair[0])
    while True:
        now = min(scheduler.next_event_ms(), coming[0][0] if coming else math.inf)
        if now == math.inf:
            return [*events, *scheduler.advance(now if math.isfinite(now) else 1e18)]
        if coming and coming[0][0] <= now:
            scheduler.submit(coming.pop(0)[1], now)
        events += scheduler.advance(now)
        assert 0 <= scheduler.blocks <= scheduler.limits.capacity_blocks


def chain(
    prefill: Sequence[Scheduler], decode: Sequence[Scheduler], rows: Iterable[Row]
) -> list[tuple[Request, Request]]:
    """A disaggregated graph without a network: least loaded workers, hand-offs at the instant of the last prompt token.

    Returns the prefill and the decode side of each request, in order of arrival.
    """
    pairs: list[tuple[Request, Request]] = []
    coming = list(rows)
    coming.reverse()
    home: dict[Request, tuple[Scheduler, Request]] = {}
    load = dict.fromkeys([*prefill, *decode], 0)
    # Two requests may end at one time on two workers; the cursor goes round as the gateway's does.
    cursor = {id(prefill): 0, id(decode): 0}

    def pick(pool: Sequence[Scheduler]) -> Scheduler:
        start = cursor[id(pool)]
        order = [*range(start, len(pool)), *range(start)]
        best = min(order, key=lambda w: load[pool[w]])
        cursor[id(pool)] = (best + 1) % len(pool)
        load[pool[best]] += 1
        return pool[best]

    while True:
        due = [(s.next_event_ms(), n, s) for n, s in enumerate(load)]
        heapq.heapify(due)
        now, _, scheduler = due[0]
        if coming and coming[-1][0] < now:
            now, isl, osl = coming.pop()
            one = Request(isl, 1, name=str(len(pairs)), hand_off=True)
            two = Request(isl, osl, name=one.name, remote=True)
            scheduler = pick(prefill)
            home[two], home[one] = (scheduler, one), (scheduler, two)
            pairs.append((one, two))
            scheduler.submit(one, now)
        if now == math.inf:
            return pairs
        for event in scheduler.advance(now):
            if isinstance(event, Iterations):
                continue
            source, other = home[event.request]
            if event.kind is Kind.FINISHED:
                load[scheduler] -= 1
                if event.request.hand_off:
                    target = pick(decode)
                    target.submit(other, now)
            elif event.kind is Kind.ARRIVED:
                assert source.release(event.request.name, now)
