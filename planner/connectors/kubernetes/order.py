"""Which replicas to write now, and in which order, so that the graph never holds more GPUs than its budget. Pure.

A pool may at any time come to hold GPUs for max(desired, live) workers, and for those that terminate. That sum does not
grow by anything that Kubernetes does: a pod that is made was desired, one that is deleted terminates, one that ends is
replaced only up to what is desired. It grows only by a write that raises `desired`, and by no more than the raise.
Hence: raise only as far as the budget is free now, by what was read now. A pool that is lowered gives nothing free at
once, not even what it desired and did not have: its controller may have made these pods a moment ago. What does not fit
is left to the next call, and by then draining workers have ended.

Unschedulable workers count as any others: they take GPUs as soon as a node has some. They do not hold up the other
role: a plan that fits the budget counts them too, and a pool that has some is raised after those that have none,
because another worker of its kind would find no node either.

What a roll-out adds by itself (`maxSurge`) is not ours to order; it counts while it is there.
"""

from __future__ import annotations

import heapq
from collections.abc import Mapping, Sequence
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class PoolWorkers:
    """The workers of one pool.

    Attributes:
        name: of the pool.
        desired: what its object asks for.
        live: exist and do not terminate.
        terminating: drain.
        gpus: that one worker holds.
        unschedulable: of the live ones, those that found no node.
    """

    name: str
    desired: int
    live: int
    terminating: int
    gpus: int
    unschedulable: int = 0

    @property
    def held(self) -> int:
        """GPUs that the pool holds or may come to hold with no one asking for more."""
        return self.gpus * (max(self.desired, self.live) + self.terminating)


@dataclass(frozen=True, slots=True)
class Write:
    """Replicas of one pool."""

    pool: str
    before: int
    after: int


@dataclass(frozen=True, slots=True)
class Order:
    """What to write now.

    Attributes:
        writes: one by one or at once; lowered pools first.
        waits: workers that the plan wants and the budget does not hold yet, by pool.
    """

    writes: tuple[Write, ...]
    waits: Mapping[str, int]


def order(plan: Mapping[str, int], pools: Sequence[PoolWorkers], max_gpus: int, elsewhere: int = 0) -> Order:
    """Steps towards a plan that the budget holds.

    Repeated with fresh counts it reaches a plan that fits the budget, and then writes nothing. Above the budget
    (somebody else has scaled, or the budget was lowered) it only lowers. The pool furthest below its plan, relative
    to the plan, is raised first, worker by worker.

    Args:
        plan: workers by pool; a pool that it does not name stays as it is.
        pools: all pools of the graph.
        max_gpus: budget.
        elsewhere: GPUs that the graph's other pods hold.
    """
    free = max_gpus - elsewhere - sum(pool.held for pool in pools)
    wanted = {pool.name: plan.get(pool.name, pool.desired) for pool in pools}
    after = {pool.name: min(pool.desired, wanted[pool.name]) for pool in pools}
    # A pool that lowers is not in the queue: `after` is what it wants.
    queue = [_turn(pool, after[pool.name], wanted[pool.name]) for pool in pools if wanted[pool.name] > pool.desired]
    heapq.heapify(queue)
    by_name = {pool.name: pool for pool in pools}
    while queue:
        name = heapq.heappop(queue)[-1]
        pool = by_name[name]
        # What does not fit now does not fit later in this call, for nothing is given free.
        if pool.gpus and pool.gpus > free:
            continue
        free -= pool.gpus
        after[name] += 1
        if after[name] < wanted[name]:
            heapq.heappush(queue, _turn(pool, after[name], wanted[name]))
    changed = [Write(pool.name, pool.desired, after[pool.name]) for pool in pools if after[pool.name] != pool.desired]
    changed.sort(key=lambda write: write.after > write.before)
    waits = {name: wanted[name] - after[name] for name in after if after[name] < wanted[name]}
    return Order(tuple(changed), waits)


def _turn(pool: PoolWorkers, now: int, wanted: int) -> tuple[bool, float, str]:
    return pool.unschedulable > 0, now / wanted, pool.name
