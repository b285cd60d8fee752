"""What a layout change in one object takes when nothing goes wrong: its steps, and its operator in between."""

from __future__ import annotations

import math
from dataclasses import dataclass, field, replace

from planner.core.foresee import MOST_TURNS, Course, Foreseen
from planner.core.in_place import InPlace, Relayout, Rolling, turn_in_place
from planner.core.transition import Clear, Intent, Save, Scale, Seen, Side


@dataclass
class _Workers:
    """Of one layout: when each starts to serve, oldest first, and when those that drain are gone."""

    side: Side
    lead_s: float
    drain_s: float
    ready_s: list[float] = field(default_factory=list)
    gone_s: list[float] = field(default_factory=list)

    @property
    def there(self) -> int:
        return len(self.ready_s)

    def ready(self, now_s: float) -> int:
        return sum(at <= now_s for at in self.ready_s)

    def going(self, now_s: float) -> int:
        return sum(at > now_s for at in self.gone_s)

    def start(self, count: int, now_s: float) -> None:
        self.ready_s.extend([now_s + self.lead_s] * count)

    def end(self, count: int, now_s: float) -> None:
        """Those that do not serve yet go first, and have nothing to drain."""
        for _ in range(count):
            at = self.ready_s.pop()
            self.gone_s.append(now_s + self.drain_s if at <= now_s else now_s)

    def seen(self, now_s: float) -> Seen:
        return Seen(0, self.there, self.ready(now_s), self.going(now_s))


@dataclass
class _Operator:
    """Replaces workers as the controller of Deployments does, within `rolling`."""

    rolling: Rolling
    desired: int
    to: _Workers
    off: _Workers

    def act(self, now_s: float) -> None:
        """All that it does without time passing."""
        while self._once(now_s):
            pass

    def _once(self, now_s: float) -> bool:
        to, off = self.to, self.off
        if to.there > self.desired:
            to.end(to.there - self.desired, now_s)
            return True
        # Only while others are to be replaced may there be more than are asked for.
        most = self.desired + (self.rolling.beyond(self.desired) if off.there else 0)
        up = min(self.desired - to.there, most - to.there - off.there)
        if up > 0:
            to.start(up, now_s)
            return True
        least = self.desired - self.rolling.away(self.desired)
        may_go = min(off.there, off.there + to.ready(now_s) - least)
        down = min(may_go, off.there - off.ready(now_s) + max(0, off.ready(now_s) + to.ready(now_s) - least))
        if down > 0:
            off.end(down, now_s)
            return True
        return False


def foresee_in_place(
    intent: Intent,
    serving: int,
    rolling: Rolling,
    *,
    others_gpus: int,
    max_gpus: int,
    lead_s: tuple[float, float],
    drain_s: float,
) -> Foreseen:
    """Run a change through.

    Args:
        intent: at its beginning; both sides are of one object.
        serving: workers of the old layout that serve at its beginning.
        rolling: how its operator replaces workers.
        others_gpus: that all other pools hold meanwhile.
        max_gpus: the budget.
        lead_s: seconds from asking for a worker to its readiness, in the old and in the new layout.
        drain_s: seconds from a worker's end being asked for until its GPUs are free.
    """
    old, new = (_Workers(side, one, drain_s) for side, one in zip((intent.old, intent.new), lead_s, strict=True))
    old.ready_s = [0.0] * serving
    operator = _Operator(rolling, serving, to=old, off=new)
    course, intent = Course(), replace(intent, patience_s=math.inf)
    for _ in range(MOST_TURNS):
        now_s = course.now_s
        operator.act(now_s)
        layout = (operator.to.side.tp, operator.to.side.dp)
        seen = InPlace(operator.desired, layout, old.seen(now_s), new.seen(now_s), operator.desired, rolling)
        _, write = turn_in_place(intent, seen, others_gpus=others_gpus, max_gpus=max_gpus, now_s=now_s)
        if isinstance(write, Scale):
            operator.desired = write.replicas
        elif isinstance(write, Relayout):
            operator.to, operator.off = (new, old) if write.side == intent.new else (old, new)
        elif isinstance(write, Save):
            intent = write.intent
        if write is not None and not isinstance(write, Clear):
            continue
        both = (old, new)
        course.stands(
            sum((one.there + one.going(now_s)) * one.side.gpus for one in both),
            sum(one.ready(now_s) / one.side.workers for one in both),
        )
        then_s = min((at for one in both for at in (*one.ready_s, *one.gone_s) if at > now_s), default=math.inf)
        if isinstance(write, Clear) or math.isinf(then_s):
            return course.ends(reached=isinstance(write, Clear))
        course.passes(then_s)
    raise AssertionError(f"a change of {intent.pool} does not end: {intent}")
