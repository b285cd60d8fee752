"""What GPU a node has, and which container of a pod serves."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from planner.connectors.kubernetes.targets.pods import gpus_in
from worker_graph.kubernetes.labels import MAIN_CONTAINER

#: Labels that name a node's GPU: the discovery of the GPU operator, of AMD's, and those of clouds.
PRODUCT_LABELS = (
    "nvidia.com/gpu.product",
    "amd.com/gpu.product-name",
    "cloud.google.com/gke-accelerator",
    "k8s.amazonaws.com/accelerator",
)


def product_of(labels: Mapping[str, str] | None) -> str:
    """What a node's labels call its GPU; empty where they do not say."""
    return next((labels[name] for name in PRODUCT_LABELS if labels and labels.get(name)), "")


def main_container(spec: Mapping[str, Any]) -> Mapping[str, Any]:
    """The container that serves: the one called main, else the first with GPUs, else the first."""
    containers = list(spec.get("containers") or ())
    named = [one for one in containers if one.get("name") == MAIN_CONTAINER]
    with_gpus = [one for one in containers if gpus_in(one.get("resources") or {})]
    return next(iter([*named, *with_gpus, *containers]), {})
