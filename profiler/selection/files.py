"""The chosen layouts as files: a DynamoGraphDeployment and the planner's configuration for it."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import yaml

from planner.core.types import Role
from profiler.selection.arguments import measured_model, serving_arguments
from profiler.selection.choose import Choice, Ranked

#: Names of the components, as in Dynamo's examples; the planner's pools have the same.
NAMES: Mapping[Role, str] = {
    Role.PREFILL: "VllmPrefillWorker",
    Role.DECODE: "VllmDecodeWorker",
    Role.AGGREGATED: "VllmWorker",
}

IMAGE = "nvcr.io/nvidia/ai-dynamo/vllm-runtime:1.3.1"
CONTROL_URL = "http://127.0.0.1:7070"

#: Of starts that were measured, the share that the lead time covers: what the planner itself uses once it has seen any.
STARTUP_SHARE = 0.9


@dataclass(frozen=True)
class Deployment:
    """What the tables do not say about a deployment.

    Attributes:
        name: of the graph.
        model: that workers load.
        image: of the containers.
        control_url: where the planner reaches the graph.
        startup_s: seconds until a worker serves; None where neither asked nor measured.
    """

    name: str
    model: str
    image: str = IMAGE
    control_url: str = CONTROL_URL
    startup_s: float | None = None


def deployment(
    best: Ranked, *, name: str | None, model: str | None, image: str, control_url: str, startup_s: float | None
) -> Deployment:
    """A deployment with what was not said taken from the profiles.

    Args:
        best: the chosen option.
        name: of the graph; None for one made of the model's.
        model: that workers load; None for the measured one.
        image: of the containers.
        control_url: where the planner reaches the graph.
        startup_s: seconds until a worker serves; None for what was measured.
    """
    first = best.option.profiles[0]
    serves = model if model is not None else measured_model(first)
    starts = [profile.meta.startup_s for profile in best.option.of_role.values() if profile.meta.startup_s]
    if startup_s is None and starts:
        # The slower role's: a plan is in force when both kinds of workers serve.
        startup_s = max(float(np.quantile(each, STARTUP_SHARE)) for each in starts)
    return Deployment(name or graph_name(serves), serves, image, control_url, startup_s)


def graph_name(model: str) -> str:
    """A name that Kubernetes allows, from a model's."""
    plain = re.sub(r"[^a-z0-9]+", "-", model.rsplit("/", 1)[-1].lower()).strip("-")
    return plain[:60].strip("-") or "graph"


def graph_yaml(choice: Choice, best: Ranked, to: Deployment) -> str:
    """The graph with the chosen layouts and counts, v1beta1."""
    frontend = {
        "name": "Frontend",
        "type": "frontend",
        "replicas": 1,
        "podTemplate": _pod({"name": "main", "image": to.image}),
    }
    document = {
        "apiVersion": "nvidia.com/v1beta1",
        "kind": "DynamoGraphDeployment",
        "metadata": {"name": to.name},
        "spec": {"components": [frontend, *(_worker(best, role, to) for role in best.option.of_role)]},
    }
    return _header(choice, best) + _dump(document)


def _worker(best: Ranked, role: Role, to: Deployment) -> dict[str, Any]:
    profile = best.option.of_role[role]
    container = {
        "name": "main",
        "image": to.image,
        "command": ["python3", "-m", "dynamo.vllm"],
        "args": serving_arguments(profile, role, to.model),
        "envFrom": [{"secretRef": {"name": "hf-token-secret", "optional": True}}],
        "resources": {"limits": {"nvidia.com/gpu": str(profile.meta.gpu.count_per_worker)}},
    }
    return {
        "name": NAMES[role],
        "type": "worker" if role is Role.AGGREGATED else role.value,
        "replicas": best.workers[role],
        "podTemplate": _pod(container),
    }


def _pod(container: dict[str, Any]) -> dict[str, Any]:
    return {"spec": {"containers": [container]}}


def planner_yaml(choice: Choice, best: Ranked, to: Deployment, folder: Path) -> str:
    """The planner's configuration for the graph.

    Args:
        choice: what was asked and found.
        best: the chosen option.
        to: what the tables do not say.
        folder: that the file will lie in; the paths of profiles count from it.
    """
    sla = choice.sla
    document: dict[str, Any] = {
        "graph": to.name,
        "model": to.model,
        "connector": {"kind": "local", "local": {"control_url": to.control_url}},
        "metrics": {"source": "scrape", "gateway": "smg"},
        "profiles": [os.path.relpath(p.path.resolve(), folder.resolve()) for p in best.option.profiles],
        "sla": {"ttft_ms": sla.ttft_ms, "itl_ms": sla.itl_ms, "attainment": sla.attainment},
        "budget": {"max_gpus": choice.max_gpus},
        "pools": {NAMES[role]: {"role": role.value, "min_workers": 1} for role in best.option.of_role},
    }
    if to.startup_s is not None:
        document["lead_time_s"] = round(to.startup_s, 1)
    return _header(choice, best) + _dump(document)


def _header(choice: Choice, best: Ranked) -> str:
    """Why these layouts, for whoever opens the file."""
    sla, demand, sizing = choice.sla, choice.demand, best.sizing
    meta = best.option.profiles[0].meta
    attained = f"{sizing.chosen.attainment:.2%}" if sizing is not None else "unknown"
    lengths = demand.lengths
    known = "Estimated for" if meta.source.form == "estimated" else "Measured with"
    lines = (
        f"Chosen by `profiler select`: {best.option.name} on {meta.gpu.name}, {best.gpus} GPUs.",
        f"For {demand.rate_rps:g} requests/s with {lengths.isl.mean():,.0f} input and {lengths.osl.mean():,.0f} output "
        "tokens on average:",
        f"predicted to keep TTFT {sla.ttft_ms:g} ms and ITL {sla.itl_ms:g} ms for {attained} of requests "
        f"({sla.attainment:.6g} asked).",
        f"{known} {meta.engine.name} {meta.engine.version or '(version unknown)'}; the image should hold the same.",
    )
    return "".join(f"# {line}\n" for line in lines)


def _dump(document: dict[str, Any]) -> str:
    return yaml.safe_dump(document, sort_keys=False, allow_unicode=True, width=120)
