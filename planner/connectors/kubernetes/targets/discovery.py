"""Where the API server keeps a kind of objects that the configuration names."""

from __future__ import annotations

from planner.connectors.kubernetes import resources
from planner.connectors.kubernetes.cluster import Cluster
from planner.connectors.kubernetes.errors import ClusterError, NotFoundError
from planner.connectors.kubernetes.resources import Resource

KNOWN = {
    one.kind: one
    for one in (
        resources.DEPLOYMENTS,
        resources.STATEFUL_SETS,
        resources.LEADER_WORKER_SETS,
        resources.POD_CLIQUES,
        resources.POD_CLIQUE_SCALING_GROUPS,
    )
}


class MismatchError(ClusterError):
    """The graph's objects are not what the configuration says of them; the message says what would be right."""


class _Discovery(Resource):
    """A discovery document of an API group, of all its versions or of one; it is read as an object is."""

    def path(self, namespace: str, name: str = "", subresource: str = "") -> str:  # noqa: ARG002 - has none
        return "/".join(part for part in ("/apis", self.group, self.version) if part)


def find_resource(cluster: Cluster, kind: str) -> Resource:
    """The resource of a kind by its plain name, or of `<plural>.<group>`.

    Raises:
        MismatchError: the server has none, or one without a scale subresource.
        ClusterError: it cannot be asked.
    """
    if kind in KNOWN:
        return KNOWN[kind]
    plural, _, group = kind.partition(".")
    if not group:
        raise MismatchError(f"kind {kind} is not known; expected one of {', '.join(KNOWN)}, or <plural>.<group>")
    for known in KNOWN.values():
        if known.name == kind:
            return known
    try:
        document = cluster.read(_Discovery(group, "", plural, ""), "")
    except NotFoundError:
        raise MismatchError(f"{cluster.server} has no API group {group}; is what brings {kind} installed?") from None
    # The preferred version comes first.
    preferred = (document.get("preferredVersion") or {}).get("version")
    versions = [str(one["version"]) for one in document.get("versions") or ()]
    for version in sorted(versions, key=lambda one: one != preferred):
        listed = cluster.read(_Discovery(group, version, plural, ""), "").get("resources") or ()
        served = {str(one["name"]): one for one in listed}
        if plural not in served:
            continue
        if f"{plural}/scale" not in served:
            raise MismatchError(f"{kind} ({version}) has no scale subresource, so that its workers cannot be set")
        one = served[plural]
        return Resource(group, version, plural, str(one["kind"]), bool(one.get("namespaced", True)))
    raise MismatchError(f"API group {group} at {cluster.server} has no {plural}")
