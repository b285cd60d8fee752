"""Pools that are one object each, of any kind with a scale subresource: Deployments, LeaderWorkerSets, and others."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from planner.connectors.kubernetes.cluster import Cluster
from planner.connectors.kubernetes.errors import ForbiddenError, NotFoundError
from planner.connectors.kubernetes.resources import DEPLOYMENTS, LEADER_WORKER_SETS, STATEFUL_SETS, Resource
from planner.connectors.kubernetes.settings import PoolObject
from planner.connectors.kubernetes.target import PoolTarget, Target
from planner.connectors.kubernetes.targets.discovery import MismatchError, find_resource
from planner.connectors.kubernetes.targets.grove import GROVE_KINDS, GrovePools
from planner.connectors.kubernetes.targets.seen import SeenPool, by_pool, group_of
from planner.connectors.kubernetes.targets.shapes import seen_pool
from planner.connectors.kubernetes.targets.writing import ScaleWriter
from worker_graph.kubernetes import labels as names

_Object = Mapping[str, Any]
_PLAIN = (DEPLOYMENTS, STATEFUL_SETS, LEADER_WORKER_SETS)


class ScaleTarget(Target):
    """Writes each pool through the scale subresource of its object, one request per pool that changes."""

    atomic = False

    def __init__(self, writer: ScaleWriter) -> None:
        self._writer = writer

    def write(self, replicas: Mapping[str, int], seen: Sequence[PoolTarget]) -> None:
        """Ask for these workers by pool, in the order given; a pool that has as many stays untouched."""
        pools = by_pool(seen)
        for pool, wanted in replicas.items():
            if pools[pool].desired != wanted:
                self._writer.write(pools[pool], wanted)

    def worker_of(self, pod: _Object, target: PoolTarget) -> str:
        """The group's name for a pod of a group, else the pod's own."""
        return group_of(pod) if target.pods_per_worker > 1 else super().worker_of(pod, target)


class NamedObjects(ScaleTarget):
    """The objects that the configuration names, by pool; one list for each kind that there is.

    Args:
        cluster: the API server.
        objects: by pool.
        writer: for the replicas.
    """

    def __init__(self, cluster: Cluster, objects: Mapping[str, PoolObject], writer: ScaleWriter) -> None:
        super().__init__(writer)
        self._cluster, self._objects = cluster, objects
        self._resources: dict[str, Resource] = {}
        self._selectors: dict[str, Mapping[str, str]] = {}
        self._grove = GrovePools(cluster)

    def read(self) -> Sequence[PoolTarget]:
        """All pools, in the order of the configuration."""
        found: dict[str, SeenPool] = {}
        for kind in {one.kind for one in self._objects.values()}:
            if kind not in self._resources:
                self._resources[kind] = find_resource(self._cluster, kind)
            wanted = {pool: one for pool, one in self._objects.items() if one.kind == kind}
            found.update(self._read_kind(self._resources[kind], wanted))
        return [found[pool] for pool in self._objects]

    def _read_kind(self, resource: Resource, wanted: Mapping[str, PoolObject]) -> dict[str, SeenPool]:
        only = {one.name for one in wanted.values()}
        fields = f"metadata.name={next(iter(only))}" if len(only) == 1 else ""
        there = {str(one["metadata"]["name"]): one for one in self._cluster.list(resource, fields=fields).items}
        missing = [one.name for one in wanted.values() if one.name not in there]
        if missing:
            raise NotFoundError(f"namespace {self._cluster.namespace} has no {resource.kind} {', '.join(missing)}")
        if resource in GROVE_KINDS:
            pools = {pool: there[one.name] for pool, one in wanted.items()}
            gpus = {pool: one.gpus_per_worker for pool, one in wanted.items()}
            return self._grove.read(resource, pools, gpus)
        return {pool: self._seen(pool, resource, there[one.name], one) for pool, one in wanted.items()}

    def _seen(self, pool: str, resource: Resource, thing: _Object, one: PoolObject) -> SeenPool:
        if resource in _PLAIN:
            return seen_pool(pool, resource, thing, gpus=one.gpus_per_worker)
        # Any other kind says only through its scale subresource which pods are its, and where its replicas stand.
        # The labels do not change, so that they are asked for once; the replicas stand nearly always in the spec.
        stated = (thing.get("spec") or {}).get("replicas")
        if one.name not in self._selectors or not isinstance(stated, int):
            scale = self._cluster.read(resource, one.name, "scale")
            stated = int((scale.get("spec") or {}).get("replicas", 0))
            selector = _equalities(str((scale.get("status") or {}).get("selector") or ""))
            if selector:
                self._selectors[one.name] = selector
        labels = self._selectors.get(one.name)
        return seen_pool(pool, resource, thing, selector=labels, replicas=stated, gpus=one.gpus_per_worker)


class LabelledObjects(ScaleTarget):
    """Deployments and LeaderWorkerSets with the graph's label, each the pool that its label names: two lists.

    Two objects of one pool with different layouts are a change of layout that goes on: the older one keeps the pool's
    name, the other is `<pool>-<layout>`.

    Args:
        cluster: the API server.
        graph: name of the graph.
        pools: names of the pools that have to be there.
        writer: for the replicas.
    """

    def __init__(self, cluster: Cluster, graph: str, pools: Sequence[str], writer: ScaleWriter) -> None:
        super().__init__(writer)
        self._cluster, self._graph, self._pools = cluster, graph, pools
        self._kinds = [DEPLOYMENTS, LEADER_WORKER_SETS]
        # Kinds that may not be listed; they are asked for again only when a pool is missing.
        self._hidden: dict[Resource, ForbiddenError] = {}

    def read(self) -> Sequence[PoolTarget]:
        """All pools of the graph."""
        selector = f"{names.GRAPH}={self._graph}"
        things: dict[str, list[tuple[Resource, _Object]]] = {}
        for resource in sorted(self._kinds, key=self._hidden.__contains__):
            if resource in self._hidden and things.keys() >= set(self._pools):
                continue
            try:
                listed = self._cluster.list(resource, labels=selector).items
            except NotFoundError:
                self._kinds.remove(resource)  # not installed
                continue
            except ForbiddenError as error:
                self._hidden[resource] = error
                continue
            self._hidden.pop(resource, None)
            for thing in listed:
                labels = thing["metadata"].get("labels") or {}
                # Whoever applies the manifest again gives a retired object its label of the pool back.
                holds = names.POOL in labels and names.RETIRED not in labels
                if holds and labels.get(names.ROLE) != names.GATEWAY_ROLE:
                    things.setdefault(labels[names.POOL], []).append((resource, thing))
        missing = sorted(set(self._pools) - things.keys())
        if missing and self._hidden:
            raise next(iter(self._hidden.values()))
        if missing:
            raise NotFoundError(
                f"namespace {self._cluster.namespace} has no Deployment or LeaderWorkerSet of {' and '.join(missing)}; "
                f"expected one with the labels {selector} and {names.POOL}={missing[0]}"
            )
        return [seen for pool, those in things.items() for seen in _one_layout_each(pool, those)]


def _one_layout_each(pool: str, things: Sequence[tuple[Resource, _Object]]) -> list[SeenPool]:
    ordered = sorted(things, key=lambda one: str(one[1]["metadata"].get("creationTimestamp", "")))
    found: dict[str, SeenPool] = {}
    for resource, thing in ordered:
        seen = seen_pool(pool, resource, thing)
        layout = names.layout(*seen.layout) if seen.layout else ""
        if layout in found:
            both = f"{found[layout].resource.kind} {found[layout].object_name} and {resource.kind} {seen.object_name}"
            raise MismatchError(f"{both} both say that they are pool {pool}; give one another {names.POOL}")
        named = pool if not found else f"{pool}-{layout or seen.object_name}"
        found[layout] = seen_pool(named, resource, thing)
    return list(found.values())


def _equalities(selector: str) -> dict[str, str]:
    """The `key=value` parts of a selector; expressions such as `key in (a, b)` narrow it further and are left out."""
    parts = [part.strip().replace("==", "=").partition("=") for part in selector.split(",")]
    return {key: value for key, equals, value in parts if equals and not key.endswith("!") and " " not in key}
