"""The HorizontalPodAutoscaler controller after its metrics: several recommendations become one, bounded by `behavior`.

Modelled on `pkg/controller/podautoscaler/horizontal.go` of Kubernetes with the defaults of `autoscaling/v2`. What a
metric recommends is the business of `hpa` (Pods metrics) and of `keda` (an External metric); time is an argument.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Literal

from planner.core.stabilise import Behaviour, Direction, Memory, RatePolicy, stabilise
from planner.core.types import Pool

#: `--horizontal-pod-autoscaler-sync-period`, s.
SYNC_PERIOD_S = 15.0

#: `--horizontal-pod-autoscaler-tolerance`, on the ratio of metric and target.
TOLERANCE = 0.1

#: `selectPolicy`: the policy that allows the most change, the one that allows the least, or no change at all.
Select = Literal["max", "min", "disabled"]


@dataclass(frozen=True, slots=True)
class Tolerance:
    """Ratios of metric and target that change nothing, one share for each direction."""

    up: float = TOLERANCE
    down: float = TOLERANCE

    def holds(self, ratio: float) -> bool:
        """Whether a ratio is too near to 1 to act on."""
        return 1.0 - self.down <= ratio <= 1.0 + self.up


@dataclass(frozen=True, slots=True)
class Rules:
    """`scaleUp` or `scaleDown` of `behavior`.

    Attributes:
        window_s: `stabilizationWindowSeconds`; 0 follows every recommendation at once.
        policies: how far a pool may move within a period of each.
        select: which of them counts.
    """

    window_s: float
    policies: tuple[RatePolicy, ...]
    select: Select = "max"


#: Up at once, by 4 pods or 100 % per 15 s, whichever is more; down to the highest recommendation of five minutes, by up
#: to 100 % per 15 s.
UP = Rules(
    window_s=0.0,
    policies=(
        RatePolicy(kind="workers", value=4, period_s=15.0),
        RatePolicy(kind="percent", value=100, period_s=15.0),
    ),
)
DOWN = Rules(window_s=300.0, policies=(RatePolicy(kind="percent", value=100, period_s=15.0),))


@dataclass(frozen=True, slots=True)
class Controller:
    """Settings of one autoscaler: how often it looks, what it tolerates, how fast it moves."""

    sync_period_s: float = SYNC_PERIOD_S
    tolerance: Tolerance = Tolerance()
    up: Rules = UP
    down: Rules = DOWN


DEFAULT = Controller()


@dataclass(slots=True)
class Autoscaler:
    """One autoscaler and what it remembers; made at the replay's start, so it has seen nothing yet."""

    controller: Controller
    _memory: Memory | None = None
    _changed: list[tuple[float, int]] = field(default_factory=list)

    def sync(self, pool: Pool, current: int, recommended: Sequence[int | None], now_s: float) -> int:
        """The count to ask for.

        Args:
            pool: its bounds.
            current: workers asked for now.
            recommended: by each metric; None for a metric without a value.
            now_s: the time.
        """
        if current == 0:
            return 0  # zero replicas switch the autoscaler off
        within = _bounded(pool, current)
        if within != current:
            self._note(within - current, now_s)
            return within  # without a look at the metrics, as the controller does
        if self._memory is None:
            # On its first sync the controller records the present count: nothing shrinks before the window is over.
            self._memory = Memory(recommended=((now_s, current),))
        wanted = combined(current, recommended)
        if wanted is None:
            return current
        up, down = self.controller.up, self.controller.down
        windows = Behaviour(up=Direction(window_s=_open(up.window_s)), down=Direction(window_s=_open(down.window_s)))
        stable = stabilise(windows, self._memory, current, _bounded(pool, wanted), now_s)
        self._memory = stable.memory
        count = self._limited(current, stable.workers, now_s)
        self._note(count - current, now_s)
        return count

    def _limited(self, current: int, count: int, now_s: float) -> int:
        """As far towards `count` as the policies of its direction allow."""
        if count > current:
            return max(current, min(count, self._limit(self.controller.up, current, now_s, up=True)))
        if count < current:
            return min(current, max(count, self._limit(self.controller.down, current, now_s, up=False)))
        return count

    def _limit(self, rules: Rules, current: int, now_s: float, *, up: bool) -> int:
        if rules.select == "disabled":
            return current
        limits = []
        for policy in rules.policies:
            # Both directions count: what a period has taken away may come back within it.
            start = current - sum(change for at_s, change in self._changed if now_s - at_s < policy.period_s)
            step = policy.value if policy.kind == "workers" else start * policy.value / 100.0
            # Both roundings grow the change of a percentage, so that a small pool can move at all.
            limits.append(ceil_workers(start + step) if up else math.floor(start - step + 1e-9))
        return max(limits) if up == (rules.select == "max") else min(limits)

    def _note(self, change: int, now_s: float) -> None:
        longest = max(policy.period_s for policy in (*self.controller.up.policies, *self.controller.down.policies))
        self._changed = [entry for entry in self._changed if now_s - entry[0] < longest]
        if change != 0:
            self._changed.append((now_s, change))


def combined(current: int, recommended: Sequence[int | None]) -> int | None:
    """The largest recommendation; None, for no change, when all are missing or one is and the rest would shrink."""
    known = [workers for workers in recommended if workers is not None]
    if not known or (len(known) < len(recommended) and max(known) < current):
        return None
    return max(known)


def ceil_workers(workers: float) -> int:
    """The whole number above; float noise is no fraction, since the controller computes in thousandths."""
    return math.ceil(workers - 1e-9)


def _bounded(pool: Pool, workers: int) -> int:
    return max(pool.min_workers, min(workers, pool.max_workers))


def _open(window_s: float) -> float:
    """The window without its oldest moment: the controller drops a recommendation that is exactly as old as it."""
    return math.nextafter(window_s, 0.0)
