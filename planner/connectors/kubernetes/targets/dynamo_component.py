"""One component of a DynamoGraphDeployment, whichever version of the API it was read in."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from fractions import Fraction
from typing import Any, Protocol

from planner.connectors.kubernetes.resources import Resource
from planner.connectors.kubernetes.targets.lookup import DEFAULT_NAMES, Part
from planner.core.in_place import Rolling
from planner.core.types import Role
from worker_graph.kubernetes import labels as names

#: Annotations by which the operator's Deployments replace workers: whole numbers, or shares such as 25%.
_STRATEGY = "nvidia.com/deployment-strategy"
_UNAVAILABLE = "nvidia.com/deployment-rolling-update-max-unavailable"
_SURGE = "nvidia.com/deployment-rolling-update-max-surge"
_AMOUNT = re.compile(r"([0-9]+)(%?)")


@dataclass(frozen=True, slots=True)
class Component:
    """A component.

    Attributes:
        name: in the graph.
        kind: frontend, worker, planner, …; in v1beta1 also prefill and decode.
        role: prefill or decode, where it says so.
        desired: workers that it asks for.
        nodes: pods of one worker.
        gpus: of one worker over all of its nodes; None where they cannot be read.
        layout: tensor- and data-parallel size; None where they cannot be read.
        adapter: whether its replicas belong to a scaling adapter.
        least: fewest workers other than none that it takes.
        path: of its replicas among the object's managed fields.
        labels: of its pods, as far as the object says them.
        rolling: how its workers are replaced when their template changes.
        plans: whether it is Dynamo's own planner, at work.
        together: group of components that it is scaled with; empty for none.
    """

    name: str
    kind: str
    role: Role | None
    desired: int
    nodes: int
    gpus: int | None
    layout: tuple[int, int] | None
    adapter: bool
    least: int
    path: tuple[str, ...]
    labels: Mapping[str, str]
    rolling: Rolling
    plans: bool = False
    together: str = ""

    @property
    def part(self) -> Part:
        """For matching with the planner's pools. A worker of no role of its own serves whole requests."""
        role = self.role
        if role is None and self.kind == "worker" and self.name not in DEFAULT_NAMES:
            role = Role.AGGREGATED
        return Part(self.name, role, self.labels.get(names.POOL, ""))


class GraphVersion(Protocol):
    """A version of the API: a module."""

    RESOURCE: Resource

    def components(self, thing: Mapping[str, Any]) -> list[Component]:
        """The components of a graph."""

    def patch(
        self, thing: Mapping[str, Any], replicas: Mapping[str, int], version: str
    ) -> Mapping[str, Any] | Sequence[Mapping[str, Any]]:
        """A patch of a graph as it was seen that sets replicas by component, all or none.

        Args:
            thing: the graph.
            replicas: by component.
            version: resource version that it must have; on any other the patch fails (409).
        """


def runs_dynamos_planner(container: Mapping[str, Any]) -> bool:
    """Whether a container runs Dynamo's planner, in any of its versions; this one may well be a component, too."""
    words = (str(word) for part in ("command", "args") for word in container.get(part) or ())
    return any(module in word for word in words for module in ("dynamo.planner", "planner_sla"))


def gpus_of_status(thing: Mapping[str, Any], field: str, name: str) -> int | None:
    """GPUs of one worker as the operator has worked them out, resource claims included.

    Returns:
        None where it has not, or for an older spec than the one that is there now.
    """
    status, meta = thing.get("status") or {}, thing["metadata"]
    if status.get("observedGeneration") != meta.get("generation"):
        return None
    found = ((status.get(field) or {}).get(name) or {}).get("gpusPerReplica")
    return int(found) if found is not None else None


def rolling_of(*annotations: Mapping[str, Any] | None) -> Rolling:
    """How the operator replaces a component's workers by its annotations, the later ones over the earlier ones."""
    found = {key: str(value) for one in annotations for key, value in (one or {}).items()}
    if found.get(_STRATEGY) == "Recreate":
        return Rolling(unavailable=Fraction(1), surge=0)
    usual = Rolling()
    return Rolling(_amount(found.get(_UNAVAILABLE), usual.unavailable), _amount(found.get(_SURGE), usual.surge))


def _amount(text: str | None, usual: int | Fraction) -> int | Fraction:
    match = _AMOUNT.fullmatch(text or "")
    if match is None:
        return usual
    return Fraction(int(match[1]), 100) if match[2] else int(match[1])
