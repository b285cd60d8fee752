"""The interface of what holds a graph's pools: one way to read and write replicas for each kind of objects."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from planner.connectors.kubernetes.resources import Resource
from planner.core.in_place import Rolling


@dataclass(frozen=True, slots=True)
class PoolTarget:
    """One pool as its object says it.

    Attributes:
        pool: its name.
        resource: kind of the object that is written to.
        object_name: its name.
        desired: workers that it asks for.
        pods_per_worker: pods of one worker: 1, or those of a group over several nodes.
        gpus_per_worker: by the GPU limits of its pod templates, over the whole group; None where they cannot be read.
        layout: tensor- and data-parallel size of its engines by their arguments; None where they cannot be read.
        selector: labels of its pods.
        managers: who set its replicas last, by field manager; empty where the server does not say.
        uid: of the object.
        resource_version: of the object as it was read.
        rolling: how an operator replaces its workers when their template changes; None where it is not for that.
    """

    pool: str
    resource: Resource
    object_name: str
    desired: int
    pods_per_worker: int
    gpus_per_worker: int | None
    layout: tuple[int, int] | None
    selector: Mapping[str, str]
    managers: tuple[str, ...] = ()
    uid: str = ""
    resource_version: str = field(default="", compare=False)
    rolling: Rolling | None = None


class Target(ABC):
    """Where the replicas of a graph's pools stand. Every method may block and raises ClusterError when it cannot do."""

    #: Whether `write` changes several pools in one request, so that there is no moment between them.
    atomic: bool = False

    @abstractmethod
    def read(self) -> Sequence[PoolTarget]:
        """All pools, in as many requests as there are kinds of objects, however many pools there are.

        Raises:
            ClusterError: an object is not there, or cannot be read; the message names it.
        """

    @abstractmethod
    def write(self, replicas: Mapping[str, int], seen: Sequence[PoolTarget]) -> None:
        """Ask for these workers by pool, in the order given; at once where `atomic`.

        Args:
            replicas: by pool.
            seen: what `read` gave just before.

        Raises:
            ConflictError: an object has changed since it was seen; nothing of it was changed.
            ClusterError: it could not be written; what came before it in the order was.
        """

    def worker_of(self, pod: Mapping[str, Any], target: PoolTarget) -> str:  # noqa: ARG002 - groups override it
        """Name of the worker that a pod is part of; the pod's own unless a worker is a group of pods."""
        return str(pod["metadata"]["name"])
