"""What a pod's object says of it, and what its pods say of a worker. Pure: objects in, words out."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any

from planner.connectors.kubernetes.moments import seconds_of
from worker_graph.kubernetes.labels import SERVES
from worker_graph.spec.containers import GPU_RESOURCES

#: Written by people and controllers: which pods of a ReplicaSet go first, lowest first; 0 where there is none.
DELETION_COST = "controller.kubernetes.io/pod-deletion-cost"

#: Why a container waits that will not get well by waiting a little longer.
_FAILURES = frozenset(
    {
        "CrashLoopBackOff", "CreateContainerConfigError", "CreateContainerError", "ErrImageNeverPull", "ErrImagePull",
        "ImageInspectError", "ImagePullBackOff", "InvalidImageName", "PostStartHookError", "PreCreateHookError",
        "PreStartHookError", "RegistryUnavailable", "RunContainerError", "StartError",
    }
)  # fmt: skip

#: Labels that number the pods of a group, leader 0.
_INDEX_LABELS = ("leaderworkerset.sigs.k8s.io/worker-index", "apps.kubernetes.io/pod-index")


class Phase(StrEnum):
    """Where a pod, or a worker of several pods, is in its life.

    PENDING: the scheduler has not placed it yet. UNSCHEDULABLE: it has tried and found no node. STARTING: on a node
    and not ready: images, containers, model. FAILING: a container crashes, or cannot be made. READY: serves.
    TERMINATING: drains and still holds its GPUs. GONE: its containers have ended for good; it holds nothing.
    """

    PENDING = "pending"
    UNSCHEDULABLE = "unschedulable"
    STARTING = "starting"
    FAILING = "failing"
    READY = "ready"
    TERMINATING = "terminating"
    GONE = "gone"


@dataclass(frozen=True, slots=True)
class Pod:
    """What matters of a pod.

    Attributes:
        name: in its namespace.
        uid: of the object; a pod of the same name later has another.
        phase: where it is in its life.
        trouble: what the cluster says of an unschedulable or failing one; empty for the others.
        created_s: when its object was made, seconds since the epoch by the API server's clock.
        scheduled_s: when it was given a node; None before.
        ready_s: when it was last found ready; None where it is not ready.
        never_ready: surely has not been ready yet. Readiness that comes and goes is not a start.
        restarts: of its containers, together.
        ip: its address; empty before it has one.
        ports: container ports by name, or by number where they have none, in the order of the containers.
        labels: of the pod.
        owner_kind: kind of its controller.
        deletion_cost: as annotated; None where it is not.
        gpus: by the limits of its containers.
    """

    name: str
    uid: str
    phase: Phase
    trouble: str = ""
    created_s: float = 0.0
    scheduled_s: float | None = None
    ready_s: float | None = None
    never_ready: bool = False
    restarts: int = 0
    ip: str = ""
    ports: Mapping[str, int] = field(default_factory=dict)
    labels: Mapping[str, str] = field(default_factory=dict)
    owner_kind: str = ""
    deletion_cost: str | None = None
    gpus: int = 0

    def address(self, wanted: int | str, fallbacks: Sequence[str] = ()) -> str:
        """host:port of a port by number, or by the first of the names that its containers have.

        Args:
            wanted: number or name.
            fallbacks: names to take where there is no port of the wanted name; after them the only port there is.

        Returns:
            IPv6 addresses are in brackets; empty without an address or without such a port.
        """
        if isinstance(wanted, str):
            found = next((self.ports[name] for name in (wanted, *fallbacks) if name in self.ports), None)
            if found is None and len(self.ports) == 1:
                found = next(iter(self.ports.values()))
        else:
            found = wanted
        if not self.ip or found is None:
            return ""
        return f"[{self.ip}]:{found}" if ":" in self.ip else f"{self.ip}:{found}"


@dataclass(frozen=True, slots=True)
class PodWorker:
    """A worker: one pod, or a group of pods that serve together.

    Attributes:
        name: unique within the graph.
        pool: name of its pool.
        phase: the least of its pods'; see `worker_of`.
        trouble: of its first pod that has any.
        pods: that hold something, leader first.
    """

    name: str
    pool: str
    phase: Phase
    trouble: str
    pods: tuple[Pod, ...]

    @property
    def leader(self) -> Pod:
        """The pod that serves the group's API."""
        return self.pods[0]

    @property
    def live(self) -> bool:
        """Whether its object counts it among its replicas: all but those that go."""
        return self.phase is not Phase.TERMINATING


def pod_of(found: Mapping[str, Any]) -> Pod:
    """A pod by its object."""
    meta, spec, status = found["metadata"], found.get("spec") or {}, found.get("status") or {}
    conditions = {one["type"]: one for one in status.get("conditions") or ()}
    containers = [*(status.get("initContainerStatuses") or ()), *(status.get("containerStatuses") or ())]
    ready = conditions.get("Ready", {})
    is_ready = ready.get("status") == "True"
    scheduled = conditions.get("PodScheduled", {})
    phase, trouble = _phase(meta, spec, status, scheduled, containers, is_ready=is_ready)
    owner: Mapping[str, Any] = next((one for one in meta.get("ownerReferences") or () if one.get("controller")), {})
    return Pod(
        name=str(meta["name"]),
        uid=str(meta.get("uid", "")),
        phase=phase,
        trouble=trouble,
        created_s=seconds_of(meta.get("creationTimestamp")) or 0.0,
        scheduled_s=seconds_of(scheduled.get("lastTransitionTime")) if scheduled.get("status") == "True" else None,
        ready_s=seconds_of(ready.get("lastTransitionTime")) if is_ready else None,
        never_ready=not is_ready and _never_ready(status, ready, containers),
        restarts=sum(int(one.get("restartCount") or 0) for one in containers),
        ip=str(status.get("podIP") or ""),
        ports=_ports(spec),
        labels=meta.get("labels") or {},
        owner_kind=str(owner.get("kind", "")),
        deletion_cost=(meta.get("annotations") or {}).get(DELETION_COST),
        gpus=_gpus(spec),
    )


