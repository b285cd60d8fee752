"""The manifests by themselves: schemas of current Kubernetes versions, and what must fit together."""

from __future__ import annotations

import json
import re
import sys
from pathlib import Path
from typing import Any

import kubernetes_validate
import pytest
import yaml
from typer.testing import CliRunner

from planner.service.load import load_config
from profiler.cli import app
from profiler.engines.layout import parse_layout
from tests.manifests import MANIFESTS, ROOT, Object, documents, plain_files

#: The oldest whose Jobs have a back-off limit for each index, and the newest that there is a schema for.
VERSIONS = ("1.29", str(kubernetes_validate.latest_version()).rsplit(".", 1)[0])
#: Objects of operators: their definitions are not Kubernetes' own.
FOREIGN = re.compile(r"^(nvidia\.com|grove\.io|leaderworkerset\.x-k8s\.io|monitoring\.coreos\.com|kustomize\.)")
TARGETS = ("kubernetes", "lws", "grove", "dynamo")


def sources() -> list[Path]:
    """Every manifest but kustomizations and their patches."""
    found = [*plain_files(), *MANIFESTS.glob("base/*.yaml"), *MANIFESTS.glob("components/*/*.yaml")]
    found += [*MANIFESTS.glob("overlays/*/role.yaml"), *MANIFESTS.glob("overlays/*/graph.yaml")]
    patches = {"kustomization.yaml", "state.yaml"}
    return sorted(path for path in found if path.name not in patches)


@pytest.mark.parametrize("version", VERSIONS)
@pytest.mark.parametrize("path", sources(), ids=lambda path: str(path.relative_to(MANIFESTS)))
def test_schemas_of_current_versions(path: Path, version: str) -> None:
    for one in documents(path):
        if not FOREIGN.match(one["apiVersion"]):
            kubernetes_validate.validate(one, version, strict=True)


def test_a_wrong_field_would_be_seen() -> None:
    (wrong,) = documents(MANIFESTS / "base" / "deployment.yaml")
    wrong["spec"]["template"]["spec"]["containers"][0]["redinessProbe"] = {}
    with pytest.raises(kubernetes_validate.ValidationError):
        kubernetes_validate.validate(wrong, VERSIONS[1], strict=True)


@pytest.mark.parametrize("overlay", TARGETS)
def test_the_example_configuration_is_one(overlay: str) -> None:
    config = load_config(MANIFESTS / "overlays" / overlay / "planner.yaml")
    assert config.connector.kind == "kubernetes"
    (pod,) = documents(MANIFESTS / "base" / "deployment.yaml")
    container = pod["spec"]["template"]["spec"]["containers"][0]
    mounts = {mount["name"]: Path(mount["mountPath"]) for mount in container["volumeMounts"]}
    assert config.profiles == (mounts["profiles"],)
    assert config.service.journal.parent == mounts["state"]
    assert container["ports"] == [{"name": "http", "containerPort": config.service.port}]
    graph = documents(MANIFESTS / "overlays" / overlay / "graph.yaml")
    components = {pool for one in graph for pool in _pools(one)}
    assert components == set(config.pools)
    named = {one["metadata"].get("labels", {}).get("plimsoll.io/graph", one["metadata"]["name"]) for one in graph}
    assert named == {config.graph}


def _pools(one: Object) -> set[str]:
    """Names of worker components in an object."""
    if one["kind"] == "DynamoGraphDeployment":
        return {name for name, service in one["spec"]["services"].items() if service["componentType"] == "worker"}
    text = yaml.safe_dump(one)
    return {name for name in re.findall(r"plimsoll\.io/pool: (\w+)", text) if name != "Frontend"}


def test_the_role_and_the_graph_are_those_that_follow(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(MANIFESTS))
    import render  # noqa: PLC0415

    stale = [str(path) for path, text in render.written() if path.read_text(encoding="utf-8") != text]
    sys.modules.pop("render")
    assert not stale, "python manifests/render.py"


# The profiling Job.


def job() -> Object:
    (found,) = [one for one in documents(MANIFESTS / "profiling-job.yaml") if one["kind"] == "Job"]
    return found


def container() -> dict[str, Any]:
    return dict(job()["spec"]["template"]["spec"]["containers"][0])


def test_each_index_has_a_layout_that_its_pod_has_gpus_for() -> None:
    layouts = [parse_layout(text.partition("=")[2]) for text in container()["args"] if text.startswith("--layout=")]
    spec = job()["spec"]
    assert (spec["completions"], spec["completionMode"]) == (len(layouts), "Indexed")
    assert spec["maxFailedIndexes"] == spec["completions"], "one failed index must not end the others"
    assert max(layout.gpus for layout in layouts) == int(container()["resources"]["limits"]["nvidia.com/gpu"])


def test_the_jobs_arguments_are_the_profilers(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """They are read as far as the machine, which has no GPU here."""
    monkeypatch.setenv("JOB_COMPLETION_INDEX", "1")
    arguments = [text.replace("=/results", f"={tmp_path}") for text in container()["args"]]
    said = CliRunner().invoke(app, ["run", *arguments])
    assert said.exit_code != 2 or "No such option" not in said.output, said.output
    assert "--gpu" in str(said.exception) or "GPU" in str(said.exception) or "nvidia-smi" in str(said.exception)


def test_its_rights_are_two_config_maps_by_name() -> None:
    by_kind = {one["kind"]: one for one in documents(MANIFESTS / "profiling-job.yaml")}
    names = {name for rule in by_kind["Role"]["rules"] for name in rule["resourceNames"]}
    made = {o["metadata"]["name"] for o in documents(MANIFESTS / "profiling-job.yaml") if o["kind"] == "ConfigMap"}
    used = {text.partition("=")[2] for text in container()["args"] if "configmap=" in text}
    assert names == made == used


# The image.


def test_the_image_is_made_by_the_steps_and_nothing_else() -> None:
    text = (MANIFESTS / "image" / "Containerfile").read_text(encoding="utf-8")
    runs = re.findall(r"^RUN (.+)$", text, flags=re.MULTILINE)
    assert [run.split()[:2] for run in runs] == [
        ["/steps.sh", verb] for verb in ("wheel", "install", "strip", "check", "profiler")
    ]
    verbs = re.findall(
        r"^  (\w+)\) ", (MANIFESTS / "image" / "steps.sh").read_text(encoding="utf-8"), flags=re.MULTILINE
    )
    assert verbs == [run.split()[1] for run in runs]
    copied = re.findall(r"^COPY (?!--from)(.+) \S+$", text, flags=re.MULTILINE)
    for source in " ".join(copied).split():
        assert (ROOT / source).exists(), source


def test_the_image_and_the_pod_agree() -> None:
    text = (MANIFESTS / "image" / "Containerfile").read_text(encoding="utf-8")
    (deployment,) = documents(MANIFESTS / "base" / "deployment.yaml")
    pod = deployment["spec"]["template"]["spec"]
    planner = text[text.index("AS planner") :]
    security = pod["securityContext"]
    assert f"USER {security['runAsUser']}:{security['runAsGroup']}" in planner
    assert f"WORKDIR {pod['containers'][0]['workingDir']}" in planner
    assert f"EXPOSE {pod['containers'][0]['ports'][0]['containerPort']}" in planner
    assert "HEALTHCHECK NONE" in planner
    words = [*pod["containers"][0]["command"], *pod["containers"][0]["args"]]
    assert f"CMD {json.dumps(words)}" in planner
