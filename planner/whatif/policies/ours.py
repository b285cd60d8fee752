"""Our planner in a replay: the very `decide` of the pod, with its state kept from tick to tick."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

from planner.core.capacity import CapacityModel
from planner.core.decide import Planner
from planner.core.demand import Demand, Lengths
from planner.core.engines import Engines
from planner.core.settings import PlannerSettings
from planner.core.sizing import size
from planner.core.state import Decision, DemandUsed, PlannerState
from planner.core.types import Observation, Plan
from planner.whatif.capacity_models import capacity_model
from planner.whatif.policies.ablation import PARTS, Taken
from planner.whatif.policies.base import Policy, Setting
from planner.whatif.policies.options import split_options, unknown
from planner.whatif.policies.ours_options import set_to, with_option
from planner.whatif.transition import LayoutChange
from profiler.errors import InputError


class Ours(Policy):
    """Runs `Planner.decide`.

    Args:
        setting: of the replay.
        capacity: the capacity model to size with.
        remodel: the capacity model of other engines; the closed form without it.
        seen: what it takes of an observation; all of it without.
        on_decision: receives the state before each tick, the observation and the decision; may be set later.
    """

    def __init__(
        self,
        setting: Setting,
        capacity: CapacityModel,
        on_decision: Callable[[PlannerState, Observation, Decision], None] | None = None,
        remodel: Callable[[Engines], CapacityModel] = lambda engines: engines.closed_form,
        seen: Callable[[Observation], Observation] = lambda observation: observation,
    ) -> None:
        self.interval_s, self.glances = setting.settings.interval_s, setting.settings.glances
        self.settings = setting.settings
        self.capacity = capacity
        self._planner = Planner(setting.settings, capacity)
        self._state = PlannerState()
        self.on_decision = on_decision
        self._remodel = remodel
        self._seen = seen
        self._demand: DemandUsed | None = None

    def hurries(self, observation: Observation) -> bool:
        """As the pod does."""
        return self._planner.hurries(self._state, observation)

    def decide(self, observation: Observation, now_s: float) -> Plan:
        """The plan of one tick."""
        before, observation = self._state, self._seen(observation)
        decision, self._state = self._planner.decide(before, observation, now_s)
        self._demand = decision.demand or self._demand
        if self.on_decision is not None:
            self.on_decision(before, observation, decision)
        return decision.plan

    def needs_in(self, change: LayoutChange) -> tuple[int, int] | None:
        """By the load that was last sized for; None before there was one."""
        used, lengths = self._demand, self._state.lengths
        if used is None or lengths is None:
            return None
        demand = Demand(used.rate_rps, used.dispersion, Lengths.of(lengths))

        def workers(model: CapacityModel, settings: PlannerSettings) -> int:
            pools = {pool.role: pool for pool in settings.pools}
            sla, tolerance = settings.sla, settings.attainment_tolerance
            found = size(model.evaluator(demand, sla), pools, sla, settings.max_gpus, {}, tolerance=tolerance)
            return found.chosen.workers[change.role]

        return workers(self.capacity, self.settings), workers(self._remodel(change.engines), self._after(change))

    def switch(self, change: LayoutChange) -> None:
        """The model and the pool of the new layout; what was remembered of the old pool's counts is forgotten."""
        self.settings, self.capacity = self._after(change), self._remodel(change.engines)
        self._planner = Planner(self.settings, self.capacity)
        memory = {name: kept for name, kept in self._state.memory.items() if name != change.pool.name}
        self._state = replace(self._state, memory=memory, last_good=None)

    def _after(self, change: LayoutChange) -> PlannerSettings:
        pools = tuple(change.pool if pool.role is change.role else pool for pool in self.settings.pools)
        return self.settings.model_copy(update={"pools": pools})


#: Every part at once.
ALL = "all"

#: What a replay bears: a tick costs milliseconds, and a forecast holds every interval of the lead time.
SHORTEST_INTERVAL_S, LONGEST_S, MOST_INTERVALS_AHEAD = 0.1, 86_400.0, 10_000


def parse(options: str, setting: Setting) -> Ours:
    """`planner`, or with options such as `planner:confidence=0.9,surge.most=1.5,capacity=simulator,without=queue`.

    Raises:
        InputError: an option that there is not, or a value that it cannot have, or that a replay cannot bear.
    """
    settings, capacity = setting.settings, "closed-form"
    without: list[str] = []
    for key, value in split_options(options):
        if key == "capacity":
            capacity = value or ""
        elif key == "without":
            if value not in {*PARTS, ALL}:
                raise unknown("planner", key, value, f"without={' | '.join((*PARTS, ALL))}")
            without += PARTS if value == ALL else [value]
        else:
            settings = with_option(settings, key, value)
    taken = Taken(tuple(dict.fromkeys(without)))
    for path, number in taken.settings.items():
        settings = set_to(settings, path, number)
    _check_bearable(settings)

    def remodel(engines: Engines) -> CapacityModel:
        return taken.model(capacity_model(capacity, engines, setting.routing))

    return Ours(replace(setting, settings=settings), remodel(setting.engines), remodel=remodel, seen=taken.seen)


def _check_bearable(settings: PlannerSettings) -> None:
    """The settings may come from `--config` or `--startup-s` as well as from the policy's own options."""
    for name, value, least in (
        ("interval_s", settings.interval_s, SHORTEST_INTERVAL_S),
        ("lead_time_s", settings.lead_time_s, 0.0),
    ):
        if not least <= value <= LONGEST_S:
            right = f"from {least:g} to {LONGEST_S:g} seconds"
            raise InputError(f"planner: {name} is {value:g}", expected=right, field="--policy")
    ahead = settings.lead_time_s / settings.interval_s + settings.horizon_intervals
    if ahead > MOST_INTERVALS_AHEAD:
        found = f"planner: lead_time_s / interval_s + horizon_intervals is {ahead:,.0f}"
        raise InputError(found, expected=f"at most {MOST_INTERVALS_AHEAD:,}", field="--policy")
