"""Who held the Lease when, and whether everybody who wrote held it then: from the Lease's history and the audit log."""

from __future__ import annotations

import time
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

from kubernetes import client

from tests.kubernetes.audit import ApiCall
from tests.kubernetes.cluster import Cluster
from tests.kubernetes.installation.follow import Follower

#: What a planner does to a graph, by resource and subresource.
ACTS = {("deployments", "scale"), ("deployments", ""), ("pods", "")}

_WRITES = {"create", "update", "patch", "delete"}


@dataclass(frozen=True)
class Tenure:
    """One version of the Lease.

    Attributes:
        seen_s: unix time at which the watch showed it; later than it was written.
        holder: empty when it was given back, or deleted.
        renewed_s: unix time, by its writer's clock, just before it was sent.
        lasts_s: from then on.
    """

    seen_s: float
    holder: str
    renewed_s: float
    lasts_s: float


class LeaseWatch(Follower):
    """Of a graph's Lease.

    Attributes:
        tenures: every version, oldest first.
    """

    def __init__(self, cluster: Cluster, namespace: str, name: str) -> None:
        super().__init__(cluster, namespace, "lease-watch")
        self.tenures: list[Tenure] = []
        self._name = name

    @property
    def holder(self) -> str:
        """Now; empty when nobody holds it."""
        return self.tenures[-1].holder if self.tenures else ""

    def holders(self, since_s: float) -> list[str]:
        """Of every version that was seen since a unix time."""
        return [one.holder for one in self.tenures if one.seen_s >= since_s]

    def lister(self, api: client.ApiClient) -> Callable[..., Any]:
        """Leases."""
        listing: Callable[..., Any] = client.CoordinationV1Api(api).list_namespaced_lease
        return listing

    def listed(self, objects: list[Any]) -> None:
        """Note it where it is new."""
        for one in objects:
            self.changed("MODIFIED", one)

    def changed(self, kind: str, thing: Any) -> None:
        """Another version."""
        if thing.metadata.name != self._name:
            return
        now_s, spec = time.time(), thing.spec
        if kind == "DELETED":
            self.tenures.append(Tenure(now_s, "", now_s, 0.0))
            return
        renewed_s = spec.renew_time.timestamp() if spec.renew_time is not None else now_s
        made = Tenure(now_s, spec.holder_identity or "", renewed_s, float(spec.lease_duration_seconds or 0))
        if not self.tenures or (made.holder, made.renewed_s) != (self.tenures[-1].holder, self.tenures[-1].renewed_s):
            self.tenures.append(made)


def strays(
    calls: Sequence[ApiCall],
    tenures: Sequence[Tenure],
    identity_of: dict[str, str],
    what: Collection[tuple[str, str]] = ACTS,
) -> list[str]:
    """Writes of planners to the graph that were made by one that did not hold the Lease then, in words.

    A write counts from the moment at which the server received it. A tenure begins when its holder sent it (so that
    the write may follow it at once) and ends when the next holder sent its own, or when it lapsed. All clocks are this
    machine's.

    Args:
        calls: of the audit log.
        tenures: of the Lease.
        identity_of: identities that pods take in the Lease, by pod.
        what: writes that count, by resource and subresource.
    """
    found = []
    for call in calls:
        acts = (call.resource, call.subresource) in what and call.verb in _WRITES and call.code < 400
        if not acts or call.pod not in identity_of:
            continue
        at_s, who = call.time.timestamp(), identity_of[call.pod]
        if not any(_held(tenures, i, who, at_s) for i in range(len(tenures))):
            found.append(f"{call.pod} ({who}): {call.verb} {call.uri} at {at_s:.3f}")
    return found


def _held(tenures: Sequence[Tenure], i: int, who: str, at_s: float) -> bool:
    one = tenures[i]
    ends_s = one.renewed_s + one.lasts_s
    others = [later.renewed_s for later in tenures[i + 1 :] if later.holder != who]
    return one.holder == who and one.renewed_s <= at_s < min([ends_s, *others[:1]])


def overlaps(tenures: Sequence[Tenure], planners: Collection[str]) -> list[str]:
    """Take-overs by planners that came before the last holder's tenure had ended, in words; one given back had.

    Args:
        tenures: of the Lease.
        planners: identities that must keep the rule; others are the test's own doing.
    """
    found = []
    for before, after in pairwise(tenures):
        taken = before.holder and after.holder != before.holder and after.holder in planners
        if taken and after.renewed_s < before.renewed_s + before.lasts_s:
            found.append(f"{after.holder} took it from {before.holder} at {after.renewed_s:.3f}, too early")
    return found
