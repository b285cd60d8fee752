"""What the tests share, and where they begin: planners at rest or at work."""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from kubernetes import client

from planner.demo.settings import DECODE, PREFILL
from tests.fault_tolerance.planner.traffic import LOW_RPS, Traffic
from tests.kubernetes.audit import ApiCall
from tests.kubernetes.control_plane import ControlPlane
from tests.kubernetes.installation.actors import overlaps, strays
from tests.kubernetes.installation.graphs import GRAPH
from tests.kubernetes.installation.installation import PATIENCE_S, Installation
from tests.kubernetes.installation.planner import Planner
from tests.kubernetes.installation.planners import TICK_S
from tests.kubernetes.proxy import Proxy
from tests.servers import wait_until

ONE_EACH = {PREFILL: 1, DECODE: 1}

#: Two changes by somebody else within ten ticks are a fight.
NO_FIGHT_S = 11.0 * TICK_S

#: File to which convergence times are appended, for `figures`.
FIGURES = "PLIMSOLL_FIGURES"


@dataclass
class Site:
    """An installation, a proxy through which planners may reach the API server, and the graph's traffic.

    Attributes:
        identities: of all planners that ran, by pod.
    """

    made: Installation
    proxy: Proxy
    traffic: Traffic
    identities: dict[str, str] = field(default_factory=dict)
    _scaled_s: dict[str, float] = field(default_factory=dict)

    @property
    def control_plane(self) -> ControlPlane:
        assert isinstance(self.made.cluster, ControlPlane)
        return self.made.cluster

    # -- planners --------------------------------------------------------------------------------------------------

    def know(self, *planners: Planner) -> None:
        """Remember who they are, for `one_actor_since`."""
        self.identities |= {one.pod: one.identity for one in planners}

    def is_at_rest(self, planner: Planner) -> bool:
        """Whether it sees everything and acts, and one worker each is there, which is all that little load needs."""
        newest = planner.newest()
        well = newest["level"] == "model" and newest["current"] == newest["plan"] == ONE_EACH
        return well and planner.holds() and planner.settled()

    def at_rest(self, planner: Planner) -> None:
        """Wait until that is so."""
        self.traffic.rps = LOW_RPS
        wait_until(lambda: self.is_at_rest(planner), "the planner is at rest", PATIENCE_S, every_s=0.2)

    # -- the graph -------------------------------------------------------------------------------------------------

    def replicas(self) -> dict[str, int]:
        """What the Deployments ask for, by pool, as the API server says now."""
        found = client.AppsV1Api(self.made.api).list_namespaced_deployment(self.made.namespace).items
        pools = {one.metadata.labels.get("plimsoll.io/pool"): int(one.spec.replicas) for one in found}
        return {pool: pools[pool] for pool in ONE_EACH}

    def calm(self, *pools: str) -> None:
        """Wait until these may be scaled by hand again."""
        last_s = max(self._scaled_s.get(pool, 0.0) for pool in pools)
        time.sleep(max(0.0, last_s + NO_FIGHT_S - time.time()))

    def pending(self, pool: str) -> list[str]:
        """Pods of a pool that have no node."""
        pods = self.made.core.list_namespaced_pod(self.made.namespace, label_selector=f"plimsoll.io/pool={pool}").items
        return sorted(pod.metadata.name for pod in pods if not pod.spec.node_name)

    def scale(self, pool: str, replicas: int, *, calmly: bool = True) -> None:
        """As `kubectl scale` does; calmly: not so soon after the last time that a planner would take it for a fight."""
        if calmly:
            self.calm(pool)
        self._scaled_s[pool] = time.time()
        client.AppsV1Api(self.made.api).patch_namespaced_deployment_scale(
            deployment(pool), self.made.namespace, {"spec": {"replicas": replicas}}
        )

    def cordon(self, node: str, *, cordoned: bool = True) -> None:
        """As `kubectl cordon`, and `uncordon`, do."""
        self.made.core.patch_node(node, {"spec": {"unschedulable": cordoned}})

    def annotate(self, pod: str, **wishes: str | None) -> None:
        """Ask the fake kubelet for something else with a pod; None takes a wish back."""
        found = {f"plimsoll.test/{name.replace('_', '-')}": value for name, value in wishes.items()}
        self.made.core.patch_namespaced_pod(pod, self.made.namespace, {"metadata": {"annotations": found}})

    # -- what was seen ---------------------------------------------------------------------------------------------

    def writes(self, mark: int) -> list[ApiCall]:
        """Writes of replicas by planners since a mark of the audit log, refused ones too."""
        calls = self.control_plane.audit(mark, namespace=self.made.namespace)
        return [one for one in calls if one.verb == "patch" and one.subresource == "scale" and one.pod]

    def steps(self, mark: int, pool: str) -> int:
        """Writes of a pool's replicas by planners since a mark that the server carried out."""
        return sum(one.code == 200 and one.name == deployment(pool) for one in self.writes(mark))

    def lowered_since(self, since_s: float) -> list[str]:
        """Pools that were asked for fewer workers since a unix time, by whomever, in words."""
        self.made.replicas.catch_up()
        return self.made.replicas.lowered(since_s)

    def within_budget(self, since_s: float, *, by_hand: int = 0) -> None:
        """At every moment since a unix time; `by_hand`: GPUs beyond it that a person has asked for."""
        self.made.watch.catch_up()
        most, budget = self.made.watch.most_since(since_s), self.made.kind.budget + by_hand
        assert most <= budget, f"{most} GPUs of {budget}: {self.made.watch.moments}"

    def one_actor_since(self, mark: int) -> None:
        """Whoever has changed something held the Lease then, and no one took it from another too early."""
        calls = self.control_plane.audit(mark, namespace=self.made.namespace)
        unknown = {one.pod for one in calls if one.pod and one.subresource == "scale"} - self.identities.keys()
        assert not unknown, f"pods that nobody knows have written: {unknown}"
        self.made.lease.catch_up()
        assert strays(calls, self.made.lease.tenures, self.identities) == [], self.made.lease.tenures
        assert overlaps(self.made.lease.tenures, self.identities.values()) == [], self.made.lease.tenures


def deployment(pool: str) -> str:
    """Name of a pool's Deployment."""
    return f"{GRAPH}-{pool.lower()}"


def note(what: str, seconds: float) -> None:
    """One figure, for people and for `figures`."""
    print(f"{what}: {seconds:.1f} s")
    if named := os.environ.get(FIGURES):
        with Path(named).open("a", encoding="utf-8") as stream:
            stream.write(f"{seconds:.2f}\t{what}\n")


def timed(true: Callable[[], bool], what: str, since_s: float | None = None) -> float:
    """Wait until something holds; note and return the seconds since a unix time, now without it."""
    began_s = time.time() if since_s is None else since_s
    wait_until(true, what, PATIENCE_S, every_s=0.1)
    seconds = time.time() - began_s
    note(what, seconds)
    return seconds
