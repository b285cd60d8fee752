"""A pool as it was read, with what the write needs beyond the contract."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from planner.connectors.kubernetes.ownership import Claim
from planner.connectors.kubernetes.target import PoolTarget

#: Labels of the pods of groups: of the group's object, and of the group's number in it.
GROUPS = (
    ("leaderworkerset.sigs.k8s.io/name", "leaderworkerset.sigs.k8s.io/group-index"),
    ("grove.io/podcliquescalinggroup", "grove.io/podcliquescalinggroup-replica-index"),
)


@dataclass(frozen=True, slots=True)
class SeenPool(PoolTarget):
    """A pool and who owns its replicas.

    Attributes:
        claims: who owns the replicas, newest last.
        least: fewest workers other than none that the object takes.
        rival: who else sets the replicas by what the objects themselves say, and what to do; empty for nobody.
        carried: workers that the object with the template asks for, where they are asked for in another one, whose
            controller carries them there; None where they are asked for right beside the template.
    """

    claims: tuple[Claim, ...] = ()
    least: int = 1
    rival: str = ""
    carried: int | None = None


def group_of(pod: Mapping[str, Any]) -> str:
    """Name of the worker that a pod is part of: `<object>-<group>` for pods of a group, else its own.

    A LeaderWorkerSet numbers its groups, a PodCliqueScalingGroup its replicas; both count the leader in.
    """
    labels = pod["metadata"].get("labels") or {}
    for name, index in GROUPS:
        if name in labels and index in labels:
            return f"{labels[name]}-{labels[index]}"
    return str(pod["metadata"]["name"])


def by_pool(seen: Sequence[PoolTarget]) -> dict[str, SeenPool]:
    """What a target's own `read` gave, by pool."""
    return {target.pool: target for target in seen if isinstance(target, SeenPool)}
