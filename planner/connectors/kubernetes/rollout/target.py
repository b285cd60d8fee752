"""A graph's objects with what layout changes made of them: both sides of one under way, what others ended with."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from planner.connectors.kubernetes.cluster import Cluster
from planner.connectors.kubernetes.errors import ClusterError
from planner.connectors.kubernetes.resources import Resource
from planner.connectors.kubernetes.rollout.clone import KINDS, RETIRED
from planner.connectors.kubernetes.rollout.store import Recorded, Store
from planner.connectors.kubernetes.target import PoolTarget, Target
from planner.connectors.kubernetes.targets.seen import SeenPool
from planner.connectors.kubernetes.targets.shapes import seen_pool
from planner.core.transition import Intent, Side


class ChangingTarget(Target):
    """Another target, and the record of layout changes.

    While a pool changes, its old object has the pool's name and the new one `<pool>-<layout>`. Afterwards the new one
    has the pool's name, also where the configuration names the old one.

    Args:
        base: where the pools stand as configured.
        cluster: the API server.
        store: of the record.
    """

    def __init__(self, base: Target, cluster: Cluster, store: Store) -> None:
        self._base, self._cluster, self._store = base, cluster, store
        self._recorded: Recorded | None = None
        #: Sides of the change under way that have an object, and whether it is retired; as of the last read.
        self.sides: Mapping[str, bool] = {}

    @property
    def recorded(self) -> Recorded:
        """As of the last `refresh` or write; read now where there was neither yet."""
        if self._recorded is None:
            self._recorded = self._store.read()
        return self._recorded

    def refresh(self) -> None:
        """Read the record again: another planner may have written it. Once a tick; writes are guarded by its version.

        Raises:
            ClusterError: it cannot be read.
        """
        self._recorded = self._store.read()

    def keep(self, recorded: Recorded) -> None:
        """What has just been written."""
        self._recorded = recorded

    def read(self) -> Sequence[PoolTarget]:
        """All pools."""
        recorded = self.recorded
        found = [self._moved(target, recorded.history.objects.get(target.pool)) for target in self._base.read()]
        self.atomic = self._base.atomic  # of a Dynamo graph, it is known only now
        intent = recorded.intent
        self.sides = {}
        if intent is None or all(one.name != intent.resource for one in KINDS):
            # A part of a larger object is found as ever.
            return found
        names = {intent.old.object_name, intent.new.object_name}
        others = [one for one in found if one.object_name not in names and one.pool != intent.pool]
        mine = [self._side(intent, side) for side in (intent.old, intent.new)]
        self.sides = {one.object_name: retired for one, retired in filter(None, mine)}
        return [*others, *(one for one, _ in filter(None, mine))]

    def write(self, replicas: Mapping[str, int], seen: Sequence[PoolTarget]) -> None:
        """As the target underneath does."""
        self._base.write(replicas, seen)

    def worker_of(self, pod: Mapping[str, Any], target: PoolTarget) -> str:
        """As the target underneath says."""
        return self._base.worker_of(pod, target)

    def _side(self, intent: Intent, side: Side) -> tuple[SeenPool, bool] | None:
        thing = self._cluster.find(resource_of(intent), side.object_name)
        if thing is None:
            return None
        retired = RETIRED in (thing["metadata"].get("labels") or {})
        return seen_pool(side_pool(intent, side), resource_of(intent), thing), retired

    def _moved(self, target: PoolTarget, name: str | None) -> PoolTarget:
        """The object that took over from a configured one; that itself where there is no such change."""
        if name is None or name == target.object_name or target.resource not in KINDS:
            return target
        thing = self._cluster.find(target.resource, name)
        if thing is None or RETIRED in (thing["metadata"].get("labels") or {}):
            # Deleted or put out of use by hand: what the configuration says holds again.
            return target
        return seen_pool(target.pool, target.resource, thing)


def side_pool(intent: Intent, side: Side) -> str:
    """The name under which a side counts while its pool changes."""
    return intent.pool if side.object_name == intent.old.object_name else f"{intent.pool}-{side.layout}"


def resource_of(intent: Intent) -> Resource:
    """Kind of a change's objects.

    Raises:
        ClusterError: one whose layout is not changed by copying.
    """
    found = next((one for one in KINDS if one.name == intent.resource), None)
    if found is None:
        raise ClusterError(f"layouts of {intent.resource} are not changed by copying the object")
    return found
