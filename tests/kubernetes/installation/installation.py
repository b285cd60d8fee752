"""Everything in one namespace, from the graph to the traffic."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from kubernetes import client, dynamic
from kubernetes.client.exceptions import ApiException

from planner.connectors.kubernetes.lease import lease_name
from tests.fault_tolerance.planner.traffic import Traffic
from tests.kubernetes.cluster import Cluster
from tests.kubernetes.fixtures import Kubelet, running_kubelet, running_operators
from tests.kubernetes.installation.actors import LeaseWatch
from tests.kubernetes.installation.graphs import GRAPH, Kind, Object
from tests.kubernetes.installation.planner import Planner
from tests.kubernetes.installation.planners import INSTANCE, NAME, configuration, planner_deployment, rights
from tests.kubernetes.installation.watch import GpuWatch, ReplicasWatch
from tests.kubernetes.nodes import Node
from tests.servers import get, start_prometheus, wait_until, write_targets

#: Until something that must happen counts as not happening: long, for the machine may be slow.
PATIENCE_S = 120.0


@dataclass
class Installation:
    """What runs."""

    cluster: Cluster
    namespace: str
    kind: Kind
    kubelet: Kubelet
    prometheus_url: str
    folder: Path
    watch: GpuWatch
    replicas: ReplicasWatch
    lease: LeaseWatch
    stack: ExitStack
    _granted: bool = False
    _clients: list[client.ApiClient] = field(default_factory=list)

    @property
    def api(self) -> client.ApiClient:
        if not self._clients:
            self._clients.append(self.stack.enter_context(self.cluster.client()))
        return self._clients[0]

    @property
    def core(self) -> client.CoreV1Api:
        return client.CoreV1Api(self.api)

    def create(self, objects: list[Object]) -> None:
        """Objects of any kind, as `kubectl create` does."""
        known = dynamic.DynamicClient(self.api)
        for body in objects:
            resource = known.resources.get(api_version=body["apiVersion"], kind=body["kind"])
            resource.create(body=body, namespace=self.namespace)

    # -- planners --------------------------------------------------------------------------------------------------

    def start_planner(
        self, replicas: int = 1, *, name: str = NAME, api_server: str = "", **changes: Any
    ) -> list[Planner]:
        """Install planners and wait for the first tick of each.

        Args:
            replicas: of one Deployment.
            name: of the Deployment.
            api_server: where they reach the API server; directly without it.
            changes: of the configuration.
        """
        if not self._granted:
            self.create(rights(self.kind, self.namespace))
            self._granted = True
        config = configuration(self.kind, self.prometheus_url, **changes)
        self.create(planner_deployment(self.namespace, config, replicas, name=name, api_server=api_server))
        return self.wait_for_planners(replicas, name=name)

    def wait_for_planners(self, replicas: int = 1, *, name: str = NAME) -> list[Planner]:
        """Until so many planners of a Deployment have ticked."""

        def tick() -> bool:
            planners = self.planners(name)
            return len(planners) == replicas and all(one.has_ticked() for one in planners)

        wait_until(tick, f"{replicas} planners of {name} tick", PATIENCE_S, every_s=0.3)
        return self.planners(name)

    def planners(self, name: str = NAME) -> list[Planner]:
        """Those of a Deployment that do not end."""
        pods = self.core.list_namespaced_pod(self.namespace, label_selector=f"{INSTANCE}={name}").items
        names = sorted(pod.metadata.name for pod in pods if pod.metadata.deletion_timestamp is None)
        return [Planner(one, self.kubelet, self.namespace) for one in names]

    def remove_planners(self, name: str = NAME) -> None:
        """Delete a Deployment of planners, which end as they should, and wait until they are gone."""
        client.AppsV1Api(self.api).delete_namespaced_deployment(name, self.namespace)
        self.core.delete_namespaced_config_map(name, self.namespace)
        selector = f"{INSTANCE}={name}"

        def gone() -> bool:
            return not self.core.list_namespaced_pod(self.namespace, label_selector=selector).items

        wait_until(gone, f"the planners of {name} have ended", PATIENCE_S, every_s=0.3)

    def delete_pod(self, name: str, *, killed: bool = False) -> None:
        """Delete a pod: it ends as it should, or by SIGKILL."""
        grace = {"grace_period_seconds": 0} if killed else {}
        self.core.delete_namespaced_pod(name, self.namespace, **grace)

    @property
    def planner(self) -> Planner:
        """The one planner."""
        (one,) = self.planners()
        return one

    # -- the graph -------------------------------------------------------------------------------------------------

    def gateway_url(self) -> str:
        """Of the gateway's pod, once it is ready."""
        return f"http://{self._gateway_ip()}:8000"

    def _gateway_ip(self) -> str:
        for selector in ("plimsoll.io/role=gateway", "nvidia.com/dynamo-component-type=frontend"):
            for pod in self.core.list_namespaced_pod(self.namespace, label_selector=selector).items:
                ready = [one for one in pod.status.conditions or () if one.type == "Ready" and one.status == "True"]
                if ready:
                    return str(pod.status.pod_ip)
        raise ConnectionError("the gateway is not ready")

    def gateway_workers(self) -> int:
        """Workers that the gateway sends requests to."""
        workers = json.loads(get(f"{self.gateway_url()}/workers"))["workers"]
        return sum(one.get("status") == "ready" for one in workers)

    def traffic(self) -> Traffic:
        """Requests from now to the end; little at first."""
        made = Traffic(self.gateway_url())
        made.start()
        self.stack.callback(made.stop)
        return made

    def events(self, since_s: float = 0.0) -> list[tuple[str, str]]:
        """Reason and message of the planners' Events in the namespace, made since a unix time."""
        found = self.core.list_namespaced_event(self.namespace).items
        return [
            (str(one.reason), str(one.message))
            for one in found
            if "plimsoll" in str((one.reporting_component, one.source))
            and one.metadata.creation_timestamp.timestamp() >= int(since_s)
        ]


@contextmanager
def installed(
    cluster: Cluster, namespace: str, kind: Kind, folder: Path, *, nodes: tuple[Node, ...] = (Node("gpu-a", 16),)
) -> Iterator[Installation]:
    """The graph with one worker per pool behind its gateway, and Prometheus; no planner yet.

    Args:
        cluster: to install on.
        namespace: of all objects.
        kind: of graph.
        folder: for logs.
        nodes: of the cluster.
    """
    with ExitStack() as stack:
        if kind.operators:
            stack.enter_context(running_operators(cluster, folder, *kind.operators))
        kubelet = stack.enter_context(running_kubelet(cluster, folder / "kubelet", nodes))
        watch = GpuWatch(cluster, namespace, folder / "targets.json")
        write_targets(watch.targets, {})
        server = stack.enter_context(start_prometheus(folder, watch.targets))
        replicas, lease = ReplicasWatch(cluster, namespace), LeaseWatch(cluster, namespace, lease_name(GRAPH))
        for one in (watch, replicas, lease):
            one.start()
            stack.callback(one.stop)
        made = Installation(cluster, namespace, kind, kubelet, server.url, folder, watch, replicas, lease, stack)
        made.create(kind.objects(namespace))

        def serves() -> bool:
            try:
                return made.gateway_workers() == len(kind.gpus)
            except ApiException:
                return False

        wait_until(serves, "the gateway has its workers", PATIENCE_S, every_s=0.5)
        yield made


__all__ = ["NAME", "PATIENCE_S", "Installation", "installed"]
