from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from planner.connectors.kubernetes.pods import Phase, Pod, pod_of, worker_of

CREATED = "2026-03-01T10:00:00Z"


def pod(
    *,
    node: str = "gpu-a",
    phase: str = "Running",
    ready: str | None = None,
    ready_at: str = CREATED,
    unschedulable: str = "",
    container: dict[str, Any] | None = None,
    deleted: bool = False,
    **status: Any,
) -> dict[str, Any]:
    conditions = []
    if unschedulable:
        conditions.append(
            {"type": "PodScheduled", "status": "False", "reason": "Unschedulable", "message": unschedulable}
        )
    elif node:
        conditions.append({"type": "PodScheduled", "status": "True", "lastTransitionTime": "2026-03-01T10:00:02Z"})
    if ready is not None:
        conditions.append({"type": "Ready", "status": ready, "lastTransitionTime": ready_at})
    meta: dict[str, Any] = {"name": "w-1", "uid": "u1", "creationTimestamp": CREATED, "labels": {"app": "w"}}
    if deleted:
        meta["deletionTimestamp"] = "2026-03-01T11:00:00Z"
    spec: dict[str, Any] = {
        "containers": [
            {
                "name": "main",
                "ports": [{"name": "http", "containerPort": 8000}, {"containerPort": 9000}],
                "resources": {"limits": {"nvidia.com/gpu": "2"}},
            }
        ]
    }
    if node:
        spec["nodeName"] = node
    containers = [{"name": "main", "restartCount": 0, "ready": ready == "True", **container}] if container else []
    status = {"phase": phase, "conditions": conditions, "containerStatuses": containers, **status}
    return {"metadata": meta, "spec": spec, "status": status}


def waiting(reason: str, restarts: int = 0, message: str = "") -> dict[str, Any]:
    return {"state": {"waiting": {"reason": reason, "message": message}}, "restartCount": restarts}


RUNNING = {"state": {"running": {"startedAt": "2026-03-01T10:00:10Z"}}}
OOM = {"terminated": {"reason": "OOMKilled", "exitCode": 137}}


@pytest.mark.parametrize(
    ("found", "phase", "trouble"),
    [
        (pod(node="", phase="Pending"), Phase.PENDING, ""),
        (pod(node="", phase="Pending", unschedulable="0/3 nodes"), Phase.UNSCHEDULABLE, "0/3 nodes"),
        (pod(phase="Pending", ready="False"), Phase.STARTING, ""),
        (pod(phase="Pending", ready="False", container=waiting("ContainerCreating")), Phase.STARTING, ""),
        (pod(ready="False", container=RUNNING), Phase.STARTING, ""),
        (
            pod(phase="Pending", ready="False", container=waiting("ImagePullBackOff", message="no such image")),
            Phase.FAILING,
            "container main: ImagePullBackOff: no such image",
        ),
        (
            pod(ready="False", container={**waiting("CrashLoopBackOff", 3), "lastState": OOM}),
            Phase.FAILING,
            "container main: CrashLoopBackOff, OOMKilled with exit code 137 after 3 restarts",
        ),
        (
            pod(ready="False", container={**RUNNING, "restartCount": 1, "lastState": OOM}),
            Phase.FAILING,
            "container main: OOMKilled with exit code 137 after 1 restart",
        ),
        (
            pod(ready="False", container={"state": {"terminated": {"reason": "Error", "exitCode": 1}}}),
            Phase.FAILING,
            "container main: Error with exit code 1",
        ),
        (pod(ready="False", initContainerStatuses=[waiting("CreateContainerConfigError")]), Phase.FAILING, "?"),
        # It has crashed, and serves again.
        (pod(ready="True", container={**RUNNING, "restartCount": 2, "lastState": OOM}), Phase.READY, ""),
        # Ended by its command and not by a crash.
        (
            pod(
                ready="False",
                container={**RUNNING, "restartCount": 1, "lastState": {"terminated": {"exitCode": 0}}},
            ),
            Phase.STARTING,
            "",
        ),
        (pod(ready="True", deleted=True), Phase.TERMINATING, ""),
        (pod(ready="False", deleted=True, phase="Failed"), Phase.GONE, ""),
        (pod(phase="Failed", reason="Evicted"), Phase.GONE, ""),
        (pod(phase="Succeeded"), Phase.GONE, ""),
    ],
)
def test_a_pods_phase_and_trouble(found: dict[str, Any], phase: Phase, trouble: str) -> None:
    seen = pod_of(found)
    assert seen.phase is phase
    assert trouble in seen.trouble
    assert bool(seen.trouble) == bool(trouble)


