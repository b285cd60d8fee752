"""Whether another layout of one pool pays: what it saves over a horizon against what the change costs.

The slower of the planner's two loops. Each combination of measured layouts is sized for the load that the forecast
expects over the horizon, piece by piece; the GPU-seconds of both are compared. The change itself costs what both sides
hold beside the new layout's own workers until the old ones are gone, and, where there is no room to bring the new ones
up first, the capacity that is missing meanwhile; both come from the very steps that would carry it out (`foresee`, and
`foresee_in_place` for a pool that is changed where it stands).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import fmean

from pydantic import BaseModel, ConfigDict, Field

from planner.core.capacity import CapacityModel
from planner.core.demand import Demand
from planner.core.foresee import Foreseen, foresee
from planner.core.foresee_in_place import foresee_in_place
from planner.core.in_place import Rolling
from planner.core.sizing import EQUAL, size
from planner.core.transition import Intent, Side
from planner.core.types import Pool, Role, Sla

#: A layout in which the SLA cannot be met either is better from so much more attainment on.
CLEARLY_MORE = 0.05

#: Equal pieces of the horizon, each sized for its own highest expected load.
PIECES = 6


class LayoutSettings(BaseModel):
    """When tensor- and data-parallel sizes are changed."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    enabled: bool = False
    """Whether layouts are compared and changed. Then profiles of several layouts may be given for each role."""

    horizon_s: float = Field(default=3600.0, gt=0, le=86_400)
    """Seconds over which a change must pay. An hour of a daily load is seen well enough ahead; a start takes minutes.
    """

    every_s: float = Field(default=600.0, gt=0, le=86_400)
    """Seconds between comparisons. Every layout is sized for the whole horizon; loads that ask for another one last."""

    margin: float = Field(default=1.5, ge=1)
    """How many times its cost a change must save: starts take longer than measured, and forecasts err."""

    least_capacity: float = Field(default=1.0, ge=0, le=1)
    """Share of the needed capacity that serves at every moment of a change. At 1 a change waits for an hour with room
    for a new worker beside the old ones; below, old workers may go first where there is none."""

    between_s: float = Field(default=3600.0, ge=0)
    """Seconds after a change, or one that was rolled back, before the next: what was saved must first be earned."""

    patience_s: float = Field(default=900.0, gt=0)
    """Seconds without a further new worker that serves, after which a change is rolled back. Longer than a start and
    a drain together."""

    drain_s: float = Field(default=60.0, ge=0)
    """Seconds that a worker is expected to take from its end being asked for to its GPUs being free."""


@dataclass(frozen=True, eq=False)
class LayoutOption:
    """One combination of layouts that profiles describe.

    Attributes:
        layouts: tensor- and data-parallel size by role.
        capacity: its capacity model.
        pools: its pools, with the GPUs of these layouts, in the model's order of roles.
        startup_s: measured start-up of a worker, by role; without what the profiles do not say.
    """

    layouts: Mapping[Role, tuple[int, int]]
    capacity: CapacityModel
    pools: tuple[Pool, ...]
    startup_s: Mapping[Role, float]

    @property
    def name(self) -> str:
        """Such as `prefill tp1, decode tp2`."""
        return ", ".join(f"{role.value} {layout_word(*layout)}" for role, layout in self.layouts.items())


def layout_word(tp: int, dp: int) -> str:
    """tp2, or tp2-dp4."""
    return f"tp{tp}" if dp == 1 else f"tp{tp}-dp{dp}"


@dataclass(frozen=True, slots=True)
class LayoutCandidate:
    """One combination as it was compared.

    Attributes:
        name: its layouts.
        gpu_s: GPU-seconds over the horizon.
        attainment: predicted, mean over the horizon.
        reached: whether it meets the target all through.
        gain_gpu_s: GPU-seconds that it saves against the present one over the horizon.
        cost_gpu_s: of changing to it; None where it was not worked out, or there is no way to it within the budget.
        why_not: why it was not proposed; empty for the proposed and for the present one.
    """

    name: str
    gpu_s: float
    attainment: float
    reached: bool
    gain_gpu_s: float = 0.0
    cost_gpu_s: float | None = None
    why_not: str = ""


@dataclass(frozen=True, slots=True)
class LayoutProposal:
    """A change that pays.

    Attributes:
        pool: that changes.
        role: of the pool.
        old, new: (tensor-, data-parallel size).
        old_workers, new_workers: that the coming load needs in either layout.
        new_gpus: of a new worker.
        least_capacity, patience_s: as set.
        duration_s: that it is expected to take.
        missing_s: seconds of the whole needed capacity that are missing over it.
        peak_gpus: most GPUs that the pool holds over it.
    """

    pool: str
    role: Role
    old: tuple[int, int]
    new: tuple[int, int]
    old_workers: int
    new_workers: int
    new_gpus: int
    least_capacity: float
    patience_s: float
    duration_s: float
    missing_s: float
    peak_gpus: int


