"""An API server in memory: objects with resource versions, and no controllers."""

# ruff: noqa: ARG002 - the real one takes more arguments

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any

from planner.connectors.kubernetes.cluster import Cluster, Listing, Object
from planner.connectors.kubernetes.errors import ClusterError, ConflictError, NotFoundError
from planner.connectors.kubernetes.resources import Resource
from planner.connectors.kubernetes.target import PoolTarget, Target

Call = tuple[str, str, str]


class MemoryCluster(Cluster):
    """Of what a `Cluster` can, what the connector's own modules use.

    Attributes:
        objects: by kind and name.
        calls: verb, kind and name of each request, oldest first.
        before: called with each request before it is answered; may raise, or change objects.
        kubernetes: version of the server.
    """

    def __init__(self) -> None:
        self.namespace, self.server, self.timeout_s = "serving", "https://memory", 2.0
        self.objects: dict[tuple[str, str], Object] = {}
        self.calls: list[Call] = []
        self.before: Callable[[Call], None] = lambda _: None
        self.kubernetes = (1, 30)
        self._version = 0

    def put(self, resource: Resource, thing: Mapping[str, Any]) -> Object:
        """Store an object as somebody else does, whatever its version."""
        stored = copy.deepcopy(dict(thing))
        self._version += 1
        stored["metadata"]["resourceVersion"] = str(self._version)
        self.objects[resource.name, stored["metadata"]["name"]] = stored
        return copy.deepcopy(stored)

    def read(self, resource: Resource, name: str, subresource: str = "") -> Object:
        self._call("get", resource, name)
        return copy.deepcopy(self._found(resource, name))

    def list(self, resource: Resource, *, labels: str = "", fields: str = "") -> Listing:
        self._call("list", resource, labels)
        wanted = dict(pair.split("=") for pair in labels.split(",") if "=" in pair)
        items = [
            copy.deepcopy(one)
            for (kind, _), one in self.objects.items()
            if kind == resource.name and wanted.items() <= (one["metadata"].get("labels") or {}).items()
        ]
        return Listing(tuple(items), str(self._version))

    def version(self) -> tuple[int, int]:
        self.calls.append(("get", "version", ""))
        return self.kubernetes

    def patch(self, resource: Resource, name: str, body: Any, **options: Any) -> Object:
        self._call("patch", resource, name)
        found = self._found(resource, name)
        wanted = (body.get("metadata") or {}).get("resourceVersion")
        if wanted is not None and wanted != found["metadata"]["resourceVersion"]:
            raise ConflictError(f"{name} has changed")
        return self.put(resource, _merged(found, body))

    def create(self, resource: Resource, body: Mapping[str, Any], *, dry_run: bool = False) -> Object:
        self._call("create", resource, body["metadata"]["name"])
        if (resource.name, body["metadata"]["name"]) in self.objects:
            raise ConflictError(f"{body['metadata']['name']} is there")
        return self.put(resource, body)

    def replace(self, resource: Resource, name: str, body: Mapping[str, Any]) -> Object:
        self._call("update", resource, name)
        if body["metadata"].get("resourceVersion") != self._found(resource, name)["metadata"]["resourceVersion"]:
            raise ConflictError(f"{name} has changed")
        return self.put(resource, body)

    def _found(self, resource: Resource, name: str) -> Object:
        if (resource.name, name) not in self.objects:
            raise NotFoundError(f"no {resource.name} {name}")
        return self.objects[resource.name, name]

    def _call(self, verb: str, resource: Resource, name: str) -> None:
        call = (verb, resource.name, name)
        self.calls.append(call)
        self.before(call)

    def called(self, verb: str, kind: str = "") -> list[str]:
        """Names of the objects of these requests."""
        return [name for one, of, name in self.calls if one == verb and of.startswith(kind)]


def _merged(old: Any, patch: Any) -> Any:
    if not isinstance(patch, Mapping):
        return patch
    made = dict(old) if isinstance(old, Mapping) else {}
    for key, value in patch.items():
        if value is None:
            made.pop(key, None)
        else:
            made[key] = _merged(made.get(key), value)
    return made


class MemoryTarget(Target):
    """Pools as a list; writes go into it.

    Attributes:
        pools: as they are now.
        writes: that were made, in order.
        fail: called with what is to be written; may raise, or change pools.
    """

    def __init__(self, pools: Sequence[PoolTarget], *, atomic: bool = False) -> None:
        self.pools = {one.pool: one for one in pools}
        # As a DynamoGraphDeployment: known once it was read.
        self._atomic = atomic
        self.writes: list[dict[str, int]] = []
        self.fail: Callable[[Mapping[str, int]], ClusterError | None] = lambda _: None

    def read(self) -> Sequence[PoolTarget]:
        self.atomic = self._atomic
        return list(self.pools.values())

    def write(self, replicas: Mapping[str, int], seen: Sequence[PoolTarget]) -> None:
        error = self.fail(replicas)
        if error is not None:
            raise error
        for one in seen:
            if one.pool in replicas and one.resource_version != self.pools[one.pool].resource_version:
                raise ConflictError(f"{one.object_name} has changed")
        self.writes.append(dict(replicas))
        for pool, count in replicas.items():
            old = self.pools[pool]
            version = str(int(old.resource_version or 0) + 1)
            self.pools[pool] = replace(old, desired=count, resource_version=version)


class Clock:
    """Steady seconds that a test moves."""

    def __init__(self) -> None:
        self.now_s = 1000.0

    def __call__(self) -> float:
        return self.now_s
