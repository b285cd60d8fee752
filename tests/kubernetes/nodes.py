"""Nodes that exist as objects only, with GPUs to be asked for."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime

from tests.kubernetes.api import STRATEGIC, Api, Object, unless

#: On a node: which fake kubelet runs its pods.
LABEL = "plimsoll.test/kubelet"


@dataclass(frozen=True)
class Node:
    """One node.

    Attributes:
        name: unique in the cluster.
        gpus: of them, 0 for none.
        product: as the GPU operator's feature discovery names it.
        labels: more of its labels.
        kubelet: whose it is; a kubelet's handle fills it in.
    """

    name: str
    gpus: int = 8
    product: str = "NVIDIA-H100-80GB-HBM3"
    labels: Mapping[str, str] = field(default_factory=dict)
    kubelet: str = ""

    @property
    def body(self) -> Object:
        """The object, without its status."""
        labels = {
            "kubernetes.io/hostname": self.name,
            "kubernetes.io/os": "linux",
            "kubernetes.io/arch": "amd64",
            LABEL: self.kubelet,
        }
        if self.gpus:
            labels |= {
                "nvidia.com/gpu.present": "true",
                "nvidia.com/gpu.count": str(self.gpus),
                "nvidia.com/gpu.product": self.product,
            }
        return {
            "apiVersion": "v1",
            "kind": "Node",
            "metadata": {"name": self.name, "labels": labels | dict(self.labels)},
        }

    @property
    def status(self) -> Object:
        """What a kubelet with the device plugin reports."""
        has = {"cpu": "128", "memory": "2Ti", "ephemeral-storage": "4Ti", "pods": "250"}
        if self.gpus:
            has["nvidia.com/gpu"] = str(self.gpus)
        now = datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
        ready = {
            "type": "Ready",
            "status": "True",
            "reason": "KubeletReady",
            "message": "kubelet is posting ready status",
        }
        return {
            "capacity": has,
            "allocatable": has,
            "conditions": [{**ready, "lastHeartbeatTime": now, "lastTransitionTime": now}],
            "nodeInfo": {
                "architecture": "amd64", "bootID": "", "containerRuntimeVersion": "fake://1", "kernelVersion": "fake",
                "kubeProxyVersion": "v1.20.2", "kubeletVersion": "v1.20.2", "machineID": "", "operatingSystem": "linux",
                "osImage": "fake", "systemUUID": "",
            },
            "addresses": [{"type": "Hostname", "address": self.name}, {"type": "InternalIP", "address": "127.0.0.1"}],
        }  # fmt: skip


async def create_node(api: Api, node: Node) -> None:
    """Make a node that takes pods; one of this name is replaced in part."""
    await unless(409, api.create("/api/v1/nodes", node.body))
    path = f"/api/v1/nodes/{node.name}"
    await api.patch(f"{path}/status", {"status": node.status}, STRATEGIC)
    # Admission taints every new node as not ready, and the controller that would take that away does not run.
    await api.patch(path, {"spec": {"taints": None}})


async def delete_node(api: Api, name: str) -> None:
    """Take it away; its pods stay as they are."""
    await unless(404, api.delete(f"/api/v1/nodes/{name}"))
