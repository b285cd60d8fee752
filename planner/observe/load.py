"""What waits and runs in every pool, and which workers cannot be seen."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from planner.connectors.base import Supply, Worker, WorkerLoad, WorkerStatus
from planner.core.types import Known, PoolState, Unknown
from planner.observe.dialects.base import EngineDialect
from planner.observe.series import Instance


@dataclass(frozen=True)
class Loads:
    """Pools with their load, and the gaps in words; a pool with a gap has no load."""

    pools: Mapping[str, PoolState]
    gaps: tuple[str, ...]


def unmeasured(supply: Supply, reason: str) -> dict[str, PoolState]:
    """The counts of every pool with its load unknown for one reason."""
    unknown = Unknown(reason)
    return {
        name: replace(pool, waiting_requests=unknown, running_requests=unknown, kv_usage=unknown)
        for name, pool in supply.pools.items()
    }


def measure(
    supply: Supply,
    engine: EngineDialect,
    instances: Mapping[str, Instance],
    ages_s: Mapping[str, float],
    stale_s: float,
) -> Loads:
    """Load of every pool over its ready workers, and what the workers that drain still run.

    Requests are summed; KV usage is the mean over ready workers. One ready worker that cannot be seen makes the pool's
    load unknown: it may be the one with the queue.

    Args:
        supply: pools and workers.
        engine: how engines name their metrics.
        instances: what was read, by address.
        ages_s: age of every instance's newest scrape, planner's seconds.
        stale_s: age above which it does not count.
    """
    pools, gaps = {}, []
    for name, pool in supply.pools.items():
        workers = [worker for worker in supply.workers if worker.pool == name]
        ready = [worker for worker in workers if worker.status is WorkerStatus.READY]
        draining = [worker for worker in workers if worker.status is WorkerStatus.TERMINATING]
        unseen = [worker for worker in ready if _why_unseen(worker, instances, ages_s, stale_s)]
        if not ready:
            reason = f"no {name} worker is ready"
        elif unseen:
            reason = f"{len(unseen)} of {len(ready)} {name} workers have no metrics"
            gaps.append(reason)
            reason = f"{reason}: {_why_unseen(unseen[0], instances, ages_s, stale_s)}"
        else:
            fresh = [one for one in draining if not _why_unseen(one, instances, ages_s, stale_s)]
            loaded, flawed = _loaded(pool, engine, ready, fresh, instances, ages_s)
            pools[name] = loaded
            if flawed:
                gaps.append(f"{flawed} of {len(ready)} {name} workers have unusable metrics")
            continue
        unknown = Unknown(reason)
        pools[name] = replace(pool, waiting_requests=unknown, running_requests=unknown, kv_usage=unknown)
    return Loads(pools, tuple(gaps))


def by_worker(
    supply: Supply,
    engine: EngineDialect,
    instances: Mapping[str, Instance],
    ages_s: Mapping[str, float],
    stale_s: float,
) -> dict[str, WorkerLoad]:
    """What each worker does, by name; one that cannot be seen, or not whole, is left out. Arguments as `measure`."""
    loads = {}
    for worker in supply.workers:
        if _why_unseen(worker, instances, ages_s, stale_s):
            continue
        one = instances[worker.address]
        waiting, running = one.newest(engine.waiting), one.newest(engine.running)
        usage = one.mean(engine.kv_usage)
        if waiting is not None and running is not None and usage is not None:
            loads[worker.name] = WorkerLoad(waiting + running, usage)
    return loads


def _why_unseen(worker: Worker, instances: Mapping[str, Instance], ages_s: Mapping[str, float], stale_s: float) -> str:
    """Why a worker's metrics cannot be used; empty if they can."""
    if worker.address not in instances or worker.address not in ages_s:
        return f"{worker.address} is not in the metrics"
    if ages_s[worker.address] > stale_s:
        return f"{worker.address} was last read {ages_s[worker.address]:.0f} s ago, {stale_s:.0f} s allowed"
    return ""


def _loaded(
    pool: PoolState,
    engine: EngineDialect,
    ready: Sequence[Worker],
    draining: Sequence[Worker],
    instances: Mapping[str, Instance],
    ages_s: Mapping[str, float],
) -> tuple[PoolState, int]:
    """The pool with its load, and how many of its ready workers do not export all of it."""
    age = max(ages_s[worker.address] for worker in ready)
    flawed = set[str]()
    figures = dict[str, Known[float] | Unknown]()
    for field, gauge in (("waiting_requests", engine.waiting), ("running_requests", engine.running)):
        total, bad = 0.0, []
        for worker in (*ready, *draining):
            value = instances[worker.address].newest(gauge)
            if value is not None:
                total += value
            elif worker in ready:
                bad.append(worker.address)
        flawed.update(bad)
        figures[field] = Unknown(_flaw(bad[0], gauge, instances), age) if bad else Known(total, age)
    usages, bad = [], []
    for worker in ready:
        usage = instances[worker.address].mean(engine.kv_usage)
        if usage is None or usage > 1.0:
            bad.append(worker.address)
        else:
            usages.append(usage)
    flawed.update(bad)
    kv = Unknown(_flaw(bad[0], engine.kv_usage, instances), age) if bad else Known(sum(usages) / len(usages), age)
    waiting, running = figures["waiting_requests"], figures["running_requests"]
    return replace(pool, waiting_requests=waiting, running_requests=running, kv_usage=kv), len(flawed)


def _flaw(address: str, gauge: str, instances: Mapping[str, Instance]) -> str:
    flaws = [flaw for flaw in instances[address].flaws if flaw.startswith(gauge)]
    return flaws[0] if flaws else f"{address} does not export a usable {gauge}"
