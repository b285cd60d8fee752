"""Graphs of the overlays' names, one for each kind of objects, small enough to be made and scaled within a second."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from planner.connectors.kubernetes import resources
from planner.connectors.kubernetes.resources import Resource
from planner.service.config import ServiceConfig

OVERLAYS = Path(__file__).parents[3] / "manifests" / "overlays"
PREFILL, DECODE = "VllmPrefillWorker", "VllmDecodeWorker"
ROLES = {PREFILL: "prefill", DECODE: "decode"}
Object = dict[str, Any]


def config_of(overlay: str) -> ServiceConfig:
    """The planner's configuration in an overlay."""
    return ServiceConfig.model_validate(yaml.safe_load((OVERLAYS / overlay / "planner.yaml").read_text("utf-8")))


def role_of(overlay: str) -> Object:
    """The Role of an overlay."""
    loaded: Object = yaml.safe_load((OVERLAYS / overlay / "role.yaml").read_text("utf-8"))
    return loaded


@dataclass(frozen=True)
class Graph:
    """A graph.

    Attributes:
        name: of the kind, for people.
        overlay: whose Role and configuration its planner has.
        definitions: of `tests.kubernetes.crds` that it needs.
        objects: makes its objects from the graph's name: kind, and body without it.
        layouts: pools whose layout can be changed.
        operators: of `tests.kubernetes.operators` that make its pods.
    """

    name: str
    overlay: str
    definitions: tuple[str, ...]
    objects: Callable[[str], Iterator[tuple[Resource, Object]]]
    layouts: tuple[str, ...] = ()
    operators: tuple[str, ...] = ()


def engine(tp: int = 1) -> Object:
    """The container of a worker."""
    limits = {"nvidia.com/gpu": str(tp)}
    args = ["--tensor-parallel-size", str(tp)]
    return {"name": "main", "image": "vllm:1", "args": args, "resources": {"limits": limits}}


def labels(graph: str, pool: str) -> dict[str, str]:
    """Of a worker's object and pod."""
    given = {"graph": graph, "pool": pool, "role": ROLES[pool], "layout": "tp1-dp1"}
    return {f"plimsoll.io/{key}": value for key, value in given.items()}


def deployment(name: str, pods: dict[str, str], replicas: int = 1, meta: dict[str, str] | None = None) -> Object:
    """A Deployment whose pods have these labels; it has them, too, unless it is given others."""
    template = {"metadata": {"labels": pods}, "spec": {"containers": [engine()]}}
    return {
        "metadata": {"name": name, "labels": pods if meta is None else meta},
        "spec": {"replicas": replicas, "selector": {"matchLabels": pods}, "template": template},
    }


def name_of(graph: str, pool: str) -> str:
    """Of a pool's object."""
    return f"{graph}-{pool.lower()}"


def deployments(graph: str) -> Iterator[tuple[Resource, Object]]:
    for pool in ROLES:
        yield resources.DEPLOYMENTS, deployment(name_of(graph, pool), labels(graph, pool))


def groups(graph: str) -> Iterator[tuple[Resource, Object]]:
    """Prefill workers of one node, decode workers that are groups (of one pod, whose layout can be changed)."""
    yield resources.DEPLOYMENTS, deployment(name_of(graph, PREFILL), labels(graph, PREFILL))
    mine = labels(graph, DECODE)
    shape = {"size": 1, "workerTemplate": {"metadata": {"labels": mine}, "spec": {"containers": [engine()]}}}
    body = {"metadata": {"name": name_of(graph, DECODE), "labels": mine}}
    yield resources.LEADER_WORKER_SETS, {**body, "spec": {"replicas": 1, "leaderWorkerTemplate": shape}}


