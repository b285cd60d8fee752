"""What a layout change takes when nothing goes wrong: its own steps, in a world where starts and drains keep time."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field, replace

from planner.core.transition import Clear, Create, Intent, Retire, Save, Scale, Seen, Side, turn

#: Turns without an event between them; more is a mistake of the steps.
MOST_TURNS = 10_000


@dataclass(frozen=True, slots=True)
class Foreseen:
    """A change's course.

    Attributes:
        reached: whether it ends in the new layout; False where the budget has no room for it.
        duration_s: until it ends.
        gpu_s: GPU-seconds that both sides hold over it.
        missing_s: seconds of the whole needed capacity that do not serve over it.
        least: smallest serving share of the needed capacity.
        peak_gpus: most GPUs that both sides hold.
        moments: (seconds, GPUs, serving share) from there on, in order.
    """

    reached: bool
    duration_s: float
    gpu_s: float
    missing_s: float
    least: float
    peak_gpus: int
    moments: tuple[tuple[float, int, float], ...]


@dataclass
class Course:
    """A change's course while it is run through."""

    now_s: float = 0.0
    gpu_s: float = 0.0
    missing_s: float = 0.0
    moments: list[tuple[float, int, float]] = field(default_factory=list)

    def stands(self, gpus: int, share: float) -> None:
        """So many GPUs are held from now on, and such a share of the needed capacity serves."""
        self.moments.append((self.now_s, gpus, share))

    def passes(self, then_s: float) -> None:
        """Time goes on as it stands."""
        _, gpus, share = self.moments[-1]
        self.gpu_s += gpus * (then_s - self.now_s)
        self.missing_s += max(0.0, 1.0 - share) * (then_s - self.now_s)
        self.now_s = then_s

    def ends(self, *, reached: bool) -> Foreseen:
        """All of it."""
        least, peak = min(share for _, _, share in self.moments), max(gpus for _, gpus, _ in self.moments)
        return Foreseen(reached, self.now_s, self.gpu_s, self.missing_s, least, peak, tuple(self.moments))


@dataclass
class _Workers:
    """One side: when its workers start to serve, and when those that drain are gone."""

    side: Side
    ready_s: list[float] = field(default_factory=list)
    gone_s: list[float] = field(default_factory=list)
    there: bool = True
    retired: bool = False

    def seen(self, now_s: float) -> Seen | None:
        if not self.there:
            return None
        ready = sum(at <= now_s for at in self.ready_s)
        going = sum(at > now_s for at in self.gone_s)
        return Seen(len(self.ready_s), len(self.ready_s), ready, going, retired=self.retired)

    def scale(self, count: int, now_s: float, lead_s: float, drain_s: float) -> None:
        self.ready_s.extend([now_s + lead_s] * (count - len(self.ready_s)))
        self.ready_s.sort()
        for at in self.ready_s[count:]:
            # One that does not serve yet has nothing to drain.
            self.gone_s.append(now_s + (drain_s if at <= now_s else 0.0))
        del self.ready_s[count:]

    def next_s(self, now_s: float) -> float:
        return min((at for at in (*self.ready_s, *self.gone_s) if at > now_s), default=math.inf)

    def gpus(self, now_s: float) -> int:
        return (len(self.ready_s) + sum(at > now_s for at in self.gone_s)) * self.side.gpus


def foresee(
    intent: Intent, serving: int, *, others_gpus: int, max_gpus: int, lead_s: Mapping[str, float], drain_s: float
) -> Foreseen:
    """Run a change through.

    Args:
        intent: at its beginning.
        serving: workers of the old layout that serve at its beginning.
        others_gpus: that all other pools hold meanwhile.
        max_gpus: the budget.
        lead_s: seconds from asking for a worker to its readiness, by object name.
        drain_s: seconds from a worker's end being asked for until its GPUs are free.
    """
    old, new = _Workers(intent.old, [0.0] * serving), _Workers(intent.new, there=False)
    sides = {one.side.object_name: one for one in (old, new)}
    course, intent = Course(), replace(intent, patience_s=math.inf)
    for _ in range(MOST_TURNS):
        now_s = course.now_s
        seen = {name: one.seen(now_s) for name, one in sides.items()}
        write = turn(intent, seen, others_gpus=others_gpus, max_gpus=max_gpus, now_s=now_s).write
        if isinstance(write, Create):
            sides[write.side.object_name].there = True
        elif isinstance(write, Scale):
            name = write.side.object_name
            sides[name].scale(write.replicas, now_s, lead_s[name], drain_s)
        elif isinstance(write, Save):
            intent = write.intent
        elif isinstance(write, Retire):
            sides[write.side.object_name].retired = True
        if write is not None and not isinstance(write, Clear):
            continue
        share = sum(sum(at <= now_s for at in one.ready_s) / one.side.workers for one in sides.values())
        course.stands(sum(one.gpus(now_s) for one in sides.values()), share)
        then_s = min(one.next_s(now_s) for one in sides.values())
        if isinstance(write, Clear) or math.isinf(then_s):
            return course.ends(reached=isinstance(write, Clear))
        course.passes(then_s)
    raise AssertionError(f"a change of {intent.pool} does not end: {intent}")
