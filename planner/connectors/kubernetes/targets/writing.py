"""Setting the replicas of one object through its scale subresource."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from planner.connectors.kubernetes.cluster import Cluster, Patch
from planner.connectors.kubernetes.errors import ClusterError, ConflictError, ForbiddenError, InvalidError
from planner.connectors.kubernetes.ownership import AUTOSCALER_MANAGERS, Claim, OwnedByOtherError
from planner.connectors.kubernetes.rivals import rivals
from planner.connectors.kubernetes.targets.seen import SeenPool

#: First server whose scale subresource takes part in field ownership.
OWNED_SCALE = (1, 22)

#: Times that a write is repeated because something other than the replicas has changed.
MOST_REPEATS = 3


class ScaleWriter:
    """Writes replicas, each guarded by the resource version that was seen.

    Each pod that becomes ready changes its object's status, and with it the version. So where that is refused, the
    replicas are read again: as long as they are what was seen, the write is repeated; else it is a conflict.

    With a server that keeps field ownership of `/scale`, by server-side apply: it is refused while others own the
    replicas, and repeated with force where all of them give way (`ownership`). With an older one, or one that does not
    know apply there, by a merge patch.

    Args:
        cluster: the API server.
        always: take replicas from anybody.
    """

    def __init__(self, cluster: Cluster, always: bool = False) -> None:
        self._cluster, self._always = cluster, always
        self._applies: bool | None = None

    def write(self, target: SeenPool, replicas: int) -> str:
        """Set them.

        Returns:
            The object's resource version afterwards.

        Raises:
            OwnedByOtherError: another controller owns them.
            ConflictError: the object has changed since it was seen.
            ClusterError: they cannot be set.
        """
        self.check(target, replicas)
        if self._applies is None:
            self._applies = self._cluster.version() >= OWNED_SCALE
        for _ in range(MOST_REPEATS):
            try:
                return self._write(target, replicas)
            except OwnedByOtherError:
                raise
            except ConflictError as error:
                target = replace(target, resource_version=self._version_now(target, error))
        return self._write(target, replicas)

    def _version_now(self, target: SeenPool, error: ConflictError) -> str:
        """The object's version where its replicas are what was seen; the conflict where they are not."""
        try:
            now = self._cluster.read(target.resource, target.object_name, "scale")
        except ForbiddenError:
            raise  # a right that is missing shows as that, and not as a conflict that never ends
        except ClusterError:
            raise error from None
        same = not target.uid or now["metadata"].get("uid") == target.uid
        if not same or int((now.get("spec") or {}).get("replicas", 0)) != target.desired:
            raise error
        return _version(now)

    def _write(self, target: SeenPool, replicas: int) -> str:
        if self._applies:
            try:
                return self._apply(target, replicas)
            except InvalidError:
                # Some aggregated servers and old custom resources do not know apply; the object itself may be at
                # fault too, and then the patch below says so.
                pass
        body = {"metadata": {"resourceVersion": target.resource_version}, "spec": {"replicas": replicas}}
        return _version(self._cluster.patch(target.resource, target.object_name, body, subresource="scale"))

    def check(self, target: SeenPool, replicas: int) -> None:
        """Refuse what the object would not survive.

        Raises:
            ClusterError: fewer workers than its `minAvailable`, and not none.
        """
        if 0 < replicas < target.least:
            raise ClusterError(
                f"{target.resource.kind} {target.object_name} takes {target.least} workers (its minAvailable) or more, "
                f"or none; {replicas} were asked for: lower minAvailable, or raise min_workers of pool {target.pool}"
            )

    def _apply(self, target: SeenPool, replicas: int) -> str:
        meta = {"name": target.object_name, "resourceVersion": target.resource_version}
        body = {"apiVersion": "autoscaling/v1", "kind": "Scale", "metadata": meta, "spec": {"replicas": replicas}}

        def apply(force: bool) -> str:
            patch = self._cluster.patch
            return _version(
                patch(target.resource, target.object_name, body, how=Patch.APPLY, subresource="scale", force=force)
            )

        if self._always:
            return apply(force=True)
        try:
            return apply(force=False)
        except ConflictError as error:
            # The other conflict, that the object has changed, is told apart by its words alone: both are a 409.
            if "conflict with" not in str(error):
                raise
            rival = self._rival(target)
            if rival is not None:
                raise OwnedByOtherError(
                    f"{rival.manager} owns the replicas of {target.resource.kind} {target.object_name}: stop it, take "
                    f"{target.pool} out of the planner's pools, or say takeover: always"
                ) from error
        return apply(force=True)

    def _rival(self, target: SeenPool) -> Claim | None:
        """The owner that does not give way, if there is one."""
        found = [claim for claim in target.claims if claim.scales]
        stale = [claim for claim in found if claim.manager.lower().startswith(AUTOSCALER_MANAGERS)]
        if stale and not rivals(self._cluster, [target]):
            found = [claim for claim in found if claim not in stale]
        return found[-1] if found else None


def _version(answer: dict[str, Any]) -> str:
    return str((answer.get("metadata") or {}).get("resourceVersion", ""))
