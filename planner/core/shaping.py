"""From what sizing wants to what is asked for: stabilisation, what keeps a pool from being lowered, bounds, budget.

Every rule that changes a count says so, for machines (`reasons`) and for people (`clamps`).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from planner.core.budget import fit_budget, gpus_of
from planner.core.settings import PlannerSettings
from planner.core.stabilise import Memory, remember, stabilise
from planner.core.types import Plan


class Shaping:
    """One tick's plan on its way; the rules are applied in the order of the methods.

    Args:
        settings: of the planner.
        current: workers asked for now, by pool.
        wanted: workers that sizing wants, by pool.
        reasons: why, so far.
    """

    def __init__(self, settings: PlannerSettings, current: Plan, wanted: Plan, reasons: Sequence[str]) -> None:
        self._settings, self._pools = settings, settings.pools_by_name
        self._current, self._wanted = current, wanted
        self._memory: dict[str, Memory] = {}
        self.plan = dict(wanted)
        self.reasons = list(reasons)
        self.clamps: list[str] = []

    def say(self, reason: str, clamp: str) -> None:
        """Give a reason, for machines and in words."""
        self.reasons.append(reason)
        self.clamps.append(clamp)

    def stabilise(self, memory: Mapping[str, Memory], now_s: float, lasting: Plan | None = None) -> None:
        """Apply the rules of scale-ups and scale-downs; none holds a pool below its minimum.

        Args:
            memory: of the pools.
            now_s: now.
            lasting: what scale-downs remember as wanted; all that is wanted without it.
        """
        behaviour = self._settings.behaviour
        for name, count in self._wanted.items():
            kept, before = (lasting or self._wanted)[name], memory.get(name, Memory())
            result = stabilise(behaviour, before, self._current[name], count, now_s, lasting=kept)
            self.plan[name], self._memory[name] = result.workers, result.memory
            for rule in result.rules:
                words = rule.replace("_", " ")
                self.say(f"{name}:{rule}", f"{name}: {count} wanted, {result.workers} by {words}")
            least = min(count, self._pools[name].min_workers)
            if self.plan[name] < least:
                words = f"{name}: {self.plan[name]} after stabilisation, {least} is the minimum"
                self.say(f"{name}:min_workers", words)
                self.plan[name] = least

    def keep(self, reason: str, why: str) -> None:
        """Lower no pool."""
        for name, count in self.plan.items():
            if count < self._current[name]:
                self.say(f"{name}:{reason}", f"{name}: not lowered to {count}, {why}")
                self.plan[name] = self._current[name]

    def bound(self) -> None:
        """Keep every pool's maximum and the budget; a pool may have been kept above either."""
        capped = {name: min(count, self._pools[name].max_workers) for name, count in self.plan.items()}
        fitted = fit_budget(capped, self._wanted, self._pools, self._settings.max_gpus)
        for name, count in self.plan.items():
            if fitted.plan[name] < count:
                words = f"{name}: {count} after stabilisation, {fitted.plan[name]} by budget or maximum"
                self.say(f"{name}:budget", words)
        if not fitted.feasible:
            self.reasons.append("budget_below_minimum")
        self.plan = dict(fitted.plan)

    def keep_for_gaps(self, gaps: Sequence[str]) -> None:
        """With gaps in the metrics, lower no pool at all: what was not seen may be what is busy.

        Pools that grow then grow only as far as the budget goes beside those that are kept.
        """
        if not gaps:
            return
        self.keep("metrics_incomplete", "; ".join(gaps))
        fitted = fit_budget(self.plan, self._current, self._pools, self._settings.max_gpus)
        kept = {name: max(self._current[name], count) for name, count in fitted.plan.items()}
        for name, count in kept.items():
            if count < self.plan[name]:
                words = f"{name}: {self.plan[name]} wanted, {count} by budget beside pools that are not lowered"
                self.say(f"{name}:budget", words)
        if gpus_of(kept, self._pools) > self._settings.max_gpus:
            self.reasons.append("over_budget_kept")
        self.plan = kept

    def remembered(self, now_s: float) -> dict[str, Memory]:
        """The pools' memory with the changes that the plan makes in the end."""
        behaviour = self._settings.behaviour
        changes = {name: self.plan[name] - self._current[name] for name in self._memory}
        return {name: remember(behaviour, kept, changes[name], now_s) for name, kept in self._memory.items()}


def moves(plan: Plan, current: Plan) -> list[str]:
    """What a plan changes, pool by pool."""
    found = []
    for name, count in plan.items():
        if count > current[name]:
            found.append(f"{name}:scale_up")
        elif count < current[name]:
            found.append(f"{name}:scale_down")
    return found or ["no_change"]
