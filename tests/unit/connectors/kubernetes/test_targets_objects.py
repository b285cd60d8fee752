"""What objects say of their pools: workers, pods and GPUs of each, layout, owners of the replicas."""

from __future__ import annotations

from typing import Any

import pytest

from planner.connectors.kubernetes.ownership import Claim, claims_of, managers_of
from planner.connectors.kubernetes.resources import DEPLOYMENTS, LEADER_WORKER_SETS
from planner.connectors.kubernetes.targets.grove import clique_pool, cliques_of, group_pool
from planner.connectors.kubernetes.targets.pods import gpus_of, layout_in
from planner.connectors.kubernetes.targets.seen import group_of
from planner.connectors.kubernetes.targets.shapes import seen_pool

GRAPH = {"plimsoll.io/graph": "g"}


def container(gpus: int | str = 1, *args: str, name: str = "main", key: str = "nvidia.com/gpu") -> dict[str, Any]:
    return {"name": name, "args": ["--model", "m", *args], "resources": {"limits": {key: gpus}}}


def pod(*containers: dict[str, Any], **labels: str) -> dict[str, Any]:
    return {"metadata": {"labels": labels}, "spec": {"containers": list(containers)}}


def deployment(template: dict[str, Any], **spec: Any) -> dict[str, Any]:
    meta = {"name": "d", "uid": "u", "resourceVersion": "7"}
    return {"metadata": meta, "spec": {"selector": {"matchLabels": {"a": "b"}}, "template": template, **spec}}


def test_gpus_are_those_of_all_containers_and_sidecars_by_limits_and_without_them_by_requests() -> None:
    spec = {
        "containers": [container("2"), {"name": "x", "resources": {"requests": {"amd.com/gpu": 1}}}, {"name": "y"}],
        "initContainers": [container(4), {**container(1), "restartPolicy": "Always"}],
    }
    assert gpus_of(spec) == 4


def test_gpus_by_resource_claim_cannot_be_read() -> None:
    assert gpus_of({"containers": [{"name": "main"}], "resourceClaims": [{"name": "gpu"}]}) is None
    assert gpus_of({"containers": [{"name": "main"}]}) == 0


def test_layout_by_label_before_arguments_and_by_the_main_container() -> None:
    template = pod({"name": "proxy", "args": ["--tensor-parallel-size", "8"]}, container(2, "-tp", "2", "-dp=3"))
    assert layout_in(template) == (2, 3)
    assert layout_in(template, {"plimsoll.io/layout": "tp4-dp1"}) == (4, 1)
    assert layout_in({"metadata": {}, "spec": {"containers": [container(2, "--nnodes", "2")]}}) is None
    assert layout_in({}) is None


def test_a_deployment() -> None:
    seen = seen_pool("p", DEPLOYMENTS, deployment(pod(container(2, "--tensor-parallel-size", "2")), replicas=3))
    assert (seen.pool, seen.object_name, seen.desired, seen.pods_per_worker) == ("p", "d", 3, 1)
    assert (seen.gpus_per_worker, seen.layout, seen.selector) == (2, (2, 1), {"a": "b"})
    assert (seen.uid, seen.resource_version, seen.rival) == ("u", "7", "")


def test_the_gpus_that_the_configuration_says_count() -> None:
    assert seen_pool("p", DEPLOYMENTS, deployment(pod(container(2))), gpus=5).gpus_per_worker == 5


def test_a_selector_of_expressions_is_taken_from_the_template() -> None:
    thing = deployment(pod(container(1), app="x"))
    thing["spec"]["selector"]["matchExpressions"] = [{"key": "app", "operator": "Exists"}]
    assert seen_pool("p", DEPLOYMENTS, thing).selector == {"app": "x"}


def test_an_object_of_another_controller_is_reported_with_it() -> None:
    thing = deployment(pod(container(1)))
    owner = {"apiVersion": "nvidia.com/v1alpha1", "kind": "DynamoGraphDeployment", "name": "q", "controller": True}
    thing["metadata"]["ownerReferences"] = [owner]
    rival = seen_pool("p", DEPLOYMENTS, thing).rival
    assert "DynamoGraphDeployment q" in rival
    assert "name that one" in rival


def lws(size: int, worker: dict[str, Any], leader: dict[str, Any] | None = None) -> dict[str, Any]:
    shape = {"size": size, "workerTemplate": worker, **({"leaderTemplate": leader} if leader else {})}
    return {"metadata": {"name": "w"}, "spec": {"replicas": 2, "leaderWorkerTemplate": shape}}


def test_a_leader_worker_set_counts_gpus_over_the_group() -> None:
    same = seen_pool("p", LEADER_WORKER_SETS, lws(3, pod(container(8, "-tp", "8"))))
    assert (same.desired, same.pods_per_worker, same.gpus_per_worker, same.layout) == (2, 3, 24, (8, 1))
    other = seen_pool("p", LEADER_WORKER_SETS, lws(3, pod(container(8)), pod(container(4))))
    assert other.gpus_per_worker == 4 + 2 * 8
    assert seen_pool("p", LEADER_WORKER_SETS, lws(1, pod(container(8)))).gpus_per_worker == 8


