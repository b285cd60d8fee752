"""A pool's change from one layout to another, step by step: pure, and without memory besides its recorded intent.

The new layout's workers come up, then the old one's go; a rollback is the same with the sides exchanged. `turn` gives
one write at a time from what is seen: whoever carries it out may be ended between any two writes, and the next one,
given the intent and a fresh look, goes on where it was. Three things hold in every step:

* GPUs, counted as the greater of asked-for and existing workers and those that still terminate, stay in the budget;
* no write takes the serving capacity below what the intent promises;
* it ends: in the new layout, or, where its workers do not come to serve in time, in the old one.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from enum import StrEnum
from fractions import Fraction
from typing import Literal


class Heading(StrEnum):
    """Which layout a change goes to."""

    FORWARD = "forward"
    BACK = "back"


class Step(StrEnum):
    """How far a change is."""

    CREATE = "create"
    SURGE = "surge"
    SERVE = "serve"
    DRAIN = "drain"
    DONE = "done"


@dataclass(frozen=True, slots=True)
class Side:
    """One layout's end of a change.

    Attributes:
        object_name: what holds its workers.
        tp, dp: tensor- and data-parallel size.
        gpus: of one worker.
        workers: that the demand needs of this layout, at least 1.
    """

    object_name: str
    tp: int
    dp: int
    gpus: int
    workers: int

    @property
    def layout(self) -> str:
        """For people: tp4, or tp4-dp2."""
        return f"tp{self.tp}" if self.dp == 1 else f"tp{self.tp}-dp{self.dp}"


@dataclass(frozen=True, slots=True)
class Intent:
    """A change that is under way, as it is recorded before its first act and until its last one.

    Attributes:
        pool: that changes.
        old, new: its two sides.
        promised: share of the needed capacity that serves at every moment, 0 to 1. At 1 no old worker goes before its
            stead serves; below that, where there is no room for a new worker beside the old ones, some go first.
        patience_s: seconds without another new worker that serves, after which the change is rolled back.
        began_s: unix time.
        heading: where it goes now, and why, if that is back.
        lacking: new workers that did not serve when last looked at, and since when there is no progress.
        resource: kind of the objects, as `<plural>.<group>`; empty where there is only one kind.
    """

    pool: str
    old: Side
    new: Side
    promised: float
    patience_s: float
    began_s: float
    heading: Heading = Heading.FORWARD
    why_back: str = ""
    lacking: int = 0
    since_s: float = 0.0
    resource: str = ""
    version: Literal[1] = 1

    @property
    def source(self) -> Side:
        """The side whose workers go."""
        return self.old if self.heading is Heading.FORWARD else self.new

    @property
    def goal(self) -> Side:
        """The side whose workers come."""
        return self.new if self.heading is Heading.FORWARD else self.old

    @property
    def what(self) -> str:
        """For people."""
        if self.heading is Heading.FORWARD:
            return f"{self.pool}: {self.old.layout} to {self.new.layout}"
        return f"{self.pool}: back to {self.old.layout} from {self.new.layout} ({self.why_back})"


@dataclass(frozen=True, slots=True)
class Seen:
    """The workers of one side's object.

    Attributes:
        desired: that the object asks for.
        existing: that are there and do not terminate; fewer or more than asked for while its controller works.
        ready: of these, that serve.
        terminating: that drain and hold their GPUs still.
        trouble: what the cluster says of those that do not start; empty where it says nothing.
        by_index: whether each existing worker serves, where a lower number always ends the last ones; None where it
            ends those that do not serve first.
        retired: whether the object is out of use: at no workers, and marked so.
    """

    desired: int
    existing: int = 0
    ready: int = 0
    terminating: int = 0
    trouble: str = ""
    by_index: tuple[bool, ...] | None = None
    retired: bool = False

    @property
    def held(self) -> int:
        """Workers whose GPUs are held or may be at any moment."""
        return max(self.desired, self.existing) + self.terminating

    @property
    def going(self) -> int:
        """Workers whose GPUs will be free without another write."""
        return max(0, self.existing - self.desired) + self.terminating

    def ready_at(self, desired: int) -> int:
        """Workers that serve now and still will when so many are asked for."""
        if self.by_index is None:
            return min(self.ready, desired)
        return sum(self.by_index[:desired])


NOTHING = Seen(0)


@dataclass(frozen=True, slots=True)
class Create:
    """Make the side's object with no workers, or take its retired one into use again, with the side's layout."""

    side: Side


@dataclass(frozen=True, slots=True)
class Scale:
    """Ask for so many workers of a side."""

    side: Side
    replicas: int


@dataclass(frozen=True, slots=True)
class Save:
    """Record a changed intent."""

    intent: Intent


@dataclass(frozen=True, slots=True)
class Retire:
    """Mark the side's object, which has no workers left, as out of use, and `by` as what stands for it."""

    side: Side
    by: Side


