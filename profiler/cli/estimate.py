"""`profiler estimate`: a first table without a GPU."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import typer

from profiler import console
from profiler.console import Output
from profiler.errors import InputError

# Imports inside the command keep `profiler --help` quick.
# ruff: noqa: PLC0415

_PYTHON = "Python that has aiconfigurator-core. [default: this one, with the extra `estimate`]"


def estimate(
    gpu: Annotated[str, typer.Option(metavar="NAME", help="GPU: h100-sxm, h200-sxm, b200, a100-80gb, l40s.")],
    to: Annotated[Path, typer.Option(metavar="DIR", help="Profiles go to DIR/<role>-tp<T>-dp<D>.")],
    model: Annotated[str | None, typer.Option(metavar="NAME", help="A shipped model; with --config, its name.")] = None,
    config: Annotated[Path | None, typer.Option(metavar="FILE", help="The model's config.json.")] = None,
    tp: Annotated[int, typer.Option(min=1, help="Tensor parallelism of a worker.")] = 1,
    dp: Annotated[int, typer.Option(min=1, help="Data parallelism, for mixtures of experts.")] = 1,
    expert_parallel: Annotated[bool, typer.Option("--expert-parallel", help="Experts lie whole on GPUs.")] = False,
    engine_version: Annotated[
        str | None, typer.Option(metavar="V", help="Of vLLM. [default: the package's current one]")
    ] = None,
    dtype: Annotated[str | None, typer.Option(help="Number format of the weights. [default: the config's]")] = None,
    kv_dtype: Annotated[str | None, typer.Option(help="Of the KV cache. [default: the activations']")] = None,
    longest_isl: Annotated[int | None, typer.Option(metavar="N", min=1, help="Longest prompt.")] = None,
    max_num_seqs: Annotated[int | None, typer.Option(metavar="N", min=1, help="Of a rank; vLLM's default.")] = None,
    max_num_batched_tokens: Annotated[
        int | None, typer.Option(metavar="N", min=1, help="Of a rank; vLLM's default.")
    ] = None,
    max_model_len: Annotated[int | None, typer.Option(metavar="N", min=1, help="Longest request.")] = None,
    gpu_memory_utilization: Annotated[
        float | None, typer.Option(metavar="X", help="Share of memory. [default: vLLM's]")
    ] = None,
    aiconfigurator: Annotated[Path | None, typer.Option(metavar="PYTHON", help=_PYTHON)] = None,
    overwrite: Annotated[bool, typer.Option(help="Replace profiles that are there.")] = False,
    output: Annotated[Output, typer.Option(help="A table for people or JSON for machines.")] = Output.TABLE,
) -> None:
    """A first table without a GPU, from operator times that aiconfigurator ships; marked as an estimate."""
    from profiler import show
    from profiler.estimated.build import profiles, refuse_existing
    from profiler.estimated.plan import Worker, plan
    from profiler.estimated.query import ask
    from profiler.models.catalog import find_model
    from profiler.models.config import read_config
    from profiler.models.memory import DEFAULT_UTILIZATION
    from profiler.tables import save_profile

    if config is not None:
        found = read_config(config, dtype=dtype, kv_dtype=kv_dtype)
        folder = config if config.is_dir() else config.parent
        name = model or folder.resolve().name
    elif model is not None:
        found = find_model(model, dtype=dtype, kv_dtype=kv_dtype)
        name = found.name
    else:
        raise InputError("missing", expected="--model NAME, or --config FILE", field="--model")
    if not name.strip():
        raise InputError("is empty", expected="the model's name", field="--model")
    made = plan(
        Worker(
            config=found,
            name=name,
            gpu=gpu,
            tp=tp,
            dp=dp,
            expert_parallel=expert_parallel,
            engine_version=engine_version,
            longest_isl=longest_isl,
            max_num_seqs=max_num_seqs,
            max_num_batched_tokens=max_num_batched_tokens,
            max_model_len=max_model_len,
            utilization=DEFAULT_UTILIZATION if gpu_memory_utilization is None else gpu_memory_utilization,
        )
    )
    if not overwrite:
        refuse_existing([to / leaf for leaf in made.folders.values()])
    built = profiles(made, ask(made.request, aiconfigurator))
    saved = [save_profile(to / leaf, meta, rows, overwrite=overwrite) for leaf, (meta, rows) in built.items()]
    for warning in dict.fromkeys(warning for profile in saved for warning in profile.meta.warnings):
        console.stderr.print(f"[yellow]warning:[/] {warning}", soft_wrap=True)
    if output is Output.JSON:
        typer.echo(json.dumps({"profiles": [show.summarise(one) for one in saved]}, indent=2, allow_nan=False))
    else:
        for profile in saved:
            typer.echo(str(profile.path))
