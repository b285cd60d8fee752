"""Counts that the capacity model needs for a part of a trace: choices in hindsight, which no operator can make.

They fix the start of a replay fairly, and the fleets that a careful operator with a perfect record of the load would
have bought for its mean or for its peak.
"""

from __future__ import annotations

from collections.abc import Iterator
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

from planner.core.demand import Demand, Lengths
from planner.core.sizing import size
from planner.core.types import Plan
from planner.whatif.policies.base import Setting
from planner.whatif.traces import TraceChunk
from planner.whatif.traces.trace import concatenate

#: Requests whose lengths are sized for: the planner's own sample size, evenly spaced over the part.
SAMPLE = 1024

#: The width of a peak, s: shorter ones pass through queues and batches.
PEAK_S = 60.0


def counts_for_start(setting: Setting, span_s: float) -> Plan:
    """Workers by pool name for the mean load of the first `span_s` seconds; the least where nothing comes in them."""
    chunks: list[TraceChunk] = []
    for chunk in setting.trace.chunks():
        chunks.append(chunk.take(np.flatnonzero(chunk.arrival_s < span_s)))
        if float(chunk.arrival_s[-1]) >= span_s:
            break
    return _counts(setting, concatenate(chunks), 0.0, span_s)


def counts_for_mean(setting: Setting) -> Plan:
    """Workers by pool name for the mean rate of the whole trace and the lengths of all its requests."""
    whole = concatenate(setting.trace.chunks())
    return _counts(setting, whole, 0.0, float(whole.arrival_s[-1]) if len(whole) else 0.0)


def counts_for_peak(setting: Setting) -> Plan:
    """Workers by pool name for the clock minute that needs most GPUs; of equals the one with most requests.

    Each minute is sized for its own rate, burstiness and lengths.
    """
    whole = concatenate(setting.trace.chunks())
    minutes = (whole.arrival_s / PEAK_S).astype(np.int64)
    edges = np.searchsorted(minutes, np.arange(int(minutes[-1]) + 2 if len(minutes) else 1))
    pools = setting.pools.values()
    best: Plan = {pool.name: pool.min_workers for pool in pools}
    rank = (0, 0)
    for minute, (first, last) in enumerate(pairwise(edges.tolist())):
        plan = _counts(setting, whole.take(slice(first, last)), minute * PEAK_S, PEAK_S)
        mine = (sum(plan[pool.name] * pool.gpus_per_worker for pool in pools), last - first)
        if mine > rank:
            best, rank = plan, mine
    return best


def _counts(setting: Setting, part: TraceChunk, begin_s: float, span_s: float) -> Plan:
    pools = setting.pools
    if not len(part) or span_s <= 0:
        return {pool.name: pool.min_workers for pool in pools.values()}
    places = np.arange(min(len(part), SAMPLE)) * len(part) // min(len(part), SAMPLE)
    lengths = Lengths(
        *(np.asarray(column[places], dtype=np.float64) for column in (part.isl, part.osl, part.prefix_hit_tokens))
    )
    demand = Demand(len(part) / span_s, _dispersion(part.arrival_s - begin_s, span_s), lengths)
    sla, max_gpus = setting.sla, setting.settings.max_gpus
    evaluator = setting.engines.closed_form.evaluator(demand, sla)
    chosen = size(evaluator, {pool.role: pool for pool in pools.values()}, sla, max_gpus, {}).chosen
    return {pool.name: chosen.workers[role] for role, pool in pools.items()}


def _dispersion(arrival_s: NDArray[np.float64], span_s: float) -> float:
    """Variance over mean of the arrivals per second, within minutes: what a stationary load of that rate would show."""
    counts = np.bincount(arrival_s.astype(np.int64), minlength=max(1, int(span_s)))
    parts = [part for part in _minutes(counts) if len(part) > 1]
    mean = sum(float(part.mean()) for part in parts)
    return max(1.0, sum(float(part.var(ddof=1)) for part in parts) / mean) if mean > 0 else 1.0


def _minutes(counts: NDArray[np.int64]) -> Iterator[NDArray[np.int64]]:
    for first in range(0, len(counts), 60):
        yield counts[first : first + 60]
