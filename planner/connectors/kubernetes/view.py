"""A graph as one look at the cluster shows it: its objects, its workers, what else holds GPUs, its gateways."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from planner.connectors.kubernetes.cluster import Cluster, Object
from planner.connectors.kubernetes.pods import Phase, Pod, PodWorker, pod_of, worker_of
from planner.connectors.kubernetes.resources import PODS
from planner.connectors.kubernetes.settings import KubernetesSettings
from planner.connectors.kubernetes.target import PoolTarget, Target
from worker_graph.kubernetes.labels import GATEWAY_ROLE, GRAPH, POOL, ROLE

#: Longest label selector that goes into a request's address.
LONGEST_SELECTOR = 2000

#: Ports with metrics where there is none of the configured name: what the Dynamo operator calls them.
WORKER_PORTS, GATEWAY_PORTS = ("http", "system"), ("metrics", "http")


@dataclass(frozen=True, slots=True)
class View:
    """One look.

    Attributes:
        targets: the objects of all pools.
        workers: of all pools, by pool.
        elsewhere: GPUs of the graph's pods that belong to no pool any more, such as those of an object that was deleted
            and drain.
        gateways: host:port of the metrics of each gateway that is ready.
        blind: what the gateways' pods do not say, for people.
    """

    targets: tuple[PoolTarget, ...]
    workers: Mapping[str, tuple[PodWorker, ...]]
    elsewhere: int
    gateways: tuple[str, ...]
    blind: tuple[str, ...]


class Viewer:
    """Looks at a graph: the target's requests, and one list of pods; one more for gateways that these are not among.

    Args:
        cluster: the API server.
        target: the graph's objects.
        graph: its name.
        settings: the configuration's section.
        gateway_selector: labels of the gateway's pods.
    """

    def __init__(
        self, cluster: Cluster, target: Target, graph: str, settings: KubernetesSettings, gateway_selector: str
    ) -> None:
        self._cluster, self._target, self._graph, self._settings = cluster, target, graph, settings
        self._gateway_selector = gateway_selector

    def look(self, *, gateways: bool = True) -> View:
        """The graph now; without its gateways where these do not matter.

        Raises:
            ClusterError: it cannot be read.
        """
        targets = tuple(self._target.read())
        selector = common_selector([target.selector for target in targets])
        found = self._cluster.list(PODS, labels=selector).items
        workers, strays = self._sort(targets, found)
        addresses, blind = self._gateways(selector, found) if gateways else ((), ())
        return View(targets, workers, sum(pod.gpus for pod in strays), addresses, blind)

    def _sort(
        self, targets: Sequence[PoolTarget], found: Sequence[Object]
    ) -> tuple[dict[str, tuple[PodWorker, ...]], list[Pod]]:
        owner = _Owners(targets)
        groups: dict[str, dict[str, list[Pod]]] = {target.pool: {} for target in targets}
        strays = []
        for thing in found:
            pod = pod_of(thing)
            target = owner.of(pod.labels)
            if target is not None:
                groups[target.pool].setdefault(self._target.worker_of(thing, target), []).append(pod)
            elif pod.phase is not Phase.GONE and pod.labels.get(GRAPH) == self._graph and POOL in pod.labels:
                strays.append(pod)
        workers = {}
        for target in targets:
            made = (
                worker_of(name, target.pool, pods, target.pods_per_worker) for name, pods in groups[target.pool].items()
            )
            workers[target.pool] = tuple(sorted((one for one in made if one is not None), key=lambda one: one.name))
        return workers, strays

    def _gateways(self, selector: str, found: Sequence[Object]) -> tuple[tuple[str, ...], tuple[str, ...]]:
        own = f"{GRAPH}={self._graph}"
        if selector == own and self._gateway_selector == f"{own},{ROLE}={GATEWAY_ROLE}":
            pods = [pod_of(one) for one in found if (one["metadata"].get("labels") or {}).get(ROLE) == GATEWAY_ROLE]
        else:
            pods = [pod_of(one) for one in self._cluster.list(PODS, labels=self._gateway_selector).items]
        port = self._settings.gateway_metrics_port
        addresses, blind = [], []
        for pod in sorted(pods, key=lambda one: one.name):
            if pod.phase is not Phase.READY:
                continue
            address = pod.address(port, GATEWAY_PORTS)
            if address:
                addresses.append(address)
            else:
                blind.append(f"gateway pod {pod.name} has no port {port}: set gateway_metrics_port to the one it has")
        return tuple(addresses), tuple(blind)


def common_selector(selectors: Sequence[Mapping[str, str]]) -> str:
    """A label selector that finds the pods of all of these at least, in one request.

    The label of a graph alone where all have it, for gateways and pods of former pools are found with it too; else
    what all have in common, else one label that all have, with their values; all pods of the namespace without that.
    """
    if not selectors:
        return ""
    shared = set(selectors[0].items()).intersection(*(one.items() for one in selectors[1:]))
    graph = next((f"{key}={value}" for key, value in shared if key == GRAPH), "")
    if graph:
        return graph
    if shared:
        return ",".join(f"{key}={value}" for key, value in sorted(shared))
    keys = sorted(set(selectors[0]).intersection(*selectors[1:]))
    if not keys:
        return ""
    values = ",".join(sorted({one[keys[0]] for one in selectors}))
    text = f"{keys[0]} in ({values})"
    return text if len(text) <= LONGEST_SELECTOR else keys[0]


class _Owners:
    """Which pool a pod belongs to: of those whose selector it fits, the one with the most labels."""

    def __init__(self, targets: Sequence[PoolTarget]) -> None:
        used = Counter(pair for target in targets for pair in target.selector.items())
        # By the rarest label of each, so that a pod is compared with few of hundreds of pools.
        self._by_label: dict[tuple[str, str], list[PoolTarget]] = {}
        for target in targets:
            if target.selector:
                rarest = min(target.selector.items(), key=lambda pair: (used[pair], pair))
                self._by_label.setdefault(rarest, []).append(target)

    def of(self, labels: Mapping[str, str]) -> PoolTarget | None:
        fitting = [
            target
            for pair in labels.items()
            for target in self._by_label.get(pair, ())
            if target.selector.items() <= labels.items()
        ]
        return max(fitting, key=lambda target: len(target.selector), default=None)