@dataclass(frozen=True, slots=True)
class Clear:
    """Forget the intent: the change has ended."""


Write = Create | Scale | Save | Retire | Clear


@dataclass(frozen=True, slots=True)
class Turn:
    """What is next.

    Attributes:
        step: how far the change is.
        write: to carry out now; None where it waits for workers or GPUs.
        text: what is done or waited for, for people.
        missing: share of the needed capacity that will not serve after the write, or does not while it waits.
    """

    step: Step
    write: Write | None
    text: str
    missing: float = 0.0


def turn(
    intent: Intent,
    seen: Mapping[str, Seen | None],
    *,
    others_gpus: int,
    max_gpus: int,
    now_s: float,
    wanted: int = 0,
) -> Turn:
    """The next write of a change.

    Args:
        intent: as recorded.
        seen: each side's workers by its object's name; None where there is no such object.
        others_gpus: that all other pools hold or may hold.
        max_gpus: the budget.
        now_s: unix time.
        wanted: workers in the old layout that the planner wants now; more of them than the intent needs make both
            sides larger by the same share.
    """
    source, goal = intent.source, intent.goal
    there, coming = seen.get(source.object_name) or NOTHING, seen.get(goal.object_name)
    if coming is None or coming.retired:
        return Turn(Step.CREATE, Create(goal), f"{goal.object_name} is made for {goal.layout}")
    more = max(Fraction(1), Fraction(wanted, intent.old.workers))
    need = math.ceil(more * goal.workers)
    share = _Share(source.workers * more, goal.workers * more, there, coming)
    if there.held == 0 and coming.ready >= goal.workers:
        # What is left to the load that came meanwhile is the planner's usual work, in the layout that is there now.
        if seen.get(source.object_name) is not None and not there.retired:
            return Turn(Step.DONE, Retire(source, goal), f"{source.object_name} is kept without workers")
        return Turn(Step.DONE, Clear(), f"{intent.pool} has {goal.layout}")
    if intent.heading is Heading.FORWARD:
        changed = progress(intent, coming, need, now_s, grown=more > 1)
        if changed is not None:
            return changed
    if intent.heading is Heading.BACK and there.by_index is None and there.desired > there.ready:
        text = f"{there.desired - there.ready} workers of {source.layout} that do not serve go"
        return Turn(Step.DRAIN, Scale(source, there.ready), text, share.missing(there.ready))
    if coming.desired < need:
        free = max_gpus - others_gpus - there.held * source.gpus - coming.held * goal.gpus
        return _surge(intent, there, coming, need, free, share, may_lose=more == 1)
    if coming.ready < need:
        text = f"{coming.ready} of {need} workers of {goal.layout} serve"
        return Turn(Step.SERVE, None, _with(text, coming.trouble), share.missing(there.desired))
    return _drain(intent, there, share)


@dataclass(frozen=True, slots=True)
class _Share:
    """The serving share of the needed capacity, as a function of the workers that the source is asked for."""

    source_need: Fraction
    goal_need: Fraction
    there: Seen
    coming: Seen

    def at(self, desired: int) -> Fraction:
        """Serving now, and still when the source is asked for so many."""
        return self.there.ready_at(desired) / self.source_need + self.coming.ready / self.goal_need

    def missing(self, desired: int) -> float:
        """What is not served then."""
        return float(max(Fraction(0), 1 - self.at(desired)))

    def least(self, floor: Fraction) -> int:
        """The fewest workers of the source with which at least `floor` is served, or what is served now if less."""
        floor = min(floor, self.at(self.there.desired))
        return next(n for n in range(self.there.desired + 1) if self.at(n) >= floor)


