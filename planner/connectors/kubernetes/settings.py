"""The configuration's section of a graph on Kubernetes."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field

#: What Kubernetes allows as the name of most objects.
ObjectName = Annotated[str, Field(min_length=1, max_length=253, pattern=r"^[a-z0-9]([a-z0-9.-]*[a-z0-9])?$")]

#: A plain name of a kind of objects, or `<plural>.<group>` for any other one with a scale subresource.
Kind = Annotated[str, Field(pattern=r"^([A-Z][A-Za-z]*|[a-z]+(\.[a-z0-9-]+)+)$")]


class _Section(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class GraphObject(_Section):
    """One object that holds all pools."""

    kind: Literal["DynamoGraphDeployment", "PodCliqueSet"]
    """`DynamoGraphDeployment` (v1alpha1 and v1beta1; through its scaling adapters where it has them), or Grove's
    `PodCliqueSet`.
    """

    name: ObjectName
    """Its name."""


class PoolObject(_Section):
    """The object that holds one pool."""

    kind: Kind = "Deployment"
    """Deployment, StatefulSet, LeaderWorkerSet, PodClique, PodCliqueScalingGroup, or `<plural>.<group>` of anything
    else that has a scale subresource.
    """

    name: ObjectName
    """Its name."""

    gpus_per_worker: int | None = Field(default=None, ge=0)
    """GPUs of one worker over all of its pods. Without it: the GPU limits of its pod templates, where the kind has
    any that can be read."""


class KubernetesSettings(_Section):
    """Where the graph is and what holds its pools: one object, or one object per pool, or objects found by label."""

    namespace: ObjectName | None = None
    """Namespace of the graph. Without it: the pod's own, or the kubeconfig's."""

    kubeconfig: Path | None = None
    """File with the cluster's address and credentials. Without it: the pod's service account; outside a cluster
    $KUBECONFIG or ~/.kube/config."""

    context: str | None = Field(default=None, min_length=1)
    """Context of the kubeconfig. Without it: the current one."""

    graph: GraphObject | None = None
    """One object that holds all pools."""

    objects: dict[str, PoolObject] | None = Field(default=None, min_length=1)
    """The object of each pool, by pool. Without it and without `graph`: Deployments and LeaderWorkerSets with the
    label `plimsoll.io/graph`, each the pool that its label `plimsoll.io/pool` names.
    """

    gateway_selector: str | None = Field(default=None, min_length=1)
    """Labels of the gateway's pods. Without it: `plimsoll.io/role=gateway` of this graph, or the frontend of a
    DynamoGraphDeployment.
    """

    gateway_metrics_port: int | str = "metrics"
    """Port of the gateway's metrics, or its name among the ports of the gateway's container."""

    worker_metrics_port: int | str = "http"
    """Port of a worker's metrics, or its name among the ports of its container."""

    timeout_s: float = Field(default=5.0, gt=0, le=60)
    """Seconds of wall time that one request to the API server may take."""

    deletion_cost: bool = True
    """Whether to mark pods with their deletion cost before a scale-down, so that the least loaded ones go. Needs the
    right to patch pods; without it Kubernetes takes the youngest."""

    events: bool = True
    """Whether to write an Event on the graph's objects for every action. Needs the right to create events."""

    takeover: Literal["when_free", "always"] = "when_free"
    """What to do where another controller sets the same replicas: leave the pool alone and report it, or take them."""
