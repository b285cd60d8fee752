"""Both sides of a layout change in one look at the cluster, and as one pool for the planner. Pure."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import replace

from planner.connectors.base import LayoutStatus, Supply
from planner.connectors.kubernetes.pods import Phase, PodWorker
from planner.connectors.kubernetes.resources import LEADER_WORKER_SETS
from planner.connectors.kubernetes.rollout.target import side_pool
from planner.connectors.kubernetes.target import PoolTarget
from planner.core.transition import Intent, Seen
from planner.core.types import PoolState

_NUMBER = re.compile(r"-([0-9]+)\Z")


def seen_of(target: PoolTarget, workers: Sequence[PodWorker], *, retired: bool) -> Seen:
    """One side's workers."""
    live = [one for one in workers if one.live]
    by_index = None
    if target.resource == LEADER_WORKER_SETS:
        # Its controller ends the groups of the highest numbers, ready or not; one that is made anew keeps its place.
        ready = {_number(one): one.phase is Phase.READY for one in live}
        by_index = tuple(ready.get(number, False) for number in range(max(ready, default=-1) + 1))
    return Seen(
        desired=target.desired,
        existing=len(live),
        ready=sum(one.phase is Phase.READY for one in live),
        terminating=len(workers) - len(live),
        trouble=next((one.trouble for one in live if one.trouble), ""),
        by_index=by_index,
        retired=retired,
    )


def _number(worker: PodWorker) -> int:
    match = _NUMBER.search(worker.name)
    return int(match[1]) if match else 0


def as_one_pool(supply: Supply, intent: Intent, text: str, status: LayoutStatus) -> Supply:
    """The supply with both sides as one pool, counted in workers of the old layout, which the planner still sizes in.

    Args:
        supply: with the sides as pools of their own.
        intent: of the change.
        text: how far it is.
        status: of earlier changes.
    """
    old, new = intent.pool, side_pool(intent, intent.new)
    none = PoolState(0, 0)
    first, second = supply.pools.get(old, none), supply.pools.get(new, none)
    each = intent.old.workers / intent.new.workers
    stead = int(second.desired * each)
    # What a surge holds beside what it stands for is not supply to count on or to give back; what is missing until a
    # new worker serves comes without being asked for again.
    desired = max(intent.old.workers, min(first.desired + stead, max(first.desired, stead)))
    ready = first.ready + int(second.ready * each)
    pool = PoolState(
        desired=desired,
        ready=ready,
        starting=max(0, desired - ready),
        terminating=first.terminating + int(second.terminating * each),
        unschedulable=first.unschedulable + second.unschedulable,
        failing=first.failing + second.failing,
        trouble="; ".join(filter(None, [first.trouble, second.trouble])),
    )

    return replace(
        supply,
        pools={**{name: one for name, one in supply.pools.items() if name != new}, old: pool},
        workers=tuple(replace(one, pool=old) if one.pool == new else one for one in supply.workers),
        startup_s={name: one for name, one in supply.startup_s.items() if name != new},
        gpus_per_worker={**{n: g for n, g in supply.gpus_per_worker.items() if n != new}, old: intent.old.gpus},
        layouts={**{n: one for n, one in supply.layouts.items() if n != new}, old: (intent.old.tp, intent.old.dp)},
        notices=(*supply.notices, text),
        layout_change=replace(status, under_way=text),
    )
