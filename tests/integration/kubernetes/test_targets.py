"""Pools of every kind of objects, read from and written to a real API server."""

from __future__ import annotations

import copy
from collections.abc import Iterator, Mapping
from typing import Any

import pytest
from kubernetes import client

from planner.connectors.kubernetes import resources
from planner.connectors.kubernetes.cluster import Cluster, Patch
from planner.connectors.kubernetes.errors import ConflictError
from planner.connectors.kubernetes.resources import Resource
from planner.connectors.kubernetes.rivals import Autoscalers
from planner.connectors.kubernetes.settings import GraphObject, KubernetesSettings, PoolObject
from planner.connectors.kubernetes.target import Target
from planner.connectors.kubernetes.targets import make_target
from planner.core.types import Pool, Role
from tests.integration.kubernetes.objects import container, deployment
from tests.kubernetes import crds
from tests.kubernetes.cluster import Cluster as TestCluster
from tests.servers import wait_until

POOLS = (Pool("VllmPrefillWorker", Role.PREFILL, 1), Pool("VllmDecodeWorker", Role.DECODE, 2))
PREFILL, DECODE = (pool.name for pool in POOLS)


@pytest.fixture
def cluster(control_plane: TestCluster, namespace: str) -> Iterator[Cluster]:
    made = Cluster(namespace, kubeconfig=control_plane.kubeconfig, timeout_s=30.0)
    yield made
    made.close()


def engine(gpus: int, *args: str) -> dict[str, Any]:
    return {**container(gpus), "args": ["--model", "m", *args]}


def labels(pool: str, **more: str) -> dict[str, str]:
    return {f"plimsoll.io/{key}": value for key, value in {"graph": "g", "pool": pool, **more}.items()}


def made(cluster: Cluster, resource: Resource, body: Mapping[str, Any]) -> dict[str, Any]:
    return cluster.create(resource, {"apiVersion": resource.api_version, "kind": resource.kind, **body})


def pod(pool: str, *containers: dict[str, Any]) -> dict[str, Any]:
    return {"metadata": {"labels": labels(pool)}, "spec": {"containers": list(containers)}}


def by_label(cluster: Cluster) -> Target:
    return make_target(cluster, "g", POOLS, KubernetesSettings())


def desired(target: Target) -> dict[str, int]:
    return {one.pool: one.desired for one in target.read()}


def two_deployments(cluster: Cluster) -> None:
    for name, pool, gpus in (("p", PREFILL, 1), ("d", DECODE, 2)):
        body = deployment(name, 2)
        body["metadata"]["labels"] = labels(pool)
        body["spec"]["template"]["spec"]["containers"] = [engine(gpus, f"--tensor-parallel-size={gpus}")]
        made(cluster, resources.DEPLOYMENTS, body)


def scaled_by_hand(cluster: Cluster, resource: Resource, name: str, replicas: int) -> None:
    """As `kubectl scale` does it."""
    cluster.patch(resource, name, {"spec": {"replicas": replicas}}, subresource="scale")


def test_deployments_by_label_are_scaled_and_found_again(cluster: Cluster) -> None:
    two_deployments(cluster)
    target = by_label(cluster)
    seen = {one.pool: one for one in target.read()}
    assert seen[DECODE].gpus_per_worker == 2
    assert seen[DECODE].layout == (2, 1)
    assert seen[DECODE].selector == {"app": "d"}
    target.write({PREFILL: 1, DECODE: 5}, list(seen.values()))
    assert desired(target) == {PREFILL: 1, DECODE: 5}


def test_replicas_that_have_changed_since_are_not_written_over(cluster: Cluster) -> None:
    two_deployments(cluster)
    target = by_label(cluster)
    seen = target.read()
    scaled_by_hand(cluster, resources.DEPLOYMENTS, "d", 4)
    with pytest.raises(ConflictError):
        target.write({DECODE: 5}, seen)
    assert desired(target)[DECODE] == 4
    target.write({DECODE: 5}, target.read())
    assert desired(target)[DECODE] == 5


def test_what_else_changes_on_an_object_is_no_conflict(cluster: Cluster) -> None:
    two_deployments(cluster)
    target = by_label(cluster)
    seen = target.read()
    cluster.patch(resources.DEPLOYMENTS, "d", {"metadata": {"annotations": {"touched": "yes"}}})
    target.write({DECODE: 5}, seen)
    assert desired(target)[DECODE] == 5


