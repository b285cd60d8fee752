"""The Kubernetes HorizontalPodAutoscaler v2, one per pool, on one or several metrics of the pool's engines.

The algorithm is that of the controller (`pkg/controller/podautoscaler`: `replica_calculator.go` here, `horizontal.go`
in `hpa_controller`) with its defaults: Pods metrics with an average value as target, of which the largest
recommendation counts, and the behaviour of `autoscaling/v2`. KEDA's external metric gives other counts while pods
start: see `keda`.

Default metric and shares (`hpa_targets`) are the best compromise of 14 combinations tried on three public traces
(Azure 2023 conversation and code, Mooncake conversation): requests in flight per worker, at 0.25 of the prompts that
fit the TTFT limit and 0.7 of the batch that fits the ITL limit. A metric of the queue alone is blind to a decode pool
that is slow but not full, and overshoots on bursts.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import get_args

from planner.core.types import Known, LengthSample, Observation, Plan, PoolState, Role
from planner.whatif.policies.base import Policy, Setting
from planner.whatif.policies.hpa_controller import DEFAULT, Autoscaler, Controller, Tolerance, ceil_workers
from planner.whatif.policies.hpa_options import CONTROLLER_OPTIONS, controller_of
from planner.whatif.policies.hpa_targets import Metric, default_target, metrics_of
from planner.whatif.policies.options import positive, split_options, unknown
from profiler.errors import InputError


def desired_workers(
    current: int, ready: int, starting: int, total: float, target: float, tolerance: Tolerance = DEFAULT.tolerance
) -> int:
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
        tolerance: ratios of both that change nothing.
    """
    if ready == 0:
        # "did not receive metrics for any ready pods": the controller leaves the scale alone.
        return current
    ratio = total / (ready * target)
    if starting == 0:
        return current if tolerance.holds(ratio) else ceil_workers(ratio * ready)
    pods = ready + starting
    filled = total + starting * target if ratio < 1.0 else total
    damped = filled / (pods * target)
    if tolerance.holds(damped) or (ratio < 1.0 < damped) or (damped < 1.0 < ratio):
        return current
    wanted = ceil_workers(damped * pods)
    if (damped < 1.0 and wanted > current) or (damped > 1.0 and wanted < current):
        return current
    return wanted


class Hpa(Policy):
    """One HorizontalPodAutoscaler per pool. It knows the pool's minimum and maximum and nothing of a GPU budget.

    Args:
        setting: of the replay.
        metrics: any of `concurrency` (running and waiting requests per worker), `queue` (waiting requests per worker)
            and `kv` (share of the KV cache in use; says little of a prefill pool, see `hpa_targets.metrics_of`).
        targets: by role and metric; a missing one comes from `hpa_targets.default_target` as soon as lengths have been
            seen.
        controller: sync period, tolerance and behaviour.
    """

    def __init__(
        self,
        setting: Setting,
        *,
        metrics: Sequence[Metric] = ("concurrency",),
        targets: Mapping[tuple[Role, Metric], float] | None = None,
        controller: Controller = DEFAULT,
    ) -> None:
        self.interval_s = controller.sync_period_s
        self.targets = dict(targets or {})
        self._setting = setting
        self._metrics = {role: metrics_of(role, metrics) for role in setting.pools}
        self._tolerance = controller.tolerance
        self._autoscalers = {role: Autoscaler(controller) for role in setting.pools}
        self._plan: Plan = dict(setting.start)

    def decide(self, observation: Observation, now_s: float) -> Plan:
        """One sync of every autoscaler; a pool whose metrics or targets are unknown keeps its workers."""
        if not isinstance(observation.pools, Known):
            return self._plan
        if isinstance(observation.lengths, Known) and len(observation.lengths.value) > 0:
            self._load_test(observation.lengths.value)
        states = observation.pools.value
        self._plan = {
            pool.name: self._autoscalers[role].sync(
                pool,
                states[pool.name].desired,
                [self._recommended(role, metric, states[pool.name]) for metric in self._metrics[role]],
                now_s,
            )
            for role, pool in self._setting.pools.items()
        }
        return self._plan

    def _load_test(self, lengths: LengthSample) -> None:
        for role, metrics in self._metrics.items():
            for metric in metrics:
                if (role, metric) not in self.targets:
                    profile, sla = self._setting.profiles[role], self._setting.sla
                    self.targets[role, metric] = default_target(role, metric, profile, sla, lengths)

    def _recommended(self, role: Role, metric: Metric, state: PoolState) -> int | None:
        total, target = _total(metric, state), self.targets.get((role, metric))
        if total is None or target is None:
            return None
        return desired_workers(state.desired, state.ready, state.starting, total, target, self._tolerance)


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
        options: comma-separated, may be empty. Metrics: any of `queue`, `concurrency`, `kv`. Targets: for one metric,
            `target=NUMBER` for every pool that is scaled on it or `prefill_target`, `decode_target`,
            `aggregated_target` for one pool; for several, `queue_target` and so on, or `prefill_queue_target` and so on
            for one pool. Those of `hpa_options` besides.
        setting: of the replay.

    Raises:
        InputError: an option is unknown, its value wrong, or it leaves open which metric it is of.
    """
    known: tuple[Metric, ...] = get_args(Metric)
    metrics: list[Metric] = []
    targets: dict[str, float] = {}
    rules: dict[str, str | None] = {}
    roles, names = list(setting.pools), ("", *(f"{metric}_" for metric in known))
    spelled = {f"{part}{name}target" for part in ("", *(f"{role}_" for role in roles)) for name in names}
    for key, value in split_options(options):
        match = [name for name in known if name == key]
        if value is None and match:
            metrics += [match[0]] if match[0] not in metrics else []
        elif key in spelled:
            targets[key] = positive("hpa", key, value)
        elif key in CONTROLLER_OPTIONS:
            rules[key] = value
        else:
            pools = ", ".join(f"{role}_target" for role in roles)
            right = f"queue, concurrency, kv, target=NUMBER, {pools}, {', '.join(CONTROLLER_OPTIONS)}"
            raise unknown("hpa", key, value, right)
    chosen = tuple(metrics) or ("concurrency",)
    found = _targets(targets, chosen, roles)
    return Hpa(setting, metrics=chosen, targets=found, controller=controller_of("hpa", rules))


def _targets(
    given: Mapping[str, float], metrics: Sequence[Metric], roles: Sequence[Role]
) -> dict[tuple[Role, Metric], float]:
    """Targets by role and metric: those of one pool go before those of all, those of one metric before `target`."""
    found: dict[tuple[Role, Metric], float] = {}
    used: set[str] = set()
    for role in roles:
        scaled_on = metrics_of(role, metrics)
        for metric in scaled_on:
            keys = [f"{role}_{metric}_target", f"{metric}_target"]
            if len(metrics) == 1:
                # `target=0.8` with `kv` is not meant for the prefill pool, which is scaled on something else.
                keys = [keys[0], f"{role}_target", keys[1], *(["target"] if metric in metrics else [])]
            used |= set(keys)
            match = [key for key in keys if key in given]
            if match:
                found[role, metric] = given[match[0]]
    for key in given:
        if key not in used:
            right = "a target of a metric that a pool is scaled on"
            if len(metrics) > 1:
                right += ", by its name: " + ", ".join(f"{metric}_target" for metric in metrics)
            raise InputError(f"hpa: no pool takes {key}", expected=right, field="--policy")
    return found
