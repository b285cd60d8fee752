"""Sizing: the cheapest workers whose predicted attainment meets the target.

Attainment never falls with another worker, so for every prefill count there is a least decode count, and the pairs of
both form a staircase. It is walked from the least prefill count that can do at all, and its cheapest step wins. The set
of plans that meet the target shrinks with load and grows with a looser SLA or a larger budget; hence more load never
costs fewer GPUs, a looser SLA never more, and a larger budget never a worse plan.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from planner.core.capacity import Evaluator, Prediction
from planner.core.types import Pool, Role, Sla

#: Aim at this share of the ceiling when the SLA itself cannot be met; the last few percent would cost without end.
NEAR_CEILING = 0.98

#: Attainments closer than this are equal: it is the rounding of the estimators.
EQUAL = 1e-9


@dataclass(frozen=True, slots=True)
class Candidate:
    """One plan that was considered: workers by role, its GPUs and what it is predicted to attain."""

    workers: Mapping[Role, int]
    gpus: int
    attainment: float
    ttft_attainment: float
    itl_attainment: float


@dataclass(frozen=True, slots=True)
class Sizing:
    """The answer.

    Attributes:
        chosen: the plan; within every pool's bounds and, if the minima fit, within the budget.
        reached: whether `chosen` meets the SLA's attainment.
        reachable: whether any number of workers would; if not, `nearest` is the closest SLA that some would meet.
        limit: what keeps the plan from being cheaper or better: ttft, itl, min_workers, max_workers, budget, sla,
            tolerance.
        runner_up: the plan that came second, and why it lost.
        candidates: all plans considered, cheapest first.
    """

    chosen: Candidate
    reached: bool
    reachable: bool
    nearest: Sla | None
    limit: str
    runner_up: Candidate | None
    why_not_runner_up: str
    candidates: tuple[Candidate, ...]
    prediction: Prediction


@dataclass(frozen=True, slots=True)
class _Parts:
    """Shares of requests within each limit alone, asked of a plan for an SLA that cannot be met as a whole."""

    ttft: float
    itl: float


class _Search:
    """Evaluates plans once each and keeps them."""

    def __init__(self, evaluator: Evaluator, pools: Mapping[Role, Pool], parts: _Parts | None = None) -> None:
        self.evaluator = evaluator
        self.pools = pools
        self.parts = parts
        self.roles = tuple(pools)
        self.seen: dict[tuple[int, ...], tuple[Candidate, Prediction]] = {}

    def at(self, counts: tuple[int, ...]) -> Candidate:
        """The candidate with these counts, in the order of the roles."""
        if counts not in self.seen:
            workers = dict(zip(self.roles, counts, strict=True))
            p = self.evaluator.predict(workers)
            gpus = self.gpus(counts)
            candidate = Candidate(workers, gpus, p.attainment, p.ttft_attainment, p.itl_attainment)
            self.seen[counts] = candidate, p
        return self.seen[counts][0]

    def gpus(self, counts: tuple[int, ...]) -> int:
        """GPUs of these counts."""
        return sum(n * self.pools[role].gpus_per_worker for role, n in zip(self.roles, counts, strict=True))

    def busiest(self, counts: tuple[int, ...]) -> float:
        """Utilisation of the busiest role; 1 and more does not keep up."""
        self.at(counts)
        return max(self.seen[counts][1].utilisation.values())

    def meets(self, counts: tuple[int, ...], target: float) -> bool:
        """Whether these counts are good enough.

        Where the SLA cannot be met, a share of a low ceiling says little: such a plan must also keep up with the load
        and keep each limit as far as that one can be kept.
        """
        candidate = self.at(counts)
        if candidate.attainment < target:
            return False
        parts = self.parts
        return parts is None or (
            candidate.ttft_attainment >= parts.ttft
            and candidate.itl_attainment >= parts.itl
            and self.busiest(counts) < 1.0
        )

    def least(self, axis: int, counts: tuple[int, ...], low: int, target: float) -> int | None:
        """The least count on one axis, from `low` to its maximum, that meets the target; None if none does."""
        high = self.pools[self.roles[axis]].max_workers
        if low > high or not self.meets(_with(counts, axis, high), target):
            return None
        # Double first: the answer is near `low` far more often than near the maximum.
        reach = 1
        while low + reach < high and not self.meets(_with(counts, axis, low + reach), target):
            low, reach = low + reach + 1, reach * 2
        high = min(high, low + reach)
        while low < high:
            middle = (low + high) // 2
            if self.meets(_with(counts, axis, middle), target):
                high = middle
            else:
                low = middle + 1
        return low

    def staircase(self, target: float) -> list[Candidate]:
        """Every least pair (or the least single count) that meets the target."""
        bounds = [self.pools[role] for role in self.roles]
        top = tuple(pool.max_workers for pool in bounds)
        first = self.least(0, top, bounds[0].min_workers, target)
        if first is None:
            return []
        if len(self.roles) == 1:
            return [self.at((first,))]
        floor = self.least(1, top, bounds[1].min_workers, target)
        steps: list[Candidate] = []
        for count in range(first, bounds[0].max_workers + 1):
            second = self.least(1, (count, 0), floor or bounds[1].min_workers, target)
            if second is None:
                break
            steps.append(self.at((count, second)))
            if second == floor:
                break
        return steps

    def best_within(self, max_gpus: int) -> Candidate:
        """The plan of the highest attainment within bounds and budget; of equals the one that keeps up best.

        In an overload nothing attains and all plans are equal in that: the cheapest would then be the worst.
        """
        bounds = [self.pools[role] for role in self.roles]
        lowest = tuple(pool.min_workers for pool in bounds)
        if self.gpus(lowest) > max_gpus:
            return self.at(lowest)
        options: list[tuple[int, ...]] = []
        for count in range(bounds[0].min_workers, bounds[0].max_workers + 1):
            left = max_gpus - count * bounds[0].gpus_per_worker
            if left < 0:
                break
            if len(bounds) == 1:
                options.append((count,))
                continue
            second = min(left // bounds[1].gpus_per_worker, bounds[1].max_workers)
            if second >= bounds[1].min_workers:
                options.append((count, second))
        best = max(self.at(option).attainment for option in options)
        equal = [option for option in options if self.at(option).attainment >= best - EQUAL]
        return self.at(min(equal, key=lambda option: (self.busiest(option), self.gpus(option))))


def _with(counts: tuple[int, ...], axis: int, count: int) -> tuple[int, ...]:
    return (*counts[:axis], count, *counts[axis + 1 :])


def size(
    evaluator: Evaluator,
    pools: Mapping[Role, Pool],
    sla: Sla,
    max_gpus: int,
    current: Mapping[Role, int],
    *,
    target: float | None = None,
    tolerance: float = 0.0,
) -> Sizing:
    """The cheapest plan that meets the SLA; among equals the one with the fewest changes from `current`.

    Args:
        evaluator: predicts attainment for the demand and the SLA at hand.
        pools: bounds and GPUs by role, in the evaluator's order of roles.
        sla: the limits and the share of requests that must keep them.
        max_gpus: GPUs that the plan may hold.
        current: workers asked for now.
        target: attainment to size for; the SLA's own if not given.
        tolerance: what is asked for now stays if it costs no more and falls short of the target by less than this.
    """
    at_best = evaluator.ceiling()
    ceiling = at_best.attainment
    reachable = ceiling >= sla.attainment
    parts = [min(sla.attainment, NEAR_CEILING * part) for part in (at_best.ttft_attainment, at_best.itl_attainment)]
    search = _Search(evaluator, pools, None if reachable else _Parts(*parts))
    wanted = sla.attainment if target is None else target
    # A target above the ceiling (a deficit to repay, or an SLA out of reach) stops short of the last worker's worth.
    target = min(wanted, max(sla.attainment, NEAR_CEILING * ceiling)) if reachable else NEAR_CEILING * ceiling
    steps = sorted(search.staircase(target), key=lambda c: _rank(c, current))
    affordable = [step for step in steps if step.gpus <= max_gpus]
    chosen = affordable[0] if affordable else search.best_within(max_gpus)
    counts = tuple(chosen.workers[role] for role in pools)
    held = tuple(current.get(role, 0) for role in pools)
    if affordable and held != counts and _may_stay(search, held, chosen, target - tolerance):
        why = "meets the target, which the present plan misses by less than the tolerance"
        runner_up: Candidate | None = chosen
        chosen, counts, limit = search.at(held), held, "tolerance"
    else:
        limit = _limit(search, counts, target, max_gpus, reachable, bool(steps), bool(affordable))
        runner_up, why = _runner_up(search, counts, affordable, target)
    considered = sorted((c for c, _ in search.seen.values()), key=lambda c: (c.gpus, -c.attainment))
    return Sizing(
        chosen=chosen,
        reached=reachable and chosen.attainment >= min(target, sla.attainment) - tolerance,
        reachable=reachable,
        nearest=None if reachable else evaluator.nearest(),
        limit=limit,
        runner_up=runner_up,
        why_not_runner_up=why,
        candidates=tuple(considered),
        prediction=search.seen[counts][1],
    )


def _may_stay(search: _Search, held: tuple[int, ...], cheapest: Candidate, target: float) -> bool:
    """Whether the present counts are within bounds, no dearer than the cheapest plan, and good enough."""
    bounds = search.pools.values()
    inside = all(pool.min_workers <= n <= pool.max_workers for pool, n in zip(bounds, held, strict=True))
    return inside and search.gpus(held) <= cheapest.gpus and search.meets(held, target)


def _gpus(count: int) -> str:
    return f"{count} GPU" if count == 1 else f"{count} GPUs"


def _rank(candidate: Candidate, current: Mapping[Role, int]) -> tuple[float, ...]:
    moves = sum(abs(n - current.get(role, 0)) for role, n in candidate.workers.items())
    return (candidate.gpus, moves, -candidate.attainment)


def _limit(
    search: _Search,
    counts: tuple[int, ...],
    target: float,
    max_gpus: int,
    reachable: bool,
    steps: bool,
    affordable: bool,
) -> str:
    """What binds: the constraint whose loosening would let the plan be cheaper, or be good enough at all."""
    if not reachable:
        return "sla"
    if steps and not affordable:
        return "budget"
    if not steps:
        at_max = search.gpus(tuple(pool.max_workers for pool in search.pools.values())) <= max_gpus
        return "max_workers" if at_max else "budget"
    chosen = search.at(counts)
    loss = {"ttft": -1.0, "itl": -1.0}
    for axis, role in enumerate(search.roles):
        if counts[axis] > search.pools[role].min_workers:
            fewer = search.at(_with(counts, axis, counts[axis] - 1))
            if not search.meets(_with(counts, axis, counts[axis] - 1), target):
                loss["ttft"] = max(loss["ttft"], chosen.ttft_attainment - fewer.ttft_attainment)
                loss["itl"] = max(loss["itl"], chosen.itl_attainment - fewer.itl_attainment)
    if max(loss.values()) < 0.0:
        return "min_workers"
    return "ttft" if loss["ttft"] >= loss["itl"] else "itl"


def _runner_up(
    search: _Search, counts: tuple[int, ...], affordable: list[Candidate], target: float
) -> tuple[Candidate | None, str]:
    """The next plan that also meets the target, or else the best of those with one worker fewer."""
    chosen = search.at(counts)
    if len(affordable) > 1:
        other = affordable[1]
        if other.gpus > chosen.gpus:
            return other, f"needs {_gpus(other.gpus - chosen.gpus)} more for the same target"
        return other, "costs the same GPUs with more changes"
    fewer = [
        search.at(_with(counts, axis, counts[axis] - 1))
        for axis, role in enumerate(search.roles)
        if counts[axis] > search.pools[role].min_workers
    ]
    if not fewer:
        return None, "no pool can be smaller"
    other = max(fewer, key=lambda c: c.attainment)
    saved = chosen.gpus - other.gpus
    if chosen.attainment >= target and other.attainment >= target:
        return other, f"saves {_gpus(saved)} but does not keep up, or keeps one limit less often"
    if other.attainment < target:
        return other, f"saves {_gpus(saved)} but attains {other.attainment:.1%} of the wanted {target:.1%}"
    return other, f"saves {_gpus(saved)}; kept because it attains less than the best within the budget"
