"""`planner graph render`: a graph's YAML as Kubernetes objects."""

from __future__ import annotations

import json
import math
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from profiler import console
from profiler.errors import InputError

if TYPE_CHECKING:
    from worker_graph.kubernetes.options import RenderOptions

# Imports inside the command keep `planner --help` quick.
# ruff: noqa: PLC0415


class Format(StrEnum):
    """How objects are written."""

    YAML = "yaml"
    JSON = "json"


def render(
    file: Annotated[Path, typer.Argument(metavar="FILE", help="DynamoGraphDeployment YAML.")],
    target: Annotated[str, typer.Option(metavar="NAME", help="kubernetes, lws, grove, dynamo.")] = "kubernetes",
    out: Annotated[
        Path | None,
        typer.Option(metavar="DIR", help="A file for each object, and a kustomization. [default: standard output]"),
    ] = None,
    namespace: Annotated[
        str | None, typer.Option(metavar="NAME", help="Of every object. [default: the graph's]")
    ] = None,
    output: Annotated[Format, typer.Option(help="YAML documents, or one JSON list.")] = Format.YAML,
    image: Annotated[
        str | None, typer.Option(metavar="IMAGE", help="Of workers for which the graph names none, or one of Dynamo's.")
    ] = None,
    gateway_image: Annotated[str | None, typer.Option(metavar="IMAGE", help="The same of the gateway.")] = None,
    longest_decode_s: Annotated[
        float | None, typer.Option(metavar="N", help="Longest answer, s. [default: output tokens x --itl-ms]")
    ] = None,
    max_output_tokens: Annotated[
        int | None, typer.Option(metavar="N", help="Of an answer. [default: the worker's --max-model-len, or 16384]")
    ] = None,
    itl_ms: Annotated[float, typer.Option(metavar="N", help="Inter-token latency of the longest answer, ms.")] = 50.0,
    startup_timeout_s: Annotated[float, typer.Option(metavar="N", help="A worker must be healthy by then, s.")] = 1800,
    model_cache_claim: Annotated[
        str | None,
        typer.Option(metavar="NAME", help="PersistentVolumeClaim for models. [default: the pod's own volume]"),
    ] = None,
    groups_for_all: Annotated[
        bool, typer.Option("--groups-for-all", help="With lws: LeaderWorkerSets for workers of one node too.")
    ] = False,
    api_version: Annotated[
        str | None, typer.Option(metavar="NAME", help="With dynamo: v1alpha1 or v1beta1. [default: the graph's]")
    ] = None,
) -> None:
    """Write the graph as the objects of a cluster."""
    from worker_graph.kubernetes.options import GATEWAY_IMAGE, VLLM_IMAGE, RenderOptions, Target
    from worker_graph.kubernetes.render import render_with_notes
    from worker_graph.spec import load_graph

    if target not in list(Target):
        raise InputError(f"is {target!r}", expected=", ".join(Target), field="--target")
    options = RenderOptions(
        namespace=namespace, image=image or VLLM_IMAGE, gateway_image=gateway_image or GATEWAY_IMAGE,
        longest_decode_s=longest_decode_s, max_output_tokens=max_output_tokens, itl_ms=itl_ms,
        startup_timeout_s=startup_timeout_s, model_cache_claim=model_cache_claim, groups_for_all=groups_for_all,
        api_version=api_version,
    )  # fmt: skip
    _check(options)
    made = render_with_notes(load_graph(file), Target(target), options)
    for note in made.notes:
        console.stderr.print(f"note: {note}", markup=False, highlight=False, soft_wrap=True)
    if out is None:
        typer.echo(_text(made.objects, output), nl=False)
    else:
        _write(out, made.objects, output)


def _check(options: RenderOptions) -> None:
    for name, number, least in (
        ("--longest-decode-s", options.longest_decode_s, 0.0),
        ("--max-output-tokens", options.max_output_tokens, 1),
        ("--itl-ms", options.itl_ms, 0.0),
        ("--startup-timeout-s", options.startup_timeout_s, 10.0),
    ):
        if number is not None and not least <= number < math.inf:
            raise InputError(f"is {number:g}", expected=f"at least {least:g}", field=name)
    namespace = options.namespace
    if namespace is not None and not (namespace.replace("-", "").isalnum() and namespace == namespace.lower()):
        raise InputError(f"is {namespace!r}", expected="lower-case letters, digits and hyphens", field="--namespace")


def _text(objects: list[dict[str, Any]], output: Format) -> str:
    from worker_graph.kubernetes.text import to_yaml

    if output is Format.YAML:
        return to_yaml(objects)
    return json.dumps({"apiVersion": "v1", "kind": "List", "items": objects}, indent=2) + "\n"


def _write(folder: Path, objects: list[dict[str, Any]], output: Format) -> None:
    """One file for each object, named after it, and a kustomization of them all."""
    names = []
    try:
        folder.mkdir(parents=True, exist_ok=True)
        for one in objects:
            name = f"{one['kind'].lower()}-{one['metadata']['name']}.{output.value}"
            names.append(name)
            text = _text([one], output) if output is Format.YAML else json.dumps(one, indent=2) + "\n"
            (folder / name).write_text(text, encoding="utf-8")
        kustomization = {"apiVersion": "kustomize.config.k8s.io/v1beta1", "kind": "Kustomization", "resources": names}
        (folder / "kustomization.yaml").write_text(_text([kustomization], Format.YAML), encoding="utf-8")
    except OSError as error:
        raise InputError(f"{folder} cannot be written: {error.strerror}", field="--out") from None
    console.stdout.print(f"{len(names)} objects in {folder}", markup=False, highlight=False, soft_wrap=True)
