"""What tests of layout changes share: a watch of the pods, a proposal, and ticks until a change has ended."""

from __future__ import annotations

import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from kubernetes import client

from planner.connectors.kubernetes.connector import KubernetesConnector
from planner.core.layout_change import LayoutProposal
from planner.core.types import Role
from tests.integration.kubernetes.layout_planner import ME
from tests.kubernetes.cluster import Cluster
from tests.kubernetes.installation.follow import Follower
from tests.servers import wait_until

PATIENCE_S = 90.0

#: GPUs of the whole capacity: of four workers of TP2, or of two of TP4.
WHOLE = 8.0

#: What the fake kubelet is asked for: starts and drains that the watch sees, and that take no time to speak of.
SOON = {"plimsoll.test/start-delay-s": "0.3", "plimsoll.test/ready-delay-s": "0.5", "plimsoll.test/drain-s": "1"}


def proposal(**changed: Any) -> LayoutProposal:
    facts: dict[str, Any] = {
        "pool": "Decode", "role": Role.AGGREGATED, "old": (2, 1), "new": (4, 1), "old_workers": 4, "new_workers": 2,
        "new_gpus": 4, "least_capacity": 1.0, "patience_s": 60.0, "duration_s": 0.0, "missing_s": 0.0, "peak_gpus": 0,
    }  # fmt: skip
    return LayoutProposal(**{**facts, **changed})


class Seen(Follower):
    """The pods of a namespace as a watch shows them, apart from whatever changes them.

    Attributes:
        gpus: of all pods that exist, after each change of one, oldest first.
        shares: of the whole capacity that serves and is to go on, likewise.
    """

    def __init__(self, cluster: Cluster, namespace: str) -> None:
        super().__init__(cluster, namespace, "pods-watch")
        self.gpus: list[int] = []
        self.shares: list[float] = []
        self._pods: dict[str, tuple[int, bool]] = {}

    def lister(self, api: client.ApiClient) -> Callable[..., Any]:
        """Pods."""
        listing: Callable[..., Any] = client.CoreV1Api(api).list_namespaced_pod
        return listing

    def listed(self, objects: list[Any]) -> None:
        """Count afresh."""
        self._pods = {pod.metadata.uid: _counts(pod) for pod in objects}
        self._note()

    def changed(self, kind: str, thing: Any) -> None:
        """One came, went, or changed."""
        if kind == "DELETED":
            self._pods.pop(thing.metadata.uid, None)
        else:
            self._pods[thing.metadata.uid] = _counts(thing)
        self._note()

    def _note(self) -> None:
        self.gpus.append(sum(gpus for gpus, _ in self._pods.values()))
        self.shares.append(sum(gpus for gpus, ready in self._pods.values() if ready) / WHOLE)


def _counts(pod: Any) -> tuple[int, bool]:
    gpus = int(pod.spec.containers[0].resources.limits["nvidia.com/gpu"])
    ready = any(one.type == "Ready" and one.status == "True" for one in pod.status.conditions or ())
    return gpus, ready and pod.metadata.deletion_timestamp is None


@contextmanager
def watched(cluster: Cluster, namespace: str) -> Iterator[Seen]:
    """A watch of a graph whose whole capacity serves."""
    seen = Seen(cluster, namespace)
    seen.start()
    try:
        wait_until(lambda: bool(seen.shares) and seen.shares[-1] == 1.0, "the watch has begun", PATIENCE_S)
        yield seen
    finally:
        seen.stop()


@contextmanager
def crashing(core: client.CoreV1Api, namespace: str, gpus: int) -> Iterator[None]:
    """Every pod of so many GPUs crashes as soon as it runs, again and again."""
    ended = threading.Event()
    body = {"metadata": {"annotations": {"plimsoll.test/crash": "true"}}}

    def spoil() -> None:
        while not ended.wait(0.05):
            for pod in core.list_namespaced_pod(namespace).items:
                mine = _counts(pod)[0] == gpus and pod.metadata.deletion_timestamp is None
                if not mine or "plimsoll.test/crash" in (pod.metadata.annotations or {}):
                    continue
                try:
                    core.patch_namespaced_pod(pod.metadata.name, namespace, body)
                except client.ApiException as error:
                    if error.status != 404:  # gone meanwhile
                        raise

    thread = threading.Thread(target=spoil)
    thread.start()
    try:
        yield
    finally:
        ended.set()
        thread.join(10.0)


def run(planner: KubernetesConnector) -> list[str]:
    """Ticks until the change has ended; what was said of it."""
    said: list[str] = []
    end = time.monotonic() + PATIENCE_S
    while True:
        supply = planner.read()
        planner.lease(ME, 60.0)
        said.append(supply.layout_change.under_way)
        assert supply.layouts["Decode"] in {(2, 1), (4, 1)}
        if not said[-1]:
            said.append(supply.layout_change.last)
            return said
        assert supply.pools["Decode"].desired == 4, "both sides are not shown as what they stand for"
        planner.apply({"Decode": 4}, ME)
        assert time.monotonic() < end, said[-3:]
        time.sleep(0.1)


def lives(cluster: Cluster, namespace: str, *arguments: str, most: int = 30) -> list[str]:
    """Planners that are each ended right after so many writes, until a change has ended; what ended each.

    Args:
        cluster: that they act on.
        namespace: of the graph.
        arguments: of `layout_planner` after the namespace.
        most: of them.
    """
    ended: list[str] = []
    program = [sys.executable, "-m", "tests.integration.kubernetes.layout_planner", str(cluster.kubeconfig), namespace]
    for _ in range(most):
        one = subprocess.run([*program, *arguments], capture_output=True, text=True, timeout=PATIENCE_S, check=False)
        assert one.returncode in {0, 9}, one.stderr
        ended.append(one.stdout.strip())
        if one.returncode == 0:
            return ended
    raise AssertionError(f"the change has not ended: {ended}")
