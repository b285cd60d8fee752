"""Without a demand to size for: which pools are measurably saturated, and by how much such a pool grows."""

from __future__ import annotations

import math
from collections.abc import Mapping

from planner.core.readings import usable
from planner.core.settings import Tuning
from planner.core.types import Known, PoolState


def saturated(settings: Tuning, supply: Mapping[str, PoolState]) -> tuple[list[str], bool]:
    """Pools with a long queue or a full KV cache and no workers on their way, and whether any pool could be judged."""
    full, measured = [], False
    for name, pool in supply.items():
        waiting = usable(pool.waiting_requests, settings.stale_after_s)
        usage = usable(pool.kv_usage, settings.stale_after_s)
        measured = measured or isinstance(waiting, Known) or isinstance(usage, Known)
        long = isinstance(waiting, Known) and waiting.value > settings.reactive_queue * max(pool.ready, 1)
        high = isinstance(usage, Known) and usage.value > settings.reactive_kv_usage
        # Starting workers are supply that comes: the queue shrinks when they do, not when more are asked for.
        if (long or high) and pool.starting == 0 and pool.ready >= pool.desired:
            full.append(name)
    return full, measured


def growth(settings: Tuning, workers: int) -> int:
    """Workers by which a saturated pool of so many grows: a share of them, at least one."""
    return max(1, math.ceil(settings.reactive_growth * workers))
