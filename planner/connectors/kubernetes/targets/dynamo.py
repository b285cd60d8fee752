"""A DynamoGraphDeployment that holds all pools, in either version of its API.

Replicas stand in the graph itself, and both roles change in one patch; or, for a component with a scaling adapter, in
the adapter (`DynamoGraphDeploymentScalingAdapter`, `<graph>-<component in lower case>`), through its scale subresource:
the operator carries them into the graph and would undo a direct change. Adapters are written one after the other.

The graph need not be ready to be scaled: a pool that waits for GPUs must not keep the other from changing.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from itertools import groupby
from typing import Any

from planner.connectors.kubernetes.cluster import Cluster, Patch
from planner.connectors.kubernetes.errors import ClusterError, ConflictError, NotFoundError
from planner.connectors.kubernetes.ownership import claims_of, managers_of
from planner.connectors.kubernetes.resources import SCALING_ADAPTERS_V1ALPHA1, SCALING_ADAPTERS_V1BETA1
from planner.connectors.kubernetes.target import PoolTarget, Target
from planner.connectors.kubernetes.targets import dynamo_v1alpha1, dynamo_v1beta1
from planner.connectors.kubernetes.targets.discovery import MismatchError
from planner.connectors.kubernetes.targets.dynamo_component import Component, GraphVersion
from planner.connectors.kubernetes.targets.lookup import match
from planner.connectors.kubernetes.targets.seen import SeenPool, by_pool, group_of
from planner.connectors.kubernetes.targets.writing import MOST_REPEATS, ScaleWriter
from planner.core.types import Pool

#: Labels of the pods: the graph, the component, and its type.
GRAPH_NAME = "nvidia.com/dynamo-graph-deployment-name"
COMPONENT = "nvidia.com/dynamo-component"
TYPE = "nvidia.com/dynamo-component-type"
FRONTEND = "frontend"

#: Newest first.
_VERSIONS: tuple[GraphVersion, ...] = (dynamo_v1beta1, dynamo_v1alpha1)
_ADAPTERS = (SCALING_ADAPTERS_V1BETA1, SCALING_ADAPTERS_V1ALPHA1)

_Object = Mapping[str, Any]


class DynamoGraph(Target):
    """Pools by the components of one DynamoGraphDeployment: one request to read them, two where there are adapters.

    Args:
        cluster: the API server.
        name: of the DynamoGraphDeployment.
        pools: those that are planned.
        writer: for the replicas of adapters.
    """

    def __init__(self, cluster: Cluster, name: str, pools: Sequence[Pool], writer: ScaleWriter) -> None:
        self._cluster, self._name, self._pools, self._writer = cluster, name, pools, writer
        self._version, self._settled = _VERSIONS[0], False
        self._adapters = next(iter(_ADAPTERS))
        self._thing: _Object = {}
        # What the planner's own writes since the last read have made of the version that was seen then.
        self._moved: dict[str, str] = {}
        self._named: dict[str, Component] = {}

    def read(self) -> Sequence[PoolTarget]:
        """The planner's pools, in its order."""
        whole = f"DynamoGraphDeployment {self._name}"
        version, thing = self._read()
        components = {one.name: one for one in version.components(thing)}
        workers = [one.part for one in components.values() if one.kind not in {FRONTEND, "planner", "epp"}]
        matched = match(self._pools, workers, whole)
        named = {pool: components[part.name] for pool, part in matched.items()}
        for pool, one in named.items():
            if one.together:
                raise MismatchError(
                    f"{whole} scales {one.name} together with other components, in its group {one.together}; pool "
                    f"{pool} needs replicas of its own: take it out of spec.experimental.componentGroups"
                )
        planner = next((one.name for one in components.values() if one.plans), "")
        adapters = self._read_adapters() if any(one.adapter for one in named.values()) else {}
        found = []
        for pool, one in named.items():
            rival = ""
            if planner:
                rival = f"component {planner} of {whole} plans its replicas too: set it to 0 replicas, or remove it"
            adapter = adapters.get(one.name) if one.adapter else None
            found.append(self._seen(pool, one, version, thing, adapter, rival))
        self._thing, self._named, self._moved = thing, named, {}
        self.atomic = not any(one.adapter for one in named.values())
        return found

    def write(self, replicas: Mapping[str, int], seen: Sequence[PoolTarget]) -> None:
        """Ask for these workers: those of the graph itself in one patch, those of adapters one by one, in order."""
        pools = by_pool(seen)
        changed = {pool: wanted for pool, wanted in replicas.items() if pools[pool].desired != wanted}
        own = {pools[pool].resource_version for pool in changed if not self._named[pool].adapter}
        seen_version = next(iter(own), "")
        version = self._moved.get(seen_version, seen_version)
        # Neighbours in the order that have no adapter between them go together.
        for adapted, group in groupby(changed, key=lambda pool: self._named[pool].adapter):
            if not adapted:
                version = self._patch({pool: changed[pool] for pool in group}, pools, version)
                self._moved[seen_version] = version
                continue
            for pool in group:
                self._write_adapter(pools[pool], changed[pool])

    def worker_of(self, pod: _Object, target: PoolTarget) -> str:
        """The group's name for a pod of a multi-node worker, else the pod's own."""
        return group_of(pod) if target.pods_per_worker > 1 else super().worker_of(pod, target)

    # -- reading ---------------------------------------------------------------------------------------------------

    def _read(self) -> tuple[GraphVersion, _Object]:
        """The graph in the newest version that the server has and that shows its components."""
        if self._settled:
            return self._version, self._cluster.read(self._version.RESOURCE, self._name)
        last: NotFoundError | None = None
        for version in _VERSIONS:
            try:
                thing = self._cluster.read(version.RESOURCE, self._name)
            except NotFoundError as error:
                last = error
                continue
            # Without a conversion webhook, each version shows the other's objects with nothing in them.
            if version.components(thing):
                self._version, self._settled = version, True
                return version, thing
        if last is not None and not any(self._cluster.serves(one.RESOURCE) for one in _VERSIONS):
            raise MismatchError(
                f"{self._cluster.server} has no DynamoGraphDeployments; is Dynamo's operator installed?"
            )
        raise last or MismatchError(f"DynamoGraphDeployment {self._name} has no components")

    def _read_adapters(self) -> dict[str, _Object]:
        """Scaling adapters of the graph by component."""
        for resource in (self._adapters, *(one for one in _ADAPTERS if one != self._adapters)):
            try:
                listed = self._cluster.list(resource).items
            except NotFoundError:
                continue
            self._adapters = resource
            return dict(self._mine(listed))
        return {}

    def _mine(self, listed: Sequence[_Object]) -> Iterator[tuple[str, _Object]]:
        for one in listed:
            to = (one.get("spec") or {}).get("dgdRef") or {}
            component = to.get("componentName") or to.get("serviceName")
            if to.get("name") == self._name and component:
                yield str(component), one

    def _seen(
        self, pool: str, one: Component, version: GraphVersion, thing: _Object, adapter: _Object | None, rival: str
    ) -> SeenPool:
        meta = thing["metadata"]
        resource, name, holder = version.RESOURCE, self._name, meta
        desired, claims = one.desired, claims_of(thing, one.path)
        if adapter is not None:
            resource, holder, claims = self._adapters, adapter["metadata"], claims_of(adapter)
            name, desired = str(holder["name"]), int(adapter["spec"].get("replicas", 0))
        return SeenPool(
            pool=pool,
            resource=resource,
            object_name=name,
            desired=desired,
            pods_per_worker=one.nodes,
            gpus_per_worker=one.gpus,
            layout=one.layout,
            selector={GRAPH_NAME: self._name, COMPONENT: one.name},
            managers=managers_of(claims),
            uid=str(holder.get("uid", "")),
            resource_version=str(holder.get("resourceVersion", "")),
            claims=claims,
            least=one.least,
            rival=rival,
            carried=None if adapter is None else one.desired,
            rolling=one.rolling if one.nodes == 1 else None,
        )

    # -- writing ---------------------------------------------------------------------------------------------------

    def _patch(self, replicas: Mapping[str, int], pools: Mapping[str, SeenPool], version: str) -> str:
        """Change the graph itself; its resource version afterwards."""
        for pool, wanted in replicas.items():
            self._writer.check(pools[pool], wanted)
        by_component = {self._named[pool].name: wanted for pool, wanted in replicas.items()}
        for _ in range(MOST_REPEATS):
            try:
                return self._send(by_component, version)
            except ConflictError as error:
                version = self._version_now(error)
        return self._send(by_component, version)

    def _send(self, replicas: Mapping[str, int], version: str) -> str:
        body = self._version.patch(self._thing, replicas, version)
        how = Patch.JSON if isinstance(body, list) else Patch.MERGE
        self._thing = self._cluster.patch(self._version.RESOURCE, self._name, body, how=how)
        return str(self._thing["metadata"]["resourceVersion"])

    def _version_now(self, error: ConflictError) -> str:
        """The graph's version where its spec is what was seen; the conflict where it is not."""
        now, seen = self._cluster.read(self._version.RESOURCE, self._name)["metadata"], self._thing["metadata"]
        if (now.get("uid"), now.get("generation")) != (seen.get("uid"), seen.get("generation")):
            raise error
        return str(now["resourceVersion"])

    def _write_adapter(self, target: SeenPool, replicas: int) -> None:
        if target.resource not in _ADAPTERS:
            raise ClusterError(
                f"component {self._named[target.pool].name} of DynamoGraphDeployment {self._name} leaves its replicas "
                f"to a scaling adapter, and there is none yet; does Dynamo's operator run?"
            )
        self._writer.write(target, replicas)
