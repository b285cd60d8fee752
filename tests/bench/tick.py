"""Cost of a planner tick: `python -m tests.bench.tick`. Observations come from a replay, decisions are made again."""

from __future__ import annotations

import statistics
import time

from planner.core.decide import Planner
from planner.core.state import Decision, PlannerState
from planner.core.types import Observation
from planner.whatif.capacity_models import capacity_model
from planner.whatif.policies.ours import Ours
from planner.whatif.replay import replay
from tests.bench.common import conversation, setting_for


def main() -> None:
    setting = setting_for(conversation(1200))
    model = capacity_model("closed-form", setting.engines, "least_loaded")
    seen: list[tuple[PlannerState, Observation, Decision]] = []
    replay(setting, Ours(setting, model, lambda *tick: seen.append(tick)), "planner")
    planner = Planner(setting.settings, model)
    settled = [tick for tick in seen if tick[2].at_s > 600.0]

    def tick(state: PlannerState, observation: Observation, decision: Decision) -> float:
        began = time.perf_counter()
        planner.decide(state, observation, decision.at_s)
        return time.perf_counter() - began

    for entry in settled[:5]:
        tick(*entry)
    two = [tick(*entry) for entry in settled]
    print(f"2 pools (one graph): median {1000 * statistics.median(two):.1f} ms, worst {1000 * max(two):.1f} ms a tick")
    hundred = []
    for round_ in range(3):
        began = time.perf_counter()
        for graph in range(100):
            state, observation, decision = settled[(graph + round_) % len(settled)]
            planner.decide(state, observation, decision.at_s)
        hundred.append(time.perf_counter() - began)
    print(f"200 pools (100 graphs): median {1000 * statistics.median(hundred):.0f} ms a tick of all")


if __name__ == "__main__":
    main()
