"""Who may act on a graph: a Lease object, kept as Kubernetes' own components keep theirs.

Clocks of different machines are never compared. Whoever wants the lease watches when its record last changed, by the
own steady clock, and takes it only when nothing changed for as long as the record says; the holder counts from before
it sent its last renewal. So the holder always gives up first, however wrong the clocks are. (That the steady clocks
run at the same speed is assumed, as everywhere.) Taking and renewing are refused by the server when somebody has
written in between (resourceVersion).

A planner that is frozen between the check and the write and thawed after the lease was lost may still send that one
write; it is refused if the new holder has changed the replicas by then.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from typing import Any

from planner.connectors.base import LeaseState, NotHolderError
from planner.connectors.kubernetes.cluster import Cluster, Object
from planner.connectors.kubernetes.errors import ConflictError, NotFoundError
from planner.connectors.kubernetes.moments import micro_time
from planner.connectors.kubernetes.resources import LEASES
from worker_graph.kubernetes.labels import GRAPH, PART_OF, object_name

#: Times that taking is tried when others write the object at the same moment.
MOST_TRIES = 3


def lease_name(graph: str) -> str:
    """Name of a graph's Lease."""
    return object_name(PART_OF, graph)


class Lease:
    """A graph's lease as one planner sees it.

    Args:
        cluster: with the graph's namespace.
        graph: its name.
        steady: seconds of a clock that is never set.
        wall: seconds since the epoch, for people who read the object.
    """

    def __init__(
        self,
        cluster: Cluster,
        graph: str,
        *,
        steady: Callable[[], float] = time.monotonic,
        wall: Callable[[], float] = time.time,
    ) -> None:
        self._cluster, self._steady, self._wall = cluster, steady, wall
        self._labels = {GRAPH: graph, "app.kubernetes.io/managed-by": PART_OF}
        self.name = lease_name(graph)
        self._seen: Object = {}
        self._seen_at_s = -math.inf
        self._holder = ""
        self._until_s = -math.inf
        self._duration_s = 0.0

    def take(self, holder: str, duration_s: float) -> LeaseState:
        """Take or renew it, if no other holds it; for at least one second, in whole seconds.

        Raises:
            ClusterError: the server did not say who holds it now.
        """
        duration_s = float(max(math.ceil(duration_s), 1))
        for tries in range(MOST_TRIES):
            found = self._cluster.find(LEASES, self.name)
            record = (found or {}).get("spec") or {}
            self._observe(record)
            current = str(record.get("holderIdentity") or "")
            left_s = self._seen_at_s + float(record.get("leaseDurationSeconds") or 0) - self._steady()
            if current not in {"", holder} and left_s > 0:
                self._forget()
                return LeaseState(current, held=False, expires_in_s=left_s)
            asked_s = self._steady()
            try:
                self._put(found, self._record(record, holder, int(duration_s)))
            except (ConflictError, NotFoundError):
                # Somebody was quicker: look who.
                if tries + 1 == MOST_TRIES:
                    raise
                continue
            self._holder, self._until_s, self._duration_s = holder, asked_s + duration_s, duration_s
            return LeaseState(holder, held=True, expires_in_s=self._until_s - self._steady())
        raise AssertionError("the last try returns or raises")

    def check(self, holder: str) -> None:
        """Ask the server whether this planner still is the holder, with time enough to write.

        Raises:
            NotHolderError: it is not.
            ClusterError: the server did not say.
        """
        found = self._cluster.find(LEASES, self.name)
        current = str(((found or {}).get("spec") or {}).get("holderIdentity") or "")
        if current != holder:
            self._forget()
            raise NotHolderError(f"the lease {self.name} is held by {current or 'no one'}")
        self.check_time(holder)

    def check_time(self, holder: str) -> None:
        """The part of `check` that needs no request.

        Raises:
            NotHolderError: the lease has lapsed, or would before a write that is sent now has come through.
        """
        left_s = self._until_s - self._steady() if self._holder == holder else -math.inf
        if left_s <= min(self._cluster.timeout_s, self._duration_s / 3):
            raise NotHolderError(f"the lease {self.name} has lapsed, or is about to, and was not renewed")

    def release(self, holder: str) -> None:
        """Give it back, so that another need not wait; nothing happens if this planner does not hold it."""
        self._forget()
        for _ in range(MOST_TRIES):
            found = self._cluster.find(LEASES, self.name)
            record = (found or {}).get("spec") or {}
            if found is None or record.get("holderIdentity") != holder:
                return
            try:
                # As client-go: with a short duration, for those who look at that alone.
                self._put(found, {**self._record(record, holder, 1), "holderIdentity": ""})
            except ConflictError:
                continue
            except NotFoundError:
                return
            return

    def _observe(self, record: Object) -> None:
        """Note when the record was seen to change."""
        if record != self._seen or self._seen_at_s == -math.inf:
            self._seen, self._seen_at_s = record, self._steady()

    def _forget(self) -> None:
        self._holder, self._until_s = "", -math.inf

    def _record(self, old: Object, holder: str, duration_s: int) -> Object:
        now = micro_time(self._wall())
        record: dict[str, Any] = {
            "leaseTransitions": 0,
            "acquireTime": now,
            **old,
            "holderIdentity": holder,
            "leaseDurationSeconds": duration_s,
            "renewTime": now,
        }
        if old and old.get("holderIdentity") != holder:
            record["acquireTime"] = now
            record["leaseTransitions"] = int(old.get("leaseTransitions") or 0) + 1
        return record

    def _put(self, found: Object | None, record: Object) -> None:
        meta = {"name": self.name, "labels": self._labels} if found is None else found["metadata"]
        body = {"apiVersion": LEASES.api_version, "kind": LEASES.kind, "metadata": meta, "spec": record}
        if found is None:
            self._cluster.create(LEASES, body)
        else:
            self._cluster.replace(LEASES, self.name, body)
