"""The planner as manifests/ installs it: Role, account and Deployment, with a configuration for fast engines."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import yaml

from planner.demo.settings import DECODE, MODEL, PREFILL
from tests.kubernetes.installation.graphs import GRAPH, ROOT, SPEED_UP, Kind, Object

#: Between ticks, s of wall time.
TICK_S = 1.0

#: A lease that nobody renews lapses after so long, s of wall time.
LEASE_S = 6.0

#: A scale-down waits for so long, s of wall time.
DOWN_WINDOW_S = 4.0

NAME = "plimsoll-planner"

#: Tells planners apart that are set up differently.
INSTANCE = "app.kubernetes.io/instance"

MANIFESTS = ROOT / "manifests"


def configuration(kind: Kind, prometheus_url: str, **changes: Any) -> Object:
    """planner.yaml; sections in `changes` are merged one level deep."""
    made: Object = {
        "graph": GRAPH,
        "model": MODEL,
        "connector": {"kind": "kubernetes", "kubernetes": {**kind.connector, "timeout_s": 2.0}},
        "metrics": {
            "source": "prometheus",
            "gateway": "smg",
            # A slow machine's answers are late, and nothing here is about that.
            "prometheus": {"url": prometheus_url, "timeout_s": 3.0},
        },
        "profiles": [str(folder) for folder in kind.profiles.values()],
        # Loose enough for what a slow machine adds to every latency, times the speed-up.
        "sla": {"ttft_ms": 6000.0, "itl_ms": 100.0, "attainment": 0.9},
        "budget": {"max_gpus": kind.budget},
        "pools": {PREFILL: {"role": "prefill"}, DECODE: {"role": "decode"}},
        "lead_time_s": 20.0,
        "speed_up": SPEED_UP,
        "tuning": {
            "interval_s": TICK_S * SPEED_UP,
            "stale_after_s": 30.0,
            "behaviour": {"down": {"window_s": DOWN_WINDOW_S * SPEED_UP}},
        },
        "service": {
            # Every pod has the machine's network here, so that a fixed port would be taken.
            "host": "127.0.0.1",
            "port": 0,
            "journal": "journal.jsonl",
            "lease_s": LEASE_S,
            "checkpoint_config_map": f"plimsoll-{GRAPH}-state",
        },
    }
    for name, value in changes.items():
        made[name] = {**made.get(name, {}), **value} if isinstance(value, dict) else value
    return made


def rights(kind: Kind, namespace: str) -> list[Object]:
    """Account, Role and binding, for all planners of the namespace."""
    role, account, binding = (
        _load(file)
        for file in (
            MANIFESTS / "overlays" / kind.overlay / "role.yaml",
            *(MANIFESTS / "base" / f"{name}.yaml" for name in ("service-account", "role-binding")),
        )
    )
    # The overlays' Roles name the objects of one graph, the lease and the state of it: here it is another one.
    role = yaml.safe_load(re.sub(r"vllm-(405b|disagg)\b", GRAPH, yaml.safe_dump(role)))
    binding["subjects"][0]["namespace"] = namespace
    return _placed([account, role, binding], namespace)


def planner_deployment(
    namespace: str, config: Object, replicas: int = 1, *, name: str = NAME, api_server: str = ""
) -> list[Object]:
    """Configuration and Deployment.

    Args:
        namespace: of both.
        config: planner.yaml.
        replicas: planners.
        name: of both objects, for planners that are set up differently beside others.
        api_server: where these planners reach the API server; directly without it.
    """
    deployment = _load(MANIFESTS / "base" / "deployment.yaml")
    template = deployment["spec"]["template"]
    deployment["metadata"]["name"] = name
    deployment["spec"]["replicas"] = replicas
    annotations = {"exec": "true", "ready-delay-s": "0", **({"api-server": api_server} if api_server else {})}
    template["metadata"] |= {"annotations": {f"plimsoll.test/{key}": value for key, value in annotations.items()}}
    container = template["spec"]["containers"][0]
    for probe in ("startupProbe", "livenessProbe", "readinessProbe"):
        # They name a port, and here it is any free one.
        container.pop(probe)
    for volume in template["spec"]["volumes"]:
        if volume["name"] == "config":
            volume["configMap"]["name"] = name
        # A node's empty folder, and a ConfigMap of profiles that are read from the checkout.
        if volume["name"] in {"state", "tmp", "profiles"}:
            for known in ("emptyDir", "configMap", "persistentVolumeClaim"):
                volume.pop(known, None)
            volume["emptyDir"] = {}
    labels = {"app.kubernetes.io/name": "plimsoll", INSTANCE: name}
    template["metadata"]["labels"] |= labels
    deployment["spec"]["selector"]["matchLabels"] |= labels
    config_map = {
        "apiVersion": "v1",
        "kind": "ConfigMap",
        "metadata": {"name": name},
        "data": {"planner.yaml": yaml.safe_dump(config, sort_keys=False)},
    }
    return _placed([config_map, deployment], namespace)


def _placed(objects: list[Object], namespace: str) -> list[Object]:
    for one in objects:
        one["metadata"]["namespace"] = namespace
    return objects


def _load(file: Path) -> Object:
    loaded: Object = yaml.safe_load(file.read_text(encoding="utf-8"))
    return loaded
