"""Checks of a graph on pods and objects as the API server gives them."""

from __future__ import annotations

from typing import Any

import pytest

from planner.connectors.base import Supply
from planner.connectors.kubernetes.ownership import Claim
from planner.connectors.kubernetes.pods import pod_of
from planner.connectors.kubernetes.resources import DEPLOYMENTS
from planner.connectors.kubernetes.targets.seen import SeenPool
from planner.core.types import Pool, PoolState, Role
from planner.doctor.base import Verdict
from planner.doctor.controllers import judge as judge_rivals
from planner.doctor.graph import judge_disruption, judge_grace, judge_pool, judge_supply, secrets_in
from planner.doctor.objects import has, template_in
from planner.doctor.pods import image_troubles, judge_pods


def target(**changes: Any) -> SeenPool:
    fixed: dict[str, Any] = {
        "pool": "decode", "resource": DEPLOYMENTS, "object_name": "d", "desired": 2, "pods_per_worker": 1,
        "gpus_per_worker": 2, "layout": (2, 1), "selector": {"app": "d"},
    }  # fmt: skip
    return SeenPool(**{**fixed, **changes})


@pytest.mark.parametrize(
    ("gpus", "verdict"), [(2, Verdict.PASS), (4, Verdict.FAIL), (0, Verdict.WARN), (None, Verdict.WARN)]
)
def test_gpu_limits_beside_the_profile(gpus: int | None, verdict: Verdict) -> None:
    assert judge_pool(target(gpus_per_worker=gpus), 2).verdict is verdict


def test_the_connectors_view_is_told_with_its_notices() -> None:
    pools = {"decode": Pool("decode", Role.DECODE, 2)}
    supply = Supply({"decode": PoolState(3, 1)}, (), notices=("pool decode: 2 without a node",))
    found = list(judge_supply(supply, pools))
    assert [one.verdict for one in found] == [Verdict.PASS, Verdict.WARN]
    assert found[0].found == "as the planner sees it: decode 1 of 3 ready"
    wrong = list(judge_supply(Supply({"decode": PoolState(1, 1)}, (), gpus_per_worker={"decode": 4}), pools))
    assert [one.verdict for one in wrong] == [Verdict.FAIL]


def pod(
    name: str, *, ready: bool = False, waiting: str = "", unschedulable: str = "", restarts: int = 0
) -> dict[str, Any]:
    conditions = [{"type": "Ready", "status": "True" if ready else "False"}]
    if unschedulable:
        reason = {"reason": "Unschedulable", "message": unschedulable}
        conditions.append({"type": "PodScheduled", "status": "False", **reason})
    state = {"waiting": {"reason": waiting, "message": f"{waiting} of it"}} if waiting else {}
    container = {"name": "main", "image": "engine:2", "ready": ready, "restartCount": restarts, "state": state}
    return {
        "metadata": {"name": name, "labels": {"app": "d"}},
        "spec": {} if unschedulable else {"nodeName": "n"},
        "status": {"phase": "Pending", "conditions": conditions, "containerStatuses": [container]},
    }


def test_pods_in_trouble_are_failures_with_the_clusters_reason() -> None:
    names = {
        "ready": pod("a", ready=True),
        "restarted": pod("b", ready=True, restarts=3),
        "starting": pod("c"),
        "unschedulable": pod("d", unschedulable="0/3 nodes are available: 3 Insufficient nvidia.com/gpu."),
        "failing": pod("e", waiting="CrashLoopBackOff"),
        "image": pod("f", waiting="ImagePullBackOff"),
    }
    found = list(judge_pods("decode", [pod_of(one) for one in names.values()], 6))
    texts = {one.found: one.verdict for one in found}
    assert texts["d is unschedulable: 0/3 nodes are available: 3 Insufficient nvidia.com/gpu."] is Verdict.FAIL
    assert any(text.startswith("e (and 1 more) is failing: container main: CrashLoopBackOff") for text in texts)
    assert texts["containers were restarted: b 3"] is Verdict.WARN
    assert list(image_troubles(names["image"])) == [("engine:2", "ImagePullBackOff of it")]
    assert list(image_troubles(names["failing"])) == []
    well = list(judge_pods("decode", [pod_of(names["ready"]), pod_of(names["starting"])], 2))
    assert [(one.verdict, one.found) for one in well] == [(Verdict.PASS, "1 ready, 1 starting")]
    assert [one.verdict for one in judge_pods("decode", [pod_of(names["starting"])], 1)] == [Verdict.WARN]
    assert [one.verdict for one in judge_pods("decode", [], 2)] == [Verdict.FAIL]
    assert [one.verdict for one in judge_pods("decode", [], 0)] == [Verdict.SKIP]


