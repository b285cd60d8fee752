"""A graph and its components, whichever version of the API they were written in."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from pathlib import Path
from typing import Any

import yaml

from profiler.errors import InputError
from profiler.yamlfile import Document, Place


class Role(StrEnum):
    """What a worker does with a request. The planner's core has the same values; this package lies below it."""

    PREFILL = "prefill"
    DECODE = "decode"
    AGGREGATED = "aggregated"


class Kind(StrEnum):
    """What a component is to the graph."""

    FRONTEND = "frontend"
    WORKER = "worker"
    PLANNER = "planner"
    OTHER = "other"


@dataclass(frozen=True)
class Component:
    """One component. Two are equal when they mean the same, wherever and in whichever version they were written.

    Attributes:
        name: as in the file; the name of its pool.
        kind: what it is.
        role: of a worker; None for anything else.
        replicas: wanted copies.
        gpus_per_worker: GPUs of one replica over all of its nodes; from limits, else from requests, else 0.
        nodes: pods of one replica.
        image: of the main container; None where the file leaves it to the cluster.
        command, args: of the main container, `$(NAME)` replaced from `env` as Kubernetes does.
        env: variables with their values, the graph's, the component's and the container's, the last one winning.
        env_elsewhere: variables whose value the file only refers to (a Secret's key, a pod's field).
        env_from_secret: Secrets all of whose keys become variables.
        working_dir: of the main container.
        place: keys that lead to the component in the document.
        container: keys that lead to its main container.
        document: the file, for errors.
    """

    name: str
    kind: Kind
    role: Role | None
    replicas: int
    gpus_per_worker: int
    nodes: int = 1
    image: str | None = None
    command: tuple[str, ...] = ()
    args: tuple[str, ...] = ()
    env: Mapping[str, str] = field(default_factory=dict)
    env_elsewhere: tuple[str, ...] = ()
    env_from_secret: tuple[str, ...] = ()
    working_dir: str | None = None
    place: Place = field(default=(), compare=False, kw_only=True)
    container: Place = field(default=(), compare=False, kw_only=True)
    document: Document = field(compare=False, repr=False, kw_only=True)

    def error(self, problem: str, *below: int | str, expected: str = "") -> InputError:
        """An error about the value at keys below the component."""
        return self.document.error(problem, (*self.place, *below), expected)


@dataclass(frozen=True)
class GraphSpec:
    """A graph.

    Attributes:
        name: of the DynamoGraphDeployment.
        namespace: Kubernetes namespace, None where the file leaves it to the caller.
        api_version: `nvidia.com/v1alpha1` or `nvidia.com/v1beta1`.
        components: in the file's order.
        source: the file.
        raw: the whole document as data, fields that are not read included. To be read only.
        others: the file's other documents (ConfigMaps, say), in order. To be read only.
        position: how many of them stand before the graph.
        document: the file, for errors; its data is the graph as it was read, before any change.
    """

    name: str
    namespace: str | None
    api_version: str
    components: tuple[Component, ...]
    source: Path
    raw: Mapping[str, Any] = field(repr=False)
    others: tuple[Any, ...] = field(default=(), repr=False)
    position: int = 0
    document: Document = field(compare=False, repr=False, kw_only=True)

    @property
    def workers(self) -> tuple[Component, ...]:
        """The components that serve the model, in the file's order."""
        return tuple(component for component in self.components if component.kind is Kind.WORKER)

    @property
    def frontends(self) -> tuple[Component, ...]:
        """The gateways, in the file's order."""
        return tuple(component for component in self.components if component.kind is Kind.FRONTEND)

    def __iter__(self) -> Iterator[Component]:
        return iter(self.components)

    def __getitem__(self, name: str) -> Component:
        for component in self.components:
            if component.name == name:
                return component
        raise KeyError(name)

    def error(self, problem: str, place: Place = (), expected: str = "") -> InputError:
        """An error about the value at a place of the document."""
        return self.document.error(problem, place, expected)

    def to_yaml(self) -> str:
        """The file again, every document of it, in order; comments are not data and are lost."""
        documents = list(self.others)
        documents.insert(self.position, self.raw)
        return yaml.safe_dump_all(documents, sort_keys=False, allow_unicode=True, width=120)
