"""A Grove PodCliqueSet that holds all pools; see `grove` for what its operator does with replicas."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from planner.connectors.kubernetes.cluster import Cluster
from planner.connectors.kubernetes.errors import NotFoundError
from planner.connectors.kubernetes.resources import POD_CLIQUE_SCALING_GROUPS, POD_CLIQUE_SETS, POD_CLIQUES
from planner.connectors.kubernetes.target import PoolTarget
from planner.connectors.kubernetes.targets.discovery import MismatchError
from planner.connectors.kubernetes.targets.grove import PART_OF, clique_pool, cliques_of, group_pool
from planner.connectors.kubernetes.targets.lookup import Part, match, role_of
from planner.connectors.kubernetes.targets.scale import ScaleTarget
from planner.connectors.kubernetes.targets.writing import ScaleWriter
from planner.core.types import Pool
from worker_graph.kubernetes import labels as names

_Object = Mapping[str, Any]


class GroveSet(ScaleTarget):
    """Pools by the cliques and scaling groups of one PodCliqueSet: three requests to read them.

    Args:
        cluster: the API server.
        name: of the PodCliqueSet.
        pools: those that are planned.
        writer: for the replicas.
    """

    def __init__(self, cluster: Cluster, name: str, pools: Sequence[Pool], writer: ScaleWriter) -> None:
        super().__init__(writer)
        self._cluster, self._name, self._pools = cluster, name, pools

    def read(self) -> Sequence[PoolTarget]:
        """The planner's pools, in its order."""
        whole = f"PodCliqueSet {self._name}"
        thing = self._cluster.read(POD_CLIQUE_SETS, self._name)
        copies = int(thing["spec"].get("replicas", 0))
        if copies != 1:
            raise MismatchError(
                f"{whole} has replicas: {copies}, so many copies of the whole graph; the planner scales the cliques of "
                f"one: set it to 1"
            )
        template, cliques = thing["spec"]["template"], cliques_of(thing)
        groups = {str(one["name"]): one for one in template.get("podCliqueScalingGroups") or ()}
        grouped = {name for one in groups.values() for name in one.get("cliqueNames") or ()}
        parts = [_part(name, [one]) for name, one in cliques.items() if name not in grouped]
        for name, one in groups.items():
            parts.append(_part(name, [cliques[each] for each in one["cliqueNames"] if each in cliques]))
        mine = f"{PART_OF}={self._name}"
        there = {
            kind: {str(one["metadata"]["name"]): one for one in self._cluster.list(kind, labels=mine).items}
            for kind in (POD_CLIQUES, POD_CLIQUE_SCALING_GROUPS)
        }
        found: list[PoolTarget] = []
        for pool, part in match(self._pools, parts, whole).items():
            kind = POD_CLIQUE_SCALING_GROUPS if part.name in groups else POD_CLIQUES
            child = there[kind].get(f"{self._name}-0-{part.name}")
            if child is None:
                raise NotFoundError(f"{whole} has no {kind.kind} of {part.name} yet; does Grove's operator run?")
            made = group_pool(pool, child, cliques) if part.name in groups else clique_pool(pool, child)
            found.append(made)
        return found


def _part(name: str, members: Sequence[_Object]) -> Part:
    labels: dict[str, str] = {}
    for one in members:
        labels = {**(one.get("labels") or {}), **labels}
    return Part(name, role_of(labels.get(names.ROLE)), labels.get(names.POOL, ""))