@dataclass(frozen=True, slots=True)
class LayoutReview:
    """One comparison, for the decision record.

    Attributes:
        horizon_s: that it was made for.
        rates_rps: expected load, one a piece of the horizon.
        present: the combination that there is.
        others: the others, best first.
        proposal: what to change; None where nothing pays.
        why: in a sentence.
    """

    horizon_s: float
    rates_rps: tuple[float, ...]
    present: LayoutCandidate
    others: tuple[LayoutCandidate, ...]
    proposal: LayoutProposal | None
    why: str


def pieces(rates_rps: Sequence[float]) -> tuple[float, ...]:
    """The highest of each of `PIECES` equal parts of the rates, which cover the horizon evenly."""
    n = len(rates_rps)
    count = min(PIECES, n)
    return tuple(max(rates_rps[i * n // count : (i + 1) * n // count]) for i in range(count))


@dataclass(frozen=True, slots=True)
class _Sized:
    gpu_s: float
    attainment: float
    reached: bool
    first: Mapping[Role, int]


def review(
    settings: LayoutSettings,
    present: LayoutOption,
    options: Sequence[LayoutOption],
    demand: Demand,
    rates_rps: Sequence[float],
    sla: Sla,
    *,
    target: float,
    tolerance: float,
    max_gpus: int,
    serving: Mapping[str, int],
    lead_time_s: float,
    rolling: Mapping[str, Rolling] | None = None,
) -> LayoutReview:
    """Compare the present layouts with every combination that differs in one role.

    Args:
        settings: of the comparison.
        present: the layouts that there are.
        options: all that profiles describe; the present one among them is left aside.
        demand: burstiness and lengths; its rate is not used.
        rates_rps: expected load over the horizon, one for each of equal pieces.
        sla: limits and share.
        target: attainment to size for.
        tolerance: by which a plan may fall short of it.
        max_gpus: budget.
        serving: workers that serve now, by pool.
        lead_time_s: from asking for a worker to its readiness, where a profile does not say.
        rolling: how an operator replaces workers, by pool, of pools that are changed where they stand.
    """
    room = _Room(settings, max_gpus, serving, lead_time_s, rolling or {})
    here = _sized(settings, present, demand, rates_rps, sla, target, tolerance, max_gpus, serving)
    now = LayoutCandidate(present.name, here.gpu_s, here.attainment, here.reached)
    found: list[tuple[LayoutCandidate, LayoutProposal | None]] = []
    for option in options:
        roles = [role for role in present.layouts if option.layouts[role] != present.layouts[role]]
        if not roles:
            continue
        there = _sized(settings, option, demand, rates_rps, sla, target, tolerance, max_gpus, {})
        if len(roles) > 1:
            # One pool after the other: each must pay for itself.
            why = "changes more than one pool at once"
            found.append((_candidate(option, there, here, None, why), None))
            continue
        found.append(_judge(present, option, roles[0], here, there, room))
    found.sort(key=lambda pair: (pair[1] is None, not pair[0].reached, pair[0].gpu_s, pair[0].name))
    chosen = found[0][1] if found else None
    others = tuple(candidate for candidate, _ in found)
    if chosen is None:
        why = "no other layout pays" if found else "there is no other layout among the profiles"
        return LayoutReview(settings.horizon_s, tuple(rates_rps), now, others, None, why)
    return LayoutReview(settings.horizon_s, tuple(rates_rps), now, others, chosen, _words(chosen, others[0], now))


@dataclass(frozen=True, slots=True)
class _Room:
    """What a change is foreseen in; as the arguments of `review`."""

    settings: LayoutSettings
    max_gpus: int
    serving: Mapping[str, int]
    lead_time_s: float
    rolling: Mapping[str, Rolling]

    def foresee(self, intent: Intent, others: int, startup_s: float | None) -> Foreseen:
        """A change's course, beside so many GPUs of others."""
        serving = max(self.serving.get(intent.pool, 0), intent.old.workers)
        old_s, new_s = self.lead_time_s, self.lead_time_s if startup_s is None else startup_s
        drain_s, most, rolling = self.settings.drain_s, self.max_gpus, self.rolling.get(intent.pool)
        if rolling is None:
            lead_s = {"old": old_s, "new": new_s}
            return foresee(intent, serving, others_gpus=others, max_gpus=most, lead_s=lead_s, drain_s=drain_s)
        both_s = (old_s, new_s)
        return foresee_in_place(
            intent, serving, rolling, others_gpus=others, max_gpus=most, lead_s=both_s, drain_s=drain_s
        )


def _judge(
    present: LayoutOption, option: LayoutOption, role: Role, here: _Sized, there: _Sized, room: _Room
) -> tuple[LayoutCandidate, LayoutProposal | None]:
    """One combination that differs in one role: a proposal, or why not."""
    settings = room.settings
    old, new = (next(pool for pool in one.pools if pool.role is role) for one in (present, option))
    if old.name in room.rolling and old.gpus_per_worker == new.gpus_per_worker:
        why = "holds as many GPUs, by which workers of both are told apart while they are replaced where they stand"
        return _candidate(option, there, here, None, why), None
    if here.reached and not there.reached:
        return _candidate(option, there, here, None, "does not meet the target"), None
    better = not here.reached and (there.reached or there.attainment >= here.attainment + CLEARLY_MORE)
    if not here.reached and not better and there.attainment < here.attainment - EQUAL:
        # Where both meet the target, what is above it is nobody's; where neither does, nothing of it is given up.
        return _candidate(option, there, here, None, "attains less"), None
    gain = here.gpu_s - there.gpu_s
    if not better and gain <= 0:
        return _candidate(option, there, here, None, "saves nothing"), None
    intent = Intent(
        pool=old.name,
        old=Side("old", *present.layouts[role], old.gpus_per_worker, max(1, here.first[role])),
        new=Side("new", *option.layouts[role], new.gpus_per_worker, max(1, there.first[role])),
        promised=settings.least_capacity,
        patience_s=settings.patience_s,
        began_s=0.0,
    )
    others = sum(
        max(room.serving.get(pool.name, 0), here.first[pool.role]) * pool.gpus_per_worker
        for pool in present.pools
        if pool.role is not role
    )
    course = room.foresee(intent, others, option.startup_s.get(role))
    if not course.reached:
        words = f"no room to change with {settings.least_capacity:.0%} of the capacity serving"
        return _candidate(option, there, here, None, words), None
    steady = intent.new.workers * intent.new.gpus * course.duration_s
    cost = max(0.0, course.gpu_s - steady) + course.missing_s * intent.old.workers * intent.old.gpus
    if not better and gain <= settings.margin * cost:
        words = f"saves {gain:,.0f} GPU-s, changing costs {cost:,.0f} and must be earned {settings.margin:g} times"
        return _candidate(option, there, here, cost, words), None
    proposal = LayoutProposal(
        pool=old.name,
        role=role,
        old=present.layouts[role],
        new=option.layouts[role],
        old_workers=intent.old.workers,
        new_workers=intent.new.workers,
        new_gpus=intent.new.gpus,
        least_capacity=settings.least_capacity,
        patience_s=settings.patience_s,
        duration_s=course.duration_s,
        missing_s=course.missing_s,
        peak_gpus=course.peak_gpus,
    )
    return _candidate(option, there, here, cost, ""), proposal


def _sized(
    settings: LayoutSettings,
    option: LayoutOption,
    demand: Demand,
    rates_rps: Sequence[float],
    sla: Sla,
    target: float,
    tolerance: float,
    max_gpus: int,
    current: Mapping[str, int],
) -> _Sized:
    """A combination over the horizon: GPU-seconds, attainment, workers of its first piece."""
    pools = {pool.role: pool for pool in option.pools}
    evaluator = option.capacity.evaluator(demand, sla)
    now = {role: current.get(pool.name, 0) for role, pool in pools.items()}
    sizings = [
        size(evaluator.at_rate(rate), pools, sla, max_gpus, now, target=target, tolerance=tolerance)
        for rate in rates_rps
    ]
    piece_s = settings.horizon_s / len(sizings)
    return _Sized(
        gpu_s=sum(one.chosen.gpus for one in sizings) * piece_s,
        attainment=fmean(one.chosen.attainment for one in sizings),
        reached=all(one.reached for one in sizings),
        first=sizings[0].chosen.workers,
    )


def _candidate(option: LayoutOption, there: _Sized, here: _Sized, cost: float | None, why: str) -> LayoutCandidate:
    gain = here.gpu_s - there.gpu_s
    return LayoutCandidate(option.name, there.gpu_s, there.attainment, there.reached, gain, cost, why)


def _words(proposal: LayoutProposal, chosen: LayoutCandidate, now: LayoutCandidate) -> str:
    old, new = layout_word(*proposal.old), layout_word(*proposal.new)
    what = f"{proposal.pool}: {proposal.old_workers} workers of {old} to {proposal.new_workers} of {new}"
    if chosen.reached and not now.reached:
        reason = f"meets the target, which {old} does not"
    elif chosen.gain_gpu_s <= 0:
        reason = f"attains {chosen.attainment:.1%} against {now.attainment:.1%}"
    else:
        reason = f"saves {chosen.gain_gpu_s:,.0f} GPU-s over the horizon and costs {chosen.cost_gpu_s or 0.0:,.0f}"
    text = f"{what} {reason}; takes about {proposal.duration_s:.0f} s and up to {proposal.peak_gpus} GPUs of the pool"
    if proposal.missing_s > 0:
        text += f", {proposal.missing_s / proposal.duration_s:.0%} of the capacity is missing meanwhile"
    return text
