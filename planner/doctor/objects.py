"""What holds the graph's pools on the cluster: the connector's targets, with their pods and pod templates."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from planner.connectors.kubernetes.cluster import Cluster, Object
from planner.connectors.kubernetes.errors import ForbiddenError, NotFoundError
from planner.connectors.kubernetes.resources import PODS
from planner.connectors.kubernetes.target import PoolTarget
from planner.connectors.kubernetes.targets import gateway_selector, make_target
from planner.core.types import Role
from planner.doctor.scene import Scene

Spec = Mapping[str, Any]


@dataclass(frozen=True)
class PoolObjects:
    """One pool on the cluster.

    Attributes:
        target: as the connector reads it.
        role: of its workers.
        gpus_of_profile: GPUs of one worker by the profile.
        pods: of it.
        spec: of its workers' pods, the leader's where a worker has several; empty where it cannot be seen.
    """

    target: PoolTarget
    role: Role
    gpus_of_profile: int
    pods: tuple[Object, ...]
    spec: Spec

    @property
    def pool(self) -> str:
        """Its name."""
        return self.target.pool

    @property
    def about(self) -> str:
        """For messages: kind and name of the object."""
        return f"{self.target.resource.kind} {self.target.object_name}"


def pools_of(scene: Scene) -> list[PoolObjects]:
    """The pools of the graph; during a change of layout one more than the configuration has.

    Raises:
        ClusterError: an object is not there, is not what the configuration says, or cannot be read.
    """
    cluster, config, wanted = scene.api(), scene.configuration(), scene.settings.pools
    found = []
    for target in make_target(cluster, config.graph, wanted, scene.kubernetes).read():
        pods = tuple(pod for pod in scene.pods if has(pod, target.selector))
        # A pool of another layout is called <pool>-<layout>.
        pool = next(one for one in wanted if target.pool == one.name or target.pool.startswith(f"{one.name}-"))
        spec = _template(cluster, target) or (pods[0].get("spec") if pods else None) or {}
        found.append(PoolObjects(target, pool.role, pool.gpus_per_worker, pods, spec))
    return found


def _template(cluster: Cluster, target: PoolTarget) -> Spec:
    """The pod template of an object that has one; a Dynamo graph's is made by its operator and read from a pod."""
    try:
        thing = cluster.read(target.resource, target.object_name)
    except (ForbiddenError, NotFoundError):
        return {}  # a role that may list need not be one that may read
    return template_in(thing.get("spec") or {})


def template_in(spec: Mapping[str, Any]) -> Spec:
    """Pod spec in the spec of a Deployment and its like, a LeaderWorkerSet or a PodClique; empty for other kinds."""
    group = spec.get("leaderWorkerTemplate") or {}
    places = (spec.get("template"), group.get("leaderTemplate"), group.get("workerTemplate"))
    specs = [place.get("spec") for place in places if isinstance(place, Mapping)]
    return next((one for one in (*specs, spec.get("podSpec")) if isinstance(one, Mapping)), {})


def has(pod: Mapping[str, Any], selector: Mapping[str, str]) -> bool:
    """Whether a pod has all of these labels; no selector means no pod."""
    labels = pod["metadata"].get("labels") or {}
    return bool(selector) and all(labels.get(name) == value for name, value in selector.items())


def gateway_pods(scene: Scene) -> Sequence[Object]:
    """Pods that the planner takes for gateways."""
    selector = gateway_selector(scene.configuration().graph, scene.kubernetes)
    return scene.api().list(PODS, labels=selector).items