def test_what_else_is_read_of_a_pod() -> None:
    found = pod(ready="True", ready_at="2026-03-01T10:01:30Z", container=RUNNING, podIP="10.0.0.1")
    found["metadata"]["ownerReferences"] = [{"kind": "Node"}, {"kind": "ReplicaSet", "controller": True}]
    found["metadata"]["annotations"] = {"controller.kubernetes.io/pod-deletion-cost": "-3"}
    seen = pod_of(found)
    assert seen.scheduled_s is not None
    assert seen.ready_s is not None
    assert (seen.scheduled_s - seen.created_s, seen.ready_s - seen.created_s) == (2.0, 90.0)
    assert (seen.owner_kind, seen.deletion_cost, seen.gpus) == ("ReplicaSet", "-3", 2)
    assert seen.address("http") == "10.0.0.1:8000"
    assert seen.address(9001) == "10.0.0.1:9001"
    assert seen.address("9000") == "10.0.0.1:9000"
    assert seen.address("metrics") == ""
    assert seen.address("metrics", ("http",)) == "10.0.0.1:8000"


def test_addresses_of_ipv6_are_in_brackets_and_the_only_port_is_taken() -> None:
    seen = Pod("w", "u", Phase.READY, ip="fd00::7", ports={"api": 80})
    assert seen.address("http") == "[fd00::7]:80"
    assert replace(seen, ip="").address("api") == ""


@pytest.mark.parametrize(
    ("found", "never"),
    [
        (pod(phase="Pending", node=""), True),
        (pod(phase="Pending", ready="False"), True),
        # The kubelet said "not ready" before it started the container.
        (pod(ready="False", ready_at="2026-03-01T10:00:05Z", container=RUNNING), True),
        # It says so since some time after that: it was ready in between.
        (pod(ready="False", ready_at="2026-03-01T10:30:00Z", container=RUNNING), False),
        (pod(ready="False", ready_at="2026-03-01T10:00:05Z", container={**RUNNING, "restartCount": 1}), False),
        (pod(ready="True", container=RUNNING), False),
    ],
)
def test_whether_a_pod_surely_was_never_ready(found: dict[str, Any], never: bool) -> None:
    assert pod_of(found).never_ready is never


def member(index: int, phase: Phase = Phase.READY, trouble: str = "") -> Pod:
    labels = {"leaderworkerset.sigs.k8s.io/worker-index": str(index)}
    return Pod(f"w-0-{index}", f"u{index}", phase, trouble, labels=labels, ip=f"10.0.0.{index}")


@pytest.mark.parametrize(
    ("phases", "phase"),
    [
        ([Phase.READY, Phase.READY], Phase.READY),
        ([Phase.READY], Phase.STARTING),
        ([Phase.READY, Phase.STARTING], Phase.STARTING),
        ([Phase.READY, Phase.PENDING], Phase.STARTING),
        ([Phase.PENDING, Phase.PENDING], Phase.PENDING),
        ([Phase.PENDING], Phase.PENDING),
        ([Phase.READY, Phase.UNSCHEDULABLE], Phase.UNSCHEDULABLE),
        ([Phase.UNSCHEDULABLE, Phase.FAILING], Phase.FAILING),
        ([Phase.TERMINATING, Phase.FAILING], Phase.TERMINATING),
        ([Phase.READY, Phase.GONE], Phase.STARTING),
    ],
)
def test_a_group_of_two_is_what_the_least_of_its_pods_is(phases: list[Phase], phase: Phase) -> None:
    worker = worker_of("w-0", "w", [member(i, one) for i, one in enumerate(phases)], 2)
    assert worker is not None
    assert worker.phase is phase


def test_pods_that_have_ended_are_no_worker() -> None:
    assert worker_of("w-0", "w", [member(0, Phase.GONE)], 1) is None


def test_the_leader_is_the_lowest_index_by_number() -> None:
    worker = worker_of("w-0", "w", [member(10), member(2), member(0, Phase.FAILING, "oom")], 3)
    assert worker is not None
    assert worker.leader.ip == "10.0.0.0"
    assert worker.trouble == "oom"


def test_without_an_index_the_leader_is_the_pod_that_serves() -> None:
    plain = Pod("a", "1", Phase.READY)
    serving = Pod("z", "2", Phase.READY, labels={"plimsoll.io/serves": "true"})
    ported = Pod("b", "3", Phase.READY, ports={"http": 8000})
    for pods, leader in (([plain, serving, ported], serving), ([plain, ported], ported)):
        worker = worker_of("w-0", "w", pods, len(pods))
        assert worker is not None
        assert worker.leader is leader
