"""Checks of a cluster on objects as the API server gives them."""

from __future__ import annotations

from typing import Any

import pytest

from planner.connectors.kubernetes.settings import GraphObject, KubernetesSettings, PoolObject
from planner.doctor.base import Check, Verdict
from planner.doctor.cluster import judge_lease, judge_skew, judge_version
from planner.doctor.crds import EXTENSIONS, judge, needed_kinds
from planner.doctor.nodes import gpu_nodes, judge_nodes
from planner.doctor.rights import COMMON, LEASE, Right, rights_for, rule
from planner.doctor.rights import judge as judge_rights
from planner.doctor.storage import judge_classes

BY_NAME = {one.name: one for one in EXTENSIONS}


def verdicts(checks: Any) -> dict[str, Verdict]:
    return {one.name: one.verdict for one in checks}


def test_an_old_server_is_told_what_happens_instead() -> None:
    assert judge_version((1, 31)).verdict is Verdict.PASS
    assert judge_version((1, 29)).verdict is Verdict.PASS
    newer, old = judge_version((1, 28)), judge_version((1, 20))
    assert "backoffLimitPerIndex" in newer.found
    assert "pod-deletion-cost" not in newer.found
    assert all(word in old.found for word in ("backoffLimitPerIndex", "CEL", "autoscaling/v2", "pod-deletion-cost"))


@pytest.mark.parametrize(
    ("skew_s", "within_s", "verdict"),
    [
        (0.4, 0.5, Verdict.PASS),
        (-2.4, 0.5, Verdict.PASS),
        (2.6, 0.5, Verdict.WARN),
        (-60.0, 0.5, Verdict.FAIL),
        # A slow answer says less about the clock.
        (11.0, 9.5, Verdict.PASS),
    ],
)
def test_skew_counts_beyond_what_the_measurement_can_tell(skew_s: float, within_s: float, verdict: Verdict) -> None:
    check = judge_skew("clock", "the API server's", skew_s, within_s)
    assert check.verdict is verdict
    assert ("behind" in check.found) == (skew_s < 0 and verdict is not Verdict.PASS)


def test_a_lease_from_the_future_or_out_of_date() -> None:
    assert judge_lease("l", "a", 3.0, 45.0).verdict is Verdict.PASS
    assert "in the future" in judge_lease("l", "a", -30.0, 45.0).found
    assert "not renewed" in judge_lease("l", "a", 90.0, 45.0).found


def node(name: str, gpus: int = 8, *, allocatable: int | None = None, **spec: Any) -> dict[str, Any]:
    ready = spec.pop("ready", "True")
    have = {"cpu": "8", **({"nvidia.com/gpu": str(gpus)} if gpus else {})}
    can = {"cpu": "8", "nvidia.com/gpu": str(gpus if allocatable is None else allocatable)}
    return {
        "metadata": {"name": name, "labels": spec.pop("labels", {"nvidia.com/gpu.product": "NVIDIA-H200"})},
        "spec": spec,
        "status": {"capacity": have, "allocatable": can, "conditions": [{"type": "Ready", "status": ready}]},
    }


def pod(node_name: str, gpus: int, phase: str = "Running") -> dict[str, Any]:
    limits = {"limits": {"nvidia.com/gpu": str(gpus)}}
    return {"spec": {"nodeName": node_name, "containers": [{"resources": limits}]}, "status": {"phase": phase}}


def test_free_gpus_are_what_pods_that_have_not_ended_leave() -> None:
    found = gpu_nodes([node("a"), node("b", 0), node("c", 4)], [pod("a", 3), pod("a", 2, "Succeeded"), pod("c", 4)])
    assert [(one.name, one.allocatable, one.free) for one in found] == [("a", 8, 5), ("c", 4, 0)]
    checks = {one.name: one for one in judge_nodes(found, 3, 12)}
    assert checks["GPU nodes"].found == "12 NVIDIA-H200 on 2 nodes; 12 allocatable"
    assert checks["free GPUs"].found.startswith("5 of 12")
    assert set(verdicts(checks.values()).values()) == {Verdict.PASS}


def test_what_keeps_gpus_from_being_used() -> None:
    tainted = {
        "taints": [{"key": "nvidia.com/gpu", "effect": "NoSchedule"}, {"key": "x", "effect": "PreferNoSchedule"}]
    }
    listed = [node("a", allocatable=7, **tainted), node("b", unschedulable=True), node("c", ready="Unknown")]
    checks = {one.name: one for one in judge_nodes(gpu_nodes(listed, None), 3, 8)}
    assert verdicts(checks.values()) == {
        "GPU nodes": Verdict.WARN,
        "free GPUs": Verdict.SKIP,
        "GPU health": Verdict.WARN,
        "unready nodes": Verdict.WARN,
        "taints": Verdict.WARN,
    }
    assert checks["GPU nodes"].found.endswith("7 allocatable, and the budget is 8")
    assert checks["unready nodes"].found == "with GPUs: b (cordoned), c (not ready)"
    assert checks["taints"].found == "GPU nodes are tainted with nvidia.com/gpu:NoSchedule"
    assert verdicts(judge_nodes([], 2, 0)) == {"GPU nodes": Verdict.FAIL}
    unnamed = gpu_nodes([node("a", labels={})], [])
    assert verdicts(judge_nodes(unnamed, 1, 0))["GPU products"] is Verdict.WARN


