"""The planner as manifests/ installs it scales every kind of graph, with real traffic and under its own Role."""

from __future__ import annotations

from pathlib import Path

import pytest

from planner.demo.settings import DECODE, PREFILL
from tests.fault_tolerance.planner.traffic import HIGH_RPS, LOW_RPS
from tests.kubernetes.cluster import Cluster
from tests.kubernetes.installation.graphs import KINDS, Kind
from tests.kubernetes.installation.installation import PATIENCE_S, installed
from tests.servers import needs_prometheus, needs_smg, wait_until

pytestmark = [needs_prometheus, needs_smg]


@pytest.mark.parametrize("kind", KINDS.values(), ids=KINDS)
def test_a_graph_is_scaled_up_and_down_within_the_budget_and_loses_no_request(
    control_plane: Cluster, namespace: str, tmp_path: Path, kind: Kind
) -> None:
    with installed(control_plane, namespace, kind, tmp_path) as made:
        traffic = made.traffic()
        (planner,) = made.start_planner()
        wait_until(planner.holds, "the planner acts", PATIENCE_S, every_s=0.3)

        traffic.rps = HIGH_RPS

        def grown() -> bool:
            counts = planner.counts()
            return sum(ready for _, ready in counts.values()) >= 3 and planner.settled()

        wait_until(grown, "more workers serve", PATIENCE_S, every_s=0.3)
        traffic.rps = LOW_RPS

        def shrunk() -> bool:
            return planner.counts() == {PREFILL: (1, 1), DECODE: (1, 1)} and planner.settled()

        wait_until(shrunk, "back to one of each", PATIENCE_S, every_s=0.3)
        state, events = planner.state(), made.events()
        traffic.stop()
    assert made.watch.most <= kind.budget, made.watch.moments
    assert made.watch.most > sum(kind.gpus.values())
    traffic.check()
    assert {stage for stage, fault in state["errors"].items() if fault["active"]} == set()
    assert {"ScaledUp", "ScaledDown"} <= {reason for reason, _ in events}
