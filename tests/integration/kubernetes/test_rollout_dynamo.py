"""TP2 to TP4 of a component of a DynamoGraphDeployment, where it stands, on a real API server."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import pytest
from kubernetes import client

from planner.connectors.kubernetes.cluster import Cluster as Api
from planner.connectors.kubernetes.connector import KubernetesConnector
from planner.core.in_place import Rolling
from tests.integration.kubernetes.layout_planner import ME, connector, tick
from tests.integration.kubernetes.rollout_bed import PATIENCE_S, SOON, Seen, crashing, lives, proposal, run, watched
from tests.kubernetes.cluster import Cluster
from tests.kubernetes.nodes import Node
from tests.servers import wait_until

GRAPH, KIND = "dis", "DynamoGraphDeployment"

#: Three of both layouts fit the budget, so one of four workers goes first.
BUDGET, LEAST = 20, 0.7

#: Five of both do: one more comes, for the operator may take one of five away at once.
ROOMY = 30


def graph_of_workers(version: str, *, adapter: bool) -> dict[str, Any]:
    """A DynamoGraphDeployment of four aggregated workers of TP2."""
    words = {"command": ["python3", "-m", "dynamo.vllm"], "args": ["--model", "m", "--tensor-parallel-size", "2"]}
    kind = {"apiVersion": f"nvidia.com/{version}", "kind": KIND, "metadata": {"name": GRAPH}}
    if version == "v1alpha1":
        worker = {
            "componentType": "worker",
            "replicas": 4,
            "resources": {"limits": {"gpu": "2"}},
            "scalingAdapter": {"enabled": adapter},
            "extraPodMetadata": {"annotations": SOON},
            "extraPodSpec": {"mainContainer": {"image": "x", **words}, "terminationGracePeriodSeconds": 20},
        }
        return {**kind, "spec": {"services": {"Engine": worker}}}
    container = {"name": "main", "image": "x", **words, "resources": {"limits": {"nvidia.com/gpu": "2"}}}
    template = {
        "metadata": {"annotations": SOON},
        "spec": {"containers": [container], "terminationGracePeriodSeconds": 20},
    }
    worker = {"name": "Engine", "type": "worker", "replicas": 4, "podTemplate": template}
    return {**kind, "spec": {"components": [{**worker, **({"scalingAdapter": {}} if adapter else {})}]}}


class Bed:
    """A graph whose four workers serve."""

    def __init__(
        self, cluster: Cluster, namespace: str, api: client.ApiClient, version: str, *, adapter: bool, budget: int
    ) -> None:
        self.cluster, self.namespace, self.core = cluster, namespace, client.CoreV1Api(api)
        self._custom, self._adapter, self.budget = client.CustomObjectsApi(api), adapter, budget
        self._where = ("nvidia.com", version, namespace, "dynamographdeployments")
        self._custom.create_namespaced_custom_object(*self._where, graph_of_workers(version, adapter=adapter))
        first = self.planner()
        wait_until(lambda: first.read().pools["Decode"].ready == 4, "four workers serve", PATIENCE_S)

    def planner(self) -> KubernetesConnector:
        """One that knows nothing but what is recorded."""
        made = connector(Api(self.namespace, kubeconfig=self.cluster.kubeconfig), GRAPH, self.budget, KIND)
        made.lease(ME, 60.0)
        return made

    def replicas(self) -> tuple[int, int | None]:
        """That the graph asks for, and that its adapter does."""
        graph: Any = self._custom.get_namespaced_custom_object(*self._where, GRAPH)
        services = graph["spec"].get("services")
        own = services["Engine"] if services else graph["spec"]["components"][0]
        if not self._adapter:
            return own["replicas"], None
        adapters = ("nvidia.com", "v1alpha1", self.namespace, "dynamographdeploymentscalingadapters")
        adapter: Any = self._custom.get_namespaced_custom_object(*adapters, f"{GRAPH}-engine")
        return own["replicas"], adapter["spec"]["replicas"]

    def check(self, seen: Seen, least: float = LEAST, workers: int = 3) -> None:
        """The end of a change to TP4."""
        assert max(seen.gpus) <= self.budget
        assert min(seen.shares) >= least, seen.shares
        supply = self.planner().read()
        assert supply.layouts == {"Decode": (4, 1)}
        assert supply.gpus_per_worker == {"Decode": 4}
        assert (supply.pools["Decode"].desired, supply.pools["Decode"].terminating) == (workers, 0)
        assert supply.layout_change.last == "Decode: tp2 to tp4"
        assert self.replicas() == (workers, workers if self._adapter else None)


@pytest.fixture
def make_bed(
    control_plane: Cluster,
    namespace: str,
    api: client.ApiClient,
    kubelet: Callable[..., Any],
    operators: Callable[..., Any],
) -> Callable[..., Bed]:
    def made(version: str, *, adapter: bool, budget: int = BUDGET) -> Bed:
        # More than the budget: that nothing holds more is the planner's doing.
        kubelet(Node("gpu-a", 40))
        operators(f"dynamo-{version}")
        return Bed(control_plane, namespace, api, version, adapter=adapter, budget=budget)

    return made


@pytest.mark.parametrize(
    ("version", "adapter", "budget", "least", "workers"),
    [("v1alpha1", True, BUDGET, LEAST, 3), ("v1beta1", False, ROOMY, 1.0, 5)],
)
def test_a_component_is_changed_in_one_write_and_its_operator_keeps_the_budget(
    version: str, adapter: bool, budget: int, least: float, workers: int, make_bed: Callable[..., Bed]
) -> None:
    bed = make_bed(version, adapter=adapter, budget=budget)
    assert bed.planner().read().rolling == {"Decode": Rolling()}
    with watched(bed.cluster, bed.namespace) as seen:
        bed.planner().change_layout(proposal(least_capacity=least), ME)
        ticks = 0
        end = time.monotonic() + PATIENCE_S
        # Another planner at every tick: nothing is remembered but what is recorded.
        while tick(bed.planner(), 4):
            ticks += 1
            assert time.monotonic() < end, bed.planner().read().notices
            time.sleep(0.2)
    assert ticks >= 3
    bed.check(seen, least, workers)


def test_planners_that_each_live_for_one_write_change_a_component(make_bed: Callable[..., Bed]) -> None:
    bed = make_bed("v1beta1", adapter=True)
    bed.planner().change_layout(proposal(least_capacity=LEAST), ME)
    with watched(bed.cluster, bed.namespace) as seen:
        ended = lives(bed.cluster, bed.namespace, GRAPH, str(BUDGET), "1", KIND)
    bed.check(seen)
    # Fewer workers, the template, and what is recorded of progress and of the end.
    assert [what.rpartition(" ")[2] for what in ended[:2]] == [f"{GRAPH}-engine", GRAPH], ended
    assert {what.rpartition(" ")[2] for what in ended[2:-1]} == {f"plimsoll-{GRAPH}-state"}, ended


@pytest.mark.parametrize(("version", "adapter"), [("v1alpha1", False)])
def test_a_component_whose_new_workers_crash_gets_its_old_layout_back(
    version: str, adapter: bool, make_bed: Callable[..., Bed]
) -> None:
    bed = make_bed(version, adapter=adapter)
    with crashing(bed.core, bed.namespace, 4), watched(bed.cluster, bed.namespace) as seen:
        planner = bed.planner()
        planner.change_layout(proposal(least_capacity=LEAST, patience_s=4.0), ME)
        said = run(planner)
    assert said[-1].startswith("rolled back, Decode: back to tp2 from tp4")
    assert max(seen.gpus) <= BUDGET
    assert min(seen.shares) >= LEAST, seen.shares
    supply = planner.read()
    assert supply.layouts == {"Decode": (2, 1)}
    assert (supply.pools["Decode"].desired, supply.pools["Decode"].ready) == (4, 4)
    assert bed.replicas() == (4, None)
