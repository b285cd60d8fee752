"""The graphs that are installed, one for each kind of objects that the planner scales."""

from __future__ import annotations

import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from planner.demo.settings import DECODE, MODEL, PREFILL, bundled_profiles
from worker_graph.kubernetes import drain
from worker_graph.kubernetes.options import RenderOptions, Target
from worker_graph.kubernetes.render import render
from worker_graph.spec import GraphSpec, load_graph

Object = dict[str, Any]

ROOT = Path(__file__).parents[3]

#: Name of every graph: the Roles of manifests/ name objects of this graph.
GRAPH = "vllm-disagg"

#: The engines' seconds per second of wall time.
SPEED_UP = 5.0

#: Longest drain of a worker for Dynamo's operator, s.
_DRAIN_S = 60

#: Measured in several layouts.
_MEASURED = ROOT / "profiling_results" / "llama-3.1-8b-instruct" / "h200-sxm" / "vllm-0.26.0"

#: Kinds that the old API server of the tests does not serve in the version that is rendered.
_NOT_SERVED = {("policy/v1", "PodDisruptionBudget")}


@dataclass(frozen=True)
class Kind:
    """One way to run a graph.

    Attributes:
        name: of the way, and of the overlay whose Role the planner gets.
        overlay: folder of manifests/overlays.
        operators: of `tests.kubernetes.operators` that it needs.
        gpus: of one worker, by pool.
        profiles: folders of measured profiles, by pool; with {tp} for the engine's tensor-parallel size.
        connector: the section connector.kubernetes of the planner's configuration.
        budget: GPUs that the planner may spend.
        spread: whether each GPU of a worker is on a node of its own.
    """

    name: str
    overlay: str
    operators: tuple[str, ...]
    gpus: Mapping[str, int]
    profiles: Mapping[str, Path]
    connector: Object
    budget: int
    spread: bool = False

    def objects(self, namespace: str) -> list[Object]:
        """The graph's objects."""
        return _MAKERS[self.name](self, namespace)


def _bundled(role: str) -> Path:
    return bundled_profiles() / "h200-sxm" / "vllm-unknown" / f"{role}-tp1-dp1"


_BUNDLED = {PREFILL: _bundled("prefill"), DECODE: _bundled("decode")}
_DGD = {"graph": {"kind": "DynamoGraphDeployment", "name": GRAPH}}
KINDS = {
    one.name: one
    for one in (
        Kind("deployments", "kubernetes", (), {PREFILL: 1, DECODE: 1}, _BUNDLED, {}, 5),
        Kind("dgd-v1alpha1", "dynamo", ("dynamo-v1alpha1",), {PREFILL: 1, DECODE: 1}, _BUNDLED, _DGD, 5),
        Kind("dgd-v1beta1-adapters", "dynamo", ("dynamo-v1beta1",), {PREFILL: 1, DECODE: 1}, _BUNDLED, _DGD, 5),
        Kind(
            "leader-worker-sets", "lws", ("leaderworkerset",), {PREFILL: 1, DECODE: 2},
            {PREFILL: _MEASURED / "prefill-tp1-dp1", DECODE: _MEASURED / "decode-tp2-dp1"}, {}, 8, True,
        ),
    )
}  # fmt: skip

#: Deployments, whose decode workers begin with TP2 on one node and may have another layout later.
CHANGING = Kind(
    "deployments", "kubernetes", (), {PREFILL: 1, DECODE: 2},
    {PREFILL: _MEASURED / "prefill-tp1-dp1", DECODE: _MEASURED / "decode-tp{tp}-dp1"}, {}, 6,
)  # fmt: skip


