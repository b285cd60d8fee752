"""The clairvoyant bound: perfect knowledge of every arrival, the cheapest workers in every window.

Each window of the trace is simulated on its own with 1, 2, … workers per role, which says for every count which of its
requests attain. Then the counts of all windows are chosen together: a price of a missed request is searched for which
the sum of GPU-time and priced misses is least in every window and the whole trace just meets its target (the Lagrangian
of the problem, exact on its convex hull). Workers are asked for early enough to be ready when their window begins, and
kept through gaps shorter than a start-up. The replay under this schedule shows what couples the windows (queues that
carry over), and the target is corrected until the replayed attainment meets it.

It is a yardstick rather than a proof: a schedule with other windows could be a little cheaper, and starting with the
right workers at time 0 is a gift that no real policy gets.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import product

import numpy as np
from numpy.typing import NDArray

from planner.core.types import Observation, Plan, Pool, Role
from planner.whatif.policies.base import Policy, Setting
from planner.whatif.simulator.simulation import Finished, Simulation
from planner.whatif.traces import Trace, TraceChunk
from planner.whatif.traces.trace import concatenate
from profiler.errors import InputError

#: Windows are as fine as the schedule may be; load before a window warms its queues up.
WINDOW_S = 30.0
WARM_UP_S = 5.0

#: Attempts to bring the replayed attainment to the target.
CORRECTIONS = 5


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


@dataclass(frozen=True)
class _Window:
    """Attaining requests and GPUs of one window, by counts. Shapes: the counts of each role."""

    requests: int
    attained: NDArray[np.int64]


class Clairvoyant(Policy):
    """Follows a schedule that was made with knowledge of the trace."""

    interval_s = 5.0

    def __init__(self, schedule: NDArray[np.int64], pools: Sequence[Pool], startup_s: float, max_gpus: int) -> None:
        self._schedule = schedule
        self._names = tuple(pool.name for pool in pools)
        self._gpus = np.array([pool.gpus_per_worker for pool in pools])
        self._startup_s = startup_s
        self._max_gpus = max_gpus

    def start(self) -> Plan:
        """The first windows' workers are there: a clairvoyant asked for them before the trace began."""
        return self._at(0.0)

    def decide(self, observation: Observation, now_s: float) -> Plan:  # noqa: ARG002 - it knows already
        """The most that is needed until a worker asked for at the next tick could be ready, within the budget."""
        return self._at(now_s)

    def _at(self, now_s: float) -> Plan:
        first = int(now_s // WINDOW_S)
        last = int((now_s + self._startup_s + self.interval_s) // WINDOW_S)
        rows = self._schedule[min(first, len(self._schedule) - 1) : last + 1]
        held = rows[0]
        for row in rows[1:]:
            both = np.maximum(held, row)
            # Each window is within the budget, what two of them need together may not be: the earlier one goes first.
            if int(both @ self._gpus) > self._max_gpus:
                break
            held = both
        return {name: int(count) for name, count in zip(self._names, held, strict=True)}


def windows_of(setting: Setting) -> list[_Window]:
    """Attainment of every window by counts; one pass over the trace, a few windows in memory."""
    windows: list[_Window] = []
    held: list[TraceChunk] = []
    start_s, before = 0.0, 0.0
    for chunk in setting.trace.chunks():
        held.append(chunk)
        while float(chunk.arrival_s[-1]) >= start_s + WINDOW_S:
            windows.append(_window(setting, held, before, start_s))
            start_s += WINDOW_S
            before = max(0.0, start_s - WARM_UP_S)
            held = [part for part in held if float(part.arrival_s[-1]) >= before]
    windows.append(_window(setting, held, before, start_s))
    return windows


def _window(setting: Setting, held: list[TraceChunk], before_s: float, start_s: float) -> _Window:
    whole = concatenate(held)
    part = whole.take(np.flatnonzero((whole.arrival_s >= before_s) & (whole.arrival_s < start_s + WINDOW_S)))
    part = replace(part, arrival_s=part.arrival_s - before_s)
    counted = part.arrival_s >= start_s - before_s
    roles = tuple(setting.pools)
    most = [_useful(setting, setting.pools[role]) for role in roles]
    if not counted.any():
        return _Window(0, np.zeros([n + 1 for n in most], dtype=np.int64))
    if len(roles) == 1:
        both = [_within(setting, part, {roles[0]: n}, counted) for n in range(1, most[0] + 1)]
        attained = np.array([0, *(int((t & i).sum()) for t, i in both)])
        return _Window(int(counted.sum()), attained)
    # Misses of TTFT come from the prefill pool and misses of ITL from the decode pool; each is measured beside plenty.
    best = _within(setting, part, dict(zip(roles, most, strict=True)), counted)
    ttft = _until_full(lambda n: _within(setting, part, {roles[0]: n, roles[1]: most[1]}, counted)[0], best[0], most[0])
    itl = _until_full(lambda n: _within(setting, part, {roles[0]: most[0], roles[1]: n}, counted)[1], best[1], most[1])
    attained = np.zeros((most[0] + 1, most[1] + 1), dtype=np.int64)
    for p, d in product(range(1, most[0] + 1), range(1, most[1] + 1)):
        attained[p, d] = int((ttft[p] & itl[d]).sum())
    return _Window(int(counted.sum()), attained)


def _useful(setting: Setting, pool: Pool) -> int:
    """More workers than this are never tried: bounds, budget and `MOST_WORKERS`."""
    return max(pool.min_workers, min(pool.max_workers, setting.settings.max_gpus // pool.gpus_per_worker, MOST_WORKERS))


#: Counts tried per role and window.
MOST_WORKERS = 64


def _until_full(
    measure: Callable[[int], NDArray[np.bool_]], best: NDArray[np.bool_], most: int
) -> list[NDArray[np.bool_]]:
    """Masks for 0 … most workers; from the first count that attains all that `best` does, more are not simulated."""
    masks = [np.zeros_like(best)]
    while len(masks) <= most:
        mask = measure(len(masks))
        masks.append(mask)
        if not bool((best & ~mask).any()):
            masks.extend([best] * (most + 1 - len(masks)))
    return masks


def _within(
    setting: Setting, part: TraceChunk, workers: dict[Role, int], counted: NDArray[np.bool_]
) -> tuple[NDArray[np.bool_], NDArray[np.bool_]]:
    """Which of the counted requests keep TTFT and ITL, in order of arrival."""
    batches: list[Finished] = []
    simulation = Simulation(setting.engines, _Slice(part), setting.routing, batches.append)
    for role, count in workers.items():
        for _ in range(count):
            simulation.add_worker(role, 0.0)
    simulation.run_to(float("inf"))
    arrival, ttft, itl, isl, osl = (
        np.concatenate([getattr(b, f) for b in batches]) if batches else np.empty(0)
        for f in ("arrival_ms", "ttft_ms", "itl_ms", "isl", "osl")
    )
    # Requests that were refused are missing: match by arrival and lengths, which order the trace up to identical ones.
    keep_ttft, keep_itl = np.zeros(len(part), dtype=bool), np.zeros(len(part), dtype=bool)
    wanted = np.lexsort((part.osl, part.isl, part.arrival_s))
    capacity = min(e.kv_capacity_tokens // e.block_size * e.block_size for e in setting.engines.timing)
    wanted = wanted[(part.isl + part.osl)[wanted] <= capacity] if len(arrival) < len(part) else wanted
    have = np.lexsort((osl, isl, arrival))
    count = min(len(wanted), len(have))
    keep_ttft[wanted[:count]] = ttft[have[:count]] <= setting.sla.ttft_ms
    keep_itl[wanted[:count]] = np.isnan(itl[have[:count]]) | (itl[have[:count]] <= setting.sla.itl_ms)
    return keep_ttft[counted], keep_itl[counted]


def schedule_for(setting: Setting, windows: list[_Window], target: float) -> NDArray[np.int64]:
    """Workers by window and role, shape (windows, roles), that attain `target` of all requests with least GPU-time."""
    pools = list(setting.pools.values())
    shape = windows[0].attained.shape
    grid = np.indices(shape)
    gpus = sum(pool.gpus_per_worker * grid[axis] for axis, pool in enumerate(pools)) * 1.0
    allowed = gpus <= setting.settings.max_gpus
    for axis, pool in enumerate(pools):
        allowed &= grid[axis] >= pool.min_workers
    attained = np.stack([w.attained for w in windows])
    total = sum(w.requests for w in windows)
    cost = np.where(allowed, gpus, np.inf)[None, ...].reshape(1, -1)
    flat = attained.reshape(len(windows), -1)

    def choose(price: float) -> NDArray[np.int64]:
        return np.asarray(np.argmin(cost - price * flat, axis=1))

    low, high = 0.0, 1.0
    rows = np.arange(len(windows))
    while flat[rows, choose(high)].sum() < target * total and high < 1e9:
        low, high = high, high * 4.0
    for _ in range(40):
        middle = 0.5 * (low + high)
        if flat[rows, choose(middle)].sum() >= target * total:
            high = middle
        else:
            low = middle
    return np.stack(np.unravel_index(choose(high), shape), axis=1)


def make(setting: Setting) -> Clairvoyant:
    """The clairvoyant policy of a trace, corrected until its replay meets the target with little to spare."""
    from planner.whatif.replay import replay  # noqa: PLC0415 - the replay knows policies, this one alone knows the replay

    windows = windows_of(setting)
    pools, max_gpus = tuple(setting.pools.values()), setting.settings.max_gpus
    goal = setting.sla.attainment
    low, high = max(0.0, goal - 0.15), 1.0
    best: Clairvoyant | None = None
    best_cost, target = np.inf, goal
    fallback, most = None, -1.0
    for _ in range(CORRECTIONS):
        policy = Clairvoyant(schedule_for(setting, windows, target), pools, setting.startup_s, max_gpus)
        outcome = replay(setting, policy, "clairvoyant")
        if outcome.attainment > most:
            fallback, most = policy, outcome.attainment
        if outcome.attainment >= goal:
            high = target
            if outcome.gpu_hours < best_cost:
                best, best_cost = policy, outcome.gpu_hours
        else:
            low = target
        # Aim by what this schedule lost between its windows and the replay, within the bracket.
        aimed = target + (goal + 0.0005 - outcome.attainment)
        target = aimed if low < aimed < high else 0.5 * (low + high)
    chosen = best or fallback
    if chosen is None:
        raise AssertionError("at least one correction runs")
    return chosen


def parse(options: str, setting: Setting) -> Clairvoyant:
    """`clairvoyant`; it takes no options.

    Raises:
        InputError: there are some.
    """
    if options:
        raise InputError(f"clairvoyant: unknown option {options!r}", expected="no options", field="--policy")
    return make(setting)
