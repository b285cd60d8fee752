"""What a pod template says of its workers: GPUs, and the layout of the engine."""

from __future__ import annotations

import re
from collections.abc import Mapping
from decimal import Decimal
from typing import Any

from kubernetes.utils.quantity import parse_quantity

from profiler.errors import InputError
from worker_graph.kubernetes import labels as names
from worker_graph.kubernetes.relayout import layout_of
from worker_graph.spec.containers import GPU_RESOURCES

_LAYOUT = re.compile(r"tp([1-9][0-9]*)-dp([1-9][0-9]*)")


def gpus_of(spec: Mapping[str, Any]) -> int | None:
    """GPUs of one pod by its containers' limits, or their requests where they have none.

    Returns:
        0 for a pod that asks for none; None where it cannot be said: the pod gets devices through resource claims.
    """
    sidecars = [one for one in spec.get("initContainers") or () if one.get("restartPolicy") == "Always"]
    found = [gpus_in(one.get("resources") or {}) for one in (*(spec.get("containers") or ()), *sidecars)]
    if not any(found) and spec.get("resourceClaims"):
        return None
    return sum(found)


def gpus_in(resources: Mapping[str, Any]) -> int:
    """GPUs of one container's `resources`."""
    for part in ("limits", "requests"):
        named = [value for key, value in (resources.get(part) or {}).items() if key in GPU_RESOURCES]
        if named:
            amount: Decimal = sum((parse_quantity(value) for value in named), Decimal(0))
            return int(amount)
    return 0


def layout_in(template: Mapping[str, Any], object_labels: Mapping[str, str] | None = None) -> tuple[int, int] | None:
    """Tensor- and data-parallel size of a pod template's engine.

    By the label `plimsoll.io/layout` of the template or of its object; without it by the arguments of its container:
    the one called main, the one that has GPUs, or the only one.

    Returns:
        None where neither says it.
    """
    marked = {**(object_labels or {}), **((template.get("metadata") or {}).get("labels") or {})}
    match = _LAYOUT.fullmatch(marked.get(names.LAYOUT, ""))
    if match:
        return int(match[1]), int(match[2])
    containers = list((template.get("spec") or {}).get("containers") or ())
    likely = [one for one in containers if one.get("name") == names.MAIN_CONTAINER]
    likely = likely or [one for one in containers if gpus_in(one.get("resources") or {})] or containers
    return layout_in_arguments(likely[0]) if len(likely) == 1 else None


def layout_in_arguments(container: Mapping[str, Any]) -> tuple[int, int] | None:
    """As a container's arguments say it; None where they cannot be read."""
    try:
        return layout_of(container)
    except InputError:
        return None
