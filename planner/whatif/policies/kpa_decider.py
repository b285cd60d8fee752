"""Knative's decision: from the concurrency of two windows to a count, with panic mode and its memory.

Modelled on `pkg/autoscaler/scaling/autoscaler.go` of knative/serving; defaults are those of the `config-autoscaler`
ConfigMap. Time is an argument, and counts are before the bounds of the pool, as there.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field

from planner.whatif.policies.kpa_window import DelayWindow

#: Seconds between decisions, and between scrapes.
TICK_S, SCRAPE_S = 2.0, 1.0


@dataclass(frozen=True, slots=True)
class KpaConfig:
    """`config-autoscaler`, or the annotations of a revision.

    Attributes:
        utilization_percent: `container-concurrency-target-percentage`: share of the concurrency limit that is aimed at.
        window_s: `stable-window`.
        panic_window_percent: `panic-window-percentage`, of the stable window.
        panic_threshold_percent: `panic-threshold-percentage`: wanted over ready workers that start a panic.
        max_up_rate: `max-scale-up-rate`, wanted over ready workers at most.
        max_down_rate: `max-scale-down-rate`, ready over wanted workers at most.
        scale_down_delay_s: `scale-down-delay`.
        activation_scale: `activation-scale` annotation: workers at least while there is any load.
        weighted: `metric-aggregation-algorithm: weighted-exponential`.
    """

    utilization_percent: float = 70.0
    window_s: float = 60.0
    panic_window_percent: float = 10.0
    panic_threshold_percent: float = 200.0
    max_up_rate: float = 1000.0
    max_down_rate: float = 2.0
    scale_down_delay_s: float = 0.0
    activation_scale: float = 1.0
    weighted: bool = False

    @property
    def panic_window_s(self) -> int:
        """Length of the panic window, whole seconds, at least one."""
        return max(1, math.floor(self.window_s * self.panic_window_percent / 100.0 + 0.5))


@dataclass(slots=True)
class Decider:
    """One revision's autoscaler.

    Attributes:
        config: its settings.
        panic_since_s: when the threshold was last crossed; None in stable mode.
        panic_workers: the most that was wanted since the panic began, below which it does not go.
    """

    config: KpaConfig
    panic_since_s: float | None = None
    panic_workers: int = 0
    _delay: DelayWindow | None = field(init=False, default=None)

    def __post_init__(self) -> None:
        if self.config.scale_down_delay_s > 0:
            self._delay = DelayWindow(self.config.scale_down_delay_s, TICK_S)

    @classmethod
    def started(cls, config: KpaConfig, ready: int, now_s: float) -> Decider:
        """A new one, which knows no history: with more than one worker it begins in panic, so that none is lost."""
        return cls(config, now_s if ready > 1 else None, ready)

    def scale(self, stable: float, panic: float, target: float, ready: int, now_s: float) -> int:
        """Workers wanted.

        Args:
            stable: mean concurrency of the pool over the stable window.
            panic: the same over the panic window.
            target: concurrency wanted per worker.
            ready: workers that are ready.
            now_s: the time.
        """
        config, present = self.config, max(1, ready)
        most = math.ceil(config.max_up_rate * present)
        least = math.floor(present / config.max_down_rate)
        by_stable, by_panic = math.ceil(stable / target), math.ceil(panic / target)
        wanted = self._activated(min(max(by_stable, least), most), by_stable)
        in_panic = self._activated(min(max(by_panic, least), most), by_panic)
        self._update_mode(by_panic / present, now_s)
        if self.panic_since_s is not None:
            self.panic_workers = wanted = max(self.panic_workers, wanted, in_panic)
        return wanted if self._delay is None else self._delay.largest(now_s, wanted)

    def _activated(self, count: int, asked: int) -> int:
        return max(count, round(self.config.activation_scale)) if asked > 0 else count

    def _update_mode(self, load: float, now_s: float) -> None:
        """Begin or extend the panic at the threshold; end it when a stable window has passed below."""
        if load >= self.config.panic_threshold_percent / 100.0:
            self.panic_since_s = now_s
        elif self.panic_since_s is not None and now_s - self.panic_since_s > self.config.window_s:
            self.panic_since_s, self.panic_workers = None, 0
