"""KEDA on `vllm:num_requests_waiting`, as vLLM's production stack configures it: one ScaledObject per pool.

Between one worker and the maximum KEDA scales nothing itself. It makes a HorizontalPodAutoscaler with an External
metric whose target is an average value (`metricType: AverageValue`, the trigger's default), and answers the
controller's question for that metric by the trigger's PromQL query. The controller's rule for it is not that of a Pods
metric: it divides the total by the threshold, and does not ask which pods are ready
(`GetExternalPerPodMetricReplicas`).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from planner.core.types import Known, Observation, Plan, PoolState, Role
from planner.whatif.policies.base import Policy, Setting
from planner.whatif.policies.hpa_controller import DEFAULT, Autoscaler, Controller, Tolerance, ceil_workers
from planner.whatif.policies.hpa_options import CONTROLLER_OPTIONS, LONGEST_WINDOW_S, controller_of, number
from planner.whatif.policies.options import positive, split_options, unknown

#: `threshold` of the trigger in the production stack's tutorial and chart: waiting requests per worker.
THRESHOLD = 5.0


def external_workers(pods: int, total: float, threshold: float, tolerance: Tolerance = DEFAULT.tolerance) -> int:
    """The replica calculator's answer for an External metric with an average value, before stabilisation and bounds.

    Args:
        pods: `status.replicas`, workers that are ready or start.
        total: the metric's value.
        threshold: wanted per worker.
        tolerance: ratios of both that change nothing.
    """
    if pods > 0 and tolerance.holds(total / (threshold * pods)):
        return pods
    return ceil_workers(total / threshold)


@dataclass(slots=True)
class _Answer:
    """The last answer to the trigger's query."""

    at_s: float
    value: float


class Keda(Policy):
    """One ScaledObject per pool on `sum(vllm:num_requests_waiting)` of the pool's engines.

    Args:
        setting: of the replay.
        thresholds: waiting requests per worker by role; `THRESHOLD` for a missing one.
        cached_s: `pollingInterval` under `useCachedMetrics: true`, for which an answer is given again; without it, as
            by default, every sync of the controller asks Prometheus anew, and `pollingInterval` only matters at zero
            replicas.
        controller: sync period, tolerance and behaviour of the HPA (`advanced.horizontalPodAutoscalerConfig.behavior`).
    """

    def __init__(
        self,
        setting: Setting,
        *,
        thresholds: Mapping[Role, float] | None = None,
        cached_s: float = 0.0,
        controller: Controller = DEFAULT,
    ) -> None:
        self.interval_s = controller.sync_period_s
        self.thresholds = {role: (thresholds or {}).get(role, THRESHOLD) for role in setting.pools}
        self.cached_s = cached_s
        self._setting = setting
        self._tolerance = controller.tolerance
        self._autoscalers = {role: Autoscaler(controller) for role in setting.pools}
        self._answers: dict[Role, _Answer] = {}
        self._plan: Plan = dict(setting.start)

    def decide(self, observation: Observation, now_s: float) -> Plan:
        """One sync of every autoscaler; a pool whose queue is unknown keeps its workers."""
        if not isinstance(observation.pools, Known):
            return self._plan
        plan = {}
        for role, pool in self._setting.pools.items():
            state = observation.pools.value[pool.name]
            waiting = self._waiting(role, state, now_s)
            wanted = None
            if waiting is not None:
                pods = state.ready + state.starting
                wanted = external_workers(pods, waiting, self.thresholds[role], self._tolerance)
            plan[pool.name] = self._autoscalers[role].sync(pool, state.desired, [wanted], now_s)
        self._plan = plan
        return plan

    def _waiting(self, role: Role, state: PoolState, now_s: float) -> float | None:
        """The trigger's value; None when the query fails."""
        kept = self._answers.get(role)
        if kept is not None and now_s - kept.at_s < self.cached_s:
            return kept.value
        if not isinstance(state.waiting_requests, Known):
            return None
        # Without an engine there is no series, and the trigger takes an empty answer for 0 (`ignoreNullValues: true`);
        # what waits at the gateway is no engine's.
        value = state.waiting_requests.value if state.ready > 0 else 0.0
        self._answers[role] = _Answer(now_s, value)
        return value


def parse(options: str, setting: Setting) -> Keda:
    """The policy of `keda:OPTIONS`.

    Args:
        options: comma-separated, may be empty: `threshold=NUMBER` for every pool, `prefill_threshold` and so on for
            one, `cached_s=SECONDS`, and those of `hpa_options`.
        setting: of the replay.

    Raises:
        InputError: an option is unknown or its value wrong.
    """
    common: float | None = None
    thresholds: dict[Role, float] = {}
    cached_s = 0.0
    rules: dict[str, str | None] = {}
    named = {f"{role}_threshold": role for role in setting.pools}
    for key, value in split_options(options):
        if key == "threshold":
            common = positive("keda", key, value)
        elif key in named:
            thresholds[named[key]] = positive("keda", key, value)
        elif key == "cached_s":
            cached_s = number("keda", key, value, 1.0, LONGEST_WINDOW_S)
        elif key in CONTROLLER_OPTIONS:
            rules[key] = value
        else:
            raise unknown("keda", key, value, ", ".join(("threshold=NUMBER", *named, "cached_s", *CONTROLLER_OPTIONS)))
    if common is not None:
        thresholds = {role: thresholds.get(role, common) for role in setting.pools}
    return Keda(setting, thresholds=thresholds, cached_s=cached_s, controller=controller_of("keda", rules))
