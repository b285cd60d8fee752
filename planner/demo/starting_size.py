"""What one prefill and one decode worker would have made of the requests: the live engines' own scheduler, offline.

No routing is involved with one worker each, so two schedulers, one after the other, are the whole graph.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from pathlib import Path

from profiler.load import Outcome, Result, ScheduledRequest
from worker_graph.simulated.profiles import worker_timing
from worker_graph.simulated.request import Event, Kind, Request
from worker_graph.simulated.scheduler import Scheduler

#: As in a replay: what has not completed so long after the last arrival has failed.
GRACE_MS = 600_000.0


def replay_pair(requests: Sequence[ScheduledRequest], profiles: Path) -> list[Result]:
    """Results of the requests, in their order, on one prefill and one decode worker."""
    prefill = Scheduler(worker_timing("prefill", [profiles]))
    decode = Scheduler(worker_timing("decode", [profiles]))
    end_ms = requests[-1].at_s * 1000.0 + GRACE_MS if requests else 0.0
    numbers: dict[int, int] = {}
    second: dict[int, Request] = {}

    def hand_over(events: Iterable[object]) -> None:
        for event in events:
            if not isinstance(event, Event):
                continue
            if event.kind is Kind.FINISHED and id(event.request) in numbers:
                number = numbers[id(event.request)]
                second[number] = Request(event.request.isl, requests[number].osl, name=str(number), remote=True)
                decode.submit(second[number], event.at_ms)
            elif event.kind is Kind.ARRIVED:
                prefill.release(event.request.name, event.at_ms)

    first: list[Request] = []
    for number, request in enumerate([*requests, None]):
        until_ms = end_ms if request is None else request.at_s * 1000.0
        while True:
            due_ms = min(prefill.next_event_ms(), decode.next_event_ms())
            if due_ms > until_ms:
                break
            hand_over(prefill.advance(due_ms))
            hand_over(decode.advance(due_ms))
        if request is not None:
            one = Request(request.isl, 1, name=str(number), hand_off=True)
            numbers[id(one)] = number
            first.append(one)
            prefill.submit(one, until_ms)
    return [_result(one, first[number], second.get(number)) for number, one in enumerate(requests)]


def _result(asked: ScheduledRequest, prefilled: Request, decoded: Request | None) -> Result:
    if decoded is None or math.isnan(decoded.end_ms):
        return Result(asked.at_s, asked.isl, asked.osl, Outcome.TIMEOUT, error="unfinished")
    steps = asked.osl - 1
    return Result(
        asked.at_s,
        asked.isl,
        asked.osl,
        Outcome.COMPLETED,
        ttft_ms=decoded.first_ms - prefilled.arrival_ms,
        itl_ms=(decoded.end_ms - decoded.first_ms) / steps if steps else None,
        completion_tokens=asked.osl,
        counted_tokens=asked.osl,
    )
