"""Stabilisation: the rules of the Kubernetes HorizontalPodAutoscaler v2 `behavior`, for one pool at a time.

A scale-up takes the lowest recommendation of its window, a scale-down the highest of its own; a change within the
tolerance is none; policies bound how far a pool moves within a period. Time is an argument.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field


class RatePolicy(BaseModel):
    """How far a pool may move within a period."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    kind: Literal["workers", "percent"]
    """Whether `value` counts workers, or percent of the workers at the period's start."""

    value: float = Field(gt=0)
    """Workers or percent."""

    period_s: float = Field(gt=0)
    """Length of the period, s."""


class Direction(BaseModel):
    """Rules of one direction."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    window_s: float = Field(default=0.0, ge=0)
    """Recommendations of the last so many seconds count; 0 follows each one at once."""

    tolerance: float = Field(default=0.0, ge=0, lt=1)
    """A wanted change of up to this share of the present workers is none."""

    policies: tuple[RatePolicy, ...] = ()
    """Bounds on the change; the most permissive counts, as `selectPolicy: Max` does. None: unbounded."""


class Behaviour(BaseModel):
    """Rules of both directions."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    up: Direction = Direction()
    """Scale-ups follow at once: late is what breaks the SLA, and start-up makes every worker late already."""

    down: Direction = Direction(window_s=90.0)
    """Scale-downs wait a minute and a half: shorter than the HPA's five, since the forecast covers the lead time."""


@dataclass(frozen=True, slots=True)
class Memory:
    """What is remembered of one pool: recommendations and changes, each as (time s, workers), oldest first."""

    recommended: tuple[tuple[float, int], ...] = ()
    changed: tuple[tuple[float, int], ...] = ()


@dataclass(frozen=True, slots=True)
class Stabilised:
    """The count to ask for, the memory for the next tick, and the rules that changed the count.

    The memory does not hold the change itself: what is asked for in the end may be less. `remember` adds it.
    """

    workers: int
    memory: Memory
    rules: tuple[str, ...]


def stabilise(
    behaviour: Behaviour, memory: Memory, current: int, wanted: int, at_s: float, *, lasting: int | None = None
) -> Stabilised:
    """Bound a recommendation by the rules.

    Args:
        behaviour: the rules.
        memory: of this pool.
        current: workers asked for now.
        wanted: workers recommended now.
        at_s: now.
        lasting: what is remembered as the recommendation, and so delays later scale-downs; without it `wanted`.
    """
    keep = max(behaviour.up.window_s, behaviour.down.window_s)
    # As the HPA does: at first, what is asked for already stands for the recommendations that were not seen. Without
    # it a restart would scale down on a single interval.
    before = memory.recommended or ((at_s, current),)
    before = tuple(entry for entry in before if at_s - entry[0] <= keep)
    rules: list[str] = []

    def within(window_s: float) -> list[int]:
        return [wanted, *(n for t, n in before if window_s > 0 and at_s - t <= window_s)]

    # As the HPA does: up only as far as the whole up-window asked, down only as far as the whole down-window allows.
    count = min(max(current, min(within(behaviour.up.window_s))), max(within(behaviour.down.window_s)))
    if count != wanted:
        rules.append("up_window" if wanted > current else "down_window")

    side = behaviour.up if count > current else behaviour.down
    if count != current and abs(count - current) <= side.tolerance * current:
        count = current
        rules.append("tolerance")
    bounded = _bound_rate(side, memory.changed, current, count, at_s)
    if bounded != count:
        rules.append("up_policy" if count > current else "down_policy")
        count = bounded

    return Stabilised(
        count, replace(memory, recommended=(*before, (at_s, wanted if lasting is None else lasting))), tuple(rules)
    )


def remember(behaviour: Behaviour, memory: Memory, change: int, at_s: float) -> Memory:
    """Add a change of workers that was asked for, in the end, and forget those that no policy looks back to."""
    longest = max((p.period_s for d in (behaviour.up, behaviour.down) for p in d.policies), default=0.0)
    changed = tuple(entry for entry in memory.changed if at_s - entry[0] < longest)
    if change != 0 and longest > 0:
        changed = (*changed, (at_s, change))
    return replace(memory, changed=changed)


def _bound_rate(side: Direction, changed: tuple[tuple[float, int], ...], current: int, count: int, at_s: float) -> int:
    """The count that the most permissive policy of the direction allows."""
    if not side.policies or count == current:
        return count
    up = count > current
    limits = []
    for policy in side.policies:
        moved = sum(n for t, n in changed if at_s - t < policy.period_s and (n > 0) == up)
        start = current - moved
        step = policy.value if policy.kind == "workers" else start * policy.value / 100.0
        # Rounded as the HPA rounds: up for scale-ups, so that small pools can move; away from zero for downs.
        limits.append(math.ceil(start + step - 1e-9) if up else math.floor(start - step + 1e-9))
    return max(current, min(count, max(limits))) if up else min(current, max(count, min(limits)))