def progress(intent: Intent, coming: Seen, need: int, now_s: float, *, grown: bool) -> Turn | None:
    """Keep account of progress; turn back where there is none. None where the change simply goes on."""
    lacking = max(0, need - coming.ready)
    if lacking != intent.lacking:
        gained = intent.lacking == 0 or lacking < intent.lacking
        since_s = now_s if gained else intent.since_s
        text = f"{lacking} workers of {intent.new.layout} do not serve yet"
        return Turn(Step.SERVE, Save(replace(intent, lacking=lacking, since_s=since_s)), text)
    late = lacking > 0 and now_s - intent.since_s > intent.patience_s
    # The new workers are to carry a grown load, too; those that do not even start will not.
    hopeless = grown and lacking > 0 and coming.ready == 0 and bool(coming.trouble)
    if not late and not hopeless:
        return None
    why = (
        f"no further worker of {intent.new.layout} served within {intent.patience_s:.0f} s"
        if late
        else f"the load grows and no worker of {intent.new.layout} serves"
    )
    back = turned_back(intent, _with(why, coming.trouble))
    return Turn(Step.SERVE, Save(back), back.what)


def turned_back(intent: Intent, why: str) -> Intent:
    """The same change on its way back to the old layout."""
    return replace(intent, heading=Heading.BACK, why_back=why)


def _surge(intent: Intent, there: Seen, coming: Seen, need: int, free: int, share: _Share, *, may_lose: bool) -> Turn:
    """Ask for new workers where there is room; else make room."""
    source, goal = intent.source, intent.goal
    fit = min(free // goal.gpus, need - coming.desired)
    if fit > 0:
        count = coming.desired + fit
        text = f"{count} of {need} workers of {goal.layout} are asked for"
        return Turn(Step.SURGE, Scale(goal, count), text, share.missing(there.desired))
    soon = free + there.going * source.gpus + coming.going * goal.gpus
    lack = (need - coming.desired) * goal.gpus - soon
    if lack > 0 and there.desired > 0:
        # Old workers whose stead serves already go first: as many as all that is still to come needs.
        down = max(share.least(Fraction(1)), there.desired - math.ceil(lack / source.gpus))
        if down < there.desired:
            text = f"{source.layout} goes from {there.desired} to {down} workers, whose stead serves"
            return Turn(Step.SURGE, Scale(source, down), text, share.missing(down))
    if soon >= goal.gpus:
        text = f"GPUs for another worker of {goal.layout} are being freed"
        return Turn(Step.SURGE, None, text, share.missing(there.desired))
    if coming.ready < coming.desired:
        text = f"no room for more than {coming.desired} workers of {goal.layout} until these serve"
        return Turn(Step.SURGE, None, _with(text, coming.trouble), share.missing(there.desired))
    down = there.desired - math.ceil((goal.gpus - soon) / source.gpus)
    if may_lose and down >= 0 and share.at(down) >= min(Fraction(intent.promised), share.at(there.desired)):
        missing = share.missing(down)
        text = (
            f"no room for a worker of {goal.layout}: {source.layout} goes from {there.desired} to {down} workers, "
            f"{missing:.0%} of the capacity is missing until it serves"
        )
        return Turn(Step.SURGE, Scale(source, down), text, missing)
    text = f"no room for a worker of {goal.layout}, and none of {source.layout} may go"
    return Turn(Step.SURGE, None, text, share.missing(there.desired))


def _drain(intent: Intent, there: Seen, share: _Share) -> Turn:
    """The old workers go in two halves, so that a fault that only load brings out finds one of them still there."""
    source = intent.source
    half = math.ceil(source.workers / 2)
    if there.desired > half:
        text = f"{source.layout} goes from {there.desired} to {half} workers"
        return Turn(Step.DRAIN, Scale(source, half), text, share.missing(half))
    if there.going > 0:
        return Turn(Step.DRAIN, None, f"{there.going} workers of {source.layout} drain", share.missing(there.desired))
    return Turn(Step.DRAIN, Scale(source, 0), f"the last {there.desired} workers of {source.layout} go")


def _with(text: str, trouble: str) -> str:
    return f"{text}: {trouble}" if trouble else text
