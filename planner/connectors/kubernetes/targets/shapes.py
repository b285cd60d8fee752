"""What one object of a kind says of its pool: workers, pods and GPUs of each, its pods' labels."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from planner.connectors.kubernetes.ownership import claims_of, managers_of
from planner.connectors.kubernetes.resources import LEADER_WORKER_SETS, Resource
from planner.connectors.kubernetes.targets.pods import gpus_of, layout_in
from planner.connectors.kubernetes.targets.seen import GROUPS, SeenPool
from worker_graph.kubernetes import labels as names

_Object = Mapping[str, Any]


def seen_pool(
    pool: str,
    resource: Resource,
    thing: _Object,
    *,
    selector: Mapping[str, str] | None = None,
    replicas: int | None = None,
    gpus: int | None = None,
) -> SeenPool:
    """A pool that is one object.

    Args:
        pool: its name.
        resource: kind of the object.
        thing: the object.
        selector: labels of its pods, where they are known otherwise.
        replicas: what it asks for, where it is known otherwise; else its `spec.replicas`, 1 without it.
        gpus: of one worker, where the configuration says it.
    """
    meta, spec = thing["metadata"], thing.get("spec") or {}
    pods, counted, template = _group(spec) if resource == LEADER_WORKER_SETS else _single(spec)
    claims = claims_of(thing)
    return SeenPool(
        pool=pool,
        resource=resource,
        object_name=str(meta["name"]),
        desired=int(spec.get("replicas", 1)) if replicas is None else replicas,
        pods_per_worker=pods,
        gpus_per_worker=counted if gpus is None else gpus,
        layout=layout_in(template, meta.get("labels")),
        selector=_selector(resource, meta, spec) if selector is None else selector,
        managers=managers_of(claims),
        uid=str(meta.get("uid", "")),
        resource_version=str(meta.get("resourceVersion", "")),
        claims=claims,
        rival=_owner(pool, resource, meta),
    )


def graph_label(*metas: _Object) -> dict[str, str]:
    """The label of the graph, where all of these carry it with one value: pods of many objects are listed by it."""
    values = {(one.get("labels") or {}).get(names.GRAPH) for one in metas}
    graph = values.pop() if len(values) == 1 else None
    return {names.GRAPH: str(graph)} if graph else {}


def _single(spec: _Object) -> tuple[int, int | None, _Object]:
    template = spec.get("template") or {}
    pod = template.get("spec") if isinstance(template, Mapping) else None
    return 1, gpus_of(pod) if pod else None, template if pod else {}


def _group(spec: _Object) -> tuple[int, int | None, _Object]:
    """A LeaderWorkerSet: one leader and `size - 1` workers, whose template the leader shares unless it has its own."""
    shape = spec.get("leaderWorkerTemplate") or {}
    size = int(shape.get("size", 1))
    worker = shape.get("workerTemplate") or {}
    leader = shape.get("leaderTemplate") or worker
    first, others = gpus_of(leader.get("spec") or {}), gpus_of(worker.get("spec") or {})
    if first is None or (others is None and size > 1):
        return size, None, leader
    return size, first + (size - 1) * (others or 0), leader


def _selector(resource: Resource, meta: _Object, spec: _Object) -> Mapping[str, str]:
    if resource == LEADER_WORKER_SETS:
        shape = spec.get("leaderWorkerTemplate") or {}
        templates = [shape[key] for key in ("leaderTemplate", "workerTemplate") if shape.get(key)]
        return {GROUPS[0][0]: str(meta["name"]), **graph_label(*(one.get("metadata") or {} for one in templates))}
    wanted = spec.get("selector") or {}
    matched = wanted.get("matchLabels")
    if matched and not wanted.get("matchExpressions"):
        return dict(matched)
    # Expressions cannot be written as labels; those of the template are what the pods have.
    template = (spec.get("template") or {}).get("metadata") or {}
    return dict(template.get("labels") or {})


def _owner(pool: str, resource: Resource, meta: _Object) -> str:
    """Words for an object that belongs to another one, whose controller sets its replicas again; empty otherwise."""
    for owner in meta.get("ownerReferences") or ():
        if owner.get("controller") and not str(owner.get("apiVersion", "")).startswith("grove.io/"):
            whose = f"{owner.get('kind')} {owner.get('name')}"
            what = f"{resource.kind} {meta['name']}"
            return f"{what} belongs to {whose}, whose controller sets its replicas: name that one for pool {pool}"
    return ""
