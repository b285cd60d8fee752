"""Manifests against what takes them: Kustomize, a real API server, current schemas, a real Prometheus."""

from __future__ import annotations

import copy
import json
import shutil
import subprocess
import urllib.parse
from pathlib import Path
from typing import Any

import kubernetes_validate
import pytest
import yaml
from kubernetes import client, dynamic

from tests import servers
from tests.kubernetes import crds
from tests.kubernetes.cluster import Cluster
from tests.manifests import MANIFESTS, OVERLAYS, Object, documents, only, plain_files, rendered, with_component

NEWEST = str(kubernetes_validate.latest_version()).rsplit(".", 1)[0]
#: What old servers have instead, with the same fields (the API server of the tests is older than policy/v1).
BEFORE = {"policy/v1": "policy/v1beta1"}
CUSTOM = ("leaderworkerset", "grove", "prometheus-operator")
needs_promtool = pytest.mark.skipif(servers.program("promtool") is None, reason="promtool is not installed")


class Server:
    """Dry runs of a namespace."""

    def __init__(self, api: client.ApiClient, namespace: str) -> None:
        self._api, self._namespace = api, namespace
        self._resources = dynamic.DynamicClient(api).resources

    def accepts(self, one: Object) -> Object:
        """What the server would keep; fails where it refuses."""
        body = copy.deepcopy(one)
        body["metadata"]["namespace"] = self._namespace
        for subject in body.get("subjects", []):
            subject["namespace"] = self._namespace
        try:
            resource = self._resources.get(api_version=body["apiVersion"], kind=body["kind"])
        except dynamic.exceptions.ResourceNotFoundError:
            body["apiVersion"] = BEFORE[body["apiVersion"]]
            resource = self._resources.get(api_version=body["apiVersion"], kind=body["kind"])
        made = resource.create(body=body, namespace=self._namespace, dry_run="All")
        return dict(made.to_dict())


def check(objects: list[Object], server: Server) -> None:
    for one in objects:
        kept = server.accepts(one)
        name = f"{one['kind']} {one['metadata']['name']}"
        if "." in one["apiVersion"].split("/")[0] and not one["apiVersion"].split("/")[0].endswith("k8s.io"):
            assert not lost(one.get("spec"), kept.get("spec")), name
        elif not one["apiVersion"].startswith("leaderworkerset"):
            kubernetes_validate.validate(one, NEWEST, strict=True)


def lost(said: Any, kept: Any, place: str = "spec") -> list[str]:
    """Fields that the server dropped, since its schema does not know them."""
    if isinstance(said, dict) and isinstance(kept, dict):
        return [p for key, value in said.items() for p in lost(value, kept.get(key), f"{place}.{key}")]
    if isinstance(said, list) and isinstance(kept, list):
        return [p for i, value in enumerate(said) for p in lost(value, kept[i], f"{place}[{i}]")]
    return [] if kept == said or kept is not None else [place]


@pytest.mark.parametrize("overlay", OVERLAYS)
def test_overlays(control_plane: Cluster, api: client.ApiClient, namespace: str, overlay: str) -> None:
    crds.install(api, *CUSTOM, "dynamo-v1alpha1")
    objects = rendered(overlay)
    check(objects, Server(api, namespace))
    kinds = {one["kind"] for one in objects}
    assert ("PrometheusRule" in kinds) == overlay.endswith("-prometheus")
    assert {"Deployment", "Role", "RoleBinding", "ServiceAccount", "PodDisruptionBudget", "Service"} <= kinds
    assert {one["metadata"]["namespace"] for one in objects} == {"plimsoll"}


@pytest.mark.parametrize("component", ["journal-pvc", "network-policy"])
def test_components(
    control_plane: Cluster, api: client.ApiClient, namespace: str, component: str, tmp_path: Path
) -> None:
    objects = with_component(tmp_path, "kubernetes", component)
    check(objects, Server(api, namespace))
    spec = only(objects, "Deployment", "plimsoll-planner")["spec"]
    state = next(volume for volume in spec["template"]["spec"]["volumes"] if volume["name"] == "state")
    if component == "journal-pvc":
        assert spec["replicas"] == 1
        assert state == {"name": "state", "persistentVolumeClaim": {"claimName": "plimsoll-planner-state"}}
    else:
        assert "emptyDir" in state
        assert only(objects, "NetworkPolicy", "plimsoll-planner")["spec"]["policyTypes"] == ["Ingress"]


@pytest.mark.parametrize("path", plain_files(), ids=lambda path: path.stem)
def test_plain_files(control_plane: Cluster, api: client.ApiClient, namespace: str, path: Path) -> None:
    objects = documents(path)
    if objects[0]["kind"] == "DynamoGraphDeployment":
        crds.install(api, "dynamo-" + objects[0]["apiVersion"].split("/")[1])
    server = Server(api, namespace)
    for one in objects:
        server.accepts(one)


def test_applying_again_keeps_the_planners_replicas() -> None:
    for overlay, kinds in (("kubernetes", {"Deployment"}), ("lws", {"Deployment", "LeaderWorkerSet"})):
        workers = [one for one in rendered(overlay) if "plimsoll.io/layout" in one["metadata"].get("labels", {})]
        scaled = [one for one in workers if one["kind"] in {"Deployment", "LeaderWorkerSet"}]
        assert {one["kind"] for one in scaled} == kinds
        assert all("replicas" not in one["spec"] for one in scaled)


def test_a_change_of_the_configuration_starts_the_planners_anew() -> None:
    objects = rendered("kubernetes")
    (config,) = [one for one in objects if one["kind"] == "ConfigMap" and "planner.yaml" in one["data"]]
    volumes = only(objects, "Deployment", "plimsoll-planner")["spec"]["template"]["spec"]["volumes"]
    assert config["metadata"]["name"] != "plimsoll-planner"
    assert {"name": "config", "configMap": {"name": config["metadata"]["name"]}} in volumes


# Monitoring.


@pytest.fixture
def rules(tmp_path: Path) -> Path:
    (rule,) = documents(MANIFESTS / "monitoring" / "rules.yaml")
    file = tmp_path / "rules.yaml"
    file.write_text(yaml.safe_dump(rule["spec"]), encoding="utf-8")
    return file


@needs_promtool
def test_alerts_fire_when_they_should(rules: Path) -> None:
    shutil.copy(Path(__file__).with_name("alerts_test.yaml"), rules.parent)
    for words in (["check", "rules", str(rules)], ["test", "rules", str(rules.parent / "alerts_test.yaml")]):
        done = subprocess.run(
            [str(servers.program("promtool")), *words], capture_output=True, text=True, cwd=rules.parent, check=False
        )
        assert done.returncode == 0, done.stdout + done.stderr


@servers.needs_prometheus
def test_every_query_of_the_dashboard_is_one(tmp_path: Path) -> None:
    dashboard = json.loads((MANIFESTS / "monitoring" / "dashboard.json").read_text(encoding="utf-8"))
    queries = [target["expr"] for panel in dashboard["panels"] for target in panel.get("targets", [])]
    assert len(queries) > 30
    targets = tmp_path / "targets.json"
    targets.write_text("[]")
    with servers.start_prometheus(tmp_path, targets) as server:
        for query in queries:
            text = query.replace("$namespace", ".*").replace("$graph", "chat")
            assert "$" not in text, query
            said = json.loads(servers.get(f"{server.url}/api/v1/query?query={urllib.parse.quote(text)}"))
            assert said["status"] == "success", query
