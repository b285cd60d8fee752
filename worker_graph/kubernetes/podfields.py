"""What is read of a component's pods, and the check that nothing else is there."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Any

from worker_graph.spec.node import Node


@dataclass
class PodFields:
    """What the file says of a component's pods, beside what `Component` holds.

    Attributes:
        pod: fields of the PodSpec, without containers.
        main: fields of the main container, without command, arguments and variables.
        sidecars: other containers, as written.
        labels, annotations: of the pods.
        variables: entries of `env` whose value is somewhere else (`valueFrom`).
        env_from: entries of `envFrom`.
        shared_memory: size of /dev/shm; None for the default, empty for none.
        compilation_cache: folder for compiled kernels that the file mounts; None for none.
        claims: PersistentVolumeClaims that the file wants to be made.
        notes: what is done otherwise than it says, for people.
    """

    pod: dict[str, Any] = field(default_factory=dict)
    main: dict[str, Any] = field(default_factory=dict)
    sidecars: list[dict[str, Any]] = field(default_factory=list)
    labels: dict[str, str] = field(default_factory=dict)
    annotations: dict[str, str] = field(default_factory=dict)
    variables: list[dict[str, Any]] = field(default_factory=list)
    env_from: list[dict[str, Any]] = field(default_factory=list)
    shared_memory: str | None = None
    compilation_cache: str | None = None
    claims: list[dict[str, Any]] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)


def only(node: Node, known: Iterable[str], wrong: Callable[[Node, str], Exception]) -> None:
    """Raise what `wrong` makes of the first field that is not known and not empty."""
    known = set(known)
    for key, below in node.items():
        if key not in known and below.value not in (None, {}, []):
            raise wrong(below, key)
