from __future__ import annotations

import copy
from typing import Any

import pytest

from planner.connectors.kubernetes.resources import DYNAMO_GRAPHS_V1ALPHA1, DYNAMO_GRAPHS_V1BETA1
from planner.connectors.kubernetes.rollout.dynamo import relayout_patch
from profiler.errors import InputError

ARGS = ["--model", "m", "--tensor-parallel-size", "2"]
META = {"name": "g", "resourceVersion": "7"}


def alpha(**more: Any) -> dict[str, Any]:
    service = {
        "componentType": "worker",
        "replicas": 3,
        "resources": {"limits": {"gpu": "2"}},
        "extraPodSpec": {"mainContainer": {"image": "x", "args": ARGS}, "nodeSelector": {"a": "b"}},
        **more,
    }
    return {"metadata": META, "spec": {"services": {"W": service, "Other": {}}}}


def beta(**more: Any) -> dict[str, Any]:
    main = {"name": "main", "image": "x", "args": ARGS, "resources": {"limits": {"nvidia.com/gpu": "2"}}}
    labels = {"plimsoll.io/layout": "tp2-dp1"}
    template = {"metadata": {"labels": labels}, "spec": {"containers": [{"name": "sidecar"}, main]}}
    parts = [{"name": "Frontend"}, {"name": "W", "replicas": 3, "podTemplate": template, **more}]
    return {"metadata": META, "spec": {"components": parts}}


def test_v1alpha1_changes_arguments_and_the_services_gpus_in_one_merge_patch() -> None:
    thing = alpha()
    before = copy.deepcopy(thing)
    body, gpus = relayout_patch(thing, DYNAMO_GRAPHS_V1ALPHA1, "W", 4, 1)
    assert thing == before
    assert gpus == 4
    assert body == {
        "metadata": {"resourceVersion": "7"},
        "spec": {
            "services": {
                "W": {
                    "extraPodSpec": {"mainContainer": {"args": [*ARGS[:3], "4"]}},
                    "resources": {"limits": {"gpu": "4"}},
                }
            }
        },
    }


def test_v1beta1_replaces_the_engines_container_of_the_component_that_was_seen() -> None:
    body, gpus = relayout_patch(beta(), DYNAMO_GRAPHS_V1BETA1, "W", 4, 2)
    assert isinstance(body, list)
    assert gpus == 8
    assert [(one["op"], one["path"]) for one in body] == [
        ("replace", "/metadata/resourceVersion"),
        ("test", "/spec/components/1/name"),
        ("replace", "/spec/components/1/podTemplate/spec/containers/1"),
        ("replace", "/spec/components/1/podTemplate/metadata/labels/plimsoll.io~1layout"),
    ]
    main = body[2]["value"]
    assert main["args"] == [*ARGS[:3], "4", "--data-parallel-size", "2"]
    assert main["resources"] == {"limits": {"nvidia.com/gpu": "8"}}
    assert body[3]["value"] == "tp4-dp2"


def test_workers_of_several_nodes_are_refused() -> None:
    with pytest.raises(InputError, match="2 nodes"):
        relayout_patch(alpha(multinode={"nodeCount": 2}), DYNAMO_GRAPHS_V1ALPHA1, "W", 4, 1)
    with pytest.raises(InputError, match="2 nodes"):
        relayout_patch(beta(multinode={"nodeCount": 2}), DYNAMO_GRAPHS_V1BETA1, "W", 4, 1)
