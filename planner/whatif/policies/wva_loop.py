"""The loop around both analysers of llm-d's Workload Variant Autoscaler (WVA).

Every interval an analyser turns the workers' metrics into wanted counts, a limiter cuts them to the GPUs that there
are, and the HPA of each pool carries them out at its own pace: it reads a count one sync period after it was written.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from planner.core.types import Known, Observation, Plan, Pool, PoolState
from planner.whatif.policies.base import Policy, Setting
from planner.whatif.policies.options import positive, split_options, unknown
from planner.whatif.policies.wva_hpa import (
    DOWN_WINDOW_S,
    SYNC_PERIOD_S,
    TOLERANCE,
    UP_WINDOW_S,
    ExternalHpa,
    behaviour,
)
from planner.whatif.policies.wva_metrics import Lengths, MeanLengths, Peaks, Replica
from planner.whatif.simulator.simulation import WorkerLoad
from profiler.errors import InputError

#: `GLOBAL_OPT_INTERVAL`, s.
OPTIMISATION_INTERVAL_S = 60.0


@dataclass(frozen=True, slots=True)
class LoopOptions:
    """How often the analyser runs, and the HPA behind it; times in s."""

    interval_s: float = OPTIMISATION_INTERVAL_S
    up_window_s: float = UP_WINDOW_S
    down_window_s: float = DOWN_WINDOW_S
    tolerance: float = TOLERANCE


@dataclass(frozen=True, slots=True)
class Variant:
    """One pool as an analyser sees it.

    Attributes:
        pool: the pool.
        current: workers that its Deployment asks for.
        desired: workers that the last analysis wanted; None before the first.
        replicas: the ready ones.
        queued: requests at the gateway that reached none of them.
    """

    pool: Pool
    current: int
    desired: int | None
    replicas: Sequence[Replica]
    queued: int = 0

    @property
    def pending(self) -> int:
        """Workers asked for that are not ready."""
        return max(0, self.current - len(self.replicas))


class WvaPolicy(Policy):
    """WVA with one variant per pool, each with its own HPA.

    Args:
        setting: of the replay.
        options: of the loop.
    """

    interval_s = SYNC_PERIOD_S
    watches = True

    def __init__(self, setting: Setting, options: LoopOptions) -> None:
        self._max_gpus = setting.settings.max_gpus
        self._pools = tuple(setting.pools.values())
        self._options = options
        rules = behaviour(options.up_window_s, options.down_window_s)
        self._hpas = {pool.name: ExternalHpa(pool, rules, options.tolerance) for pool in self._pools}
        self._plan: Plan = dict(setting.start)
        self._workers: Mapping[str, Sequence[WorkerLoad]] = {}
        self._peaks, self._lengths = Peaks(), Lengths()
        self._desired: dict[str, int] = {}
        self._next_s = options.interval_s

    @abstractmethod
    def analyse(self, variants: Sequence[Variant], lengths: MeanLengths | None) -> dict[str, int]:
        """Workers wanted, by pool name, before the limiter."""

    def watch(self, workers: Mapping[str, Sequence[WorkerLoad]]) -> None:
        """See every ready worker."""
        self._workers = workers

    def decide(self, observation: Observation, now_s: float) -> Plan:
        """One sync of every HPA, and an analysis when it is time; unknown pools keep their workers."""
        if not isinstance(observation.pools, Known):
            return self._plan
        states = observation.pools.value
        self._peaks.add(self._workers, now_s)
        if isinstance(observation.lengths, Known):
            self._lengths.add(observation.lengths.value, now_s)
        self._plan = {
            name: hpa.sync(states[name].desired, self._desired.get(name), now_s) for name, hpa in self._hpas.items()
        }
        if now_s >= self._next_s - 1e-9:
            self._next_s = max(self._next_s + self._options.interval_s, now_s)
            variants = [self._variant(pool, states[pool.name]) for pool in self._pools]
            wanted = self.analyse(variants, self._lengths.means(now_s))
            self._desired = limited(wanted, variants, self._max_gpus)
        return self._plan

    def _variant(self, pool: Pool, state: PoolState) -> Variant:
        waiting = state.waiting_requests
        at_workers = sum(load.waiting for load in self._workers.get(pool.name, ()))
        return Variant(
            pool=pool,
            current=self._plan[pool.name],
            desired=self._desired.get(pool.name),
            replicas=self._peaks.of(pool.name),
            queued=max(0, int(waiting.value) - at_workers) if isinstance(waiting, Known) else 0,
        )


def limited(wanted: Mapping[str, int], variants: Sequence[Variant], max_gpus: int) -> dict[str, int]:
    """Wanted counts within the pools' bounds, and rises cut to the GPUs that are free.

    Where they do not suffice, workers are given one at a time to the pool that has got the smallest share of its own
    rise, which keeps prefill and decode in proportion.
    """
    targets, rises = {}, {}
    free = max_gpus - sum(variant.current * variant.pool.gpus_per_worker for variant in variants)
    gpus = {variant.pool.name: variant.pool.gpus_per_worker for variant in variants}
    for variant in variants:
        pool = variant.pool
        target = max(pool.min_workers, min(wanted[pool.name], pool.max_workers))
        targets[pool.name] = min(target, variant.current)
        if target > variant.current:
            rises[pool.name] = target - variant.current
    given = dict.fromkeys(rises, 0)
    while True:
        open_ = [name for name, rise in rises.items() if given[name] < rise and gpus[name] <= free]
        if not open_:
            break
        name = min(open_, key=lambda pool: given[pool] / rises[pool])
        given[name] += 1
        free -= gpus[name]
    return {name: target + given.get(name, 0) for name, target in targets.items()}


def parse_options(policy: str, options: str, defaults: Mapping[str, float]) -> tuple[LoopOptions, dict[str, float]]:
    """Options of the loop, and the analyser's thresholds.

    Args:
        policy: its name, for errors.
        options: comma-separated: `interval_s`, `up_window_s` and `down_window_s`, `no-tolerance`, and thresholds.
        defaults: the analyser's thresholds by option.

    Raises:
        InputError: an option is unknown or its value wrong.
    """
    interval_s, tolerance = OPTIMISATION_INTERVAL_S, TOLERANCE
    windows = {"up_window_s": UP_WINDOW_S, "down_window_s": DOWN_WINDOW_S}
    thresholds = dict(defaults)
    for key, value in split_options(options):
        if value is None and key == "no-tolerance":
            tolerance = 0.0
        elif key == "interval_s":
            interval_s = positive(policy, key, value)
        elif key in windows:
            windows[key] = 0.0 if value == "0" else positive(policy, key, value)
        elif key in thresholds:
            thresholds[key] = positive(policy, key, value)
        else:
            known = ("interval_s=SECONDS", *(f"{name}=SECONDS" for name in windows), "no-tolerance")
            raise unknown(policy, key, value, ", ".join((*known, *(f"{name}=NUMBER" for name in thresholds))))
    return LoopOptions(interval_s, windows["up_window_s"], windows["down_window_s"], tolerance), thresholds


def below_one(policy: str, thresholds: Mapping[str, float], *keys: str) -> None:
    """Check shares.

    Raises:
        InputError: one of them is above 1.
    """
    for key in keys:
        if thresholds[key] > 1.0:
            raise InputError(f"{policy}: {key} is {thresholds[key]:g}", expected="a share up to 1", field="--policy")
