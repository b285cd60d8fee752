"""Our planner in a replay: the very `decide` of the pod, with its state kept from tick to tick."""

from __future__ import annotations

from collections.abc import Callable

from planner.core.capacity import CapacityModel
from planner.core.decide import Planner
from planner.core.state import Decision, PlannerState
from planner.core.types import Observation, Plan
from planner.whatif.policies.base import Policy, Setting


class Ours(Policy):
    """Runs `Planner.decide`.

    Args:
        setting: of the replay.
        capacity: the capacity model to size with.
        on_decision: receives the state before each tick, the observation and the decision.
    """

    def __init__(
        self,
        setting: Setting,
        capacity: CapacityModel,
        on_decision: Callable[[PlannerState, Observation, Decision], None] | None = None,
    ) -> None:
        self.interval_s = setting.settings.interval_s
        self._planner = Planner(setting.settings, capacity)
        self._state = PlannerState()
        self._on_decision = on_decision

    def decide(self, observation: Observation, now_s: float) -> Plan:
        """The plan of one tick."""
        before = self._state
        decision, self._state = self._planner.decide(before, observation, now_s)
        if self._on_decision is not None:
            self._on_decision(before, observation, decision)
        return decision.plan
