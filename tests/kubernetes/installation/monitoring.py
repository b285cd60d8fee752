"""What Prometheus scrapes of a namespace: the addresses that a PodMonitor would find, in a file.

Distributions build Prometheus without its Kubernetes discovery, so that the addresses come from a watch of the pods.
"""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any

from tests.servers import write_targets

#: How a gateway's pod is known, of our own rendering and of the Dynamo operator.
GATEWAY_LABELS = {"plimsoll.io/role": "gateway", "nvidia.com/dynamo-component-type": "frontend"}


def is_gateway(pod: Any) -> bool:
    """Whether it is one."""
    labels = pod.metadata.labels or {}
    return any(labels.get(name) == value for name, value in GATEWAY_LABELS.items())


def write_pods(file: Path, pods: Iterable[Any]) -> None:
    """Every running worker's port `http` and every gateway's port `metrics`."""
    found: dict[str, list[str]] = {}
    for pod in pods:
        if pod.status.phase != "Running" or not pod.status.pod_ip:
            continue
        wanted = "metrics" if is_gateway(pod) else "http"
        for container in pod.spec.containers:
            for port in container.ports or ():
                if port.name == wanted and "planner" not in container.name:
                    job = "gateway" if wanted == "metrics" else "workers"
                    found.setdefault(job, []).append(f"{pod.status.pod_ip}:{port.container_port}")
    write_targets(file, found)
