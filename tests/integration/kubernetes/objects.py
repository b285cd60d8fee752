"""Objects that the tests make."""

from __future__ import annotations

from typing import Any


def wishes(**annotations: str) -> dict[str, str]:
    """Annotations `plimsoll.test/…`, given with _ for -."""
    return {f"plimsoll.test/{key.replace('_', '-')}": value for key, value in annotations.items()}


def container(gpus: int = 1, **more: Any) -> dict[str, Any]:
    """A container that asks for GPUs."""
    return {"name": "main", "image": "engine:1", "resources": {"limits": {"nvidia.com/gpu": str(gpus)}}, **more}


def pod_template(labels: dict[str, str], gpus: int = 1, grace_s: int = 30, **annotations: str) -> dict[str, Any]:
    """A pod template with one container, and what the fake kubelet is asked for."""
    return {
        "metadata": {"labels": labels, "annotations": wishes(**annotations)},
        "spec": {"containers": [container(gpus)], "terminationGracePeriodSeconds": grace_s},
    }


def deployment(name: str, replicas: int, **options: Any) -> dict[str, Any]:
    """A Deployment; options are those of `pod_template`."""
    labels = {"app": name}
    return {
        "metadata": {"name": name, "labels": labels},
        "spec": {
            "replicas": replicas,
            "selector": {"matchLabels": labels},
            "template": pod_template(labels, **options),
        },
    }