def _worker(role: str, tp: int, nodes: int) -> Object:
    flags = ["--tensor-parallel-size", str(tp)] if tp > 1 else []
    return {
        "componentType": "worker",
        "subComponentType": role,
        "replicas": 1,
        "resources": {"limits": {"gpu": str(tp // nodes)}},
        **({"multinode": {"nodeCount": nodes}} if nodes > 1 else {}),
        "extraPodSpec": {
            "mainContainer": {
                "image": "vllm/vllm-openai",
                "command": ["python3", "-m", "dynamo.vllm"],
                "args": ["--model", MODEL, f"--is-{role}-worker", *flags],
            }
        },
    }


def graph_of(kind: Kind) -> Object:
    """The graph as its author writes it, v1alpha1."""
    services = {
        "Frontend": {"componentType": "frontend", "replicas": 1},
        **{role: _worker(role, tp=gpus, nodes=gpus if kind.spread else 1) for role, gpus in kind.gpus.items()},
    }
    return {
        "apiVersion": "nvidia.com/v1alpha1",
        "kind": "DynamoGraphDeployment",
        "metadata": {"name": GRAPH},
        "spec": {"services": services},
    }


def _read(graph: Object) -> GraphSpec:
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / f"{GRAPH}.yaml"
        file.write_text(yaml.safe_dump(graph, sort_keys=False), encoding="utf-8")
        return load_graph(file)


def _rendered(kind: Kind, namespace: str, target: Target) -> list[Object]:
    made = render(_read(graph_of(kind)), target, RenderOptions(namespace=namespace, startup_timeout_s=60.0))
    objects = [one for one in made if (one["apiVersion"], one["kind"]) not in _NOT_SERVED]
    for one in objects:
        for template in _templates(one):
            _annotate(template, kind)
    return objects


def _templates(body: Object) -> list[Object]:
    """Pod templates of an object."""
    spec = body.get("spec", {})
    groups = spec.get("leaderWorkerTemplate", {})
    found = [spec.get("template"), groups.get("leaderTemplate"), groups.get("workerTemplate")]
    return [one for one in found if isinstance(one, dict) and "spec" in one]


def _annotate(template: Object, kind: Kind) -> None:
    """Tell the fake kubelet what runs in the pod: the gateway's own command, or a simulated engine."""
    meta = template.setdefault("metadata", {})
    labels, annotations = meta.get("labels", {}), meta.setdefault("annotations", {})
    role = labels.get("plimsoll.io/role", "")
    if role == "gateway":
        annotations |= run_here(template["spec"]["containers"][0])
    elif labels.get("plimsoll.io/serves") == "true":
        annotations |= engine(role, kind)


def run_here(container: Object) -> dict[str, str]:
    """Annotations for a gateway that runs on this machine; it binds its pod's address, for all pods share one host."""
    container.setdefault("env", []).insert(
        0, {"name": "POD_IP", "valueFrom": {"fieldRef": {"fieldPath": "status.podIP"}}}
    )
    container["args"] = [word.replace("0.0.0.0", "$(POD_IP)") for word in container["args"]]  # noqa: S104
    return {"plimsoll.test/exec": "true"}


def engine(role: str, kind: Kind) -> dict[str, str]:
    """Annotations of a worker: the simulated engine with the pool's profile, whose pod's preStop is done."""
    wishes = {
        "engine": "simulated",
        "engine-role": role,
        "engine-profile": ",".join(str(one) for one in kind.profiles.values()),
        "engine-model": MODEL,
        "engine-speed-up": f"{SPEED_UP:g}",
        "ready-delay-s": "1",
        "pre-stop": "true",
    }
    return {f"plimsoll.test/{name}": value for name, value in wishes.items()}


def _deployments(kind: Kind, namespace: str) -> list[Object]:
    return _rendered(kind, namespace, Target.KUBERNETES)


def _leader_worker_sets(kind: Kind, namespace: str) -> list[Object]:
    return _rendered(kind, namespace, Target.LWS)


def _dynamo(kind: Kind, namespace: str) -> list[Object]:
    """The graph for the operator, with the gateway in the place of Dynamo's frontend, and its right to watch pods.

    The workers have the preStop of rendered ones, as `planner doctor` asks for: without it an engine that nobody uses
    ends at once, a second or so before the gateway's watch of the pods has taken it out, and what is sent to it until
    then is lost.
    """
    graph = graph_of(kind)
    kinds = {role: f"nvidia.com/dynamo-sub-component-type={role}" for role in kind.gpus}
    services = graph["spec"]["services"]
    beta = kind.name == "dgd-v1beta1-adapters"
    if beta:
        kinds = {role: f"nvidia.com/dynamo-component-type={role}" for role in kind.gpus}
    command = [
        "--host", "$(POD_IP)", "--port", "8000", "--prometheus-host", "$(POD_IP)", "--prometheus-port", "29000",
        "--policy", "least_load", "--disable-worker-overload-protection", "--queue-size", "100000",
        "--queue-timeout-secs", "600", "--max-concurrent-requests", "0", "--log-level", "warn",
        "--service-discovery", "--service-discovery-namespace", namespace, "--service-discovery-port", "8000",
        "--pd-disaggregation", "--prefill-selector", kinds[PREFILL], "--decode-selector", kinds[DECODE],
    ]  # fmt: skip
    main = {
        "image": "smg",
        "command": ["smg", "launch"],
        "args": command,
        "ports": [{"name": "http", "containerPort": 8000}, {"name": "metrics", "containerPort": 29000}],
        "readinessProbe": {"httpGet": {"path": "/liveness", "port": "http"}, "periodSeconds": 1},
    }
    annotations = run_here(main)
    services["Frontend"] |= {"extraPodSpec": {"mainContainer": main}, "extraPodMetadata": {"annotations": annotations}}
    for role in kind.gpus:
        service = services[role]
        service["extraPodMetadata"] = {"annotations": engine(role, kind)}
        container = service["extraPodSpec"]["mainContainer"]
        container["ports"] = [{"name": "http", "containerPort": 8000}]
        container["lifecycle"] = {"preStop": drain.hook(_DRAIN_S)}
        service["extraPodSpec"]["terminationGracePeriodSeconds"] = _DRAIN_S + drain.STOP_S
    if beta:
        options = RenderOptions(namespace=namespace, api_version="v1beta1")
        graph = render(_read(graph), Target.DYNAMO, options)[-1]
        for component in graph["spec"]["components"]:
            if component["name"] in kind.gpus:
                component["scalingAdapter"] = {}
    name = {"name": "gateway", "namespace": namespace}
    rbac = "rbac.authorization.k8s.io"
    return [
        {
            "apiVersion": f"{rbac}/v1", "kind": "Role", "metadata": name,
            "rules": [{"apiGroups": [""], "resources": ["pods"], "verbs": ["list", "watch"]}],
        },
        {
            "apiVersion": f"{rbac}/v1", "kind": "RoleBinding", "metadata": name,
            "roleRef": {"apiGroup": rbac, "kind": "Role", "name": "gateway"},
            "subjects": [{"kind": "ServiceAccount", "name": "default", "namespace": namespace}],
        },
        {**graph, "metadata": {**graph["metadata"], "namespace": namespace}},
    ]  # fmt: skip


_MAKERS = {
    "deployments": _deployments,
    "leader-worker-sets": _leader_worker_sets,
    "dgd-v1alpha1": _dynamo,
    "dgd-v1beta1-adapters": _dynamo,
}
