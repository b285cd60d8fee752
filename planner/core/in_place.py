"""A layout change of a pool that is part of a larger object: its template changes, an operator replaces the workers.

There is one object, so the two layouts are its template before and after, and in between the operator decides which
worker goes when. It may at any moment hold the workers that are there and, for each that is asked for, one of the new
template; so many are asked for while it works that both fit the budget, the others come back afterwards in the new
layout. A rollback is the same with the templates exchanged. As in `transition`: one write at a time, from the recorded
intent and what is seen alone.
"""

from __future__ import annotations

import itertools
import math
from dataclasses import dataclass
from fractions import Fraction

from planner.core.transition import Clear, Heading, Intent, Scale, Seen, Side, Step, Turn, Write, progress


@dataclass(frozen=True, slots=True)
class Rolling:
    """How an operator replaces workers: as a Deployment's rolling update does, whose defaults these are.

    Attributes:
        unavailable: workers that may be away at once; a share of those asked for is rounded down.
        surge: workers beyond those asked for; a share is rounded up.
    """

    unavailable: int | Fraction = Fraction(1, 4)
    surge: int | Fraction = Fraction(1, 4)

    def away(self, count: int) -> int:
        """Of so many workers asked for, those that may be away at once."""
        if isinstance(self.unavailable, int):
            return min(self.unavailable, count)
        return math.floor(self.unavailable * count)

    def beyond(self, count: int) -> int:
        """Workers that may be there beyond so many asked for; one where none might be away either."""
        surge = self.surge if isinstance(self.surge, int) else math.ceil(self.surge * count)
        return surge if surge or self.away(count) else 1

    def fewest(self, serving: Fraction) -> int | None:
        """The fewest workers to ask for so that so many serve all through; None where all may be away at once."""
        if serving > 0 and isinstance(self.unavailable, Fraction) and self.unavailable >= 1:
            return None
        return next(count for count in itertools.count() if count - self.away(count) >= serving)


@dataclass(frozen=True, slots=True)
class Relayout:
    """Change the template to the side's layout; the workers asked for stay."""

    side: Side


@dataclass(frozen=True, slots=True)
class InPlace:
    """The one object.

    Attributes:
        desired: workers that are asked for.
        layout: (tensor-, data-parallel size) of its template.
        old, new: its workers that have either layout, by the GPUs that they hold; `desired` of these is not used.
        carried: workers that stand beside the template; others than `desired` where they are asked for in another
            object, a scaling adapter, whose controller has not carried them here yet.
        rolling: how its operator replaces workers.
    """

    desired: int
    layout: tuple[int, int]
    old: Seen
    new: Seen
    carried: int
    rolling: Rolling


def turn_in_place(
    intent: Intent, seen: InPlace, *, others_gpus: int, max_gpus: int, now_s: float
) -> tuple[Turn, Write | Relayout | None]:
    """The next write of a change.

    Args:
        intent: as recorded; both sides name the same object.
        seen: its workers.
        others_gpus: that all other pools hold or may hold.
        max_gpus: the budget.
        now_s: unix time.

    Returns:
        What is next, for people, and the write itself, None where it waits.
    """
    forward = intent.heading is Heading.FORWARD
    goal = intent.goal
    going, coming = (seen.old, seen.new) if forward else (seen.new, seen.old)
    arrived = seen.layout == (goal.tp, goal.dp)
    if arrived and _rests(going) and coming.ready >= goal.workers:
        turn = Turn(Step.DONE, Clear(), f"{intent.pool} has {goal.layout}")
        return turn, turn.write
    if forward:
        changed = progress(intent, coming, goal.workers, now_s, grown=False)
        if changed is not None:
            return changed, changed.write
    held = sum(
        (one.existing + one.terminating) * side.gpus for one, side in ((seen.old, intent.old), (seen.new, intent.new))
    )
    free = max_gpus - others_gpus - held
    if arrived:
        return _arrived(seen, going, coming, goal, free)
    return _leaving(intent, seen, coming, max_gpus - others_gpus, free)


