"""`profiler model-stub`, `profiler layouts`: models before their weights are there."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from profiler import console
from profiler.console import Output
from profiler.errors import InputError

if TYPE_CHECKING:
    from rich.table import Table

    from profiler.models.config import ModelConfig
    from profiler.models.layouts import Layout

_Name = Annotated[str | None, typer.Argument(metavar="[NAME]", help="A model whose config is shipped; see --list.")]
_Config = Annotated[Path | None, typer.Option(metavar="FILE", help="Any other model's config.json, or its folder.")]


def model_stub(
    name: _Name = None,
    config: _Config = None,
    to: Annotated[Path | None, typer.Option(metavar="DIR", help="A new folder, or a stub to replace.")] = None,
    list_: Annotated[bool, typer.Option("--list", help="Print the models whose configs are shipped.")] = False,
) -> None:
    """Write a model's folder without weights, for `vllm serve DIR --load-format dummy`."""
    from profiler.models.catalog import MODELS, config_dict, full_name, short_name  # noqa: PLC0415
    from profiler.models.config import load_config  # noqa: PLC0415
    from profiler.models.stub import write_stub  # noqa: PLC0415

    if list_:
        for model in MODELS:
            typer.echo(f"{short_name(model)}\t{model}")
        return
    _check_one(name, config)
    if to is None:
        raise InputError("is missing", expected="the folder to write", field="--to")
    if config is not None:
        file = config / "config.json" if config.is_dir() else config
        write_stub(to, load_config(file), name=str(file))
    elif name is not None:
        write_stub(to, config_dict(name), name=full_name(name))
    typer.echo(str(to))


def layouts(
    gpu: Annotated[str, typer.Option(help="GPU, such as h100-sxm or the driver's name for it.")],
    gpus: Annotated[int, typer.Option(min=1, max=1024, help="Most GPUs of one worker.")],
    name: _Name = None,
    config: _Config = None,
    max_model_len: Annotated[
        int | None, typer.Option(min=1, help="Longest request that must fit; the model's own limit unless given.")
    ] = None,
    dtype: Annotated[
        str | None, typer.Option(help="Number format of the weights, where it is not the config's.")
    ] = None,
    kv_dtype: Annotated[str | None, typer.Option(help="Number format of the KV cache.")] = None,
    gpu_memory_utilization: Annotated[
        float | None, typer.Option(help="Share of the memory that the engine may take; vLLM's default unless given.")
    ] = None,
    max_num_batched_tokens: Annotated[
        int | None, typer.Option(min=1, help="Largest step; vLLM's default unless given.")
    ] = None,
    output: Annotated[Output, typer.Option(help="A table for people or JSON for machines.")] = Output.TABLE,
) -> None:
    """Layouts (TP, DP, EP) of a model on so many GPUs, what fits in memory, and why the others do not."""
    from profiler.models.catalog import find_model  # noqa: PLC0415
    from profiler.models.config import read_config  # noqa: PLC0415
    from profiler.models.layouts import candidates  # noqa: PLC0415
    from profiler.models.memory import DEFAULT_BATCHED_TOKENS, DEFAULT_UTILIZATION  # noqa: PLC0415

    _check_one(name, config)
    if config is not None:
        model = read_config(config, dtype=dtype, kv_dtype=kv_dtype)
    else:
        model = find_model(name or "", dtype=dtype, kv_dtype=kv_dtype)
    found = candidates(
        model,
        gpu,
        gpus,
        max_model_len=max_model_len,
        utilization=DEFAULT_UTILIZATION if gpu_memory_utilization is None else gpu_memory_utilization,
        max_num_batched_tokens=max_num_batched_tokens or DEFAULT_BATCHED_TOKENS,
    )
    if output is Output.JSON:
        typer.echo(json.dumps(_summary(model, gpu, found), indent=2, allow_nan=False))
    else:
        console.stdout.print(_table(model, gpu, found))
    if all(layout.rejected is not None for layout in found):
        console.stderr.print(f"no layout of {model.name} on up to {gpus} x {gpu} can serve", soft_wrap=True)
        raise typer.Exit(1)


def _check_one(name: str | None, config: Path | None) -> None:
    if (name is None) == (config is None):
        problem = "is missing" if name is None else f"is {name!r} beside --config"
        raise InputError(problem, expected="either a model's name or --config FILE", field="NAME")


def _summary(model: ModelConfig, gpu: str, found: list[Layout]) -> dict[str, Any]:
    from profiler.models.memory import GIB  # noqa: PLC0415
    from profiler.models.params import active_params, total_params  # noqa: PLC0415

    return {
        "model": model.name,
        "architecture": model.architecture,
        "dtype": model.dtype,
        "parameters": total_params(model.shape),
        "active_parameters": active_params(model.shape),
        "gpu": gpu,
        "layouts": [
            {
                "name": layout.name,
                "tp": layout.tp,
                "dp": layout.dp,
                "expert_parallel": layout.expert_parallel,
                "gpus": layout.gpus,
                "weights_gib_per_gpu": None if layout.fit is None else round(layout.fit.weights_bytes / GIB, 3),
                "reserve_gib_per_gpu": None if layout.fit is None else round(layout.fit.reserve_bytes / GIB, 3),
                "kv_tokens": layout.kv_tokens,
                "fits": layout.rejected is None if layout.fit is not None or layout.rejected is not None else None,
                "rejected": layout.rejected,
                "note": layout.note,
                "arguments": list(layout.arguments),
            }
            for layout in found
        ],
    }


def _table(model: ModelConfig, gpu: str, found: list[Layout]) -> Table:
    from rich.markup import escape  # noqa: PLC0415
    from rich.table import Table  # noqa: PLC0415

    from profiler.models.memory import GIB  # noqa: PLC0415
    from profiler.models.params import active_params, total_params  # noqa: PLC0415

    total, active = total_params(model.shape), active_params(model.shape)
    size = f"{total / 1e9:.2f}B weights" + (f", {active / 1e9:.2f}B active" if active != total else "")
    table = Table(title=escape(f"{model.name} ({size}, {model.dtype}) on {gpu}"), title_justify="left")
    table.add_column("layout", no_wrap=True)
    for heading in ("GPUs", "weights GiB/GPU", "KV tokens"):
        table.add_column(heading, justify="right")
    table.add_column("fits")
    for layout in found:
        weights = "" if layout.fit is None else f"{layout.fit.weights_bytes / GIB:.1f}"
        tokens = "" if layout.kv_tokens is None else f"{layout.kv_tokens:,}"
        verdict = f"no: {layout.rejected}" if layout.rejected is not None else layout.note or "yes"
        table.add_row(layout.name, str(layout.gpus), weights, tokens, escape(verdict))
    return table
