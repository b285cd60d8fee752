"""A planner that is killed while workers start, and started again: it goes on where it was."""

from __future__ import annotations

import json
import time
from contextlib import ExitStack
from pathlib import Path

from planner.core.record import DecisionRecord, decide_again, from_line
from planner.demo.settings import PREFILL
from planner.service.load import load_config
from planner.service.model import load_model
from tests.fault_tolerance.planner.installation import BUDGET, PATIENCE_S, Planner, planner_of
from tests.fault_tolerance.planner.stages import Installation, at_rest
from tests.fault_tolerance.planner.traffic import CROWD_RPS
from tests.servers import needs_prometheus, needs_smg, wait_until

pytestmark = [needs_prometheus, needs_smg]


def records(planner: Planner) -> list[DecisionRecord]:
    return [
        from_line(json.dumps(one), source="journal", number=number) for number, one in enumerate(planner.records(), 1)
    ]


def test_killed_in_the_middle_of_a_scale_up(installation: Installation, tmp_path: Path) -> None:
    graph, watch = installation.graph, installation.watch
    planner = planner_of(tmp_path, graph, installation.prometheus.url)
    with ExitStack() as stack:
        planner.start(stack)
        at_rest(installation, planner)
        began_s = time.time()
        planner.wait_for_ticks(10, began_s)
        installation.traffic.rps = CROWD_RPS
        wait_until(lambda: is_growing(installation), "workers start", PATIENCE_S)
        planner.process.kill()
        killed_s = time.time()
        asked = graph.desired()
        assert asked[PREFILL] >= 2
        before = records(planner)

        planner.start(stack)
        made = planner.wait_for_ticks(8, killed_s)
        wait_until(graph.settled, "all workers serve", PATIENCE_S)
        listed = planner.decisions()
    after = records(planner)[len(before) :]

    # What it had learned is still there: the forecaster's bins, the lengths, the load's burstiness.
    learned, known = before[-1].state, after[0].state
    assert known.forecast.bins_known >= learned.forecast.bins_known >= 8
    assert known.lengths is not None
    assert known.lengths_at_s is not None
    assert known.lengths_at_s < killed_s * planner.config["speed_up"]
    assert known.dispersion is not None
    # Its page shows what was decided before, too.
    assert [one["at_s"] for one in listed] == [one.decision.at_s for one in before + after]

    # It goes on with the same plan, from its first tick on, and lowers nothing.
    assert made[0]["level"] == "model"
    for one in made:
        assert all(one["plan"][name] >= count for name, count in asked.items()), one
    assert not watch.lowered(began_s)
    assert watch.most_asked(began_s) <= BUDGET
    # The journal explains every decision on both sides of the gap bit for bit.
    config_file = tmp_path / "planner.yaml"
    capacity = load_model(load_config(config_file), config_file).capacity
    for record in (before[-1], *after[:3]):
        assert decide_again(record, capacity) == record.decision


def is_growing(installation: Installation) -> bool:
    pool = installation.graph.status()["pools"][PREFILL]
    return bool(pool["desired"] >= 2 and pool["starting"] > 0)