def test_the_pods_of_a_leader_worker_set_are_found_by_its_name_and_by_the_graph_where_all_carry_it() -> None:
    name = {"leaderworkerset.sigs.k8s.io/name": "w"}
    assert seen_pool("p", LEADER_WORKER_SETS, lws(2, pod(container(1), **GRAPH))).selector == {**name, **GRAPH}
    mixed = lws(2, pod(container(1), **GRAPH), pod(container(1)))
    assert seen_pool("p", LEADER_WORKER_SETS, mixed).selector == name


def grove_set() -> dict[str, Any]:
    def clique(name: str, gpus: int, replicas: int) -> dict[str, Any]:
        spec = {"replicas": replicas, "podSpec": pod(container(gpus, "-tp", "16"))["spec"]}
        return {"name": name, "labels": {**GRAPH, "plimsoll.io/layout": "tp16-dp1"}, "spec": spec}

    return {"spec": {"template": {"cliques": [clique("d-ldr", 8, 1), clique("d-wkr", 8, 3), clique("p", 2, 4)]}}}


def test_a_scaling_group_counts_pods_and_gpus_over_its_cliques() -> None:
    labels = {"app.kubernetes.io/part-of": "s"}
    spec = {"replicas": 2, "cliqueNames": ["d-ldr", "d-wkr"], "minAvailable": 2}
    seen = group_pool("p", {"metadata": {"name": "s-0-d", "labels": labels}, "spec": spec}, cliques_of(grove_set()))
    assert (seen.desired, seen.pods_per_worker, seen.gpus_per_worker, seen.layout) == (2, 4, 32, (16, 1))
    assert seen.least == 2
    assert seen.selector == {"grove.io/podcliquescalinggroup": "s-0-d", **labels, **GRAPH}


def test_a_clique_is_a_pool_of_single_pods() -> None:
    spec = {"replicas": 4, "podSpec": pod(container(2, "-tp", "2"))["spec"]}
    seen = clique_pool("p", {"metadata": {"name": "s-0-p", "labels": {}}, "spec": spec})
    assert (seen.desired, seen.pods_per_worker, seen.gpus_per_worker, seen.layout) == (4, 1, 2, (2, 1))
    assert seen.selector == {"grove.io/podclique": "s-0-p"}


@pytest.mark.parametrize(
    ("labels", "worker"),
    [
        ({"leaderworkerset.sigs.k8s.io/name": "w", "leaderworkerset.sigs.k8s.io/group-index": "3"}, "w-3"),
        (
            {
                "grove.io/podcliquescalinggroup": "s-0-d",
                "grove.io/podcliquescalinggroup-replica-index": "1",
                "grove.io/podclique": "s-0-d-1-d-ldr",
            },
            "s-0-d-1",
        ),
        ({"app": "x"}, "the-pod"),
    ],
)
def test_the_worker_of_a_pod_is_its_group(labels: dict[str, str], worker: str) -> None:
    assert group_of({"metadata": {"name": "the-pod", "labels": labels}}) == worker


def managed(manager: str, spec: dict[str, Any], time: str = "2026-01-01T00:00:00Z", **more: str) -> dict[str, Any]:
    return {"manager": manager, "operation": "Update", "time": time, "fieldsV1": {"f:spec": spec}, **more}


def test_claims_are_of_the_replicas_alone_and_newest_last() -> None:
    entries = [
        managed("kube-controller-manager", {"f:replicas": {}}, "2026-01-02T00:00:00Z", subresource="scale"),
        managed("my-client", {"f:replicas": {}, "f:template": {}}),
        managed("rollouts", {"f:template": {}}),
        managed("plimsoll-planner", {"f:replicas": {}}, "2026-01-03T00:00:00Z", subresource="scale"),
        {"manager": "no-fields"},
    ]
    claims = claims_of({"metadata": {"managedFields": entries}})
    assert managers_of(claims) == ("my-client", "kube-controller-manager", "plimsoll-planner")
    assert [claim.scales for claim in claims] == [False, True, False]
    assert claims[-1].ours
    assert claims_of({"metadata": {}}) == ()


@pytest.mark.parametrize("manager", ["kubectl", "kubectl-client-side-apply", "helm", "argocd-controller", "Terraform"])
def test_who_applies_manifests_gives_way(manager: str) -> None:
    assert not Claim(manager).scales


@pytest.mark.parametrize("manager", ["kube-controller-manager", "keda", "manager", "some-operator"])
def test_who_sets_replicas_alone_does_not(manager: str) -> None:
    assert Claim(manager, "scale").scales


def test_claims_of_a_component_in_a_list() -> None:
    components: dict[str, Any] = {'k:{"name":"D"}': {".": {}, "f:name": {}, "f:replicas": {}, "f:podTemplate": {}}}
    thing = {"metadata": {"managedFields": [managed("x", {"f:components": components})]}}
    path = ("f:spec", "f:components", 'k:{"name":"D"}', "f:replicas")
    [claim] = claims_of(thing, path)
    assert claim.whole
    assert claims_of(thing, (*path[:2], 'k:{"name":"P"}', "f:replicas")) == ()
