"""With gaps in the metrics no pool is ever lowered, and the budget is kept as far as that allows."""

from __future__ import annotations

from dataclasses import replace

from hypothesis import given, settings
from hypothesis import strategies as st

from planner.core.budget import gpus_of
from planner.core.state import PlannerState
from planner.core.types import Observation
from tests.property.core.test_decide_properties import INTERVAL_S, observations, planners

GAPS = ("1 of 2 decode workers have no metrics",)


@settings(deadline=None, max_examples=15)
@given(planners, st.lists(observations(known=True), min_size=8, max_size=14))
def test_gaps_never_lower(made, history: list[Observation]) -> None:  # type: ignore[no-untyped-def]
    state, now = PlannerState(), 1000.0
    pools = made.settings.pools_by_name
    for observation in history:
        now += INTERVAL_S
        decision, _ = made.decide(state, replace(observation, gaps=GAPS), now)
        for name, count in decision.plan.items():
            assert count >= decision.current[name]
        if decision.plan:
            assert gpus_of(decision.plan, pools) <= max(made.settings.max_gpus, gpus_of(decision.current, pools))
        _, state = made.decide(state, observation, now)