def cliques(graph: str) -> Iterator[tuple[Resource, Object]]:
    """A PodCliqueSet with what its operator makes of it: a clique, and a scaling group of two."""

    def clique(name: str, pool: str) -> Object:
        spec = {"roleName": name, "replicas": 1, "minAvailable": 1, "podSpec": {"containers": [engine()]}}
        return {"name": name, "labels": labels(graph, pool), "spec": spec}

    alone, group = PREFILL.lower(), DECODE.lower()
    members = [clique(f"{group}-{part}", DECODE) for part in ("ldr", "wkr")]
    scaled = {"replicas": 1, "minAvailable": 1, "cliqueNames": [one["name"] for one in members]}
    template = {
        "cliques": [clique(alone, PREFILL), *members],
        "podCliqueScalingGroups": [{"name": group, **scaled}],
    }
    yield resources.POD_CLIQUE_SETS, {"metadata": {"name": graph}, "spec": {"replicas": 1, "template": template}}
    part_of = {"app.kubernetes.io/part-of": graph}
    made = clique(alone, PREFILL)
    meta = {"name": f"{graph}-0-{alone}", "labels": {**made["labels"], **part_of}}
    yield resources.POD_CLIQUES, {"metadata": meta, "spec": made["spec"]}
    yield (
        resources.POD_CLIQUE_SCALING_GROUPS,
        {
            "metadata": {"name": f"{graph}-0-{group}", "labels": part_of},
            "spec": scaled,
        },
    )


def dynamo(version: str, *adapted: str, alone: bool = False) -> Callable[[str], Iterator[tuple[Resource, Object]]]:
    """A graph of the Dynamo operator, with the Deployments and the scaling adapters that it makes.

    Args:
        version: of its API.
        adapted: components with a scaling adapter.
        alone: the graph without what the operator makes of it.
    """
    beta = version == "v1beta1"

    def component(pool: str) -> Object:
        if beta:
            template = {"spec": {"containers": [engine()]}}
            more: Object = {"scalingAdapter": {}} if pool in adapted else {}
            return {"name": pool, "type": ROLES[pool], "replicas": 1, "podTemplate": template, **more}
        more = {"scalingAdapter": {"enabled": True}} if pool in adapted else {}
        return {
            "componentType": "worker", "subComponentType": ROLES[pool], "replicas": 1,
            "resources": {"limits": {"gpu": "1"}},
            "extraPodSpec": {"mainContainer": {"image": "x", "args": engine()["args"]}}, **more,
        }  # fmt: skip

    def objects(graph: str) -> Iterator[tuple[Resource, Object]]:
        made = {pool: component(pool) for pool in ROLES}
        spec: Object = {"components": list(made.values())} if beta else {"services": made}
        resource = resources.DYNAMO_GRAPHS_V1BETA1 if beta else resources.DYNAMO_GRAPHS_V1ALPHA1
        yield resource, {"metadata": {"name": graph}, "spec": spec}
        if alone:
            return
        for pool in ROLES:
            own = {"nvidia.com/dynamo-graph-deployment-name": graph, "nvidia.com/dynamo-component": pool}
            # Two pods: one of them goes when the graph is scaled from two workers to one.
            yield resources.DEPLOYMENTS, deployment(name_of(graph, pool), own, 2)
        adapters = resources.SCALING_ADAPTERS_V1BETA1 if beta else resources.SCALING_ADAPTERS_V1ALPHA1
        for pool in adapted:
            ref = {"name": graph, "componentName" if beta else "serviceName": pool}
            yield adapters, {"metadata": {"name": name_of(graph, pool)}, "spec": {"replicas": 1, "dgdRef": ref}}

    return objects


def _dynamo(version: str, name: str, *adapted: str) -> Graph:
    return Graph(f"dgd-{version}-{name}", "dynamo", (f"dynamo-{version}",), dynamo(version, *adapted))


def _operated(version: str) -> Graph:
    """Its operator replaces the workers when a component's layout changes."""
    kind = f"dynamo-{version}"
    return Graph(f"dgd-{version}-layout", "dynamo", (kind,), dynamo(version, alone=True), (DECODE,), (kind,))


GRAPHS = {
    one.name: one
    for one in (
        # Where groups are installed and this planner may not list them, it asks once.
        Graph("deployments", "kubernetes", ("leaderworkerset",), deployments, (DECODE,)),
        Graph("leader-worker-sets", "lws", ("leaderworkerset",), groups, (PREFILL, DECODE), ("leaderworkerset",)),
        Graph("grove", "grove", ("grove",), cliques),
        _dynamo("v1alpha1", "plain"),
        _dynamo("v1alpha1", "adapters", PREFILL, DECODE),
        _operated("v1alpha1"),
        _dynamo("v1beta1", "plain"),
        _dynamo("v1beta1", "adapters", PREFILL, DECODE),
        _dynamo("v1beta1", "mixed", DECODE),
        _operated("v1beta1"),
    )
}
