"""Grove: a PodCliqueSet that holds all pools, and single PodCliques and PodCliqueScalingGroups.

A PodCliqueSet is a template. Its operator makes a PodClique of each clique that stands alone, and a
PodCliqueScalingGroup of each group of cliques that are scaled together (a worker over several nodes), named
`<set>-<replica of the set>-<clique or group>`, with the replicas that the template says. From then on the operator
leaves their replicas alone, and a change in the template has no effect: "post-creation scaling must be done directly on
the PCSG resource, not via PCS template" (operator/internal/controller/podcliqueset/components of ai-dynamo/grove). So
replicas are read from and written to these objects, through their scale subresource, and two pools cannot change in
one request.

The replicas of a clique are pods; those of a group are workers, each of the cliques' pods times their template's
replicas. Both take none, or at least their `minAvailable`; below it Grove ends the whole gang.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from planner.connectors.kubernetes.cluster import Cluster
from planner.connectors.kubernetes.errors import NotFoundError
from planner.connectors.kubernetes.resources import (
    POD_CLIQUE_SCALING_GROUPS,
    POD_CLIQUE_SETS,
    POD_CLIQUES,
    Resource,
)
from planner.connectors.kubernetes.targets.pods import gpus_of, layout_in
from planner.connectors.kubernetes.targets.seen import SeenPool
from planner.connectors.kubernetes.targets.shapes import graph_label, seen_pool

GROVE_KINDS = (POD_CLIQUES, POD_CLIQUE_SCALING_GROUPS)

PART_OF = "app.kubernetes.io/part-of"
CLIQUE = "grove.io/podclique"
GROUP = "grove.io/podcliquescalinggroup"

_Object = Mapping[str, Any]


class GrovePools:
    """Pools that are PodCliques or PodCliqueScalingGroups."""

    def __init__(self, cluster: Cluster) -> None:
        self._cluster = cluster

    def read(
        self, resource: Resource, things: Mapping[str, _Object], gpus: Mapping[str, int | None]
    ) -> dict[str, SeenPool]:
        """Pools from their objects; for groups, one list of the sets in whose templates their pods stand.

        Args:
            resource: kind of the objects.
            things: the objects by pool.
            gpus: of a worker by pool, where the configuration says it.
        """
        if resource == POD_CLIQUES:
            return {pool: clique_pool(pool, thing, gpus.get(pool)) for pool, thing in things.items()}
        sets = {str(one["metadata"]["name"]): one for one in self._cluster.list(POD_CLIQUE_SETS).items}
        found = {}
        for pool, thing in things.items():
            part_of = str((thing["metadata"].get("labels") or {}).get(PART_OF, ""))
            if part_of not in sets:
                name = thing["metadata"]["name"]
                raise NotFoundError(f"there is no PodCliqueSet {part_of!r} for PodCliqueScalingGroup {name}")
            found[pool] = group_pool(pool, thing, cliques_of(sets[part_of]), gpus.get(pool))
        return found


def cliques_of(thing: _Object) -> dict[str, _Object]:
    """Templates of a PodCliqueSet's cliques by name."""
    return {str(one["name"]): one for one in thing["spec"]["template"].get("cliques") or ()}


def clique_pool(pool: str, thing: _Object, gpus: int | None = None) -> SeenPool:
    """A pool of single-node workers that is a PodClique."""
    name, spec = str(thing["metadata"]["name"]), thing["spec"]
    counted = gpus_of(spec.get("podSpec") or {}) if gpus is None else gpus
    # A clique's labels are its pods' as well.
    selector = {CLIQUE: name, **_part_of(thing), **graph_label(thing["metadata"])}
    seen = seen_pool(pool, POD_CLIQUES, thing, selector=selector, gpus=counted)
    layout = layout_in({"spec": spec.get("podSpec")}, thing["metadata"].get("labels"))
    return replace(seen, gpus_per_worker=counted, layout=layout, least=_least(spec))


def group_pool(pool: str, thing: _Object, cliques: Mapping[str, _Object], gpus: int | None = None) -> SeenPool:
    """A pool of multi-node workers that is a PodCliqueScalingGroup.

    Args:
        pool: its name.
        thing: the PodCliqueScalingGroup.
        cliques: templates of its PodCliqueSet by name.
        gpus: of a worker, where the configuration says it.
    """
    name, spec = str(thing["metadata"]["name"]), thing["spec"]
    members = [cliques[one] for one in spec.get("cliqueNames") or () if one in cliques]
    counted = group_gpus(members) if gpus is None else gpus
    selector = {GROUP: name, **_part_of(thing), **graph_label(*members)}
    seen = seen_pool(pool, POD_CLIQUE_SCALING_GROUPS, thing, selector=selector, gpus=counted)
    pods = sum(_pods(one) for one in members)
    layout = group_layout(members)
    return replace(seen, pods_per_worker=pods, gpus_per_worker=counted, layout=layout, least=_least(spec))


def group_gpus(members: Sequence[_Object]) -> int | None:
    """GPUs of one worker over the cliques of its group."""
    amounts = [gpus_of(one["spec"].get("podSpec") or {}) for one in members]
    if any(amount is None for amount in amounts):
        return None
    return sum((amount or 0) * _pods(one) for amount, one in zip(amounts, members, strict=True))


def group_layout(members: Sequence[_Object]) -> tuple[int, int] | None:
    """As the first clique says it whose label or arguments do: the leader's comes first."""
    found = (layout_in({"spec": one["spec"].get("podSpec")}, one.get("labels")) for one in members)
    return next((layout for layout in found if layout), None)


def _part_of(thing: _Object) -> dict[str, str]:
    """The label of the set, which all pods of its cliques carry."""
    value = (thing["metadata"].get("labels") or {}).get(PART_OF)
    return {PART_OF: str(value)} if value else {}


def _pods(clique: _Object) -> int:
    return int(clique["spec"].get("replicas", 1))


def _least(spec: _Object) -> int:
    return int(spec.get("minAvailable") or 1)
