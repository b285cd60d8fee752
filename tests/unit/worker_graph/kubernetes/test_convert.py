"""A DynamoGraphDeployment in the other version means the same, and what has no place there is named."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import pytest

from profiler.errors import InputError
from tests.unit.worker_graph.kubernetes.rendered import GRAPHS, manifest
from tests.unit.worker_graph.spec.graphs import alpha, as_beta, read, worker
from worker_graph.kubernetes.options import RenderOptions, Target
from worker_graph.kubernetes.render import render
from worker_graph.kubernetes.text import to_yaml
from worker_graph.spec import GraphSpec, load_graph


def converted(spec: GraphSpec, version: str, folder: Path) -> GraphSpec:
    path = folder / f"{version}.yaml"
    path.write_text(to_yaml(render(spec, Target.DYNAMO, RenderOptions(api_version=version))))
    return load_graph(path)


IP = {"name": "IP", "valueFrom": {"fieldRef": {"fieldPath": "status.podIP"}}}


def everything() -> dict[str, Any]:
    """A graph of v1alpha1 that has every field with a place in v1beta1."""
    data = alpha()
    data["metadata"] |= {"labels": {"team": "x"}, "annotations": {"a": "b"}}
    data["spec"] |= {
        "backendFramework": "vllm", "labels": {"l": "1"}, "annotations": {"k": "2"},
        "envs": [{"name": "ALL", "value": "1"}, IP],
        "pvcs": [{"name": "models", "create": False}, {"name": "kernels"}],
    }  # fmt: skip
    one = data["spec"]["services"]["VllmPrefillWorker"]
    one |= {
        "multinode": {"nodeCount": 2}, "scalingAdapter": {"enabled": True}, "globalDynamoNamespace": True,
        "sharedMemory": {"size": "16Gi"}, "labels": {"w": "1"}, "annotations": {"v": "2"},
        "extraPodMetadata": {"labels": {"w": "3"}, "annotations": {"u": "4"}},
        "volumeMounts": [
            {"name": "models", "mountPoint": "/models"},
            {"name": "kernels", "mountPoint": "/kernels", "useAsCompilationCache": True},
        ],
        "readinessProbe": {"httpGet": {"path": "/health", "port": 8000}},
        "resources": {
            "limits": {"gpu": "8", "cpu": "4", "memory": "64Gi", "custom": {"rdma/ib": "1"}},
            "requests": {"gpu": "8", "cpu": "2"},
        },
    }  # fmt: skip
    one["extraPodSpec"]["mainContainer"]["args"] += ["--tensor-parallel-size", "16"]
    one["extraPodSpec"] |= {
        "nodeSelector": {"gpu": "h200"}, "tolerations": [{"operator": "Exists"}], "fieldFromTheFuture": {"x": 1},
        "containers": [{"name": "sidecar", "image": "s"}],
    }  # fmt: skip
    one["extraPodSpec"]["mainContainer"] |= {"alsoFromTheFuture": [1, 2], "securityContext": {"privileged": False}}
    two = data["spec"]["services"]["VllmDecodeWorker"]
    two |= {"sharedMemory": {"disabled": True}, "scalingAdapter": {"enabled": False}, "autoscaling": {"enabled": False}}
    return data


@pytest.mark.parametrize("name", GRAPHS)
def test_the_graphs_of_the_product_there_and_back(name: str, tmp_path: Path) -> None:
    spec = manifest(name)
    for first, second in (("v1alpha1", "v1beta1"), ("v1beta1", "v1alpha1")):
        there = converted(spec, first, tmp_path)
        assert there.api_version == f"nvidia.com/{first}"
        assert there.components == spec.components
        back = converted(there, second, tmp_path)
        assert back.components == spec.components
        assert back.name == spec.name


def test_its_own_version_changes_nothing() -> None:
    for name in GRAPHS:
        spec = manifest(name)
        assert render(spec, Target.DYNAMO) == [spec.raw]
        assert render(spec, Target.DYNAMO, RenderOptions(api_version=spec.api_version.split("/")[1])) == [spec.raw]
    named = render(manifest("agg.yaml"), Target.DYNAMO, RenderOptions(namespace="prod"))
    assert named[0]["metadata"]["namespace"] == "prod"


def test_every_field_to_v1beta1(tmp_path: Path) -> None:
    spec = read(tmp_path, everything())
    made = render(spec, Target.DYNAMO, RenderOptions(api_version="v1beta1"))[0]
    assert made["metadata"] == spec.raw["metadata"]
    assert made["spec"]["env"] == spec.raw["spec"]["envs"]
    assert {key: made["spec"][key] for key in ("labels", "annotations")} == {
        "labels": {"l": "1"},
        "annotations": {"k": "2"},
    }
    one, two = made["spec"]["components"][1:]
    assert (one["name"], one["type"], one["multinode"]) == ("VllmPrefillWorker", "prefill", {"nodeCount": 2})
    assert (one["scalingAdapter"], one["sharedMemorySize"], one["globalDynamoNamespace"]) == ({}, "16Gi", True)
    assert one["compilationCache"] == {"pvcName": "kernels", "mountPath": "/kernels"}
    template = one["podTemplate"]
    assert template["metadata"] == {"labels": {"w": "3"}, "annotations": {"v": "2", "u": "4"}}
    pod, main = template["spec"], template["spec"]["containers"][0]
    assert pod["nodeSelector"] == {"gpu": "h200"}
    assert pod["fieldFromTheFuture"] == {"x": 1}
    assert pod["volumes"] == [{"name": "models", "persistentVolumeClaim": {"claimName": "models"}}]
    assert [each["name"] for each in pod["containers"]] == ["main", "sidecar"]
    assert main["alsoFromTheFuture"] == [1, 2]
    assert main["resources"]["limits"] == {"nvidia.com/gpu": "8", "cpu": "4", "memory": "64Gi", "rdma/ib": "1"}
    assert main["resources"]["requests"] == {"nvidia.com/gpu": "8", "cpu": "2"}
    assert main["envFrom"] == [{"secretRef": {"name": "hf-token-secret"}}]
    assert main["readinessProbe"]["httpGet"]["port"] == 8000
    assert "scalingAdapter" not in two
    assert two["sharedMemorySize"] == "0"


def test_every_field_there_and_back_means_the_same(tmp_path: Path) -> None:
    spec = read(tmp_path, everything())
    there = converted(spec, "v1beta1", tmp_path)
    assert there.components == spec.components
    back = converted(there, "v1alpha1", tmp_path)
    assert back.components == spec.components
    # What `components` does not hold: once in v1beta1's words, a second journey changes nothing more.
    again = converted(back, "v1beta1", tmp_path)
    assert again.raw == there.raw


def test_sidecars_stay(tmp_path: Path) -> None:
    spec = read(tmp_path, as_beta(alpha()))
    back = converted(converted(spec, "v1alpha1", tmp_path), "v1beta1", tmp_path)
    first = back.raw["spec"]["components"][1]["podTemplate"]["spec"]["containers"]
    assert {one["name"]: one for one in first}["sidecar"] == {"name": "sidecar", "image": "s"}


@pytest.mark.parametrize(
    ("where", "field", "value"),
    [
        ("service", "ingress", {"enabled": True}),
        ("service", "dynamoNamespace", "x"),
        ("service", "subComponentType", "draft"),
        ("service", "checkpoint", {"enabled": True}),
        ("service", "autoscaling", {"enabled": True}),
        ("spec", "topology", {"x": 1}),
    ],
)
def test_what_has_no_place_in_v1beta1(where: str, field: str, value: Any, tmp_path: Path) -> None:
    data = alpha({"W": worker([])})
    holder = data["spec"] if where == "spec" else data["spec"]["services"]["Frontend"]
    holder[field] = value
    spec = read(tmp_path, data)
    with pytest.raises(InputError, match="has no place in v1beta1") as caught:
        render(spec, Target.DYNAMO, RenderOptions(api_version="v1beta1"))
    assert caught.value.field is not None
    assert caught.value.field.endswith(field)


def test_a_claim_that_is_to_be_made(tmp_path: Path) -> None:
    data = alpha({"W": worker([])})
    data["spec"]["pvcs"] = [{"name": "x", "create": True, "size": "1Gi", "storageClass": "s", "volumeAccessMode": "m"}]
    with pytest.raises(InputError, match="is to be made"):
        render(read(tmp_path, data), Target.DYNAMO, RenderOptions(api_version="v1beta1"))


@pytest.mark.parametrize(
    ("field", "value"),
    [("minAvailable", 1), ("experimental", {"x": 1}), ("frontendSidecar", "s"), ("roles", [{"name": "x"}])],
)
def test_what_has_no_place_in_v1alpha1(field: str, value: Any, tmp_path: Path) -> None:
    data = copy.deepcopy(as_beta(alpha({"W": worker([])})))
    data["spec"]["components"][1][field] = value
    with pytest.raises(InputError, match="has no place in v1alpha1") as caught:
        render(read(tmp_path, data), Target.DYNAMO, RenderOptions(api_version="v1alpha1"))
    assert caught.value.field == f"spec.components.1.{field}"


def test_an_unknown_version() -> None:
    with pytest.raises(InputError, match="v1alpha1 or v1beta1"):
        render(manifest("agg.yaml"), Target.DYNAMO, RenderOptions(api_version="v2"))
