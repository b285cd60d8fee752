"""Kinds of objects that a cluster may have beyond its own: which are there, and which the configuration needs."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from planner.connectors.kubernetes.resources import (
    DYNAMO_GRAPHS_V1ALPHA1,
    DYNAMO_GRAPHS_V1BETA1,
    LEADER_WORKER_SETS,
    POD_CLIQUE_SETS,
    SCALED_OBJECTS,
    SCALING_ADAPTERS_V1ALPHA1,
    SCALING_ADAPTERS_V1BETA1,
    Resource,
)
from planner.connectors.kubernetes.settings import KubernetesSettings
from planner.doctor.base import Check, failed, passed, skipped
from planner.doctor.scene import Scene

POD_MONITORS = Resource("monitoring.coreos.com", "v1", "podmonitors", "PodMonitor")


@dataclass(frozen=True)
class Extension:
    """A kind that is installed or not.

    Attributes:
        name: for people.
        resources: the versions of it that are read, the best first.
        kinds: of the configuration that need it.
        install: how it comes to the cluster.
        otherwise: what its absence means where nothing needs it.
    """

    name: str
    resources: tuple[Resource, ...]
    kinds: frozenset[str]
    install: str
    otherwise: str


EXTENSIONS = (
    Extension(
        "LeaderWorkerSet", (LEADER_WORKER_SETS,), frozenset({"LeaderWorkerSet"}),
        "install LeaderWorkerSet (lws.sigs.k8s.io)", "no workers over several nodes by it",
    ),
    Extension(
        "Grove", (POD_CLIQUE_SETS,), frozenset({"PodCliqueSet", "PodClique", "PodCliqueScalingGroup"}),
        "install Grove (github.com/ai-dynamo/grove)", "no workers over several nodes by it",
    ),
    Extension(
        "Dynamo graph", (DYNAMO_GRAPHS_V1BETA1, DYNAMO_GRAPHS_V1ALPHA1), frozenset({"DynamoGraphDeployment"}),
        "install the Dynamo operator", "no Dynamo graphs",
    ),
    Extension(
        "Dynamo adapter", (SCALING_ADAPTERS_V1BETA1, SCALING_ADAPTERS_V1ALPHA1), frozenset(),
        "", "a Dynamo graph's own replicas are patched",
    ),
    Extension("KEDA", (SCALED_OBJECTS,), frozenset(), "", "nothing of it can compete for replicas"),
    Extension(
        "Prometheus operator", (POD_MONITORS,), frozenset(), "",
        "PodMonitor and PrometheusRule cannot be applied: configure Prometheus by hand, or scrape directly",
    ),
)  # fmt: skip


def kinds(scene: Scene) -> Iterator[Check]:
    """Each of them."""
    cluster = scene.api()
    wanted = needed_kinds(scene.kubernetes) if scene.config is not None and scene.on_kubernetes else frozenset[str]()
    for extension in EXTENSIONS:
        versions = tuple(one.version for one in extension.resources if cluster.serves(one))
        yield judge(extension, versions, wanted)


def needed_kinds(settings: KubernetesSettings) -> frozenset[str]:
    """Kinds of the objects that a configuration names."""
    if settings.graph is not None:
        return frozenset({settings.graph.kind})
    return frozenset(one.kind for one in (settings.objects or {}).values())


def judge(extension: Extension, versions: tuple[str, ...], wanted: frozenset[str]) -> Check:
    """An extension of which the server has these versions."""
    needed = extension.kinds & wanted
    if versions:
        return passed(extension.name, f"{', '.join(versions)}{'; needed' if needed else ''}")
    if needed:
        read = " or ".join(one.version for one in extension.resources)
        text = f"not installed in {read}, and the configuration has a {', '.join(sorted(needed))}"
        return failed(extension.name, text, f"{extension.install}, or another kind in connector.kubernetes")
    return skipped(extension.name, f"not installed, not needed; {extension.otherwise}")