def test_stateful_sets_and_any_other_kind_by_name(cluster: Cluster) -> None:
    body = deployment("s", 1)
    body["spec"]["serviceName"] = "s"
    made(cluster, resources.STATEFUL_SETS, body)
    made(cluster, Resource("apps", "v1", "replicasets", "ReplicaSet"), deployment("r", 3))
    objects = {
        "A": PoolObject(kind="StatefulSet", name="s"),
        "B": PoolObject(kind="replicasets.apps", name="r", gpus_per_worker=4),
    }
    target = make_target(cluster, "g", POOLS, KubernetesSettings(objects=objects))
    wait_until(lambda: {one.pool: dict(one.selector) for one in target.read()}["B"] == {"app": "r"}, "its selector")
    seen = {one.pool: one for one in target.read()}
    assert [(one.desired, one.gpus_per_worker) for one in seen.values()] == [(1, 1), (3, 4)]
    target.write({"A": 2, "B": 1}, list(seen.values()))
    assert desired(target) == {"A": 2, "B": 1}


def test_who_owns_the_replicas_and_who_gives_way(cluster: Cluster) -> None:
    two_deployments(cluster)
    target = by_label(cluster)
    target.write({DECODE: 5}, target.read())
    [decode] = [one for one in target.read() if one.pool == DECODE]
    fields = cluster.read(resources.DEPLOYMENTS, "d")["metadata"]["managedFields"]
    if cluster.version() >= (1, 22):
        assert decode.managers[-1] == "plimsoll-planner"
        assert any(one.get("subresource") == "scale" and one["operation"] == "Apply" for one in fields)
    else:
        # Writes through /scale leave no trace, and apply there always meets "before-first-apply".
        assert all(one.get("subresource") is None for one in fields)
        meta = {"name": "d"}
        body = {"apiVersion": "autoscaling/v1", "kind": "Scale", "metadata": meta, "spec": {"replicas": 6}}
        with pytest.raises(ConflictError, match="before-first-apply"):
            cluster.patch(resources.DEPLOYMENTS, "d", body, how=Patch.APPLY, subresource="scale")


def test_an_autoscaler_of_a_pool_is_reported(cluster: Cluster, api: client.ApiClient) -> None:
    two_deployments(cluster)
    to = {"apiVersion": "apps/v1", "kind": "Deployment", "name": "d"}
    body: Any = {"metadata": {"name": "h"}, "spec": {"scaleTargetRef": to, "maxReplicas": 5}}
    client.AutoscalingV1Api(api).create_namespaced_horizontal_pod_autoscaler(cluster.namespace, body)
    found = Autoscalers(cluster)
    seen = by_label(cluster).read()
    rivals = found.rivals(seen)
    assert list(rivals) == [DECODE]
    assert rivals[DECODE].startswith("HorizontalPodAutoscaler h also sets the replicas of Deployment d: delete it")
    assert found.blind == ()
    client.AutoscalingV1Api(api).delete_namespaced_horizontal_pod_autoscaler("h", cluster.namespace)
    assert found.rivals(seen) == {}


def test_a_leader_worker_set_beside_a_deployment(cluster: Cluster, api: client.ApiClient) -> None:
    crds.install(api, "leaderworkerset")
    two_deployments(cluster)
    cluster.delete(resources.DEPLOYMENTS, "d")
    wait_until(lambda: cluster.find(resources.DEPLOYMENTS, "d") is None, "it is gone")
    shape = {"size": 3, "leaderTemplate": pod(DECODE, engine(4)), "workerTemplate": pod(DECODE, engine(8))}
    spec = {"replicas": 1, "leaderWorkerTemplate": shape}
    meta = {"name": "d", "labels": labels(DECODE, layout="tp8-dp1")}
    made(cluster, resources.LEADER_WORKER_SETS, {"metadata": meta, "spec": spec})
    target = by_label(cluster)
    seen = {one.pool: one for one in target.read()}
    assert (seen[DECODE].gpus_per_worker, seen[DECODE].pods_per_worker, seen[DECODE].layout) == (20, 3, (8, 1))
    target.write({PREFILL: 3, DECODE: 2}, list(seen.values()))
    assert desired(target) == {PREFILL: 3, DECODE: 2}
    before = target.read()
    scaled_by_hand(cluster, resources.LEADER_WORKER_SETS, "d", 5)
    with pytest.raises(ConflictError):
        target.write({DECODE: 1}, before)