def _rests(one: Seen) -> bool:
    return one.existing == 0 and one.terminating == 0


def _arrived(seen: InPlace, going: Seen, coming: Seen, goal: Side, free: int) -> tuple[Turn, Write | Relayout | None]:
    """The template is the wanted one: wait for the operator, then ask for what is still missing."""
    if not _rests(going) or coming.existing < seen.desired:
        left = going.existing + going.terminating
        text = f"{left} workers are still to be replaced, {coming.ready} of {goal.layout} serve"
        return Turn(Step.SERVE, None, _with(text, coming.trouble)), None
    more = min(goal.workers - seen.desired, free // goal.gpus)
    if more > 0:
        write = Scale(goal, seen.desired + more)
        return Turn(
            Step.SURGE, write, f"{write.replicas} of {goal.workers} workers of {goal.layout} are asked for"
        ), write
    what = "serve" if seen.desired >= goal.workers else "serve; no GPUs for more"
    text = f"{coming.ready} of {goal.workers} workers of {goal.layout} {what}"
    return Turn(Step.SERVE, None, _with(text, coming.trouble)), None


def _leaving(intent: Intent, seen: InPlace, coming: Seen, room: int, free: int) -> tuple[Turn, Write | Relayout | None]:
    """The template is the other one: ask for as many workers as its operator has room to replace, then change it."""
    source, goal = intent.source, intent.goal
    going = seen.old if intent.heading is Heading.FORWARD else seen.new
    fit = max(0, room // (source.gpus + goal.gpus))
    count = min(seen.desired, fit)
    if intent.heading is Heading.FORWARD:
        least = fewest_in_place(intent, seen.rolling)
        if least is None or least > fit:
            needs = "which the operator cannot promise" if least is None else f"which takes room for {least} of both"
            text = (
                f"no room to replace workers of {source.layout} with {intent.promised:.0%} of the capacity serving, "
                f"{needs} layouts: {room} GPUs hold {fit}"
            )
            return Turn(Step.SURGE, None, text), None
        # Where the operator takes some away at once, more are asked for than serve on.
        count = max(count, least)
    missing = float(max(Fraction(0), 1 - Fraction(count - seen.rolling.away(count), source.workers)))
    if seen.desired != count:
        write = Scale(source, count)
        away = seen.rolling.away(count)
        why = "for room to replace them" if count < seen.desired else f"of which the operator may take {away} away"
        text = f"{source.layout} goes from {seen.desired} to {count} workers, {why}"
        return Turn(Step.SURGE, write, text, missing), write
    if seen.carried != count:
        # With the other template now, the operator might replace more workers than fit.
        text = f"{count} workers are asked for, {seen.carried} still stand beside the template"
        return Turn(Step.SURGE, None, text, missing), None
    # Workers of the goal that are still there, in a rollback, stay; for each of the others one may come beside it, and
    # those that are asked for and not there yet may still come in the layout that goes.
    soon = max(0, count - going.existing - coming.existing) * source.gpus
    if free - soon >= max(0, count - coming.existing) * goal.gpus:
        change = Relayout(goal)
        text = f"the template gets {goal.layout}; its operator replaces {count} workers"
        return Turn(Step.CREATE, None, text), change
    text = f"GPUs to replace {count} workers of {source.layout} are being freed"
    return Turn(Step.SURGE, None, text, missing), None


def fewest_in_place(intent: Intent, rolling: Rolling) -> int | None:
    """The fewest workers to ask for so that the promise is kept whatever the mix of layouts.

    A worker of either layout is replaced by one of the other: while they are as many, each counts for no less than one
    of the layout that needs more of them. None where the operator may end all at once.
    """
    promised = Fraction(intent.promised).limit_denominator(1_000_000)
    return rolling.fewest(promised * max(intent.old.workers, intent.new.workers))


def _with(text: str, trouble: str) -> str:
    return f"{text}: {trouble}" if trouble else text
