"""AIBrix's Pod Autoscaler (APA): a ratio of metric and target with a tolerance to each side, one per pool.

The rules are those of `pkg/controller/podautoscaler` (vllm-project/aibrix: `algorithm/apa.go`, `autoscaler.go`,
`podautoscaler_controller.go`), every 10 s:

* The metric is the mean over the ready workers, and of that the mean over the observe window of 180 s.
* Above 1.1 times the target: ceil(present * ratio), at most twice the present count. Below 0.9 times: the same, at
  least half of it. In between nothing moves.
* While workers start, they count as 0 on the way up and as at target on the way down (`applyPendingReplicaGuard`).
* On the way up the recommendation is followed at once. On the way down the controller's "cooldown" of 300 s takes the
  *lowest* recommendation of that time (`stabilizeRecommendation`), so that a pool which has just grown falls back to
  what was recommended before the rise. This is kept as it is; `highest-down` asks for the HPA's rule instead, the
  highest, which the name and the documentation suggest.

Metrics and targets have no defaults in the source. Those here are its samples': a share of 0.5 of the KV cache
(`samples/autoscaling/apa.yaml`), and on prefill pools 10 waiting requests (`stormservice-pool.yaml`, where each role
has an autoscaler of its own). The samples also carry a window of 30 s and a tolerance of 0.2 downwards, in annotations
that the controller does not read; they are `window_s=30,down_tolerance=0.2` here.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal, get_args

from planner.core.types import Known, Observation, Plan, Pool, PoolState, Role
from planner.whatif.policies.base import Policy, Setting
from planner.whatif.policies.hpa_targets import default_target
from planner.whatif.policies.options import positive, split_options, unknown
from planner.whatif.simulator.simulation import WorkerLoad
from profiler.errors import InputError

Metric = Literal["kv", "queue", "concurrency"]

#: Targets of the samples, by metric.
SAMPLE_TARGETS: Mapping[Metric, float] = {"kv": 0.5, "queue": 10.0}


@dataclass(frozen=True, slots=True)
class Rules:
    """The controller's settings, with its defaults.

    Attributes:
        window_s: `observeWindowSeconds`.
        up_tolerance, down_tolerance: `scale-up-tolerance` and `scale-down-tolerance`, on the ratio.
        max_up, max_down: `max-scale-up-rate` and `max-scale-down-rate`, factors of the present count in one decision.
        cooldown_s: `scale-down-cooldown-window`; that of scale-ups is 0.
        highest_down: whether the cooldown takes the highest recommendation, as the HPA does, and not the lowest.
    """

    window_s: float = 180.0
    up_tolerance: float = 0.1
    down_tolerance: float = 0.1
    max_up: float = 2.0
    max_down: float = 2.0
    cooldown_s: float = 300.0
    highest_down: bool = False


def recommended(current: int, ratio: float, rules: Rules) -> int:
    """`computeTargetReplicas`: workers for a ratio of metric and target, before bounds."""
    if ratio > 1.0 + rules.up_tolerance:
        return min(_ceil(current * ratio), math.ceil(rules.max_up * current))
    if ratio < 1.0 - rules.down_tolerance:
        return max(_ceil(current * ratio), math.floor(current / rules.max_down))
    return current


def guarded(wanted: int, current: int, ready: int, ratio: float) -> int:
    """`applyPendingReplicaGuard`: a recommendation while some workers are not ready, never beyond it.

    Args:
        wanted: the recommendation.
        current: workers asked for.
        ready: workers that are ready.
        ratio: of metric and target over the ready ones.
    """
    pending = current - ready
    if pending <= 0 or wanted == current:
        return wanted
    if wanted > current:
        return min(max(_ceil(ready * ratio), current), wanted)
    return max(min(_ceil(ready * ratio + pending), current), wanted)


def _ceil(workers: float) -> int:
    # 3 * 1.1 / 1.1 must not ask for a fourth worker; the source computes in floats too, without this.
    return math.ceil(workers - 1e-9)


class _Autoscaler:
    """One PodAutoscaler."""

    def __init__(self, pool: Pool, rules: Rules) -> None:
        self._pool = pool
        self._rules = rules
        self._values: deque[tuple[float, float]] = deque()
        self._recommended: deque[tuple[float, int]] = deque()

    def sync(self, state: PoolState, values: Sequence[float], target: float | None, now_s: float) -> int:
        """The count to ask for, from the metric of each ready worker."""
        current = state.desired
        if current == 0:
            return 0
        if values:
            self._values.append((now_s, sum(values) / len(values)))
        while self._values and now_s - self._values[0][0] >= self._rules.window_s:
            self._values.popleft()
        if not values or target is None:
            return self._bounded(current)
        ratio = sum(value for _, value in self._values) / len(self._values) / target
        wanted = guarded(self._bounded(recommended(current, ratio, self._rules)), current, state.ready, ratio)
        return self._bounded(self._cooled_down(current, wanted, now_s))

    def _cooled_down(self, current: int, wanted: int, now_s: float) -> int:
        self._recommended.append((now_s, wanted))
        while now_s - self._recommended[0][0] >= self._rules.cooldown_s and len(self._recommended) > 1:
            self._recommended.popleft()
        if wanted >= current:
            return wanted
        window = [count for _, count in self._recommended]
        return min(current, max(window)) if self._rules.highest_down else min(window)

    def _bounded(self, workers: int) -> int:
        return max(self._pool.min_workers, min(workers, self._pool.max_workers))


class Apa(Policy):
    """One APA per pool. It knows the pool's bounds and nothing of a GPU budget.

    Args:
        setting: of the replay.
        metric: of every pool; None for the samples' by role.
        targets: per worker, by role; a missing one is the samples', or for `concurrency` that of
            `hpa_targets.default_target` as soon as lengths have been seen.
        rules: the controller's settings.
    """

    #: `DefaultResyncInterval`, s.
    interval_s = 10.0
    watches = True

    def __init__(
        self,
        setting: Setting,
        *,
        metric: Metric | None = None,
        targets: Mapping[Role, float] | None = None,
        rules: Rules | None = None,
    ) -> None:
        self._setting = setting
        self._metrics: dict[Role, Metric] = {
            role: metric or ("queue" if role is Role.PREFILL else "kv") for role in setting.pools
        }
        self._targets = {role: SAMPLE_TARGETS[m] for role, m in self._metrics.items() if m in SAMPLE_TARGETS}
        self._targets.update(targets or {})
        self._scalers = {role: _Autoscaler(pool, rules or Rules()) for role, pool in setting.pools.items()}
        self._workers: Mapping[str, Sequence[WorkerLoad]] = {}
        self._plan: Plan = dict(setting.start)

    def watch(self, workers: Mapping[str, Sequence[WorkerLoad]]) -> None:
        """See every ready worker."""
        self._workers = workers

    def decide(self, observation: Observation, now_s: float) -> Plan:
        """One sync of every autoscaler; a pool whose target is unknown keeps its workers."""
        if not isinstance(observation.pools, Known):
            return self._plan
        if isinstance(observation.lengths, Known) and len(observation.lengths.value) > 0:
            for role, metric in self._metrics.items():
                if role not in self._targets:
                    profile, sla = self._setting.profiles[role], self._setting.sla
                    self._targets[role] = default_target(role, metric, profile, sla, observation.lengths.value)
        states = observation.pools.value
        plan = {}
        for role, pool in self._setting.pools.items():
            values = [_value(self._metrics[role], load) for load in self._workers.get(pool.name, ())]
            plan[pool.name] = self._scalers[role].sync(states[pool.name], values, self._targets.get(role), now_s)
        self._plan = plan
        return plan


def _value(metric: Metric, load: WorkerLoad) -> float:
    if metric == "kv":
        return load.kv_usage
    return float(load.waiting if metric == "queue" else load.waiting + load.running)


def parse(options: str, setting: Setting) -> Apa:
    """The policy of `apa:OPTIONS`.

    Args:
        options: comma-separated: `kv`, `queue` or `concurrency` for every pool; `target=NUMBER` for every pool, or
            `prefill_target`, `decode_target` and `aggregated_target` for one; `window_s`, `up_tolerance`,
            `down_tolerance`, `max_up`, `max_down`, `cooldown_s`, `highest-down`; may be empty.
        setting: of the replay.

    Raises:
        InputError: an option is unknown or its value wrong.
    """
    metric: Metric | None = None
    common: float | None = None
    targets: dict[Role, float] = {}
    named = {f"{role}_target": role for role in setting.pools}
    default = Rules()
    numbers = {
        key: float(getattr(default, key))
        for key in ("window_s", "up_tolerance", "down_tolerance", "max_up", "max_down", "cooldown_s")
    }
    highest_down = False
    for key, value in split_options(options):
        match = [name for name in get_args(Metric) if name == key]
        if value is None and match:
            metric = match[0]
        elif value is None and key == "highest-down":
            highest_down = True
        elif key == "target":
            common = positive("apa", key, value)
        elif key in named:
            targets[named[key]] = positive("apa", key, value)
        elif key in numbers:
            numbers[key] = positive("apa", key, value)
        else:
            known = ("kv", "queue", "concurrency", "target=NUMBER", *(f"{name}=NUMBER" for name in (*named, *numbers)))
            raise unknown("apa", key, value, f"{', '.join(known)} or highest-down")
    for key in ("max_up", "max_down"):
        if numbers[key] < 1.0:
            raise InputError(f"apa: {key} is {numbers[key]:g}", expected="a factor of at least 1", field="--policy")
    if common is not None:
        targets = dict.fromkeys(setting.pools, common) | targets
    return Apa(setting, metric=metric, targets=targets, rules=Rules(**numbers, highest_down=highest_down))
