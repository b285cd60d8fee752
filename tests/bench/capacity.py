"""Closed form against simulator: `python -m tests.bench.capacity`. Attainment that each predicts for one demand."""

from __future__ import annotations

import numpy as np

from planner.core.demand import Demand, Lengths
from planner.core.types import Role
from planner.whatif.capacity_models import capacity_model
from planner.whatif.run import warm_up
from planner.whatif.traces import collect
from tests.bench.common import conversation, setting_for


def main() -> None:
    setting = setting_for(conversation(600))
    warm_up(setting)
    chunk = collect(setting.trace)
    rows = np.random.default_rng(0).integers(0, len(chunk), 2048)
    lengths = Lengths(*(getattr(chunk, f)[rows].astype(float) for f in ("isl", "osl", "prefix_hit_tokens")))
    closed = capacity_model("closed-form", setting.engines, "least_loaded")
    simulated = capacity_model("simulator", setting.engines, "least_loaded")
    print("workers  rate  dispersion  attainment: simulator  closed form  difference")
    differences = []
    for dispersion in (1.0, 4.0):
        for prefill, decode in ((1, 1), (2, 2), (3, 3), (6, 5), (12, 10)):
            for load in (0.6, 0.8, 0.9, 1.0, 1.1):
                rate = load * 30.0 * min(prefill, decode)
                demand = Demand(rate, dispersion, lengths)
                workers = {Role.PREFILL: prefill, Role.DECODE: decode}
                a = simulated.evaluator(demand, setting.sla).predict(workers).attainment
                b = closed.evaluator(demand, setting.sla).predict(workers).attainment
                differences.append(b - a)
                print(
                    f"{prefill:>3}p{decode}d  {rate:>6.0f}  {dispersion:>9.0f}  {a:>21.3f}  {b:>11.3f}  {b - a:>+10.3f}"
                )
    spread = np.array(differences)
    print(
        f"mean {spread.mean():+.3f}, mean absolute {np.abs(spread).mean():.3f}, "
        f"worst {spread[np.abs(spread).argmax()]:+.3f}"
    )


if __name__ == "__main__":
    main()
