"""The profiling Job on a real control plane: its pods' commands run, on simulated engines, under its own rights."""

from __future__ import annotations

import copy
import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from kubernetes import client, dynamic

from profiler.folders import load_profiles
from tests.kubernetes.cluster import Cluster
from tests.kubernetes.nodes import Node
from tests.manifests import MANIFESTS, ROOT, Object, documents
from tests.servers import wait_until
from tests.unit.profiler.gather.mounting import mount

HERE = Path(__file__).parent
TRUTH = ROOT / "profiling_results" / "llama-3.1-8b-instruct-fp8" / "h200-sxm" / "vllm-unknown"
PROFILES, STATE = "plimsoll-profiles", "plimsoll-profiling"
#: What a machine without GPUs and a test of a minute need otherwise.
CHANGED = {
    # TP 4 has a quarter of the seconds; enough on a machine that has other things to do.
    "--max-gpu-minutes": "1.0",
    "--max-error": "0.3",
    "--tables": "prefill,decode",
    "--outcome-file": "/results/outcome-$(JOB_COMPLETION_INDEX)",
    "--gpu": "cpu",
    "--vllm": str(HERE / "vllm_serve.sh"),
    "--max-num-seqs": "4",
    "--max-model-len": "1024",
    "--longest-isl": "900",
}


def job_here(found: Object, shared: Path) -> Object:
    """The Job with the commands of its pods run on this machine, and a folder for the volume that they share."""
    made = copy.deepcopy(found)
    template = made["spec"]["template"]
    template["metadata"]["annotations"] = {
        "plimsoll.test/exec": "true",
        "plimsoll.test/indexed": "true",
        "plimsoll.test/volume-results": str(shared),
    }
    container = template["spec"]["containers"][0]
    kept = [word for word in container["args"] if word.partition("=")[0] not in CHANGED]
    container["args"] = kept + [f"{name}={value}" for name, value in CHANGED.items()]
    container["env"] += [{"name": "TRUTH", "value": str(TRUTH)}, {"name": "PYTHONPATH", "value": str(ROOT)}]
    return made


@pytest.fixture
def shared(api: client.ApiClient, namespace: str, tmp_path: Path) -> Iterator[Path]:
    """A volume for the claim, which several nodes share."""
    core, folder = client.CoreV1Api(api), tmp_path / "shared"
    folder.mkdir()
    core.create_persistent_volume(
        {
            "metadata": {"name": namespace},
            "spec": {
                "capacity": {"storage": "5Gi"},
                "accessModes": ["ReadWriteMany"],
                "hostPath": {"path": str(folder)},
                "claimRef": {"namespace": namespace, "name": STATE},
            },
        }
    )
    yield folder
    core.delete_persistent_volume(namespace)


def test_a_failed_index_does_not_lose_the_others_and_a_pod_that_is_ended_is_gone_on_with(
    control_plane: Cluster, kubelet: Callable[..., Any], api: client.ApiClient, namespace: str, shared: Path,
    tmp_path: Path,
) -> None:  # fmt: skip
    running = kubelet(Node("gpu-a", 8), Node("gpu-b", 8))
    core = client.CoreV1Api(api)
    resources = dynamic.DynamicClient(api).resources
    for one in documents(MANIFESTS / "profiling-job.yaml"):
        body = job_here(one, shared) if one["kind"] == "Job" else one
        resources.get(api_version=body["apiVersion"], kind=body["kind"]).create(body=body, namespace=namespace)

    def data(name: str) -> dict[str, str]:
        return dict(core.read_namespaced_config_map(name, namespace).data or {})

    def phase(layout: str) -> str:
        return str(json.loads(data(STATE).get(layout, "{}")).get("phase", ""))

    def pods() -> list[Any]:
        return list(core.list_namespaced_pod(namespace, label_selector="app.kubernetes.io/component=profiler").items)

    def logs() -> str:
        return "\n".join(
            f"== {pod.metadata.name} {pod.status.phase}\n{running.log(namespace, pod.metadata.name, 'profiler')}"
            for pod in pods()
            if (running.folder / "pods" / namespace / pod.metadata.name / "profiler.log").exists()
        )

    def until(true: Callable[[], bool], what: str) -> None:
        try:
            wait_until(true, what, timeout_s=240.0)
        except (AssertionError, TimeoutError) as error:
            raise AssertionError(f"{error}\n{logs()}\n{data(STATE)}") from None

    # One pod is drained away in the middle of its samples.
    until(lambda: phase("tp1") == "sampling", "tp1 is measured")
    journal = next(shared.glob(".run-*-tp1"))
    until(lambda: _samples(journal) >= 2, "two samples")
    before = _samples(journal)
    annotation = "batch.kubernetes.io/job-completion-index"
    (first,) = [pod for pod in pods() if (pod.metadata.annotations or {}).get(annotation) == "0"]
    core.delete_namespaced_pod(first.metadata.name, namespace)

    until(lambda: {"decode-tp1-dp1.profile.json", "decode-tp4-dp1.profile.json"} <= set(data(PROFILES)), "profiles")
    until(lambda: (phase("tp1"), phase("tp2"), phase("tp4")) == ("done", "failed", "done"), "every layout's state")
    assert _samples(journal) > before
    assert json.loads((shared / "outcome-0").read_text())["layouts"][0]["outcome"] == "done"
    failed = json.loads((shared / "outcome-1").read_text())
    assert (failed["exit_code"], failed["layouts"][0]["outcome"]) == (3, "failed")
    assert "out of memory" in failed["layouts"][0]["reason"]

    # What the planner's pod mounts of it.
    gathered = data(PROFILES)
    assert not any("tp2" in key for key in gathered)
    (deployment,) = documents(MANIFESTS / "base" / "deployment.yaml")
    volumes = deployment["spec"]["template"]["spec"]["volumes"]
    items = next(volume["configMap"]["items"] for volume in volumes if volume["name"] == "profiles")
    there = [item for item in items if item["key"] in gathered]
    mounted = load_profiles([mount(tmp_path / "mounted", gathered, there)], field="profiles")
    assert {(one.meta.role, one.meta.tp) for one in mounted} == {("prefill", 1), ("decode", 1)}

    _its_rights_end_at_its_config_maps(control_plane, namespace, shared)


def _samples(folder: Path) -> int:
    return sum(file.read_text().count('"kind": "sample"') for file in folder.glob("samples-*.jsonl"))


def _its_rights_end_at_its_config_maps(control_plane: Cluster, namespace: str, shared: Path) -> None:
    kubeconfig = control_plane.kubeconfig_for_service_account(namespace, "plimsoll-profiler")

    def gather(name: str) -> subprocess.CompletedProcess[str]:
        folder = next(shared.glob("llama*"))
        words = ["gather", str(folder), "--configmap", name, "--apply", "--output", "json"]
        env = {**os.environ, "KUBECONFIG": str(kubeconfig), "PYTHONPATH": str(ROOT)}
        return subprocess.run(
            [sys.executable, "-m", "profiler", *words], env=env, cwd=ROOT, capture_output=True, text=True, check=False
        )

    again = gather(PROFILES)
    assert again.returncode == 0, again.stderr
    assert json.loads(again.stdout)["applied"] is True
    other = gather("another")
    assert other.returncode == 3
    assert "403" in other.stderr
    assert f"ConfigMap {namespace}/another cannot be read" in other.stderr
