"""A planner that does nothing but carry a layout change on, and may be ended after so many writes.

    python -m tests.integration.kubernetes.layout_planner KUBECONFIG NAMESPACE GRAPH MAX_GPUS WRITES [KIND]

KIND is that of one object that holds all pools, such as DynamoGraphDeployment. Exit code 0: no change is under way any
more. 9: ended by itself right after a write had arrived, before it knew.
"""

from __future__ import annotations

import os
import sys
import time
from pathlib import Path
from typing import Any

from planner.connectors.kubernetes.cluster import Cluster, Object
from planner.connectors.kubernetes.connector import KubernetesConnector
from planner.connectors.kubernetes.settings import GraphObject, KubernetesSettings
from planner.core.types import Pool, Role

POOLS = (Pool("Decode", Role.AGGREGATED, 2),)
ME = "planner"


class Mortal(Cluster):
    """A cluster whose user is gone after so many writes, leases and Events aside."""

    left = sys.maxsize

    def _request(self, method: str, path: str, about: str, **how: Any) -> Object:
        answer = super()._request(method, path, about, **how)
        if method != "GET" and "/leases" not in path and "/events" not in path:
            self.left -= 1
            if self.left <= 0:
                print(f"ended after: {about}", flush=True)
                os._exit(9)
        return answer


def connector(cluster: Cluster, graph: str, max_gpus: int, kind: str = "") -> KubernetesConnector:
    """As the service makes it; the graph is found by its label, or is one object of a kind."""
    whole = GraphObject.model_validate({"kind": kind, "name": graph}) if kind else None
    settings = KubernetesSettings(graph=whole)
    return KubernetesConnector(cluster, graph, POOLS, settings, max_gpus)


def tick(one: KubernetesConnector, wanted: int) -> bool:
    """What the loop does at each tick of a change; whether one was under way."""
    if not one.read().layout_change.under_way:
        return False
    one.lease(ME, 60.0)
    one.apply({"Decode": wanted}, ME)
    return True


if __name__ == "__main__":
    mortal = Mortal(sys.argv[2], kubeconfig=Path(sys.argv[1]))
    mortal.left = int(sys.argv[5])
    planner = connector(mortal, sys.argv[3], int(sys.argv[4]), *sys.argv[6:])
    while tick(planner, 4):
        time.sleep(0.2)