def budget(name: str, labels: dict[str, str], allowed: int = 1) -> dict[str, Any]:
    selector = {"selector": {"matchLabels": labels}}
    return {"metadata": {"name": name}, "spec": selector, "status": {"disruptionsAllowed": allowed}}


def test_disruption_budgets() -> None:
    labels = [{"app": "d", "x": "y"}]
    assert judge_disruption("decode", labels, [budget("a", {"app": "e"})]).verdict is Verdict.WARN
    assert judge_disruption("decode", labels, [budget("a", {"app": "d"})]).verdict is Verdict.PASS
    assert "allows no disruption" in judge_disruption("decode", labels, [budget("a", {"app": "d"}, 0)]).found
    both = [budget("a", {"app": "d"}), budget("b", {"x": "y"})]
    assert "2 PodDisruptionBudgets cover one pod" in judge_disruption("decode", labels, both).found
    assert judge_disruption("decode", [], both).verdict is Verdict.SKIP


def test_the_grace_period_holds_the_longest_answer() -> None:
    drain = {"containers": [{"name": "main", "lifecycle": {"preStop": {"exec": {"command": ["drain"]}}}}]}
    assert judge_grace("decode", {**drain, "terminationGracePeriodSeconds": 120}, 103).verdict is Verdict.PASS
    short = judge_grace("decode", drain, 103)
    assert (short.verdict, "30 s (the default)" in short.found) == (Verdict.WARN, True)
    assert "terminationGracePeriodSeconds: 103" in short.fix
    bare = {"containers": [{"name": "main"}], "terminationGracePeriodSeconds": 120}
    assert "no preStop" in judge_grace("decode", bare, 103).found


def test_secrets_that_a_pod_cannot_start_without() -> None:
    env = [
        {"name": "A", "valueFrom": {"secretKeyRef": {"name": "by-key", "key": "k"}}},
        {"name": "B", "valueFrom": {"secretKeyRef": {"name": "maybe", "key": "k", "optional": True}}},
    ]
    spec = {
        "containers": [
            {"env": env, "envFrom": [{"secretRef": {"name": "hf-token-secret"}}, {"configMapRef": {"name": "c"}}]}
        ],
        "volumes": [{"secret": {"secretName": "mounted"}}, {"emptyDir": {}}],
        "imagePullSecrets": [{"name": "registry"}],
    }
    assert list(secrets_in(spec)) == ["hf-token-secret", "by-key", "mounted", "registry"]


def test_rivals_and_their_leftovers() -> None:
    rivals = {"decode": "HorizontalPodAutoscaler h also sets the replicas of Deployment d: delete it"}
    [first, *_] = judge_rivals([target()], rivals, always=False)
    assert (first.verdict, first.found.endswith("Deployment d")) == (Verdict.FAIL, True)
    assert first.fix.startswith("delete it")
    assert [one.verdict for one in judge_rivals([target()], rivals, always=True)] == [Verdict.WARN]
    ended = target(claims=(Claim("kube-controller-manager"),))
    assert [one.verdict for one in judge_rivals([ended], {}, always=False)] == [Verdict.PASS]
    script = target(claims=(Claim("scaler.py"),))
    assert [one.verdict for one in judge_rivals([script], {}, always=False)] == [Verdict.WARN, Verdict.PASS]


def test_pod_templates_of_the_kinds_that_have_one() -> None:
    spec = {"containers": []}
    assert template_in({"template": {"spec": spec}}) == spec
    leader = {"leaderTemplate": {"spec": {"a": 1}}, "workerTemplate": {"spec": {"a": 2}}}
    assert template_in({"leaderWorkerTemplate": leader}) == {"a": 1}
    assert template_in({"leaderWorkerTemplate": {"workerTemplate": {"spec": {"a": 2}}}}) == {"a": 2}
    assert template_in({"podSpec": spec}) == spec
    assert template_in({"components": []}) == {}
    assert has({"metadata": {"labels": {"a": "b", "c": "d"}}}, {"a": "b"})
    assert not has({"metadata": {}}, {"a": "b"})
    assert not has({"metadata": {"labels": {"a": "b"}}}, {})
