"""Where a graph's pools stand on Kubernetes: one object each, or one object for all."""

from __future__ import annotations

from collections.abc import Sequence

from planner.connectors.kubernetes.cluster import Cluster
from planner.connectors.kubernetes.settings import KubernetesSettings
from planner.connectors.kubernetes.target import Target
from planner.connectors.kubernetes.targets.discovery import MismatchError
from planner.connectors.kubernetes.targets.dynamo import FRONTEND, GRAPH_NAME, TYPE, DynamoGraph
from planner.connectors.kubernetes.targets.grove_set import GroveSet
from planner.connectors.kubernetes.targets.scale import LabelledObjects, NamedObjects
from planner.connectors.kubernetes.targets.writing import ScaleWriter
from planner.core.types import Pool
from worker_graph.kubernetes import labels as names

__all__ = ["MismatchError", "gateway_selector", "make_target"]


def make_target(cluster: Cluster, graph: str, pools: Sequence[Pool], settings: KubernetesSettings) -> Target:
    """The target that the settings describe; nothing is asked of the API server yet.

    Args:
        cluster: the API server.
        graph: name of the graph.
        pools: those that are planned.
        settings: the configuration's section.
    """
    writer = ScaleWriter(cluster, always=settings.takeover == "always")
    if settings.graph is not None and settings.graph.kind == "DynamoGraphDeployment":
        return DynamoGraph(cluster, settings.graph.name, pools, writer)
    if settings.graph is not None:
        return GroveSet(cluster, settings.graph.name, pools, writer)
    if settings.objects is not None:
        return NamedObjects(cluster, settings.objects, writer)
    return LabelledObjects(cluster, graph, [pool.name for pool in pools], writer)


def gateway_selector(graph: str, settings: KubernetesSettings) -> str:
    """Label selector of the gateway's pods: as configured, the frontend of a Dynamo graph, or the graph's gateway."""
    if settings.gateway_selector is not None:
        return settings.gateway_selector
    if settings.graph is not None and settings.graph.kind == "DynamoGraphDeployment":
        return f"{GRAPH_NAME}={settings.graph.name},{TYPE}={FRONTEND}"
    return f"{names.GRAPH}={graph},{names.ROLE}={names.GATEWAY_ROLE}"
