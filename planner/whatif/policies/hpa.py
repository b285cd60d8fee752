"""The Kubernetes HorizontalPodAutoscaler v2, one per pool, on a metric of the pool's engines.

The algorithm is that of the controller (`pkg/controller/podautoscaler`: `horizontal.go`, `replica_calculator.go`) with
its defaults: a Pods metric with an average value as target, the behaviour of `autoscaling/v2`. KEDA's external metric
with an average value gives the same counts, except on the way down while pods start.

Default metric and shares (`hpa_targets`) are the best compromise of 14 combinations tried on three public traces
(Azure 2023 conversation and code, Mooncake conversation): requests in flight per worker, at 0.25 of the prompts that
fit the TTFT limit and 0.7 of the batch that fits the ITL limit. A metric of the queue alone is blind to a decode pool
that is slow but not full, and overshoots on bursts.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import get_args

from planner.core.stabilise import Behaviour, Direction, Memory, RatePolicy, stabilise
from planner.core.types import Known, LengthSample, Observation, Plan, Pool, PoolState, Role
from planner.whatif.policies.base import Policy, Setting
from planner.whatif.policies.hpa_targets import Metric, default_target, metric_of
from planner.whatif.policies.options import positive, split_options, unknown

#: `--horizontal-pod-autoscaler-sync-period`, s.
SYNC_PERIOD_S = 15.0

#: `--horizontal-pod-autoscaler-tolerance`, on the ratio of metric and target.
TOLERANCE = 0.1

#: Defaults of `behavior`: up at once, by 4 pods or 100 % per 15 s, whichever is more; down to the highest
#: recommendation of five minutes, by up to 100 % per 15 s. The controller drops a recommendation that is exactly as old
#: as the window.
BEHAVIOUR = Behaviour(
    up=Direction(
        policies=(
            RatePolicy(kind="workers", value=4, period_s=15.0),
            RatePolicy(kind="percent", value=100, period_s=15.0),
        )
    ),
    down=Direction(
        window_s=math.nextafter(300.0, 0.0), policies=(RatePolicy(kind="percent", value=100, period_s=15.0),)
    ),
)


def desired_workers(current: int, ready: int, starting: int, total: float, target: float) -> int:
    """The replica calculator's answer for a Pods metric, before stabilisation and bounds.

    Starting workers run and have no metric yet (vLLM opens its port when the model is loaded), so they count as the
    controller counts pods without metrics: at 0 where the ready ones ask for more, at the target where they ask for
    less. It keeps the present count when the ratio is then within the tolerance or points the other way.

    Args:
        current: workers asked for now.
        ready: workers that are ready.
        starting: workers asked for and not ready.
        total: the metric, summed over the ready workers.
        target: the metric wanted per worker.
    """
    if ready == 0:
        # "did not receive metrics for any ready pods": the controller leaves the scale alone.
        return current
    ratio = total / (ready * target)
    if starting == 0:
        return current if _tolerated(ratio) else _ceil(ratio * ready)
    pods = ready + starting
    filled = total + starting * target if ratio < 1.0 else total
    damped = filled / (pods * target)
    if _tolerated(damped) or (ratio < 1.0 < damped) or (damped < 1.0 < ratio):
        return current
    wanted = _ceil(damped * pods)
    if (damped < 1.0 and wanted > current) or (damped > 1.0 and wanted < current):
        return current
    return wanted


def _tolerated(ratio: float) -> bool:
    return 1.0 - TOLERANCE <= ratio <= 1.0 + TOLERANCE


def _ceil(workers: float) -> int:
    # The controller computes in thousandths; without this, 3 * 1.1 / 1.1 would ask for a fourth worker.
    return math.ceil(workers - 1e-9)


class Hpa(Policy):
    """One HorizontalPodAutoscaler per pool. It knows the pool's minimum and maximum and nothing of a GPU budget.

    Args:
        setting: of the replay.
        metric: `concurrency` (running and waiting requests per worker), `queue` (waiting requests per worker) or `kv`
            (share of the KV cache in use; a prefill pool takes `concurrency` instead).
        targets: per role; a missing one comes from `hpa_targets.default_target` as soon as lengths have been seen.
    """

    interval_s = SYNC_PERIOD_S

    def __init__(
        self, setting: Setting, *, metric: Metric = "concurrency", targets: Mapping[Role, float] | None = None
    ) -> None:
        self._setting = setting
        self._metric = metric
        self._targets = dict(targets or {})
        self._memory: dict[Role, Memory] = {}
        self._plan: Plan = dict(setting.start)

    def decide(self, observation: Observation, now_s: float) -> Plan:
        """One sync of every autoscaler; a pool whose metric or target is unknown keeps its workers."""
        if not isinstance(observation.pools, Known):
            return self._plan
        if isinstance(observation.lengths, Known) and len(observation.lengths.value) > 0:
            self._load_test(observation.lengths.value)
        states = observation.pools.value
        self._plan = {
            pool.name: self._sync(role, pool, states[pool.name], now_s) for role, pool in self._setting.pools.items()
        }
        return self._plan

    def _load_test(self, lengths: LengthSample) -> None:
        for role, profile in self._setting.profiles.items():
            if role in self._setting.pools and role not in self._targets:
                metric = metric_of(role, self._metric)
                self._targets[role] = default_target(role, metric, profile, self._setting.sla, lengths)

    def _sync(self, role: Role, pool: Pool, state: PoolState, now_s: float) -> int:
        current = state.desired
        if current == 0:
            return 0  # zero replicas switch the autoscaler off
        bounded = _bounded(pool, current)
        if bounded != current:
            return bounded  # without a look at the metric, as the controller does
        # On its first sync the controller records the present count, so that nothing shrinks before the window is over.
        memory = self._memory.get(role, Memory(recommended=((now_s, current),)))
        total, target = _total(metric_of(role, self._metric), state), self._targets.get(role)
        if total is None or target is None:
            self._memory[role] = memory
            return current
        wanted = desired_workers(current, state.ready, state.starting, total, target)
        result = stabilise(BEHAVIOUR, memory, current, _bounded(pool, wanted), now_s)
        # Past changes need no remembering: the rate policies look back one period, which is one sync.
        self._memory[role] = result.memory
        return result.workers


def _bounded(pool: Pool, workers: int) -> int:
    return max(pool.min_workers, min(workers, pool.max_workers))


def _total(metric: Metric, state: PoolState) -> float | None:
    """The metric summed over the ready workers; None when it is unknown."""
    waiting, running, usage = state.waiting_requests, state.running_requests, state.kv_usage
    if metric == "kv":
        return usage.value * state.ready if isinstance(usage, Known) else None
    if not isinstance(waiting, Known):
        return None
    if metric == "queue":
        return waiting.value
    return waiting.value + running.value if isinstance(running, Known) else None


def parse(options: str, setting: Setting) -> Hpa:
    """The policy of `hpa:OPTIONS`.

    Args:
        options: comma-separated: `queue`, `concurrency` or `kv`; `target=NUMBER` for every pool, or `prefill_target`,
            `decode_target` and `aggregated_target` for one; may be empty. In `kv`, `target` is that of the pools scaled
            on KV usage.
        setting: of the replay.

    Raises:
        InputError: an option is unknown or its value wrong.
    """
    metric: Metric = "concurrency"
    common: float | None = None
    targets: dict[Role, float] = {}
    named = {f"{role}_target": role for role in setting.pools}
    for key, value in split_options(options):
        match = [name for name in get_args(Metric) if name == key]
        if value is None and match:
            metric = match[0]
        elif key == "target":
            common = positive("hpa", key, value)
        elif key in named:
            targets[named[key]] = positive("hpa", key, value)
        else:
            raise unknown("hpa", key, value, f"queue, concurrency, kv, target=NUMBER or {', '.join(named)}")
    if common is not None:
        for role in setting.pools:
            if metric_of(role, metric) == metric:
                targets.setdefault(role, common)
    return Hpa(setting, metric=metric, targets=targets)
