"""A LeaderWorkerSet from TP2 to TP4 on a real API server; its groups are numbered, and the last ones go first."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from kubernetes import client

from planner.connectors.kubernetes.cluster import Cluster as Api
from planner.connectors.kubernetes.connector import KubernetesConnector
from profiler.errors import InputError
from tests.integration.kubernetes.layout_planner import ME, connector
from tests.integration.kubernetes.rollout_bed import PATIENCE_S, SOON, crashing, lives, proposal, run, watched
from tests.kubernetes.cluster import Cluster
from tests.kubernetes.nodes import Node
from tests.servers import wait_until

GRAPH = "chat"
GROUP = ("leaderworkerset.x-k8s.io", "v1")
OWN = {"plimsoll.io/graph": GRAPH, "plimsoll.io/pool": "Decode", "plimsoll.io/layout": "tp2-dp1"}


def group_set(name: str, replicas: int, size: int = 1) -> dict[str, Any]:
    """As the renderer makes it: workers of TP2, each a group of so many pods."""
    labels = {**OWN, "plimsoll.io/role": "aggregated"}
    container = {
        "name": "main",
        "image": "vllm:1",
        "command": ["vllm", "serve", "m"],
        "args": ["--tensor-parallel-size", "2"],
        "resources": {"limits": {"nvidia.com/gpu": "2"}},
        "ports": [{"name": "http", "containerPort": 8000}],
    }
    template = {
        "metadata": {"labels": labels, "annotations": SOON},
        "spec": {"containers": [container], "terminationGracePeriodSeconds": 20},
    }
    return {
        "apiVersion": "/".join(GROUP),
        "kind": "LeaderWorkerSet",
        "metadata": {"name": name, "labels": labels},
        "spec": {"replicas": replicas, "leaderWorkerTemplate": {"size": size, "workerTemplate": template}},
    }


class Bed:
    """A graph of four groups of TP2 that serve."""

    def __init__(self, cluster: Cluster, namespace: str, api: client.ApiClient) -> None:
        self.cluster, self.namespace = cluster, namespace
        self.custom, self.core = client.CustomObjectsApi(api), client.CoreV1Api(api)
        self.where = (*GROUP, namespace, "leaderworkersets")

    def serve(self) -> None:
        """Make it, and wait until it serves."""
        self.custom.create_namespaced_custom_object(*self.where, group_set("chat-decode", 4))
        wait_until(lambda: self.ready("chat-decode") == 4, "four groups serve", PATIENCE_S)

    def ready(self, name: str) -> int:
        found: Any = self.custom.get_namespaced_custom_object(*self.where, name)
        return int(found.get("status", {}).get("readyReplicas", 0))

    def planner(self, max_gpus: int) -> KubernetesConnector:
        made = connector(Api(self.namespace, kubeconfig=self.cluster.kubeconfig), GRAPH, max_gpus)
        made.read()
        made.lease(ME, 60.0)
        return made

    def objects(self) -> dict[str, tuple[int, bool]]:
        """Replicas, and whether it is retired, by name."""
        listed: Any = self.custom.list_namespaced_custom_object(*self.where)
        return {
            one["metadata"]["name"]: (one["spec"]["replicas"], "plimsoll.io/retired-from" in one["metadata"]["labels"])
            for one in listed["items"]
        }


@pytest.fixture
def bed(
    control_plane: Cluster,
    namespace: str,
    api: client.ApiClient,
    kubelet: Callable[..., Any],
    operators: Callable[..., Any],
) -> Bed:
    kubelet(Node("gpu-a", 24))
    operators("leaderworkerset")
    return Bed(control_plane, namespace, api)


def test_groups_are_replaced_within_the_budget_and_come_back_as_they_were(bed: Bed) -> None:
    """There with one group after the other, for the budget holds one beside the old ones; back all at once."""
    bed.serve()
    with watched(bed.cluster, bed.namespace) as seen:
        begun = len(seen.shares)
        planner = bed.planner(12)
        planner.change_layout(proposal(), ME)
        said = run(planner)
        assert said[-1] == "Decode: tp2 to tp4"
        assert bed.objects() == {"chat-decode": (0, True), "chat-decode-tp4": (2, False)}
        assert max(seen.gpus) == 12
        supply = planner.read()
        assert supply.layouts == {"Decode": (4, 1)}
        assert supply.gpus_per_worker == {"Decode": 4}
        assert (supply.pools["Decode"].desired, supply.pools["Decode"].ready) == (2, 2)

        roomy = bed.planner(16)
        back = {"old": (4, 1), "new": (2, 1), "old_workers": 2, "new_workers": 4, "new_gpus": 2}
        roomy.change_layout(proposal(**back), ME)
        wait_until(lambda: _over(roomy), "the way back ends", PATIENCE_S)
    assert bed.objects() == {"chat-decode": (4, False), "chat-decode-tp4": (0, True)}
    assert max(seen.gpus) == 16
    assert min(seen.shares[begun:]) >= 1.0
    # And on as ever, with the object that was there first.
    roomy.lease(ME, 60.0)
    assert roomy.apply({"Decode": 3}, ME) == {"Decode": "4 -> 3"}


def _over(planner: KubernetesConnector) -> bool:
    if not planner.read().layout_change.under_way:
        return True
    planner.lease(ME, 60.0)
    planner.apply({"Decode": 2}, ME)
    return False


def test_planners_that_each_live_for_two_writes_replace_all_groups(bed: Bed) -> None:
    bed.serve()
    bed.planner(12).change_layout(proposal(), ME)
    with watched(bed.cluster, bed.namespace) as seen:
        begun = len(seen.shares)
        ended = lives(bed.cluster, bed.namespace, GRAPH, "12", "2")
    assert bed.objects() == {"chat-decode": (0, True), "chat-decode-tp4": (2, False)}
    assert max(seen.gpus) <= 12
    assert min(seen.shares[begun:]) >= 1.0
    assert len(ended) >= 4, ended


def test_groups_that_crash_are_rolled_back(bed: Bed) -> None:
    bed.serve()
    with crashing(bed.core, bed.namespace, 4), watched(bed.cluster, bed.namespace) as seen:
        begun = len(seen.shares)
        planner = bed.planner(16)
        planner.change_layout(proposal(patience_s=3.0), ME)
        said = run(planner)
    assert said[-1].startswith("rolled back, Decode: back to tp2 from tp4")
    assert bed.objects() == {"chat-decode": (4, False), "chat-decode-tp4": (0, True)}
    assert max(seen.gpus) <= 16
    assert min(seen.shares[begun:]) >= 1.0
    assert planner.read().layouts == {"Decode": (2, 1)}


def test_workers_of_several_pods_are_refused_and_stay_as_they_are(bed: Bed) -> None:
    bed.custom.create_namespaced_custom_object(*bed.where, group_set("chat-decode", 1, size=2))
    planner = bed.planner(16)
    with pytest.raises(InputError, match="has workers of 2 pods"):
        planner.change_layout(proposal(), ME)
    assert bed.objects() == {"chat-decode": (1, False)}
    assert planner.read().layout_change.under_way == ""
