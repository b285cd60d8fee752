"""Our planner in a replay: the very `decide` of the pod, with its state kept from tick to tick."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

from planner.core.capacity import CapacityModel
from planner.core.decide import Planner
from planner.core.settings import PlannerSettings
from planner.core.state import Decision, PlannerState
from planner.core.types import Observation, Plan
from planner.whatif.capacity_models import capacity_model
from planner.whatif.policies.base import Policy, Setting
from planner.whatif.policies.options import positive, split_options, unknown
from profiler.errors import InputError


class Ours(Policy):
    """Runs `Planner.decide`.

    Args:
        setting: of the replay.
        capacity: the capacity model to size with.
        on_decision: receives the state before each tick, the observation and the decision; may be set later.
    """

    def __init__(
        self,
        setting: Setting,
        capacity: CapacityModel,
        on_decision: Callable[[PlannerState, Observation, Decision], None] | None = None,
    ) -> None:
        self.interval_s = setting.settings.interval_s
        self.settings = setting.settings
        self.capacity = capacity
        self._planner = Planner(setting.settings, capacity)
        self._state = PlannerState()
        self.on_decision = on_decision

    def decide(self, observation: Observation, now_s: float) -> Plan:
        """The plan of one tick."""
        before = self._state
        decision, self._state = self._planner.decide(before, observation, now_s)
        if self.on_decision is not None:
            self.on_decision(before, observation, decision)
        return decision.plan


#: What a replay bears: a tick costs milliseconds, and a forecast holds every interval of the lead time.
SHORTEST_INTERVAL_S, LONGEST_S, MOST_INTERVALS_AHEAD = 0.1, 86_400.0, 10_000

#: Settings that `planner:key=value` may change, for comparing variants side by side.
OPTIONS = ("confidence", "interval_s", "lead_time_s", "down_window_s", "capacity")


def parse(options: str, setting: Setting) -> Ours:
    """`planner`, or with options such as `planner:confidence=0.9,interval_s=5,capacity=simulator`.

    Raises:
        InputError: an option that there is not, or a value that it cannot have, or that a replay cannot bear.
    """
    settings, capacity = setting.settings, "closed-form"
    for key, value in split_options(options):
        if key not in OPTIONS:
            raise unknown("planner", key, value, ", ".join(f"{name}=…" for name in OPTIONS))
        if key == "capacity":
            capacity = value or ""
            continue
        number = positive("planner", key, value)
        if key == "confidence" and not 0.5 <= number < 1:
            raise InputError(f"planner: confidence is {number:g}", expected="from 0.5 to below 1", field="--policy")
        if key == "down_window_s":
            down = settings.behaviour.down.model_copy(update={"window_s": number})
            settings = settings.model_copy(update={"behaviour": settings.behaviour.model_copy(update={"down": down})})
        else:
            settings = settings.model_copy(update={key: number})
    _check_bearable(settings)
    model = capacity_model(capacity, setting.engines, setting.routing)
    return Ours(replace(setting, settings=settings), model)


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
