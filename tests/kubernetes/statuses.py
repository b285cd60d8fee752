"""Status of a pod in the form in which a kubelet reports it."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import UTC, datetime

from tests.kubernetes.api import Object


def now() -> str:
    """The time in the API's form."""
    return datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def waiting(reason: str, message: str = "") -> Object:
    """State of a container that does not run yet or again."""
    return {"waiting": {"reason": reason, "message": message}}


def running() -> Object:
    """State of one that runs from now on."""
    return {"running": {"startedAt": now()}}


def terminated(code: int, started: str, message: str = "") -> Object:
    """State of one that ended now."""
    reason = "Completed" if code == 0 else "Error"
    return {
        "terminated": {
            "exitCode": code,
            "reason": reason,
            "startedAt": started,
            "finishedAt": now(),
            "message": message,
        }
    }


@dataclass
class Status:
    """A pod's status; all its containers share one state.

    Attributes:
        started: when the pod was accepted.
        ip: of the pod, empty until it has one.
    """

    started: str
    ip: str = ""
    phase: str = "Pending"
    state: Object = field(default_factory=lambda: waiting("ContainerCreating"))
    last_state: Object = field(default_factory=dict)
    ready: bool = False
    restarts: int = 0

    def body(self, pod: Object) -> Object:
        """The patch (strategic: the scheduler's condition stays) of a pod's status."""
        at = now()
        true = {"Initialized": True, "ContainersReady": self.ready, "Ready": self.ready}
        if self.phase == "Succeeded":
            reason = {"reason": "PodCompleted"}
        else:
            reason = {} if self.ready else {"reason": "ContainersNotReady", "message": "containers are not ready"}
        old = {one["type"]: one for one in pod.get("status", {}).get("conditions", [])}
        conditions = []
        for kind, value in true.items():
            text = "True" if value else "False"
            since = old.get(kind, {})
            since_at = since["lastTransitionTime"] if since.get("status") == text else at
            extra = {"reason": None, "message": None, **({} if value else reason)}
            conditions.append({"type": kind, "status": text, "lastTransitionTime": since_at, **extra})
        status = {
            "phase": self.phase,
            "hostIP": "127.0.0.1",
            "startTime": self.started,
            "conditions": conditions,
            "containerStatuses": [self._container(one) for one in pod["spec"]["containers"]],
        }
        if self.ip:
            status |= {"podIP": self.ip, "podIPs": [{"ip": self.ip}]}
        return {"metadata": {"uid": pod["metadata"]["uid"]}, "status": status}

    def _container(self, container: Object) -> Object:
        runs = "running" in self.state
        return {
            "name": container["name"],
            "image": container["image"],
            "imageID": "" if "waiting" in self.state and not self.restarts else f"fake://{container['image']}",
            "ready": self.ready and runs,
            "started": runs,
            "restartCount": self.restarts,
            "state": self.state,
            "lastState": self.last_state,
        }
