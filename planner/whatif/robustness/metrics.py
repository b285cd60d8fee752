"""Metrics are missing: for a while nothing but the workers' counts is known, as when Prometheus does not answer."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from planner.core.types import Known, Observation, Unknown
from planner.whatif.policies.base import Setting
from planner.whatif.robustness.disturbance import Disturbance, between
from planner.whatif.simulator.simulation import WorkerLoad
from profiler.errors import InputError

_WHY = Unknown("the metrics source does not answer")


@dataclass(frozen=True)
class MissingMetrics(Disturbance):
    """From `at_s` on, for `for_s` seconds, every reading of metrics is Unknown; the cluster still says its counts.

    What arrived meanwhile is never seen: the first interval after it is counted by itself.
    """

    at_s: float = 1200.0
    for_s: float = 300.0

    def __post_init__(self) -> None:
        between("at_s", self.at_s, 0.0, 1e9)
        between("for_s", self.for_s, 0.0, 1e9)

    def check(self, setting: Setting, span_s: float) -> None:  # noqa: ARG002
        """It must begin within the trace."""
        if self.at_s >= span_s:
            raise InputError(f"at_s is {self.at_s:g}, the trace ends at {span_s:.0f} s",
                             expected="a moment within the trace", field="--disturb")  # fmt: skip

    def seen(self, observation: Observation, now_s: float) -> Observation:
        """Unknown in every tick of the gap."""
        if not self._gone(now_s):
            return observation
        pools = observation.pools
        if isinstance(pools, Known):
            blind = {
                name: replace(pool, waiting_requests=_WHY, running_requests=_WHY, kv_usage=_WHY)
                for name, pool in pools.value.items()
            }
            pools = Known(blind, pools.age_s)
        return Observation(observation.interval_s, _WHY, _WHY, _WHY, pools, _WHY, _WHY, _WHY, _WHY, _WHY)

    def watched(self, workers: Mapping[str, Sequence[WorkerLoad]], now_s: float) -> Mapping[str, Sequence[WorkerLoad]]:
        """No worker shows anything in the gap."""
        return dict.fromkeys(workers, ()) if self._gone(now_s) else workers

    def _gone(self, now_s: float) -> bool:
        return self.at_s < now_s <= self.at_s + self.for_s
