"""Fixed counts: what a fleet without an autoscaler does."""

from __future__ import annotations

from planner.core.types import Observation, Plan
from planner.whatif.policies.base import Policy


class Static(Policy):
    """The same workers from the first second to the last."""

    interval_s = 60.0

    def __init__(self, plan: Plan) -> None:
        self._plan = dict(plan)

    def start(self) -> Plan:
        """Its workers are there at time 0: nobody starts a fixed fleet under load."""
        return self._plan

    def decide(self, observation: Observation, now_s: float) -> Plan:  # noqa: ARG002 - that it ignores both is the point
        """Always the same."""
        return self._plan
