"""The same graphs in both versions, as data, and a way to read them."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import yaml

from worker_graph.spec import GraphSpec, load_graph

Data = dict[str, Any]


def worker(args: list[str], *, gpus: str = "1", sub: str | None = None, replicas: int = 1) -> Data:
    """A worker of v1alpha1."""
    service: Data = {
        "componentType": "worker",
        "replicas": replicas,
        "envFromSecret": "hf-token-secret",
        "envs": [{"name": "OMP_NUM_THREADS", "value": "4"}],
        "resources": {"limits": {"gpu": gpus}},
        "extraPodSpec": {
            "mainContainer": {
                "image": "vllm-runtime:1",
                "command": ["python3", "-m", "dynamo.vllm"],
                "args": ["--model", "m", *args],
            }
        },
    }
    if sub is not None:
        service["subComponentType"] = sub
    return service


def alpha(services: Data | None = None) -> Data:
    """A graph of v1alpha1, by default with a frontend, a prefill and a decode worker."""
    if services is None:
        services = {
            "VllmPrefillWorker": worker(["--is-prefill-worker"], sub="prefill", replicas=2),
            "VllmDecodeWorker": worker(["--is-decode-worker"], sub="decode", replicas=3),
        }
    return {
        "apiVersion": "nvidia.com/v1alpha1",
        "kind": "DynamoGraphDeployment",
        "metadata": {"name": "graph"},
        "spec": {"services": {"Frontend": {"componentType": "frontend", "replicas": 1}, **copy.deepcopy(services)}},
    }


def as_beta(graph: Data) -> Data:
    """The same graph in v1beta1."""
    components = []
    for name, service in graph["spec"]["services"].items():
        component: Data = {"name": name, "type": service.get("subComponentType") or service["componentType"]}
        for key in ("replicas", "multinode"):
            if key in service:
                component[key] = service[key]
        main: Data = {"name": "main", **service.get("extraPodSpec", {}).get("mainContainer", {})}
        if "envs" in service:
            main["env"] = service["envs"]
        if "envFromSecret" in service:
            main["envFrom"] = [{"secretRef": {"name": service["envFromSecret"]}}]
        if "resources" in service:
            main["resources"] = {
                part: {"nvidia.com/gpu": amounts["gpu"]} for part, amounts in service["resources"].items()
            }
        component["podTemplate"] = {"spec": {"containers": [{"name": "sidecar", "image": "s"}, main]}}
        components.append(component)
    spec: Data = {"components": components}
    if "envs" in graph["spec"]:
        spec["env"] = graph["spec"]["envs"]
    return {**graph, "apiVersion": "nvidia.com/v1beta1", "spec": spec}


def read(folder: Path, *documents: Any) -> GraphSpec:
    """Write documents to a file and load the graph in it."""
    path = folder / "graph.yaml"
    path.write_text(yaml.safe_dump_all(documents, sort_keys=False))
    return load_graph(path)