def grove_set() -> dict[str, Any]:
    def clique(name: str, pool: str, role: str, replicas: int, gpus: int) -> dict[str, Any]:
        spec = {"replicas": replicas, "minAvailable": 1, "podSpec": {"containers": [engine(gpus)]}}
        return {"name": name, "labels": labels(pool, role=role), "spec": {**spec, "roleName": name}}

    cliques = [
        clique("vllmprefillworker", PREFILL, "prefill", 2, 1),
        clique("vllmdecodeworker-ldr", DECODE, "decode", 1, 8),
        clique("vllmdecodeworker-wkr", DECODE, "decode", 1, 8),
    ]
    group = {"name": "vllmdecodeworker", "cliqueNames": [one["name"] for one in cliques[1:]], "replicas": 1}
    template = {"cliques": cliques, "podCliqueScalingGroups": [group]}
    return {"metadata": {"name": "s"}, "spec": {"replicas": 1, "template": template}}


def test_a_pod_clique_set_and_its_parts_by_name(cluster: Cluster, api: client.ApiClient, operators: Any) -> None:
    crds.install(api, "grove")
    operators("grove")
    made(cluster, resources.POD_CLIQUE_SETS, grove_set())
    settings = KubernetesSettings(graph=GraphObject(kind="PodCliqueSet", name="s"))
    target = make_target(cluster, "g", POOLS, settings)
    groups = resources.POD_CLIQUE_SCALING_GROUPS
    wait_until(lambda: cluster.find(groups, "s-0-vllmdecodeworker") is not None, "the group")
    seen = {one.pool: one for one in target.read()}
    assert [(one.desired, one.gpus_per_worker, one.pods_per_worker) for one in seen.values()] == [(2, 1, 1), (1, 16, 2)]
    target.write({PREFILL: 1, DECODE: 3}, list(seen.values()))
    assert desired(target) == {PREFILL: 1, DECODE: 3}
    # The operator makes the groups' cliques, and the pods are of the worker that their labels say.
    pods = f"app.kubernetes.io/part-of=s,plimsoll.io/pool={DECODE}"
    wait_until(lambda: len(cluster.list(resources.PODS, labels=pods).items) == 6, "six pods")
    decode = seen[DECODE]
    found = cluster.list(resources.PODS, labels=pods).items
    assert all(decode.selector.items() <= one["metadata"]["labels"].items() for one in found)
    workers = sorted(target.worker_of(one, decode) for one in found)
    assert workers == [f"s-0-vllmdecodeworker-{group}" for group in (0, 0, 1, 1, 2, 2)]
    # Its operator has not put anything back from the set's template.
    assert desired(target) == {PREFILL: 1, DECODE: 3}
    objects = {
        "A": PoolObject(kind="PodClique", name="s-0-vllmprefillworker"),
        "B": PoolObject(kind="PodCliqueScalingGroup", name="s-0-vllmdecodeworker"),
    }
    single = make_target(cluster, "g", POOLS, KubernetesSettings(objects=objects))
    assert [(one.desired, one.gpus_per_worker) for one in single.read()] == [(1, 1), (3, 16)]
    single.write({"A": 2, "B": 2}, single.read())
    assert desired(target) == {PREFILL: 2, DECODE: 2}


DGD = KubernetesSettings(graph=GraphObject(kind="DynamoGraphDeployment", name="q"))


def services(adapter: bool = False) -> dict[str, Any]:
    def service(sub: str, gpus: int) -> dict[str, Any]:
        return {
            "componentType": "worker",
            "subComponentType": sub,
            "replicas": 2,
            "resources": {"limits": {"gpu": str(gpus)}},
            "extraPodSpec": {"mainContainer": {"image": "x", "args": ["--model", "m", "-tp", str(gpus)]}},
            **({"scalingAdapter": {"enabled": True}} if adapter else {}),
        }

    found = {"Frontend": {"componentType": "frontend", "replicas": 1}, PREFILL: service("prefill", 1)}
    return {"metadata": {"name": "q"}, "spec": {"services": {**found, DECODE: service("decode", 2)}}}


def components(adapter: bool = False) -> dict[str, Any]:
    def component(name: str, kind: str, gpus: int) -> dict[str, Any]:
        template = {"spec": {"containers": [engine(gpus, "-tp", str(gpus))]}}
        more: dict[str, Any] = {"scalingAdapter": {}} if adapter else {}
        return {"name": name, "type": kind, "replicas": 2, "podTemplate": template, **more}

    front = {"name": "Frontend", "type": "frontend", "replicas": 1}
    parts = [front, component(DECODE, "decode", 2), component(PREFILL, "prefill", 1)]
    return {"metadata": {"name": "q"}, "spec": {"components": parts}}


