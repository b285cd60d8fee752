"""The GPU budget: whole workers, never above what was asked, never below a floor that fits."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from planner.core.types import Plan, Pool


@dataclass(frozen=True, slots=True)
class Fitted:
    """A plan within the budget, and whether the floor itself fitted.

    `feasible` is False when even the floor costs more than the budget; the plan is then the floor, reduced pool by pool
    to the pools' own minima, and the caller must say so instead of acting as if it were fine.
    """

    plan: Plan
    feasible: bool


def gpus_of(plan: Plan, pools: Mapping[str, Pool]) -> int:
    """GPUs of a plan."""
    return sum(count * pools[name].gpus_per_worker for name, count in plan.items())


def fit_budget(asked: Plan, floor: Plan, pools: Mapping[str, Pool], max_gpus: int) -> Fitted:
    """Lower a plan until it fits the budget, taking workers where most stand above the floor.

    One worker at a time from the pool with the largest share of its workers above the floor (the first by name among
    equals), down to the floor; if that is not enough, down to the pools' minima in the same way.

    Args:
        asked: workers by pool; each is an upper bound of the result.
        floor: workers by pool to keep if the budget allows; capped by `asked`.
        pools: GPUs per worker and minimum, by name.
        max_gpus: the budget.
    """
    plan = dict(asked)
    soft = {name: min(floor.get(name, 0), count) for name, count in asked.items()}
    hard = {name: min(pools[name].min_workers, count) for name, count in asked.items()}
    _lower(plan, soft, pools, max_gpus)
    feasible = gpus_of(plan, pools) <= max_gpus
    if not feasible:
        _lower(plan, hard, pools, max_gpus)
    return Fitted(plan, feasible)


def _lower(plan: dict[str, int], bound: Plan, pools: Mapping[str, Pool], max_gpus: int) -> None:
    while gpus_of(plan, pools) > max_gpus:
        above = [name for name in sorted(plan) if plan[name] > bound[name]]
        if not above:
            return
        most = max(above, key=lambda name: (plan[name] - bound[name]) / plan[name])
        plan[most] -= 1
