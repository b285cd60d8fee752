from __future__ import annotations

import copy
from typing import Any

import pytest

from planner.connectors.kubernetes.resources import DEPLOYMENTS, LEADER_WORKER_SETS, STATEFUL_SETS
from planner.connectors.kubernetes.rollout.clone import (
    CLONED_FROM,
    REPLACED_BY,
    RETIRED,
    clone,
    clone_name,
    gpus_of_layout,
    template_patch,
)
from profiler.errors import InputError
from worker_graph.kubernetes import labels as names


def deployment(*, marked: bool = True) -> dict[str, Any]:
    pool = {"plimsoll.io/graph": "chat", "plimsoll.io/pool": "VllmDecodeWorker"}
    own = {**pool, "plimsoll.io/layout": "tp2-dp1"} if marked else {**pool, "app": "decode"}
    return {
        "apiVersion": "apps/v1",
        "kind": "Deployment",
        "metadata": {
            "name": "chat-decode",
            "namespace": "serving",
            "uid": "1",
            "resourceVersion": "7",
            "generation": 3,
            "creationTimestamp": "2026-01-01T00:00:00Z",
            "managedFields": [{}],
            "labels": {**own, "app.kubernetes.io/instance": "argo-app", "team": "search"},
            "annotations": {
                "kubectl.kubernetes.io/last-applied-configuration": "{}",
                "deployment.kubernetes.io/revision": "4",
                "argocd.argoproj.io/tracking-id": "x",
                "note": "kept",
            },
        },
        "spec": {
            "replicas": 4,
            "selector": {"matchLabels": own},
            "strategy": {"type": "RollingUpdate"},
            "template": {
                "metadata": {"labels": {**own, "plimsoll.io/role": "decode"}},
                "spec": {
                    "containers": [
                        {"name": "proxy", "image": "p:1"},
                        {
                            "name": "main",
                            "image": "vllm:1",
                            "command": ["vllm", "serve", "m"],
                            "args": ["--tensor-parallel-size", "2", "--port", "8000"],
                            "resources": {"limits": {"nvidia.com/gpu": "2", "memory": "80Gi"}},
                        },
                    ]
                },
            },
        },
        "status": {"replicas": 4},
    }


def test_a_copy_has_the_layout_in_arguments_gpus_labels_and_name_and_starts_with_no_workers() -> None:
    thing = deployment()
    before = copy.deepcopy(thing)
    made = clone(thing, DEPLOYMENTS, 4, 1, "chat-decode-tp4")
    assert thing == before
    assert set(made["metadata"]) == {"name", "namespace", "labels", "annotations"}
    assert "status" not in made
    assert made["spec"]["replicas"] == 0
    main = made["spec"]["template"]["spec"]["containers"][1]
    assert main["args"] == ["--tensor-parallel-size", "4", "--port", "8000"]
    assert main["resources"] == {"limits": {"nvidia.com/gpu": "4", "memory": "80Gi"}}
    assert made["spec"]["template"]["metadata"]["labels"][names.LAYOUT] == "tp4-dp1"
    assert made["metadata"]["labels"][names.POOL] == "VllmDecodeWorker"
    assert made["spec"]["strategy"] == {"type": "RollingUpdate"}
    assert gpus_of_layout(thing, DEPLOYMENTS, 4, 2) == 8


def test_nobody_who_keeps_the_original_finds_the_copy_under_its_name() -> None:
    made = clone(deployment(), DEPLOYMENTS, 4, 1, "chat-decode-tp4")["metadata"]
    assert made["annotations"] == {"note": "kept", CLONED_FROM: "chat-decode"}
    assert "app.kubernetes.io/instance" not in made["labels"]
    assert made["labels"]["team"] == "search"


@pytest.mark.parametrize("marked", [True, False])
def test_each_selector_finds_its_own_pods(marked: bool) -> None:
    thing = deployment(marked=marked)
    made = clone(thing, DEPLOYMENTS, 4, 1, "chat-decode-tp4")

    def finds(one: dict[str, Any], pods_of: dict[str, Any]) -> bool:
        return (
            one["spec"]["selector"]["matchLabels"].items() <= pods_of["spec"]["template"]["metadata"]["labels"].items()
        )

    assert finds(made, made)
    assert not finds(made, thing)
    assert finds(thing, made) is not marked
    # What Services and PodDisruptionBudgets go by finds both.
    for one in (thing, made):
        labels = one["spec"]["template"]["metadata"]["labels"]
        assert names.selector_of("chat", "VllmDecodeWorker").items() <= labels.items()


def test_names_carry_one_layout_and_stay_dns_labels() -> None:
    assert clone_name("chat-decode", 4, 1) == "chat-decode-tp4"
    assert clone_name("chat-decode-tp4", 2, 1) == "chat-decode-tp2"
    assert clone_name("chat-decode-tp4-dp2", 1, 8) == "chat-decode-tp1-dp8"
    long = clone_name("x" * 63, 4, 1)
    assert len(long) == 63
    assert long != clone_name("x" * 63, 2, 1)


def test_a_group_of_one_pod_is_copied_and_one_of_several_is_refused() -> None:
    template = deployment()["spec"]["template"]
    group = {
        "apiVersion": LEADER_WORKER_SETS.api_version,
        "kind": "LeaderWorkerSet",
        "metadata": {"name": "decode"},
        "spec": {"replicas": 2, "leaderWorkerTemplate": {"size": 1, "workerTemplate": template}},
    }
    made = clone(group, LEADER_WORKER_SETS, 4, 1, "decode-tp4")
    assert made["spec"]["replicas"] == 0
    container = made["spec"]["leaderWorkerTemplate"]["workerTemplate"]["spec"]["containers"][1]
    assert container["resources"]["limits"]["nvidia.com/gpu"] == "4"
    group["spec"]["leaderWorkerTemplate"]["size"] = 2  # type: ignore[index]
    with pytest.raises(InputError, match="one node"):
        clone(group, LEADER_WORKER_SETS, 4, 1, "decode-tp4")


def test_other_kinds_and_two_engines_are_refused() -> None:
    with pytest.raises(InputError, match="StatefulSet"):
        clone(deployment(), STATEFUL_SETS, 4, 1, "x")
    thing = deployment()
    containers = thing["spec"]["template"]["spec"]["containers"]
    containers[0]["resources"] = {"limits": {"nvidia.com/gpu": "1"}}
    containers[1]["name"] = "engine"
    with pytest.raises(InputError, match="2 containers"):
        clone(thing, DEPLOYMENTS, 4, 1, "x")


def test_a_retired_object_comes_back_with_the_present_template() -> None:
    newer = clone(deployment(), DEPLOYMENTS, 4, 1, "chat-decode-tp4")
    newer["spec"]["template"]["spec"]["containers"][1]["image"] = "vllm:2"
    back = clone(newer, DEPLOYMENTS, 2, 1, "chat-decode")
    patch = template_patch(back, DEPLOYMENTS)
    assert patch["metadata"]["labels"][RETIRED] is None
    assert patch["metadata"]["annotations"][REPLACED_BY] is None
    assert patch["metadata"]["labels"][names.POOL] == "VllmDecodeWorker"
    assert "selector" not in patch["spec"]
    main = patch["spec"]["template"]["spec"]["containers"][1]
    assert (main["image"], main["args"][1], main["resources"]["limits"]["nvidia.com/gpu"]) == ("vllm:2", "2", "2")