VERSIONS = [
    ("dynamo-v1alpha1", resources.DYNAMO_GRAPHS_V1ALPHA1, services),
    ("dynamo-v1beta1", resources.DYNAMO_GRAPHS_V1BETA1, components),
]


@pytest.mark.parametrize(("definitions", "resource", "graph"), VERSIONS, ids=["v1alpha1", "v1beta1"])
def test_both_roles_of_a_dynamo_graph_change_in_one_write(
    cluster: Cluster, api: client.ApiClient, definitions: str, resource: Resource, graph: Any
) -> None:
    crds.install(api, definitions)
    before = made(cluster, resource, graph())
    target = make_target(cluster, "g", POOLS, DGD)
    seen = list(target.read())
    assert target.atomic
    assert [(one.pool, one.desired, one.gpus_per_worker, one.layout) for one in seen] == [
        (PREFILL, 2, 1, (1, 1)),
        (DECODE, 2, 2, (2, 1)),
    ]
    cluster.patch(resource, "q", {"status": {"state": "pending"}}, subresource="status")
    target.write({PREFILL: 1, DECODE: 4}, seen)
    after = cluster.read(resource, "q")
    assert after["metadata"]["generation"] == before["metadata"]["generation"] + 1
    assert desired(target) == {PREFILL: 1, DECODE: 4}
    # Nothing else has changed.
    expected = copy.deepcopy(before["spec"])
    for name, wanted in ((PREFILL, 1), (DECODE, 4)):
        if "services" in expected:
            expected["services"][name]["replicas"] = wanted
        else:
            next(one for one in expected["components"] if one["name"] == name)["replicas"] = wanted
    assert after["spec"] == expected


def test_a_dynamo_graph_whose_components_have_moved_since_is_not_written_to(
    cluster: Cluster, api: client.ApiClient
) -> None:
    crds.install(api, "dynamo-v1beta1")
    resource = resources.DYNAMO_GRAPHS_V1BETA1
    thing = made(cluster, resource, components())
    target = make_target(cluster, "g", POOLS, DGD)
    seen = list(target.read())
    cluster.replace(resource, "q", {**thing, "spec": {"components": list(reversed(thing["spec"]["components"]))}})
    with pytest.raises(ConflictError):
        target.write({PREFILL: 1, DECODE: 4}, seen)
    assert desired(target) == {PREFILL: 2, DECODE: 2}
    target.write({PREFILL: 1, DECODE: 4}, target.read())
    assert desired(target) == {PREFILL: 1, DECODE: 4}


@pytest.mark.parametrize(("definitions", "resource", "graph"), VERSIONS, ids=["v1alpha1", "v1beta1"])
def test_components_with_scaling_adapters_are_scaled_through_them(
    cluster: Cluster, api: client.ApiClient, operators: Any, definitions: str, resource: Resource, graph: Any
) -> None:
    crds.install(api, definitions)
    operators(definitions)
    made(cluster, resource, graph(adapter=True))
    target = make_target(cluster, "g", POOLS, DGD)
    name = f"q-{DECODE.lower()}"

    def through_adapters() -> bool:
        return all("scalingadapter" in one.resource.plural for one in target.read())

    wait_until(through_adapters, "the adapters")
    assert not target.atomic
    seen = {one.pool: one for one in target.read()}
    assert (seen[DECODE].object_name, seen[DECODE].desired, seen[DECODE].gpus_per_worker) == (name, 2, 2)
    target.write({PREFILL: 1, DECODE: 4}, list(seen.values()))
    assert desired(target) == {PREFILL: 1, DECODE: 4}

    def in_the_graph() -> dict[str, int]:
        spec = cluster.read(resource, "q")["spec"]
        listed = spec.get("components") or [{"name": key, **one} for key, one in spec["services"].items()]
        return {one["name"]: one["replicas"] for one in listed if one["name"] in {PREFILL, DECODE}}

    wait_until(lambda: in_the_graph() == {PREFILL: 1, DECODE: 4}, "the operator has carried them over")
    refs = {"apiVersion": target.read()[1].resource.api_version, "kind": target.read()[1].resource.kind, "name": name}
    hpa: Any = {"metadata": {"name": "h"}, "spec": {"scaleTargetRef": refs, "maxReplicas": 5}}
    client.AutoscalingV1Api(api).create_namespaced_horizontal_pod_autoscaler(cluster.namespace, hpa)
    assert list(Autoscalers(cluster).rivals(target.read())) == [DECODE]
