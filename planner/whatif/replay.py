"""One replay: a trace through the simulator under one policy, observed as the pod would observe it."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from planner.core.types import Known, LengthSample, Observation, Plan, PoolState, Role, Unknown
from planner.whatif.outcome import Outcome, Tally
from planner.whatif.policies.base import Policy, Setting
from planner.whatif.simulator.simulation import Finished, Simulation

#: Seconds after the last arrival in which requests may still complete; those that have not are unfinished.
GRACE_S = 600.0

#: Completed requests of an interval handed to a policy as its sample of lengths.
OBSERVED_LENGTHS = 512


@dataclass
class _Window:
    """What finished since the last tick."""

    finished: list[Finished] = field(default_factory=list)

    def column(self, name: str) -> NDArray[np.float64]:
        """One field of all that finished, shape (n,)."""
        parts = [getattr(f, name) for f in self.finished]
        return np.concatenate(parts) if parts else np.empty(0)


@dataclass(frozen=True)
class Tick:
    """The supply at one tick, for timelines: workers by role, and the plan that was asked for."""

    at_s: float
    arrivals: int
    interval_s: float
    plan: Plan
    ready: Plan
    starting: Plan
    draining: Plan


def replay(
    setting: Setting,
    policy: Policy,
    name: str,
    *,
    on_finished: Callable[[Finished], None] | None = None,
    on_progress: Callable[[float], None] | None = None,
) -> Outcome:
    """Run a trace to its end under a policy.

    Args:
        setting: engines, trace, SLA, start and budget.
        policy: decides; made for this replay.
        name: of the policy, for the outcome.
        on_finished: receives finished requests, for writing them out.
        on_progress: receives the simulated time in seconds at every tick.
    """
    began = time.perf_counter()
    tally, window = Tally(setting.sla), _Window()

    def finished(batch: Finished) -> None:
        tally.add(batch)
        window.finished.append(batch)
        if on_finished is not None:
            on_finished(batch)

    simulation = Simulation(setting.engines, setting.trace, setting.routing, finished)
    actuator = _Actuator(setting, simulation)
    actuator.begin(policy.start() or setting.start)
    ticks: list[Tick] = []
    end_s: float | None = None
    now_s = 0.0
    while True:
        now_s += policy.interval_s
        arrived = simulation.total("arrived")
        simulation.run_to(now_s * 1000.0)
        if end_s is None and simulation.all_arrived:
            end_s = simulation.last_arrival_ms / 1000.0
        arrived = simulation.total("arrived") - arrived
        observation = _observe(setting, simulation, actuator, window, arrived, policy.interval_s)
        window.finished.clear()
        actuator.ask(policy.decide(observation, now_s))
        ticks.append(actuator.tick(now_s, arrived, policy.interval_s))
        if on_progress is not None:
            on_progress(now_s)
        if simulation.exhausted or (end_s is not None and now_s > end_s + GRACE_S):
            break
    return tally.outcome(
        policy=name,
        offered=simulation.total("arrived"),
        failed=simulation.total("failed"),
        preempted=simulation.total("preempted"),
        span_s=end_s if end_s is not None else now_s,
        gpu_hours=simulation.gpu_hours(),
        peak_gpus=actuator.peak_gpus,
        scale_ups=actuator.scale_ups,
        scale_downs=actuator.scale_downs,
        wall_s=time.perf_counter() - began,
        ticks=tuple(ticks),
    )


class _Actuator:
    """Carries a plan out: asks for workers within the budget, drains what is too many."""

    def __init__(self, setting: Setting, simulation: Simulation) -> None:
        self._setting = setting
        self._simulation = simulation
        self._roles: dict[str, Role] = {pool.name: role for role, pool in setting.pools.items()}
        self.desired: dict[str, int] = dict.fromkeys(self._roles, 0)
        self.peak_gpus = 0
        self.scale_ups = 0
        self.scale_downs = 0

    def begin(self, plan: Plan) -> None:
        """Workers that are ready at time 0."""
        for name, count in plan.items():
            for _ in range(count):
                self._simulation.add_worker(self._roles[name], 0.0)
            self.desired[name] = count
        self.peak_gpus = self._simulation.gpus()

    def ask(self, plan: Plan) -> None:
        """Carry out a plan: downs first, then ups as far as the budget holds, workers that drain included."""
        for name, count in plan.items():
            if count < self.desired[name]:
                self.scale_downs += 1
            elif count > self.desired[name]:
                self.scale_ups += 1
            self.desired[name] = count
        now_ms = self._simulation.raw.totals["clock"][0]
        for name, role in self._roles.items():
            supply = self._simulation.supply(role)
            for _ in range(supply.ready + supply.starting - self.desired[name]):
                self._simulation.drain_worker(role)
        for name, role in self._roles.items():
            gpus = self._setting.pools[role].gpus_per_worker
            supply = self._simulation.supply(role)
            for _ in range(self.desired[name] - supply.ready - supply.starting):
                if self._simulation.gpus() + gpus > self._setting.settings.max_gpus:
                    break
                self._simulation.add_worker(role, now_ms + self._setting.startup_s * 1000.0)
        self.peak_gpus = max(self.peak_gpus, self._simulation.gpus())

    def tick(self, at_s: float, arrivals: int, interval_s: float) -> Tick:
        """The supply after a plan was carried out."""
        supply = {name: self._simulation.supply(role) for name, role in self._roles.items()}
        return Tick(
            at_s=at_s,
            arrivals=arrivals,
            interval_s=interval_s,
            plan=dict(self.desired),
            ready={name: s.ready for name, s in supply.items()},
            starting={name: s.starting for name, s in supply.items()},
            draining={name: s.draining for name, s in supply.items()},
        )

    def pools(self) -> dict[str, PoolState]:
        """The supply as a connector reads it."""
        states = {}
        for name, role in self._roles.items():
            supply = self._simulation.supply(role)
            states[name] = PoolState(
                desired=self.desired[name],
                ready=supply.ready,
                starting=supply.starting,
                terminating=supply.draining,
                waiting_requests=Known(float(supply.waiting)),
                running_requests=Known(float(supply.running)),
                kv_usage=Known(supply.kv_usage),
            )
        return states


def _observe(
    setting: Setting,
    simulation: Simulation,
    actuator: _Actuator,
    window: _Window,
    arrived: int,
    interval_s: float,
) -> Observation:
    """What the metrics of gateway and engines would show of the last interval."""
    counts = simulation.seconds_since_last()
    mean = float(counts.mean()) if len(counts) > 1 else 0.0
    dispersion: Known[float] | Unknown = Unknown("fewer than two seconds with arrivals")
    if mean > 0:
        dispersion = Known(float(counts.var(ddof=1)) / mean)
    ttft, itl = window.column("ttft_ms"), window.column("itl_ms")
    if len(ttft) == 0:
        none = Unknown("no request completed in the interval")
        lengths: Known[LengthSample] | Unknown = none
        return Observation(interval_s, Known(arrived), dispersion, lengths, Known(actuator.pools()), none, none, none)
    has_itl = ~np.isnan(itl)
    decoded, gaps = itl[has_itl], window.column("osl")[has_itl] - 1.0
    within = (ttft <= setting.sla.ttft_ms) & (np.isnan(itl) | (itl <= setting.sla.itl_ms))
    share = setting.sla.attainment
    return Observation(
        interval_s=interval_s,
        arrivals=Known(arrived),
        dispersion=dispersion,
        lengths=Known(_sample(window)),
        pools=Known(actuator.pools()),
        ttft_ms=Known(float(np.quantile(ttft, share))),
        itl_ms=Known(float(np.quantile(decoded, share))) if len(decoded) else Unknown("no second token"),
        attainment=Known(float(within.mean())),
        mean_ttft_ms=Known(float(ttft.mean())),
        mean_itl_ms=Known(float(np.average(decoded, weights=gaps))) if len(decoded) else Unknown("no second token"),
    )


def _sample(window: _Window) -> LengthSample:
    """Up to `OBSERVED_LENGTHS` of the interval's completed requests, evenly spaced."""
    isl, osl, hit = window.column("isl"), window.column("osl"), window.column("hit")
    places = np.arange(min(len(isl), OBSERVED_LENGTHS)) * len(isl) // min(len(isl), OBSERVED_LENGTHS)
    return LengthSample(
        isl=tuple(int(v) for v in isl[places]),
        osl=tuple(int(v) for v in osl[places]),
        prefix_hit_tokens=tuple(int(v) for v in hit[places]),
    )
