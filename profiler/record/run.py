"""One recorded run: an engine that is idle, an open loop on it, and whether the client kept up."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import aiohttp
import numpy as np

from profiler.errors import DependencyError
from profiler.load import Load, Result, ScheduledRequest
from profiler.measure.facts import Scrape, scrape
from profiler.record.files import Client

#: Gauges of what an engine has in hand.
_IN_HAND = ("vllm:num_requests_running", "vllm:num_requests_waiting")
#: Looks at its metrics that must in a row find an engine idle: a request between two steps counts as neither.
_IDLE_LOOKS = 3


async def record(
    load: Load, schedule: Sequence[ScheduledRequest], on_result: Callable[[Result], None] | None = None
) -> list[Result]:
    """Send an open-loop run and wait for its last answer.

    Args:
        load: the client, with token-id prompts and exact counting for engines that take them.
        schedule: what to send, in order of arrival.
        on_result: called with each result as it comes.

    Returns:
        Results in the order of the schedule; lost requests are among them, with their outcomes.
    """
    return await load.run_open(schedule, on_result)


@dataclass(frozen=True, slots=True)
class Observed:
    """A run with what was seen beside it.

    Attributes:
        results: in the order of the schedule.
        duration_s: from the start to the last answer, in the schedule's time.
        client: whether it kept up.
        counters: how far each worker's totals moved, by address; empty where a worker no longer answers.
        problem: why a worker could not be read after the run; empty when all is well.
    """

    results: list[Result]
    duration_s: float
    client: Client
    counters: Mapping[str, Mapping[str, float]]
    problem: str = ""


async def observe(
    load: Load,
    schedule: Sequence[ScheduledRequest],
    urls: Sequence[str],
    *,
    speed_up: float = 1.0,
    idle_timeout_s: float = 600.0,
    on_result: Callable[[Result], None] | None = None,
) -> Observed:
    """Wait until the workers are idle, record a run, and see how far their totals moved.

    Args:
        load: the client.
        schedule: what to send.
        urls: of all workers, without `/v1`.
        speed_up: as the load's.
        idle_timeout_s: wall seconds until a worker that stays busy is an error.
        on_result: called with each result as it comes.

    Raises:
        DependencyError: before the run, a worker's metrics cannot be read, or it does not become idle.
    """
    counters: dict[str, Mapping[str, float]] = {url: {} for url in urls}
    problem = ""
    async with aiohttp.ClientSession() as session:
        before = {url: await idle(session, url, idle_timeout_s) for url in urls}
        wall_s, cpu_s = time.monotonic(), time.process_time()
        results = await record(load, schedule, on_result)
        wall_s, cpu_s = time.monotonic() - wall_s, time.process_time() - cpu_s
        try:
            for url in urls:
                counters[url] = _moved(before[url], await idle(session, url, idle_timeout_s))
        except DependencyError as error:
            problem = str(error)  # the engine died or hangs: what was recorded until then is kept all the same
    late = np.array([one.late_ms for one in results])
    client = Client(
        cpu_share=round(cpu_s / wall_s, 4),
        late_p50_ms=round(float(np.percentile(late, 50)), 3),
        late_p99_ms=round(float(np.percentile(late, 99)), 3),
        late_max_ms=round(float(late.max()), 3),
    )
    return Observed(results, wall_s * speed_up, client, counters, problem)


async def idle(session: aiohttp.ClientSession, url: str, timeout_s: float) -> Scrape:
    """Wait until a worker has nothing in hand; its metrics then.

    Raises:
        DependencyError: it does not answer, or stays busy.
    """
    end, quiet = time.monotonic() + timeout_s, 0
    while True:
        seen = await scrape(session, url.rstrip("/"))
        in_hand = sum(seen.get(name) for name in _IN_HAND)
        quiet = quiet + 1 if in_hand == 0 else 0
        if quiet >= _IDLE_LOOKS:
            return seen
        if time.monotonic() > end:
            raise DependencyError(f"{url}: still has {in_hand:.0f} requests in hand after {timeout_s:g} s")
        await asyncio.sleep(0.2)


def _moved(before: Scrape, after: Scrape) -> dict[str, float]:
    """Totals of the engine (sums, counts and counters) that changed, by name."""
    names = [name for name in after.totals if name.partition("{")[0].endswith(("_total", "_sum", "_count"))]
    moved = {name: after.get(name) - before.get(name) for name in names}
    return {name: round(by, 6) for name, by in sorted(moved.items()) if by != 0}