def storage_class(name: str, provisioner: str, default: str = "") -> dict[str, Any]:
    annotations = {"storageclass.kubernetes.io/is-default-class": default} if default else None
    return {"metadata": {"name": name, "annotations": annotations}, "provisioner": provisioner}


def test_storage_for_the_profiling_job() -> None:
    disk, shared = storage_class("ssd", "ebs.csi.aws.com", "true"), storage_class("efs", "efs.csi.aws.com", "false")
    assert verdicts(judge_classes([disk, shared])) == {"default storage": Verdict.PASS, "shared storage": Verdict.PASS}
    assert verdicts(judge_classes([disk]))["shared storage"] is Verdict.WARN
    assert "is the default" in next(iter(judge_classes([shared]))).found
    two = next(iter(judge_classes([disk, storage_class("b", "x", "true")])))
    assert (two.verdict, two.found) == (Verdict.WARN, "2 StorageClasses are the default: b, ssd")
    assert "there is no StorageClass" in next(iter(judge_classes([]))).found


def test_an_extension_fails_only_where_the_configuration_needs_it() -> None:
    lws, none = BY_NAME["LeaderWorkerSet"], frozenset[str]()
    objects = {"decode": PoolObject(kind="LeaderWorkerSet", name="d")}
    wanted = needed_kinds(KubernetesSettings(objects=objects))
    assert judge(lws, (), none).verdict is Verdict.SKIP
    assert judge(lws, (), wanted).verdict is Verdict.FAIL
    assert judge(lws, ("v1",), wanted).found == "v1; needed"
    graph = needed_kinds(KubernetesSettings(graph=GraphObject(kind="DynamoGraphDeployment", name="g")))
    assert judge(BY_NAME["Dynamo graph"], ("v1beta1", "v1alpha1"), graph).found == "v1beta1, v1alpha1; needed"


def of(rights: tuple[Right, ...]) -> dict[tuple[str, str], set[str]]:
    found: dict[tuple[str, str], set[str]] = {}
    for one in rights:
        found.setdefault((one.group, one.resource), set()).update(one.verbs)
    return found


def test_the_rights_follow_the_configuration() -> None:
    plain = of(rights_for(None, "chat"))
    assert plain["apps", "deployments/scale"] == {"get", "patch"}
    assert ("leaderworkerset.x-k8s.io", "leaderworkersets") not in plain
    dynamo = of(rights_for(KubernetesSettings(graph=GraphObject(kind="DynamoGraphDeployment", name="g")), "chat"))
    assert dynamo["nvidia.com", "dynamographdeployments"] == {"get", "patch"}
    assert ("apps", "deployments") not in dynamo
    other = KubernetesSettings(objects={"decode": PoolObject(kind="models.serving.example.com", name="m")})
    assert of(rights_for(other))["serving.example.com", "models/scale"] == {"get", "patch"}
    grove = of(rights_for(KubernetesSettings(graph=GraphObject(kind="PodCliqueSet", name="g")), "chat"))
    assert grove["", "pods"] == {"list"}, "a scale-down ends the highest index: there is nothing to mark"
    assert of(rights_for(None, kinds=["Deployment", "LeaderWorkerSet"]))["", "pods"] == {"list", "patch"}
    quiet = of(rights_for(KubernetesSettings(deletion_cost=False, events=False), "chat"))
    assert quiet["", "pods"] == {"list"}
    assert not any(resource == "events" for _, resource in quiet)
    named = {one.named for one in rights_for(None, "chat", "learned") if one.resource == "configmaps"}
    assert named == {"", "plimsoll-chat-state", "learned"}
    assert all(one.named == "" for one in rights_for(None))


def test_missing_verbs_are_named_with_the_rule_that_gives_them() -> None:
    [lease] = [one for one in COMMON if one.named == LEASE]
    held = Right(lease.group, lease.resource, lease.verbs, lease.why, named="plimsoll-chat")
    optional = Right("", "pods", ("patch",), "marks pods", "the youngest go")
    found: list[Check] = list(judge_rights([(held, ["update"]), (optional, ["patch"])], "ns"))
    assert [one.verdict for one in found] == [Verdict.FAIL, Verdict.WARN]
    assert found[0].found.startswith("may not update leases.coordination.k8s.io plimsoll-chat in ns")
    assert rule(held, ["update"]) in found[0].fix
    assert "resourceNames: [plimsoll-chat]" in found[0].fix
    assert [one.verdict for one in judge_rights([(held, ["get"])], "ns", graph_known=False)] == [Verdict.SKIP]
    assert [one.verdict for one in judge_rights([(held, [])], "ns")] == [Verdict.PASS]
