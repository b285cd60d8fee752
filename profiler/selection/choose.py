"""Sizing every option with the planner's own model, and ranking what comes of it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum

from planner.core.demand import Demand
from planner.core.sizing import Sizing, size
from planner.core.types import Pool, Role, Sla
from profiler.selection.options import Option

#: GPUs up to which plans are searched, so that what is beyond the budget can still be told.
OPEN_BUDGET = 4096


class Verdict(StrEnum):
    """How an option stands; better ones first."""

    MEETS = "meets the SLA"
    BUDGET = "over the budget"
    SHORT = "falls short"
    UNREACHABLE = "SLA out of reach"
    TOO_LONG = "requests too long"


_ORDER = list(Verdict)


@dataclass(frozen=True, eq=False)
class Ranked:
    """An option, sized.

    Attributes:
        option: the graph.
        verdict: how it stands.
        sizing: what meets the SLA; for an option over the budget, the best within it. None where not even one worker of
            each role fits the budget, and where no number of workers would do.
        gpus: that it needs; None where no number would do.
        too_long: share of requests that its workers cannot hold.
        nearest: closest SLA that some number of workers meets; the asked one where it can be met.
    """

    option: Option
    verdict: Verdict
    sizing: Sizing | None
    gpus: int | None
    too_long: float
    nearest: Sla

    @property
    def workers(self) -> Mapping[Role, int]:
        """Counts by role; empty where there is no plan."""
        return {} if self.sizing is None else self.sizing.chosen.workers


@dataclass(frozen=True, eq=False)
class Choice:
    """The answer: all options, best first.

    Attributes:
        ranked: those that meet the SLA first, of these the cheapest; of equal ones that which attains more.
        demand, sla, max_gpus: what was asked.
    """

    ranked: tuple[Ranked, ...]
    demand: Demand
    sla: Sla
    max_gpus: int

    @property
    def best(self) -> Ranked | None:
        """What to run; None where nothing meets the SLA within the budget."""
        return self.ranked[0] if self.ranked[0].verdict is Verdict.MEETS else None

    @property
    def reachable(self) -> bool:
        """Whether some number of GPUs would meet the SLA."""
        return any(one.gpus is not None for one in self.ranked)

    @property
    def nearest(self) -> Ranked | None:
        """Of the options whose SLA is out of reach, that which comes closest by its worse limit."""
        out = [one for one in self.ranked if one.verdict is Verdict.UNREACHABLE]
        return min(out, key=lambda one: (_distance(one.nearest, self.sla), one.option.name), default=None)

    def why(self, one: Ranked) -> str:
        """Why an option lost, or what limits the one that won."""
        best = self.best
        if one.verdict is Verdict.MEETS and one.sizing is not None:
            if best is None or one is best or best.gpus is None or one.gpus is None:
                return f"cheapest; {one.sizing.limit} limits it"
            if one.gpus > best.gpus:
                more = one.gpus - best.gpus
                return f"{more} GPU{'s' if more > 1 else ''} more"
            return "same GPUs, attains less"
        if one.verdict is Verdict.BUDGET:
            return f"needs {one.gpus} GPUs, {self.max_gpus} allowed"
        if one.verdict is Verdict.TOO_LONG:
            return f"{one.too_long:.1%} of requests do not fit a worker"
        if one.verdict is Verdict.UNREACHABLE:
            return f"nearest SLA {sla_words(one.nearest)}"
        return f"not even {OPEN_BUDGET} GPUs reach it"


def sla_words(sla: Sla) -> str:
    """Limits rounded up, so that what is said can be met."""
    return f"TTFT {_up(sla.ttft_ms)} ms, ITL {_up(sla.itl_ms)} ms"


def _up(ms: float) -> str:
    step = 1.0 if ms >= 100 else 0.1
    return f"{-(-ms // step) * step:,.4g}" if ms < 10_000 else f"{-(-ms // step) * step:,.0f}"


def _distance(near: Sla, asked: Sla) -> float:
    return max(near.ttft_ms / asked.ttft_ms, near.itl_ms / asked.itl_ms)


def choose(options: Sequence[Option], demand: Demand, sla: Sla, max_gpus: int) -> Choice:
    """Size all options and rank them."""
    ranked = [_sized(option, demand, sla, max_gpus) for option in options]

    def rank(one: Ranked) -> tuple[float, ...]:
        gpus = float("inf") if one.gpus is None else float(one.gpus)
        attained = one.sizing.chosen.attainment if one.sizing is not None else 0.0
        return _ORDER.index(one.verdict), gpus, -attained, _distance(one.nearest, sla)

    return Choice(tuple(sorted(ranked, key=lambda one: (rank(one), one.option.name))), demand, sla, max_gpus)


def _sized(option: Option, demand: Demand, sla: Sla, max_gpus: int) -> Ranked:
    evaluator = option.engines.closed_form.evaluator(demand, sla)
    too_long = option.too_long(demand.lengths)
    if too_long > 1.0 - sla.attainment:
        return Ranked(option, Verdict.TOO_LONG, None, None, too_long, sla)

    def sizing(budget: int) -> Sizing | None:
        pools = _pools(option, budget)
        return None if pools is None else size(evaluator, pools, sla, budget, {})

    nearest = evaluator.nearest()
    if evaluator.ceiling().attainment < sla.attainment:
        return Ranked(option, Verdict.UNREACHABLE, None, None, too_long, nearest)
    within = sizing(max_gpus)
    if within is not None and within.reached:
        return Ranked(option, Verdict.MEETS, within, within.chosen.gpus, too_long, sla)
    beyond = sizing(max(OPEN_BUDGET, max_gpus))
    if beyond is not None and beyond.reached:
        return Ranked(option, Verdict.BUDGET, within, beyond.chosen.gpus, too_long, sla)
    return Ranked(option, Verdict.SHORT, within, None, too_long, nearest)


def _pools(option: Option, budget: int) -> dict[Role, Pool] | None:
    """A pool for each role, in the engines' order; None where one worker of each does not fit the budget."""
    engines = option.engines
    each = {role: timing.gpus for role, timing in zip(engines.roles, engines.timing, strict=True)}
    spare = budget - sum(each.values())
    if spare < 0:
        return None
    return {role: Pool(role.value, role, gpus, 1, 1 + spare // gpus) for role, gpus in each.items()}
