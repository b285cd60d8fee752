"""One replay: a trace through the simulator under one policy, observed as the pod would observe it."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, field, replace

import numpy as np
from numpy.typing import NDArray

from planner.core.types import Known, LengthSample, Observation, Plan, PoolState, Role, Unknown
from planner.whatif.fleet import Fleet
from planner.whatif.outcome import Outcome, Tally
from planner.whatif.policies.base import Policy, Setting
from planner.whatif.robustness.disturbance import Disturbance
from planner.whatif.simulator.simulation import Finished, Simulation, WorkerLoad
from planner.whatif.transition import OTHER, Transition

#: Seconds after the last arrival in which requests may still complete; those that have not are unfinished.
GRACE_S = 600.0

#: Completed requests of an interval handed to a policy as its sample of lengths.
OBSERVED_LENGTHS = 512

#: What a policy that does not observe is shown.
UNSEEN = Unknown("this policy does not look")


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
    disturbance: Disturbance | None = None,
) -> Outcome:
    """Run a trace to its end under a policy.

    Args:
        setting: engines, trace, SLA, start and budget.
        policy: decides; made for this replay.
        name: of the policy, for the outcome.
        on_finished: receives finished requests, for writing them out.
        on_progress: receives the simulated time in seconds at every tick.
        disturbance: of the workers and of what is observed; `setting` and `policy` are what it made of them already.
    """
    began = time.perf_counter()
    if policy.startup_s is not None:
        setting = replace(setting, startup_s=policy.startup_s)
    tally, window = Tally(setting.sla), _Window()

    def finished(batch: Finished) -> None:
        tally.add(batch)
        if transition is not None:
            transition.add(batch)
        window.finished.append(batch)
        if on_finished is not None:
            on_finished(batch)

    change, disturbed = setting.change, disturbance or Disturbance()
    others = disturbed.others(setting) if change is None else [(change.role, change.engines.of(change.role))]
    transition: Transition | None = None
    simulation = Simulation(setting.engines, setting.trace, setting.routing, finished, others)
    if change is not None:
        pool, budget = setting.pools[change.role], setting.settings.max_gpus
        transition = Transition(change, pool, simulation, budget, setting.startup_s, setting.sla)
    fleet = disturbed.fleet(simulation, setting)
    actuator = _Actuator(setting, simulation, fleet, transition)
    actuator.begin(policy.start() or setting.start)
    ticks: list[Tick] = []
    end_s: float | None = None
    now_s = 0.0
    while True:
        began_s, arrived = now_s, simulation.total("arrived")
        now_s = _next_tick(simulation, policy, disturbed, began_s)
        span_s = now_s - began_s
        simulation.run_to(now_s * 1000.0)
        if end_s is None and simulation.all_arrived:
            end_s = simulation.last_arrival_ms / 1000.0
        arrived = simulation.total("arrived") - arrived
        fleet.pass_time(now_s)
        observation = Observation(span_s, UNSEEN, UNSEEN, UNSEEN, UNSEEN)
        if policy.observes:
            seen = _observe(setting, simulation, actuator, window, arrived, span_s)
            observation = disturbed.seen(seen, now_s)
        window.finished.clear()
        if policy.watches:
            policy.watch(disturbed.watched(actuator.loads(), now_s))
        actuator.ask(policy.decide(observation, now_s))
        if transition is not None:
            _change_layout(transition, actuator, policy, now_s)
        ticks.append(actuator.tick(now_s, arrived, span_s))
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
        layout_change=transition.course if transition is not None else None,
    )


def _next_tick(simulation: Simulation, policy: Policy, disturbed: Disturbance, began_s: float) -> float:
    """When the tick after the one at `began_s` comes: an interval later, or at a glance that has the policy hurry."""
    before = simulation.total("arrived")
    for k in range(policy.glances):
        span_s = (k + 1) * policy.interval_s / (policy.glances + 1)
        simulation.run_to((began_s + span_s) * 1000.0)
        arrived = Known(simulation.total("arrived") - before)
        glance = disturbed.seen(Observation(span_s, arrived, UNSEEN, UNSEEN, UNSEEN), began_s + span_s)
        if policy.hurries(glance):
            return began_s + span_s
    return began_s + policy.interval_s


def _change_layout(transition: Transition, actuator: _Actuator, policy: Policy, now_s: float) -> None:
    """Begin the change when it is time, carry it on, and go on in the layout that it ended in."""
    change, course = transition.change, transition.course
    name = actuator.name_of(change.role)
    if course.began_s is None and now_s >= change.at_s:
        needs = policy.needs_in(change)
        if needs is not None:
            transition.begin(now_s, actuator.desired[name], *needs)
    if not transition.under_way:
        return
    if transition.advance(now_s, actuator.desired[name]):
        actuator.settle(transition, name)
        if course.reached:
            policy.switch(change)
    actuator.peak_gpus = max(actuator.peak_gpus, actuator.gpus_now())


class _Actuator:
    """Carries a plan out: asks for workers within the budget, drains what is too many."""

    def __init__(
        self, setting: Setting, simulation: Simulation, fleet: Fleet, transition: Transition | None = None
    ) -> None:
        self._setting = setting
        self._simulation = simulation
        self._fleet = fleet
        self._transition = transition
        self._roles: dict[str, Role] = {pool.name: role for role, pool in setting.pools.items()}
        self._gpus = {pool.name: pool.gpus_per_worker for pool in setting.pools.values()}
        self._place: dict[str, int | None] = dict.fromkeys(self._roles)
        self.desired: dict[str, int] = dict.fromkeys(self._roles, 0)
        self.peak_gpus = 0
        self.scale_ups = 0
        self.scale_downs = 0

    def begin(self, plan: Plan) -> None:
        """Workers that are ready at time 0."""
        for name, count in plan.items():
            for _ in range(count):
                self._fleet.add(self._roles[name], 0.0)
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
        # The workers of a role whose layout changes are the change's own.
        asked = {name: role for name, role in self._roles.items() if not self._changes(role)}
        missing: dict[str, int] = {}
        for name, role in asked.items():
            supply = self._fleet.supply(role, self._place[name])
            missing[name] = self.desired[name] - supply.ready - supply.starting
            for _ in range(-missing[name]):
                self._fleet.drain(role, self._place[name])
        for name, role in asked.items():
            gpus = self._gpus[name]
            for _ in range(missing[name]):
                if self._simulation.gpus() + gpus > self._setting.settings.max_gpus:
                    break
                self._fleet.add(role, now_ms + self._setting.startup_s * 1000.0, self._place[name])
        self.peak_gpus = max(self.peak_gpus, self._simulation.gpus())

    def _changes(self, role: Role) -> bool:
        change = self._transition
        return change is not None and change.under_way and change.change.role is role

    def name_of(self, role: Role) -> str:
        """Name of a role's pool."""
        return next(name for name, of in self._roles.items() if of is role)

    def gpus_now(self) -> int:
        """GPUs held now."""
        return self._simulation.gpus()

    def settle(self, ended: Transition, name: str) -> None:
        """Go on with the layout that a change has ended in."""
        side = "new" if ended.course.reached else "old"
        self.desired[name] = ended.desired[side]
        if ended.course.reached:
            self._place[name], self._gpus[name] = OTHER, ended.change.pool.gpus_per_worker

    def tick(self, at_s: float, arrivals: int, interval_s: float) -> Tick:
        """The supply after a plan was carried out."""
        supply = {name: self._fleet.supply(role, self._place[name]) for name, role in self._roles.items()}
        return Tick(
            at_s=at_s,
            arrivals=arrivals,
            interval_s=interval_s,
            plan=dict(self.desired),
            ready={name: s.ready for name, s in supply.items()},
            starting={name: s.starting for name, s in supply.items()},
            draining={name: s.draining for name, s in supply.items()},
        )

    def loads(self) -> dict[str, list[WorkerLoad]]:
        """Every ready worker's load."""
        return {name: self._fleet.loads(role, self._place[name]) for name, role in self._roles.items()}

    def pools(self) -> dict[str, PoolState]:
        """The supply as a connector reads it."""
        states = {}
        for name, role in self._roles.items():
            supply = self._fleet.supply(role, self._place[name])
            states[name] = PoolState(
                desired=self.desired[name],
                ready=supply.ready,
                starting=supply.starting,
                terminating=supply.draining,
                waiting_requests=Known(float(supply.waiting)),
                running_requests=Known(float(supply.running)),
                kv_usage=Known(supply.kv_usage),
            )
            if self._changes(role) and self._transition is not None:
                states[name] = self._transition.state(states[name])
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
        ttft_ms=Known(_quantile(ttft, share)),
        itl_ms=Known(_quantile(decoded, share)) if len(decoded) else Unknown("no second token"),
        attainment=Known(float(within.mean())),
        mean_ttft_ms=Known(float(ttft.mean())),
        mean_itl_ms=Known(float(np.average(decoded, weights=gaps))) if len(decoded) else Unknown("no second token"),
    )


def _quantile(values: NDArray[np.float64], share: float) -> float:
    """`numpy.quantile`, bit for bit, at a tenth of its price for the few dozen values of a tick."""
    place = share * (len(values) - 1)
    below = int(place)
    above, part = min(below + 1, len(values) - 1), place - below
    ordered = np.partition(values, (below, above))
    low, high = float(ordered[below]), float(ordered[above])
    return high - (high - low) * (1.0 - part) if part >= 0.5 else low + (high - low) * part


def _sample(window: _Window) -> LengthSample:
    """Up to `OBSERVED_LENGTHS` of the interval's completed requests, evenly spaced."""
    isl, osl, hit = window.column("isl"), window.column("osl"), window.column("hit")
    places = np.arange(min(len(isl), OBSERVED_LENGTHS)) * len(isl) // min(len(isl), OBSERVED_LENGTHS)
    return LengthSample(
        isl=tuple(isl[places].tolist()),
        osl=tuple(osl[places].tolist()),
        prefix_hit_tokens=tuple(hit[places].tolist()),
    )
