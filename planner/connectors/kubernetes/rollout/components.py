"""Pools that are components of a DynamoGraphDeployment, while their layout changes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from planner.connectors.base import LayoutStatus, Supply
from planner.connectors.kubernetes.cluster import Cluster, Patch
from planner.connectors.kubernetes.errors import NotFoundError
from planner.connectors.kubernetes.pods import Phase, PodWorker
from planner.connectors.kubernetes.resources import (
    SCALING_ADAPTERS_V1ALPHA1,
    SCALING_ADAPTERS_V1BETA1,
    Resource,
)
from planner.connectors.kubernetes.rollout.dynamo import GRAPHS, relayout_patch
from planner.connectors.kubernetes.target import PoolTarget
from planner.connectors.kubernetes.targets.dynamo import COMPONENT, GRAPH_NAME
from planner.connectors.kubernetes.targets.seen import SeenPool
from planner.core.in_place import InPlace, Rolling
from planner.core.transition import Intent, Seen, Side

_KINDS = (*GRAPHS, SCALING_ADAPTERS_V1ALPHA1, SCALING_ADAPTERS_V1BETA1)


def in_place(intent: Intent) -> bool:
    """Whether a change is one of a component."""
    return any(one.name == intent.resource for one in GRAPHS)


def component_of(target: PoolTarget) -> str | None:
    """Name of the component that a pool is; None where it is an object of its own."""
    return target.selector[COMPONENT] if target.resource in _KINDS else None


def seen_in_place(target: PoolTarget, workers: Sequence[PodWorker], intent: Intent) -> InPlace:
    """A component's workers by their layout, which their GPUs tell."""

    def side(gpus: int) -> Seen:
        mine = [one for one in workers if sum(pod.gpus for pod in one.pods) == gpus]
        live = [one for one in mine if one.live]
        trouble = next((one.trouble for one in live if one.trouble), "")
        ready = sum(one.phase is Phase.READY for one in live)
        return Seen(target.desired, len(live), ready, len(mine) - len(live), trouble)

    layout = target.layout or (intent.old.tp, intent.old.dp)
    carried = target.carried if isinstance(target, SeenPool) and target.carried is not None else target.desired
    return InPlace(
        target.desired, layout, side(intent.old.gpus), side(intent.new.gpus), carried, target.rolling or Rolling()
    )


def shown_in_place(supply: Supply, intent: Intent, text: str, status: LayoutStatus) -> Supply:
    """The supply with the pool as it was before the change: what the planner sizes in until it has ended."""
    pool = supply.pools[intent.pool]
    desired = max(intent.old.workers, pool.desired)
    shown = replace(pool, desired=desired, starting=max(0, desired - pool.ready))
    return replace(
        supply,
        pools={**supply.pools, intent.pool: shown},
        gpus_per_worker={**supply.gpus_per_worker, intent.pool: intent.old.gpus},
        layouts={**supply.layouts, intent.pool: (intent.old.tp, intent.old.dp)},
        notices=(*supply.notices, text),
        layout_change=replace(status, under_way=text),
    )


class Components:
    """Reads and changes components.

    Args:
        cluster: the API server.
    """

    def __init__(self, cluster: Cluster) -> None:
        self._cluster = cluster

    def graph_of(self, target: PoolTarget) -> tuple[Resource, str]:
        """The graph that a component's pool is part of: its kind, in the version that shows it, and its name.

        Raises:
            NotFoundError: no version shows the component.
        """
        name, component = target.selector[GRAPH_NAME], target.selector[COMPONENT]
        for resource in GRAPHS:
            thing = self._cluster.find(resource, name) or {}
            spec = thing.get("spec") or {}
            if component in (spec.get("services") or {}):
                return resource, name
            if any(one.get("name") == component for one in spec.get("components") or ()):
                return resource, name
        raise NotFoundError(f"DynamoGraphDeployment {name} has no component {component}")

    def gpus_after(self, resource: Resource, name: str, component: str, tp: int, dp: int) -> int:
        """GPUs of a worker in another layout.

        Raises:
            InputError: its arguments cannot be changed.
        """
        return relayout_patch(self._cluster.read(resource, name), resource, component, tp, dp)[1]

    def write(self, intent: Intent, side: Side, component: str) -> tuple[Resource, str]:
        """Change a component's template in one write; the other version of the API is tried where there is no such.

        Returns:
            The graph that was written: its kind, and its uid.

        Raises:
            ConflictError: the graph has changed since it was read.
            ClusterError: it cannot be written.
        """
        for resource in GRAPHS:
            thing = self._cluster.find(resource, side.object_name)
            spec = (thing or {}).get("spec") or {}
            named = {*(spec.get("services") or {}), *(one.get("name") for one in spec.get("components") or ())}
            if thing is None or component not in named:
                continue
            body, _ = relayout_patch(thing, resource, component, side.tp, side.dp)
            how = Patch.JSON if isinstance(body, list) else Patch.MERGE
            self._cluster.patch(resource, side.object_name, body, how=how)
            return resource, str(thing["metadata"].get("uid", ""))
        raise NotFoundError(f"{intent.resource} {side.object_name} has no component {component}")
