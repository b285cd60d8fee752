"""Everything that is rendered is valid: core kinds by the schemas of current Kubernetes, custom ones by their CRDs."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import kubernetes_validate
import pytest
import yaml

from tests.unit.worker_graph.kubernetes.rendered import GRAPHS, Object, graph, manifest, templates
from worker_graph.kubernetes.options import RenderOptions, Target
from worker_graph.kubernetes.render import render
from worker_graph.kubernetes.text import to_yaml
from worker_graph.spec import GraphSpec

CRDS = Path(__file__).parents[3] / "kubernetes" / "crds"
CURRENT = ("1.33", "1.37")
FILES = {
    "LeaderWorkerSet": "leaderworkerset", "PodCliqueSet": "grove", "nvidia.com/v1alpha1": "dynamo-v1alpha1",
    "nvidia.com/v1beta1": "dynamo-v1beta1",
}  # fmt: skip


def check(objects: list[Object]) -> None:
    names = [(one["kind"], one["metadata"]["name"]) for one in objects]
    assert len(names) == len(set(names))
    for one in objects:
        file = FILES.get(one["kind"]) or FILES.get(one["apiVersion"])
        if file is None:
            for version in CURRENT:
                kubernetes_validate.validate(one, version, strict=True)
        else:
            check_custom(one, CRDS / f"{file}.yaml")
    custom = [one for one in objects if one["kind"] in FILES]
    for template in templates(custom):
        pod = {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "x", **template["metadata"]}}
        kubernetes_validate.validate({**pod, "spec": template["spec"]}, CURRENT[-1], strict=True)
    for template in templates(objects):
        check_pod(template)
    assert list(yaml.safe_load_all(to_yaml(objects))) == objects


def check_custom(one: Object, file: Path) -> None:
    definitions = yaml.safe_load_all(file.read_text(encoding="utf-8"))
    spec = next(each["spec"] for each in definitions if each["spec"]["names"]["kind"] == one["kind"])
    versions = {version["name"]: version["schema"]["openAPIV3Schema"] for version in spec["versions"]}
    assert one["apiVersion"].startswith(spec["group"])
    conforms(one, versions[one["apiVersion"].partition("/")[2]], one["kind"])


def conforms(value: Any, schema: Any, where: str) -> None:
    """Structural schemas: types, required fields, no field that would be pruned."""
    if schema.get("x-kubernetes-int-or-string") or "type" not in schema:
        return
    kinds = {"object": dict, "array": list, "string": str, "integer": int, "boolean": bool, "number": (int, float)}
    assert isinstance(value, kinds[schema["type"]]), where
    assert value in schema.get("enum", [value]), where
    if schema["type"] == "array":
        for i, each in enumerate(value):
            conforms(each, schema.get("items", {}), f"{where}.{i}")
    if schema["type"] == "integer":
        assert schema.get("minimum", value) <= value, where
    if schema["type"] != "object":
        return
    known, extra = schema.get("properties", {}), schema.get("additionalProperties")
    open_ended = schema.get("x-kubernetes-preserve-unknown-fields") or where.count(".") == 0 or not (known or extra)
    assert set(schema.get("required", [])) <= set(value), where
    for key, below in value.items():
        assert key in known or extra or open_ended, f"{where}.{key} would be pruned"
        conforms(below, known.get(key) or (extra if isinstance(extra, dict) else {}), f"{where}.{key}")


def check_pod(template: Object) -> None:
    """What a schema does not say: names are given once and refer to something, and the labels are labels."""
    spec = template["spec"]
    volumes = [volume["name"] for volume in spec.get("volumes", [])]
    assert len(volumes) == len(set(volumes))
    for container in [*spec["containers"], *spec.get("initContainers", [])]:
        assert {mount["name"] for mount in container.get("volumeMounts", [])} <= set(volumes)
        paths = [mount["mountPath"] for mount in container.get("volumeMounts", [])]
        assert len(paths) == len(set(paths))
        ports = {port["name"] for port in container.get("ports", [])}
        assert len(ports) == len(container.get("ports", []))
        for probe in ("startupProbe", "readinessProbe", "livenessProbe"):
            assert container.get(probe, {}).get("httpGet", {}).get("port", "http") in {*ports, "http", 8000}
            assert probe not in container or "http" in ports
    for value in template["metadata"]["labels"].values():
        assert len(value) <= 63


@pytest.mark.parametrize("target", [Target.KUBERNETES, Target.LWS, Target.GROVE, Target.DYNAMO])
@pytest.mark.parametrize("name", GRAPHS)
def test_the_graphs_of_the_product(name: str, target: Target) -> None:
    check(render(manifest(name), target))


@pytest.mark.parametrize("name", GRAPHS)
@pytest.mark.parametrize("version", ["v1alpha1", "v1beta1"])
def test_the_graphs_of_the_product_in_both_versions(name: str, version: str) -> None:
    check(render(manifest(name), Target.DYNAMO, RenderOptions(api_version=version, namespace="n")))


@pytest.mark.parametrize("name", GRAPHS)
def test_all_as_groups(name: str) -> None:
    check(render(manifest(name), Target.LWS, RenderOptions(groups_for_all=True)))


@pytest.mark.parametrize("target", [Target.LWS, Target.GROVE])
@pytest.mark.parametrize(
    "args",
    [
        ["--tensor-parallel-size", "16"],
        ["--tensor-parallel-size", "8", "--pipeline-parallel-size", "2", "--distributed-executor-backend", "ray"],
        ["--tensor-parallel-size", "4", "--data-parallel-size", "4"],
    ],
)
def test_groups(tmp_path: Path, target: Target, args: list[str]) -> None:
    made = graph(tmp_path, args, nodes=2, gpus="8")
    kinds = {one["kind"] for one in render(made, target)}
    assert ("LeaderWorkerSet" if target is Target.LWS else "PodCliqueSet") in kinds
    check(render(made, target))


def test_twice_the_same(tmp_path: Path) -> None:
    spec: GraphSpec = graph(tmp_path, ["--tensor-parallel-size", "16"], nodes=2)
    assert to_yaml(render(spec, Target.LWS)) == to_yaml(render(spec, Target.LWS))
    assert to_yaml(render(manifest("disagg.yaml"), Target.KUBERNETES)) == to_yaml(
        render(manifest("disagg.yaml"), Target.KUBERNETES)
    )
