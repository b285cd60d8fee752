"""The Knative Pod Autoscaler, one per pool, on concurrency: requests in flight, waiting or running.

`kpa_decider` and `kpa_window` hold its rules; here its metric and its place in a replay. The concurrency limit of a
worker, of which 70 % is aimed at, is by default chosen so that the aim is the HPA's default target: both peers then
follow the same operator's load test (`hpa_targets`), and differ by their rules alone.

What a replay leaves out: scale to zero (it is off, so that one worker always stays), the activator's target burst
capacity (it decides who buffers requests, not how many workers there are), and the sampling of large pools (every
worker's concurrency is read). A second's concurrency is that of its end, not the mean over it.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from planner.core.types import Known, LengthSample, Observation, Plan, Pool, PoolState, Role
from planner.whatif.policies.base import Policy, Setting
from planner.whatif.policies.hpa_options import number
from planner.whatif.policies.hpa_targets import default_target
from planner.whatif.policies.kpa_decider import SCRAPE_S, TICK_S, Decider, KpaConfig
from planner.whatif.policies.kpa_window import AverageWindow
from planner.whatif.policies.options import positive, split_options, unknown

#: The smallest concurrency that Knative aims at.
LEAST_TARGET = 0.01

#: Options of `KpaConfig` with the range that Knative's validation allows; a rate is above 1.
RANGES: Mapping[str, tuple[float, float]] = {
    "utilization_percent": (1.0, 100.0),
    "window_s": (6.0, 3600.0),
    "panic_window_percent": (1.0, 100.0),
    "panic_threshold_percent": (110.0, 1000.0),
    "max_up_rate": (1.001, 1e6),
    "max_down_rate": (1.001, 1e6),
    "scale_down_delay_s": (0.0, 3600.0),
    "activation_scale": (1.0, 10_000.0),
}

DEFAULT = KpaConfig()


@dataclass(slots=True)
class _Revision:
    """What is kept of one pool."""

    decider: Decider
    stable: AverageWindow
    panic: AverageWindow


class Kpa(Policy):
    """One autoscaler per pool. It knows the pool's minimum and maximum and nothing of a GPU budget.

    Args:
        setting: of the replay.
        limits: the concurrency limit of a worker by role (`autoscaling.knative.dev/target`); a missing one comes from
            `hpa_targets` as soon as lengths have been seen.
        config: windows, rates and thresholds.
    """

    interval_s = SCRAPE_S

    def __init__(
        self, setting: Setting, *, limits: Mapping[Role, float] | None = None, config: KpaConfig = DEFAULT
    ) -> None:
        self.limits = dict(limits or {})
        self.config = config
        self._setting = setting
        self._revisions: dict[Role, _Revision] = {}
        self._next_s = TICK_S
        self._plan: Plan = dict(setting.start)

    def decide(self, observation: Observation, now_s: float) -> Plan:
        """One scrape of every pool and, every other second, one decision; without data a pool keeps its workers."""
        if isinstance(observation.lengths, Known) and len(observation.lengths.value) > 0:
            self._load_test(observation.lengths.value)
        if not isinstance(observation.pools, Known):
            return self._plan
        states, due = observation.pools.value, now_s >= self._next_s
        if due:
            self._next_s = now_s + TICK_S
        plan = dict(self._plan)
        for role, pool in self._setting.pools.items():
            state = states[pool.name]
            revision = self._scraped(role, state, now_s)
            if due:
                plan[pool.name] = self._decided(role, pool, state, revision, now_s)
        self._plan = plan
        return plan

    def _load_test(self, lengths: LengthSample) -> None:
        for role in self._setting.pools:
            if role not in self.limits:
                profile, sla = self._setting.profiles[role], self._setting.sla
                aim = default_target(role, "concurrency", profile, sla, lengths)
                self.limits[role] = aim / (DEFAULT.utilization_percent / 100.0)

    def _scraped(self, role: Role, state: PoolState, now_s: float) -> _Revision:
        """The pool's windows with the concurrency of this second, where it is known."""
        config = self.config
        revision = self._revisions.get(role)
        if revision is None:
            revision = self._revisions[role] = _Revision(
                Decider.started(config, state.ready, now_s),
                AverageWindow(round(config.window_s), config.weighted),
                AverageWindow(config.panic_window_s, config.weighted),
            )
        waiting, running = state.waiting_requests, state.running_requests
        if isinstance(waiting, Known) and isinstance(running, Known):
            for window in (revision.stable, revision.panic):
                window.record(now_s, waiting.value + running.value)
        return revision

    def _decided(self, role: Role, pool: Pool, state: PoolState, revision: _Revision, now_s: float) -> int:
        limit = self.limits.get(role)
        if limit is None or revision.stable.empty(now_s):
            return self._plan[pool.name]
        wanted = revision.decider.scale(
            revision.stable.average(now_s),
            revision.panic.average(now_s),
            max(LEAST_TARGET, limit * self.config.utilization_percent / 100.0),
            state.ready,
            now_s,
        )
        return max(1, pool.min_workers, min(wanted, pool.max_workers))


def parse(options: str, setting: Setting) -> Kpa:
    """The policy of `kpa:OPTIONS`.

    Args:
        options: comma-separated, may be empty: `target=NUMBER` for every pool or `prefill_target`, `decode_target` and
            `aggregated_target` for one, each the concurrency limit of which `utilization_percent` is aimed at;
            `weighted`; any of `RANGES`.
        setting: of the replay.

    Raises:
        InputError: an option is unknown or its value wrong.
    """
    common: float | None = None
    limits: dict[Role, float] = {}
    changed: dict[str, float] = {}
    weighted = False
    named = {f"{role}_target": role for role in setting.pools}
    for key, value in split_options(options):
        if key == "target":
            common = positive("kpa", key, value)
        elif key in named:
            limits[named[key]] = positive("kpa", key, value)
        elif key == "weighted" and value is None:
            weighted = True
        elif key in RANGES:
            changed[key] = number("kpa", key, value, *RANGES[key])
        else:
            raise unknown("kpa", key, value, ", ".join(("target=NUMBER", *named, "weighted", *RANGES)))
    if common is not None:
        limits = {role: limits.get(role, common) for role in setting.pools}
    return Kpa(setting, limits=limits, config=KpaConfig(**changed, weighted=weighted))
