"""The HorizontalPodAutoscaler behind llm-d's Workload Variant Autoscaler: it carries out an external metric.

WVA writes the replicas that it wants as the metric `wva_desired_replicas`; an HPA with an average value of 1 as target
reads it. In the HPA's words usage is the wanted count and the ratio is wanted / present, so its tolerance also applies
here: from 10 workers on, one worker more or less is within 10 % and nothing happens.
"""

from __future__ import annotations

import math

from planner.core.stabilise import Behaviour, Direction, Memory, RatePolicy, remember, stabilise
from planner.core.types import Pool

#: `--horizontal-pod-autoscaler-sync-period`, s, and `--horizontal-pod-autoscaler-tolerance`.
SYNC_PERIOD_S, TOLERANCE = 15.0, 0.1

#: `behavior` in llm-d's own benchmark runs (docs/benchmark.md): up at once, down over 240 s, by 10 pods a 150 s. The
#: Helm chart's values also wait 240 s on the way up.
UP_WINDOW_S, DOWN_WINDOW_S = 0.0, 240.0
_POLICIES = (RatePolicy(kind="workers", value=10, period_s=150.0),)


def behaviour(up_window_s: float, down_window_s: float) -> Behaviour:
    """The benchmark's behaviour with other windows, s."""

    def direction(window_s: float) -> Direction:
        # The controller drops a recommendation that is exactly as old as the window.
        return Direction(window_s=math.nextafter(window_s, 0.0), policies=_POLICIES)

    return Behaviour(up=direction(up_window_s), down=direction(down_window_s))


class ExternalHpa:
    """One HPA on a wanted count.

    Args:
        pool: its bounds are `minReplicas` and `maxReplicas`.
        rules: its `behavior`.
        tolerance: on the ratio of wanted and present count.
    """

    def __init__(self, pool: Pool, rules: Behaviour, tolerance: float = TOLERANCE) -> None:
        self._pool = pool
        self._rules = rules
        self._tolerance = tolerance
        self._memory: Memory | None = None

    def sync(self, current: int, wanted: int | None, now_s: float) -> int:
        """The count to ask for.

        Args:
            current: workers asked for now; 0 switches the autoscaler off.
            wanted: the metric; None while there is none.
            now_s: time, s.
        """
        if current == 0:
            return 0
        bounded = self._bounded(current)
        if bounded != current:
            return bounded  # without a look at the metric, as the controller does
        memory = self._memory or Memory(recommended=((now_s, current),))
        if wanted is None:
            self._memory = memory
            return current
        if 1.0 - self._tolerance <= wanted / current <= 1.0 + self._tolerance:
            wanted = current
        result = stabilise(self._rules, memory, current, self._bounded(wanted), now_s)
        self._memory = remember(self._rules, result.memory, result.workers - current, now_s)
        return result.workers

    def _bounded(self, workers: int) -> int:
        return max(self._pool.min_workers, min(workers, self._pool.max_workers))