def worker_of(name: str, pool: str, pods: Sequence[Pod], pods_per_worker: int = 1) -> PodWorker | None:
    """The worker that these pods are; None where they have all ended.

    It goes when any of its pods goes, fails when any fails, waits for a node when any does, and is ready when all are
    there and ready. Pods that have ended do not count: their controller replaces them, and until then the group is
    not whole. The leader is the pod of the group's lowest index.
    """
    there = sorted((pod for pod in pods if pod.phase is not Phase.GONE), key=_place)
    if not there:
        return None
    phases = {pod.phase for pod in there}
    phase = Phase.STARTING
    for one in (Phase.TERMINATING, Phase.FAILING, Phase.UNSCHEDULABLE):
        if one in phases:
            phase = one
            break
    else:
        if len(phases) == 1 and (len(there) >= pods_per_worker or Phase.PENDING in phases):
            phase = there[0].phase
    trouble = next((pod.trouble for pod in there if pod.trouble and pod.phase is phase), "")
    return PodWorker(name, pool, phase, trouble, tuple(there))


def _place(pod: Pod) -> tuple[int, int, str]:
    index = next((pod.labels[key] for key in _INDEX_LABELS if key in pod.labels), "")
    serves = pod.labels.get(SERVES) == "true"
    # Without an index, the pod that says that it serves, else one with ports; names decide between equals.
    return (int(index) if index.isdigit() else 1_000_000, 0 if serves else 1 if pod.ports else 2, pod.name)


def _phase(
    meta: Mapping[str, Any],
    spec: Mapping[str, Any],
    status: Mapping[str, Any],
    scheduled: Mapping[str, Any],
    containers: Sequence[Mapping[str, Any]],
    *,
    is_ready: bool,
) -> tuple[Phase, str]:
    if status.get("phase") in {"Succeeded", "Failed"}:
        return Phase.GONE, ""
    if meta.get("deletionTimestamp"):
        return Phase.TERMINATING, ""
    if is_ready:
        return Phase.READY, ""
    if not spec.get("nodeName"):
        if scheduled.get("status") == "False" and scheduled.get("reason") == "Unschedulable":
            return Phase.UNSCHEDULABLE, str(scheduled.get("message") or "the scheduler gives no reason")
        return Phase.PENDING, ""
    trouble = next((text for one in containers if (text := _container_trouble(one))), "")
    return (Phase.FAILING, trouble) if trouble else (Phase.STARTING, "")


def _container_trouble(one: Mapping[str, Any]) -> str:
    """What is wrong with a container; empty if it may yet get ready by itself.

    One that has crashed counts as failing until it is ready, also while it runs again: between two crashes a worker
    in a crash loop looks as one that starts.
    """
    if one.get("ready"):
        return ""
    state, last = one.get("state") or {}, one.get("lastState") or {}
    waiting = state.get("waiting") or {}
    ended = last.get("terminated") or {}
    now_ended = state.get("terminated") or {}
    if now_ended.get("exitCode"):
        ended = now_ended
    restarts = int(one.get("restartCount") or 0)
    words = []
    if waiting.get("reason") in _FAILURES:
        words.append(str(waiting["reason"]))
    if ended.get("exitCode"):
        words.append(f"{ended.get('reason') or 'Error'} with exit code {ended['exitCode']}")
    if not words:
        return ""
    text = f"container {one.get('name', '?')}: {', '.join(words)}"
    if restarts:
        text += f" after {restarts} restart{'s' if restarts > 1 else ''}"
    message = str(waiting.get("message") or "") if waiting.get("reason") in _FAILURES else ""
    return f"{text}: {message}" if message else text


def _never_ready(status: Mapping[str, Any], ready: Mapping[str, Any], containers: Sequence[Mapping[str, Any]]) -> bool:
    """The kubelet says "not ready" of a pod before it starts its containers, and then again only after it was ready."""
    if any(int(one.get("restartCount") or 0) for one in containers):
        return False
    if status.get("phase") == "Pending" or not ready:
        return True
    since = seconds_of(ready.get("lastTransitionTime"))
    running = [(one.get("state") or {}).get("running") or {} for one in status.get("containerStatuses") or ()]
    started = [at for one in running if (at := seconds_of(one.get("startedAt"))) is not None]
    return since is not None and bool(started) and since <= min(started)


def _ports(spec: Mapping[str, Any]) -> dict[str, int]:
    found: dict[str, int] = {}
    for container in spec.get("containers") or ():
        for port in container.get("ports") or ():
            number = int(port["containerPort"])
            found.setdefault(str(port.get("name") or number), number)
    return found


def _gpus(spec: Mapping[str, Any]) -> int:
    total = 0
    for container in spec.get("containers") or ():
        limits = (container.get("resources") or {}).get("limits") or {}
        total += next((int(limits[name]) for name in GPU_RESOURCES if name in limits), 0)
    return total
