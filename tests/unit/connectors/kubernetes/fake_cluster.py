"""An API server of a few objects that answers as a real one does, and says what it was asked."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, cast

from planner.connectors.kubernetes.cluster import Cluster, Listing, Patch
from planner.connectors.kubernetes.errors import ClusterError, NotFoundError
from planner.connectors.kubernetes.resources import Resource

Object = dict[str, Any]


class FakeCluster:
    """Lists by resource, single documents by path; what is not there is not found.

    Attributes:
        calls: verbs and what they were for, in order.
        patches: bodies sent, with how and whether by force.
        answers: errors that patches get, first to last; a patch without one succeeds.
    """

    namespace, server = "ns", "https://fake"

    def __init__(self, version: tuple[int, int] = (1, 33)) -> None:
        self._version = version
        self.lists: dict[Resource, list[Object] | ClusterError] = {}
        self.documents: dict[str, Object] = {}
        self.calls: list[str] = []
        self.patches: list[tuple[str, Any, Patch, bool]] = []
        self.answers: list[ClusterError | None] = []

    def real(self) -> Cluster:
        return cast("Cluster", self)

    def version(self) -> tuple[int, int]:
        self.calls.append("version")
        return self._version

    def serves(self, resource: Resource) -> bool:
        self.calls.append(f"serves {resource.name}")
        return resource in self.lists

    def read(self, resource: Resource, name: str, subresource: str = "") -> Object:
        path = resource.path(self.namespace, name, subresource)
        self.calls.append(f"read {path}")
        if path in self.documents:
            return self.documents[path]
        listed = self.lists.get(resource, [])
        if isinstance(listed, ClusterError):
            raise listed
        found = [one for one in listed if one["metadata"]["name"] == name and not subresource]
        if not found:
            raise NotFoundError(f"cannot read {path}: 404")
        return found[0]

    def list(self, resource: Resource, *, labels: str = "", fields: str = "") -> Listing:
        self.calls.append(f"list {resource.api_version} {resource.plural} {labels}{fields}")
        found = self.lists.get(resource, NotFoundError(f"cannot list {resource.name}: 404"))
        if isinstance(found, ClusterError):
            raise found
        wanted = dict(part.split("=", 1) for part in labels.split(",") if part)
        kept = [one for one in found if wanted.items() <= (one["metadata"].get("labels") or {}).items()]
        return Listing(tuple(kept), "1")

    def patch(
        self,
        resource: Resource,
        name: str,
        body: Mapping[str, Any] | Sequence[Mapping[str, Any]],
        *,
        how: Patch = Patch.MERGE,
        subresource: str = "",
        force: bool = False,
    ) -> Object:
        self.patches.append((resource.path(self.namespace, name, subresource), body, how, force))
        answer = self.answers.pop(0) if self.answers else None
        if answer is not None:
            raise answer
        return {"metadata": {"name": name, "resourceVersion": f"after-{len(self.patches)}"}}
