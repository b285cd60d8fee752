"""A crowd that comes between two ticks: the next tick does not wait for its turn."""

from __future__ import annotations

import time
from contextlib import ExitStack
from pathlib import Path

from planner.core.record import decide_again
from planner.service.load import load_config
from planner.service.model import load_model
from tests.fault_tolerance.planner.installation import PATIENCE_S, SPEED_UP, Planner, planner_of
from tests.fault_tolerance.planner.stages import Installation
from tests.fault_tolerance.planner.test_restart import records
from tests.fault_tolerance.planner.traffic import HIGH_RPS
from tests.servers import get, needs_prometheus, needs_smg, wait_until

pytestmark = [needs_prometheus, needs_smg]

#: Between ticks, s of wall time: long enough for two glances of more than a second.
TICK_S = 6.0

#: Ticks of little load before the crowd; a surge is one beside three.
CALM = 6


def hurried(planner: Planner) -> float:
    """Ticks that have come early so far."""
    lines = get(f"{planner.url}/metrics").splitlines()
    (found,) = (line for line in lines if line.startswith("sla_planner_ticks_hurried_total{"))
    return float(found.rsplit(" ", 1)[-1])


def test_a_crowd_has_the_next_tick_come_at_once(installation: Installation, tmp_path: Path) -> None:
    planner = planner_of(tmp_path, installation.graph, installation.prometheus.url)
    planner.config["tuning"]["interval_s"] = TICK_S * SPEED_UP
    planner.config["service"]["lease_s"] = 3.0 * TICK_S
    with ExitStack() as stack:
        planner.start(stack)
        began_s = time.time()
        planner.wait_for_ticks(CALM, began_s)
        assert hurried(planner) == 0.0
        came_s = time.time()
        installation.traffic.rps = HIGH_RPS
        wait_until(lambda: hurried(planner) >= 1.0, "a tick is hurried", PATIENCE_S)
        wait_until(lambda: len(planner.decisions(came_s)) >= 3, "the ticks after it", PATIENCE_S)
        installation.traffic.check()
    made = records(planner)
    interval_s = TICK_S * SPEED_UP
    early = [record for record in made if record.observation.interval_s < 0.9 * interval_s]
    assert early, [record.observation.interval_s for record in made]
    assert "surge" in early[0].decision.reasons
    assert sum(early[0].decision.plan.values()) > sum(early[0].decision.current.values())
    # The tick after it is no bin that is missing, nor one that is counted twice.
    after = made[made.index(early[0]) + 1]
    assert None not in after.state.forecast.rates_rps[-CALM:]
    config_file = tmp_path / "planner.yaml"
    capacity = load_model(load_config(config_file), config_file).capacity
    assert decide_again(early[0], capacity) == early[0].decision
