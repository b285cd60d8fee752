"""Custom resources of the test bed: they can be scaled, and their operators make pods of them as the real ones do."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from kubernetes import client

from tests.integration.kubernetes.objects import container, pod_template, wishes
from tests.kubernetes import crds
from tests.kubernetes.fixtures import Kubelet
from tests.kubernetes.nodes import Node
from tests.kubernetes.program import Program
from tests.servers import wait_until

PATIENCE_S = 60.0
StartKubelet = Callable[..., Kubelet]
StartOperators = Callable[..., Program]

LWS = ("leaderworkerset.x-k8s.io", "v1", "leaderworkersets")
SETS, GROUPS, CLIQUES = (
    ("grove.io", "v1alpha1", plural) for plural in ("podcliquesets", "podcliquescalinggroups", "podcliques")
)
ADAPTERS = ("nvidia.com", "v1alpha1", "dynamographdeploymentscalingadapters")
Kind = tuple[str, str, str]


class Objects:
    """Custom objects of a namespace."""

    def __init__(self, api: client.ApiClient, namespace: str) -> None:
        self.api, self.namespace = api, namespace
        self._custom, self._core = client.CustomObjectsApi(api), client.CoreV1Api(api)

    def create(self, kind: Kind, body: dict[str, Any], object_kind: str) -> None:
        group, version, plural = kind
        body = {"apiVersion": f"{group}/{version}", "kind": object_kind, **body}
        self._custom.create_namespaced_custom_object(group, version, self.namespace, plural, body)

    def get(self, kind: Kind, name: str) -> Any:
        group, version, plural = kind
        return self._custom.get_namespaced_custom_object(group, version, self.namespace, plural, name)

    def status(self, kind: Kind, name: str) -> Any:
        return self.get(kind, name).get("status", {})

    def patch(self, kind: Kind, name: str, body: Any) -> None:
        group, version, plural = kind
        kind_of_patch = "json-patch" if isinstance(body, list) else "merge-patch"
        self._custom.patch_namespaced_custom_object(
            group, version, self.namespace, plural, name, body, _content_type=f"application/{kind_of_patch}+json"
        )

    def scale(self, kind: Kind, name: str, replicas: int) -> None:
        group, version, plural = kind
        body = {"spec": {"replicas": replicas}}
        self._custom.patch_namespaced_custom_object_scale(group, version, self.namespace, plural, name, body)

    def read_scale(self, kind: Kind, name: str) -> tuple[int, int, str]:
        group, version, plural = kind
        got: Any = self._custom.get_namespaced_custom_object_scale(group, version, self.namespace, plural, name)
        return got["spec"]["replicas"], got["status"]["replicas"], got["status"].get("selector", "")

    def pods(self, selector: str = "") -> list[Any]:
        return list(self._core.list_namespaced_pod(self.namespace, label_selector=selector).items)


@pytest.fixture
def objects(api: client.ApiClient, namespace: str) -> Objects:
    return Objects(api, namespace)


def test_a_leader_worker_set_has_whole_groups(
    objects: Objects, kubelet: StartKubelet, operators: StartOperators
) -> None:
    kubelet(Node("gpu-a", 8), Node("gpu-b", 8))
    operators("leaderworkerset")
    template = {"size": 2, "workerTemplate": pod_template({"app": "decode"}, gpus=4)}
    body = {"metadata": {"name": "decode"}, "spec": {"replicas": 1, "leaderWorkerTemplate": template}}
    objects.create(LWS, body, "LeaderWorkerSet")
    wait_until(lambda: objects.status(LWS, "decode").get("readyReplicas") == 1, "one group serves", PATIENCE_S)
    objects.scale(LWS, "decode", 2)
    wait_until(lambda: objects.status(LWS, "decode").get("readyReplicas") == 2, "two groups serve", PATIENCE_S)
    spec, status, selector = objects.read_scale(LWS, "decode")
    assert (spec, status) == (2, 2)
    assert {pod.metadata.name for pod in objects.pods(selector)} == {"decode-0", "decode-1"}
    labels = "leaderworkerset.sigs.k8s.io"
    assert {
        tuple(pod.metadata.labels[f"{labels}/{name}"] for name in ("name", "group-index", "worker-index"))
        for pod in objects.pods()
    } == {("decode", "0", "0"), ("decode", "0", "1"), ("decode", "1", "0"), ("decode", "1", "1")}
    first = {pod.metadata.uid for pod in objects.pods(f"{labels}/group-index=0")}
    client.CoreV1Api(objects.api).delete_namespaced_pod("decode-0-1", objects.namespace)

    def anew() -> bool:
        now = {pod.metadata.uid for pod in objects.pods(f"{labels}/group-index=0")}
        # Between the old pods and the new ones there is none, and the status is still that of before.
        return len(now) == 2 and not now & first and objects.status(LWS, "decode").get("readyReplicas") == 2

    wait_until(anew, "the whole group is made anew", PATIENCE_S)
    objects.scale(LWS, "decode", 1)
    wait_until(lambda: len(objects.pods()) == 2, "the last group is gone", PATIENCE_S)
    assert {pod.metadata.name for pod in objects.pods()} == {"decode-0", "decode-0-1"}


def test_groves_cliques_and_scaling_groups_are_scaled_by_themselves(
    objects: Objects, kubelet: StartKubelet, operators: StartOperators
) -> None:
    kubelet(Node("gpu-a", 8), Node("gpu-b", 8))
    operators("grove")

    def clique(name: str, gpus: int) -> dict[str, Any]:
        return {"name": name, "spec": {"roleName": name, "replicas": 1, "podSpec": {"containers": [container(gpus)]}}}

    cliques = [clique("prefill", 1), clique("decode-ldr", 2), clique("decode-wkr", 2)]
    group = {"name": "decode", "cliqueNames": ["decode-ldr", "decode-wkr"], "replicas": 1}
    template = {"cliques": cliques, "podCliqueScalingGroups": [group]}
    body = {"metadata": {"name": "g"}, "spec": {"replicas": 1, "template": template}}
    objects.create(SETS, body, "PodCliqueSet")
    wait_until(lambda: objects.status(SETS, "g").get("availableReplicas") == 1, "it serves", PATIENCE_S)
    # And not before all of it does.
    assert objects.status(CLIQUES, "g-0-prefill")["readyReplicas"] == 1
    assert objects.status(GROUPS, "g-0-decode")["availableReplicas"] == 1
    objects.scale(CLIQUES, "g-0-prefill", 2)
    objects.scale(GROUPS, "g-0-decode", 2)
    wait_until(lambda: objects.status(CLIQUES, "g-0-prefill").get("readyReplicas") == 2, "2 prefill pods", PATIENCE_S)
    wait_until(lambda: objects.status(GROUPS, "g-0-decode").get("availableReplicas") == 2, "2 groups", PATIENCE_S)
    spec, status, selector = objects.read_scale(CLIQUES, "g-0-prefill")
    assert (spec, status) == (2, 2)
    assert len(objects.pods(selector)) == 2
    spec, status, selector = objects.read_scale(GROUPS, "g-0-decode")
    assert (spec, status) == (2, 2)
    assert {pod.metadata.labels["grove.io/podclique"] for pod in objects.pods(selector)} == {
        f"g-0-decode-{index}-decode-{role}" for index in (0, 1) for role in ("ldr", "wkr")
    }
    objects.scale(GROUPS, "g-0-decode", 1)
    wait_until(lambda: len(objects.pods(selector)) == 2, "the last group is gone", PATIENCE_S)


def services() -> dict[str, Any]:
    """A v1alpha1 graph; the decode service has a scaling adapter."""

    def worker(role: str, adapter: bool) -> dict[str, Any]:
        return {
            "componentType": "worker",
            "subComponentType": role,
            "replicas": 1,
            "resources": {"limits": {"gpu": "1"}},
            "scalingAdapter": {"enabled": adapter},
            "extraPodMetadata": {"annotations": wishes(ready_delay_s="0.2")},
            "extraPodSpec": {"mainContainer": {"image": "runtime:1"}},
        }

    workers = {"VllmPrefillWorker": worker("prefill", False), "VllmDecodeWorker": worker("decode", True)}
    return {"metadata": {"name": "dis"}, "spec": {"services": workers}}


def components() -> dict[str, Any]:
    """The same in v1beta1."""

    def worker(name: str, role: str, **more: Any) -> dict[str, Any]:
        template = pod_template({}, gpus=1, ready_delay_s="0.2")
        return {"name": name, "type": role, "replicas": 1, "podTemplate": template, **more}

    workers = [worker("VllmPrefillWorker", "prefill"), worker("VllmDecodeWorker", "decode", scalingAdapter={})]
    return {"metadata": {"name": "dis"}, "spec": {"components": workers}}


@pytest.mark.parametrize("version", ["v1alpha1", "v1beta1"])
def test_a_dynamo_graph_is_scaled_directly_and_through_its_adapter(
    version: str, objects: Objects, kubelet: StartKubelet, operators: StartOperators
) -> None:
    kubelet(Node("gpu-a", 8))
    operators(f"dynamo-{version}")
    graphs = ("nvidia.com", version, "dynamographdeployments")
    parts = "services" if version == "v1alpha1" else "components"
    objects.create(graphs, services() if version == "v1alpha1" else components(), "DynamoGraphDeployment")

    def is_ready(prefill: int, decode: int) -> bool:
        status = objects.status(graphs, "dis")
        counts = {name: part["readyReplicas"] for name, part in status.get(parts, {}).items()}
        wanted = {"VllmPrefillWorker": prefill, "VllmDecodeWorker": decode}
        return counts == wanted and status["state"] == "successful"

    wait_until(lambda: is_ready(1, 1), "one of each", PATIENCE_S)
    (conditions,) = objects.status(graphs, "dis")["conditions"]
    assert (conditions["type"], conditions["status"]) == ("Ready", "True")
    if version == "v1alpha1":
        objects.patch(graphs, "dis", {"spec": {"services": {"VllmPrefillWorker": {"replicas": 2}}}})
    else:
        test = {"op": "test", "path": "/spec/components/0/name", "value": "VllmPrefillWorker"}
        objects.patch(graphs, "dis", [test, {"op": "replace", "path": "/spec/components/0/replicas", "value": 2}])
    wait_until(lambda: is_ready(2, 1), "two prefill workers", PATIENCE_S)
    objects.scale(ADAPTERS, "dis-vllmdecodeworker", 3)
    wait_until(lambda: is_ready(2, 3), "three decode workers", PATIENCE_S)
    spec, status, selector = objects.read_scale(ADAPTERS, "dis-vllmdecodeworker")
    assert (spec, status) == (3, 3)
    found = objects.pods(selector)
    assert len(found) == 3
    labels = found[0].metadata.labels
    assert labels["nvidia.com/dynamo-graph-deployment-name"] == "dis"
    assert labels["nvidia.com/dynamo-component"] == "VllmDecodeWorker"
    kinds = (labels["nvidia.com/dynamo-component-type"], labels.get("nvidia.com/dynamo-sub-component-type"))
    assert kinds == (("worker", "decode") if version == "v1alpha1" else ("decode", None))
    # The adapter owns its component's replicas: what others write into the graph is put back.
    if version == "v1alpha1":
        objects.patch(graphs, "dis", {"spec": {"services": {"VllmDecodeWorker": {"replicas": 5}}}})
    else:
        objects.patch(graphs, "dis", [{"op": "replace", "path": "/spec/components/1/replicas", "value": 5}])

    def asked() -> int:
        spec = objects.get(graphs, "dis")["spec"][parts]
        return int((spec["VllmDecodeWorker"] if version == "v1alpha1" else spec[1])["replicas"])

    wait_until(lambda: asked() == 3, "the adapter's replicas are back", PATIENCE_S)
    assert all(one["metadata"]["ownerReferences"] for one in [objects.get(ADAPTERS, "dis-vllmdecodeworker")])


def test_every_definition_is_served_and_one_variant_replaces_the_other(api: client.ApiClient) -> None:
    for names in (("leaderworkerset", "grove", "dynamo-v1beta1"), ("dynamo-v1alpha1",), ("dynamo-v1beta1",)):
        crds.install(api, *names)
    served = client.CustomObjectsApi(api).list_cluster_custom_object("nvidia.com", "v1beta1", "dynamographdeployments")
    assert served["items"] == []
