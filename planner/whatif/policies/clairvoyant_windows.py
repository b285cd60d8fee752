"""What every window of a trace attains by counts of workers: the clairvoyant's knowledge.

Each window is simulated on its own, behind a warm-up that brings its queues and batches to what the requests before it
leave, with 1, 2, … workers per role. Of all counts only those are kept that could be the best at some price of a missed
request: the corners of the hull of requests attained over GPUs, a few dozen numbers a window.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from planner.core.types import Pool, Role
from planner.whatif.policies.base import Setting
from planner.whatif.simulator.simulation import Finished, Simulation
from planner.whatif.traces import Trace, TraceChunk
from planner.whatif.traces.trace import concatenate

#: Windows are as fine as the schedule may be.
WINDOW_S = 30.0

#: Load before a window: at least this long, at most a window, and between them as long as nearly all answers take at
#: the SLA's ITL, so that requests which began before the window run in it.
LEAST_WARM_UP_S, LONG_ANSWERS = 5.0, 0.9

#: Counts tried per role and window.
MOST_WORKERS = 64

#: Counts that attain less than this share of what can be attained are only tried at powers of two; in between they are
#: taken to attain what the smaller one does. Such windows are written off, and then at the least count.
WRITTEN_OFF = 0.5


@dataclass(frozen=True)
class Window:
    """One window's requests, and its choices from the cheapest one on.

    Every further choice costs more GPUs and attains more requests, with less for each GPU than the one before. Shapes:
    k choices, counts by role.
    """

    requests: int
    counts: NDArray[np.int16]  # (k, roles)
    gpus: NDArray[np.int32]  # (k,)
    attained: NDArray[np.int32]  # (k,)


class _Slice(Trace):
    """A part of a trace, rebased to its own start."""

    def __init__(self, chunk: TraceChunk) -> None:
        self._chunk = chunk

    @property
    def name(self) -> str:
        return "slice"

    def chunks(self) -> Iterator[TraceChunk]:
        if len(self._chunk):
            yield self._chunk


def windows_of(setting: Setting) -> list[Window]:
    """The choices of every window; one pass over the trace, a few windows of it in memory."""
    measure = _Measure(setting)
    windows: list[Window] = []
    held: list[TraceChunk] = []
    start_s, before, warm_up_s = 0.0, 0.0, LEAST_WARM_UP_S
    for chunk in setting.trace.chunks():
        held.append(chunk)
        answers_s = float(np.quantile(chunk.osl, LONG_ANSWERS)) * setting.sla.itl_ms / 1000.0
        warm_up_s = min(max(warm_up_s, answers_s), WINDOW_S)
        while float(chunk.arrival_s[-1]) >= start_s + WINDOW_S:
            windows.append(_window(measure, held, before, start_s))
            start_s += WINDOW_S
            before = max(0.0, start_s - warm_up_s)
            held = [part for part in held if float(part.arrival_s[-1]) >= before]
    windows.append(_window(measure, held, before, start_s))
    return windows


def _window(measure: _Measure, held: list[TraceChunk], before_s: float, start_s: float) -> Window:
    whole = concatenate(held)
    part = whole.take(np.flatnonzero((whole.arrival_s >= before_s) & (whole.arrival_s < start_s + WINDOW_S)))
    part = replace(part, arrival_s=part.arrival_s - before_s)
    counted = part.arrival_s >= start_s - before_s
    return choices(measure.setting, int(counted.sum()), measure.attained(part, counted))


def choices(setting: Setting, requests: int, attained: NDArray[np.int64]) -> Window:
    """The choices of one window within bounds and budget.

    Args:
        setting: pools and budget.
        requests: of the window.
        attained: of them by counts from 0 on; more workers than the table has attain no more than its end. Shape: one
            axis per role.
    """
    pools = list(setting.pools.values())
    lengths = [max(n, pool.min_workers + 1) for n, pool in zip(attained.shape, pools, strict=True)]
    table = np.pad(attained, [(0, n - have) for n, have in zip(lengths, attained.shape, strict=True)], mode="edge")
    grid = np.indices(table.shape).reshape(len(pools), -1).T
    gpus = grid @ np.array([pool.gpus_per_worker for pool in pools])
    allowed = (gpus <= setting.settings.max_gpus) & (grid >= [pool.min_workers for pool in pools]).all(axis=1)
    grid, gpus, reached = grid[allowed], gpus[allowed], table.reshape(-1)[allowed]
    # By cost, and the best of one cost first.
    order = np.lexsort((-reached, gpus))
    hull: list[int] = []
    for place in order:
        if hull and reached[place] <= reached[hull[-1]]:
            continue
        while len(hull) > 1 and _below(gpus, reached, hull[-2], hull[-1], place):
            hull.pop()
        hull.append(int(place))
    return Window(requests, grid[hull].astype(np.int16), gpus[hull].astype(np.int32), reached[hull].astype(np.int32))


def _below(gpus: NDArray[np.int64], reached: NDArray[np.int64], a: int, b: int, c: int) -> bool:
    """Whether b is on or below the line from a to c."""
    return bool((reached[b] - reached[a]) * (gpus[c] - gpus[b]) <= (reached[c] - reached[b]) * (gpus[b] - gpus[a]))


class _Measure:
    """Simulates parts of a trace with fixed counts of workers."""

    def __init__(self, setting: Setting) -> None:
        self.setting = setting
        self._roles = tuple(setting.pools)
        self._most = [_useful(setting, setting.pools[role]) for role in self._roles]
        self._like: Simulation | None = None

    def attained(self, part: TraceChunk, counted: NDArray[np.bool_]) -> NDArray[np.int64]:
        """How many of the counted requests attain, by counts from 0 on up to those that attain all that ever do."""
        roles, most = self._roles, self._most
        if not counted.any():
            return np.zeros([1] * len(roles), dtype=np.int64)
        if len(roles) == 1:
            ttft, itl = self._within(part, {roles[0]: most[0]}, counted)

            def both(count: int) -> NDArray[np.bool_]:
                ttft, itl = self._within(part, {roles[0]: count}, counted)
                return ttft & itl

            return np.array([int(mask.sum()) for mask in by_count(both, ttft & itl, most[0])])
        # Misses of TTFT come from the prefill pool, those of ITL from the decode pool; each is measured beside plenty.
        best = self._within(part, dict(zip(roles, most, strict=True)), counted)
        prefill = by_count(lambda n: self._within(part, {roles[0]: n, roles[1]: most[1]}, counted)[0], best[0], most[0])
        decode = by_count(lambda n: self._within(part, {roles[0]: most[0], roles[1]: n}, counted)[1], best[1], most[1])
        # Counts of both at once: the product of the masks is a sum over requests. Exact, being below 2^53.
        return np.asarray((np.stack(prefill) * 1.0) @ (np.stack(decode) * 1.0).T).astype(np.int64)

    def _within(
        self, part: TraceChunk, workers: dict[Role, int], counted: NDArray[np.bool_]
    ) -> tuple[NDArray[np.bool_], NDArray[np.bool_]]:
        """Which of the counted requests keep TTFT and ITL, in order of arrival."""
        setting = self.setting
        batches: list[Finished] = []
        simulation = Simulation(setting.engines, _Slice(part), setting.routing, batches.append, like=self._like)
        self._like = simulation
        for role, count in workers.items():
            # More workers than requests would idle from beginning to end.
            for _ in range(min(count, len(part))):
                simulation.add_worker(role, 0.0)
        simulation.run_to(float("inf"))
        arrival, ttft, itl, isl, osl = (
            np.concatenate([getattr(b, f) for b in batches]) if batches else np.empty(0)
            for f in ("arrival_ms", "ttft_ms", "itl_ms", "isl", "osl")
        )
        # Requests that were refused are missing: match by arrival and lengths, which order the trace up to identical
        # ones.
        keep_ttft, keep_itl = np.zeros(len(part), dtype=bool), np.zeros(len(part), dtype=bool)
        wanted = np.lexsort((part.osl, part.isl, part.arrival_s))
        capacity = min(e.kv_capacity_tokens // e.block_size * e.block_size for e in setting.engines.timing)
        wanted = wanted[(part.isl + part.osl)[wanted] <= capacity] if len(arrival) < len(part) else wanted
        have = np.lexsort((osl, isl, arrival))
        count = min(len(wanted), len(have))
        keep_ttft[wanted[:count]] = ttft[have[:count]] <= setting.sla.ttft_ms
        keep_itl[wanted[:count]] = np.isnan(itl[have[:count]]) | (itl[have[:count]] <= setting.sla.itl_ms)
        return keep_ttft[counted], keep_itl[counted]


def _useful(setting: Setting, pool: Pool) -> int:
    """More workers than this are never tried: bounds, budget and `MOST_WORKERS`."""
    return max(pool.min_workers, min(pool.max_workers, setting.settings.max_gpus // pool.gpus_per_worker, MOST_WORKERS))


def by_count(
    measure: Callable[[int], NDArray[np.bool_]], best: NDArray[np.bool_], most: int
) -> list[NDArray[np.bool_]]:
    """Masks for 0, 1, … workers, up to the first count that attains all that `best` does, or to `most`."""
    found: dict[int, NDArray[np.bool_]] = {0: np.zeros_like(best), most: best}

    def attains(count: int) -> bool:
        if count not in found:
            found[count] = measure(count)
        return bool(found[count].sum() >= WRITTEN_OFF * best.sum())

    low, high = 0, 1
    while high < most and not attains(high):
        low, high = high, min(2 * high, most)
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (low, middle) if attains(middle) else (middle, high)
    masks = [found[0]]
    for count in range(1, most + 1):
        if count not in found:
            # Below `high` only some were measured.
            found[count] = measure(count) if count > high else masks[-1]
        masks.append(found[count])
        if not bool((best & ~found[count]).any()):
            break
    return masks
