"""TP2 to TP4 on a real API server: what the cluster shows at every moment, kills between writes, rollbacks."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import pytest
from kubernetes import client

from planner.connectors.kubernetes.cluster import Cluster as Api
from tests.integration.kubernetes.layout_planner import ME, connector, tick
from tests.integration.kubernetes.rollout_bed import PATIENCE_S, SOON, crashing, lives, proposal, run, watched
from tests.kubernetes.cluster import Cluster
from tests.kubernetes.nodes import Node
from tests.servers import wait_until

GRAPH = "chat"
OWN = {"plimsoll.io/graph": GRAPH, "plimsoll.io/pool": "Decode", "plimsoll.io/layout": "tp2-dp1"}


def deployment(replicas: int = 4) -> dict[str, Any]:
    container = {
        "name": "main",
        "image": "vllm:1",
        "command": ["vllm", "serve", "m"],
        "args": ["--tensor-parallel-size", "2"],
        "resources": {"limits": {"nvidia.com/gpu": "2"}},
        "ports": [{"name": "http", "containerPort": 8000}],
    }
    return {
        "metadata": {"name": "chat-decode", "labels": {**OWN, "plimsoll.io/role": "aggregated"}},
        "spec": {
            "replicas": replicas,
            "selector": {"matchLabels": OWN},
            "template": {
                "metadata": {"labels": {**OWN, "plimsoll.io/role": "aggregated"}, "annotations": SOON},
                "spec": {"containers": [container], "terminationGracePeriodSeconds": 20},
            },
        },
    }


class Bed:
    """A graph of four workers of TP2 that serve."""

    def __init__(self, cluster: Cluster, namespace: str, api: client.ApiClient) -> None:
        self.cluster, self.namespace = cluster, namespace
        self.apps, self.core = client.AppsV1Api(api), client.CoreV1Api(api)
        self.apps.create_namespaced_deployment(namespace, deployment())
        wait_until(lambda: self.ready("chat-decode") == 4, "four workers serve", PATIENCE_S)

    def planner(self, max_gpus: int) -> Any:
        made = connector(Api(self.namespace, kubeconfig=self.cluster.kubeconfig), GRAPH, max_gpus)
        made.read()
        made.lease(ME, 60.0)
        return made

    def ready(self, name: str) -> int:
        return self.apps.read_namespaced_deployment_status(name, self.namespace).status.ready_replicas or 0

    def objects(self) -> dict[str, tuple[int, bool]]:
        """Replicas, and whether it is retired, by name."""
        return {
            one.metadata.name: (one.spec.replicas, "plimsoll.io/retired-from" in one.metadata.labels)
            for one in self.apps.list_namespaced_deployment(self.namespace).items
        }


@pytest.fixture
def bed(control_plane: Cluster, namespace: str, api: client.ApiClient, kubelet: Callable[..., Any]) -> Bed:
    kubelet(Node("gpu-a", 16))
    return Bed(control_plane, namespace, api)


@pytest.mark.parametrize(("max_gpus", "least"), [(16, 1.0), (12, 1.0), (8, 0.5)])
def test_a_change_is_completed_within_the_budget_and_its_promise(bed: Bed, max_gpus: int, least: float) -> None:
    with watched(bed.cluster, bed.namespace) as seen:
        begun = len(seen.shares)
        planner = bed.planner(max_gpus)
        planner.change_layout(proposal(least_capacity=least), ME)
        said = run(planner)
    assert said[-1] == "Decode: tp2 to tp4"
    assert bed.objects() == {"chat-decode": (0, True), "chat-decode-tp4": (2, False)}
    assert max(seen.gpus) <= max_gpus
    assert min(seen.shares[begun:]) >= least
    supply = planner.read()
    assert supply.layouts == {"Decode": (4, 1)}
    assert supply.gpus_per_worker == {"Decode": 4}
    assert (supply.pools["Decode"].desired, supply.pools["Decode"].ready) == (2, 2)
    # And on as ever, with the new object.
    planner.lease(ME, 60.0)
    assert planner.apply({"Decode": 1}, ME) == {"Decode": "2 -> 1"}


def test_planners_that_each_live_for_one_write_complete_it(bed: Bed) -> None:
    bed.planner(12).change_layout(proposal(), ME)
    with watched(bed.cluster, bed.namespace) as seen:
        begun = len(seen.shares)
        ended = lives(bed.cluster, bed.namespace, GRAPH, "12", "1")
    assert bed.objects() == {"chat-decode": (0, True), "chat-decode-tp4": (2, False)}
    assert max(seen.gpus) <= 12
    assert min(seen.shares[begun:]) >= 1.0
    assert len(ended) >= 8, ended


def test_a_change_whose_workers_crash_is_rolled_back(bed: Bed) -> None:
    with crashing(bed.core, bed.namespace, 4), watched(bed.cluster, bed.namespace) as seen:
        planner = bed.planner(16)
        planner.change_layout(proposal(patience_s=4.0), ME)
        said = run(planner)
    assert said[-1].startswith("rolled back, Decode: back to tp2 from tp4")
    assert bed.objects() == {"chat-decode": (4, False), "chat-decode-tp4": (0, True)}
    assert max(seen.gpus) <= 16
    assert planner.read().layouts == {"Decode": (2, 1)}


def test_a_layout_that_no_node_holds_is_rolled_back_and_says_why(
    control_plane: Cluster, namespace: str, api: client.ApiClient, kubelet: Callable[..., Any]
) -> None:
    kubelet(*(Node(f"gpu-{i}", 2) for i in range(8)))
    bed = Bed(control_plane, namespace, api)
    planner = bed.planner(16)
    planner.change_layout(proposal(patience_s=8.0), ME)
    said = run(planner)
    assert "Insufficient nvidia.com/gpu" in said[-1]
    assert bed.objects() == {"chat-decode": (4, False), "chat-decode-tp4": (0, True)}


def test_there_and_back_again_takes_the_old_object_into_use(bed: Bed) -> None:
    planner = bed.planner(16)
    planner.change_layout(proposal(), ME)
    run(planner)
    planner.change_layout(proposal(old=(4, 1), new=(2, 1), old_workers=2, new_workers=4, new_gpus=2), ME)
    end = time.monotonic() + PATIENCE_S
    while tick(planner, 2):
        assert time.monotonic() < end
        time.sleep(0.1)
    assert bed.objects() == {"chat-decode": (4, False), "chat-decode-tp4": (0, True)}
    assert planner.read().layouts == {"Decode": (2, 1)}
