"""Watches a namespace and remembers what the cluster had, not what a planner meant: GPUs held, replicas asked for."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

from kubernetes import client

from tests.kubernetes.cluster import Cluster
from tests.kubernetes.installation.follow import Follower
from tests.kubernetes.installation.monitoring import write_pods

POOL = "plimsoll.io/pool"


@dataclass(frozen=True)
class Moment:
    """After one change of one pod: unix time, GPUs of all pods that exist, and how many pods there are."""

    at_s: float
    gpus: int
    pods: int


class GpuWatch(Follower):
    """Of the pods.

    Attributes:
        targets: file of what Prometheus scrapes, which follows the pods.
        moments: oldest first.
        deleted: names of the pods that are gone.
    """

    def __init__(self, cluster: Cluster, namespace: str, targets: Path) -> None:
        super().__init__(cluster, namespace, "gpu-watch")
        self.targets = targets
        self.moments: list[Moment] = []
        self.deleted: list[str] = []
        self._pods: dict[str, Any] = {}

    @property
    def most(self) -> int:
        """The most GPUs at any moment."""
        return self.most_since(0.0)

    def most_since(self, at_s: float) -> int:
        """The most GPUs at any moment since a unix time, and just before it."""
        before = [moment.gpus for moment in self.moments if moment.at_s < at_s][-1:]
        return max(before + [moment.gpus for moment in self.moments if moment.at_s >= at_s])

    def lister(self, api: client.ApiClient) -> Callable[..., Any]:
        """Pods."""
        listing: Callable[..., Any] = client.CoreV1Api(api).list_namespaced_pod
        return listing

    def listed(self, objects: list[Any]) -> None:
        """Count afresh."""
        self._pods = {pod.metadata.uid: pod for pod in objects}
        self._note()

    def changed(self, kind: str, thing: Any) -> None:
        """One came, went, or changed."""
        if kind == "DELETED":
            self._pods.pop(thing.metadata.uid, None)
            self.deleted.append(thing.metadata.name)
        else:
            self._pods[thing.metadata.uid] = thing
        self._note()

    def _note(self) -> None:
        self.moments.append(Moment(time.time(), sum(map(_gpus, self._pods.values())), len(self._pods)))
        write_pods(self.targets, self._pods.values())


def _gpus(pod: Any) -> int:
    """Of the limits; a pod that has ended holds none."""
    if pod.status.phase in {"Succeeded", "Failed"}:
        return 0
    limits = [one.resources.limits or {} for one in pod.spec.containers if one.resources is not None]
    return sum(int(one.get("nvidia.com/gpu", 0)) for one in limits)


@dataclass(frozen=True)
class Asked:
    """What a pool's Deployment asked for from a unix time on."""

    at_s: float
    pool: str
    replicas: int


class ReplicasWatch(Follower):
    """Of the Deployments that hold pools.

    Attributes:
        asked: every change, oldest first.
    """

    def __init__(self, cluster: Cluster, namespace: str) -> None:
        super().__init__(cluster, namespace, "replicas-watch")
        self.asked: list[Asked] = []
        self._now: dict[str, int] = {}

    def since(self, at_s: float) -> list[Asked]:
        """Changes since a unix time."""
        return [one for one in self.asked if one.at_s >= at_s]

    def lowered(self, since_s: float) -> list[str]:
        """Every change since then that asked for fewer workers than the one before, in words."""
        pools = {one.pool for one in self.asked}
        return [
            f"{pool} from {before.replicas} to {after.replicas} at {after.at_s:.1f}"
            for pool in sorted(pools)
            for before, after in pairwise(one for one in self.asked if one.pool == pool)
            if after.at_s >= since_s and after.replicas < before.replicas
        ]

    def lister(self, api: client.ApiClient) -> Callable[..., Any]:
        """Deployments."""
        listing: Callable[..., Any] = client.AppsV1Api(api).list_namespaced_deployment
        return listing

    def listed(self, objects: list[Any]) -> None:
        """Note what has changed meanwhile."""
        for one in objects:
            self._note(one)

    def changed(self, kind: str, thing: Any) -> None:
        """One has other replicas, perhaps."""
        if kind != "DELETED":
            self._note(thing)

    def _note(self, deployment: Any) -> None:
        pool = (deployment.metadata.labels or {}).get(POOL)
        replicas = int(deployment.spec.replicas)
        if pool is not None and self._now.get(pool) != replicas:
            self._now[pool] = replicas
            self.asked.append(Asked(time.time(), pool, replicas))
