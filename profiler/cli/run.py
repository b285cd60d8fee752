"""`profiler run`: measure a model on the GPUs here, or on engines that run already."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, get_args

import typer

from profiler import console
from profiler.cli.gather import gather_into, shown_in
from profiler.console import Output
from profiler.errors import InputError

if TYPE_CHECKING:
    from rich.table import Table

    from profiler.job.record import RunRecord
    from profiler.schema import TableName


def run(
    engine_args: Annotated[
        list[str] | None, typer.Argument(metavar="[-- ARGUMENTS]", help="More arguments of vllm serve.")
    ] = None,
    model: Annotated[str | None, typer.Option(help="Name on the hub, short name, or a folder.")] = None,
    config: Annotated[Path | None, typer.Option(metavar="FILE", help="config.json of a model not known here.")] = None,
    stub: Annotated[bool, typer.Option("--stub", help="Random weights: nothing is downloaded.")] = False,
    to: Annotated[Path, typer.Option(metavar="DIR", help="Profiles go below this folder.")] = Path("profiling_results"),
    layout: Annotated[
        list[str] | None, typer.Option(metavar="tpN[-dpN][-ep]", help="Repeat for several; default: all that fit.")
    ] = None,
    pair: Annotated[
        str | None, typer.Option(metavar="tpN:tpM", help="A prefill and a decode engine, and their hand-off over NIXL.")
    ] = None,
    share_gpus: Annotated[
        bool,
        typer.Option("--share-gpus", help="Both engines of --pair on the same GPUs; measures their hand-off only."),
    ] = False,
    url: Annotated[str | None, typer.Option(help="An engine that runs already.")] = None,
    prefill_url: Annotated[str | None, typer.Option(help="A prefill engine that runs already.")] = None,
    decode_url: Annotated[str | None, typer.Option(help="A decode engine that runs already.")] = None,
    served_model: Annotated[str | None, typer.Option(help="The running engine's name for the model.")] = None,
    tp: Annotated[int, typer.Option(help="Tensor parallelism of the engine at --url.")] = 1,
    dp: Annotated[int, typer.Option(help="Data parallelism of the engine at --url.")] = 1,
    gpu: Annotated[
        str | None, typer.Option(help="Name of the GPU; cpu for engines on the processor; default: as nvidia-smi.")
    ] = None,
    gpus: Annotated[str | None, typer.Option(metavar="0,1", help="GPUs to use; default: all.")] = None,
    max_gpu_minutes: Annotated[float, typer.Option(help="Of measuring, for each layout.")] = 6.0,
    max_error: Annotated[float, typer.Option(help="Relative leave-one-out error to reach.")] = 0.05,
    longest_isl: Annotated[int | None, typer.Option(help="Longest prompt, tokens.")] = None,
    max_num_seqs: Annotated[int | None, typer.Option(help="Of the engine; 256 unless said.")] = None,
    max_num_batched_tokens: Annotated[int | None, typer.Option(help="Of the engine; 8192 unless said.")] = None,
    block_size: Annotated[int | None, typer.Option(help="Tokens of a KV block; 16 unless said.")] = None,
    max_model_len: Annotated[int | None, typer.Option(help="Longest sequence; the model's own unless said.")] = None,
    gpu_memory_utilization: Annotated[float | None, typer.Option(help="Of the engine.")] = None,
    dtype: Annotated[str | None, typer.Option(help="Number format of the weights, such as fp8.")] = None,
    vllm: Annotated[str, typer.Option(metavar="COMMAND", help="What `serve` is given to.")] = "vllm",
    engine_arg: Annotated[list[str] | None, typer.Option(help="One more argument of vllm serve; repeat.")] = None,
    port: Annotated[int | None, typer.Option(min=1, max=65535, help="Of the engine; default: a free one.")] = None,
    startup_timeout_s: Annotated[float, typer.Option(help="An engine that takes longer to start failed.")] = 900.0,
    sample_timeout_s: Annotated[float, typer.Option(help="An engine that takes longer for a sample hangs.")] = 300.0,
    tables: Annotated[str, typer.Option(help="Of an engine by itself.")] = "prefill,decode,mixed",
    resume: Annotated[bool, typer.Option("--resume", help="Go on with what an earlier run left.")] = False,
    overwrite: Annotated[
        bool, typer.Option("--overwrite", help="Replace profiles; set aside what an earlier run left.")
    ] = False,
    name: Annotated[str | None, typer.Option(help="Of the run; default: model and GPU.")] = None,
    status_file: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Where the run stands, JSON or YAML.")
    ] = None,
    gpu_price_per_hour: Annotated[float | None, typer.Option(help="For the cost, in any currency.")] = None,
    record: Annotated[
        list[str] | None,
        typer.Option(metavar="SCHEDULE", help="Then an open-loop run, as of `profiler record`; repeat for several."),
    ] = None,
    index_env: Annotated[
        str | None,
        typer.Option(metavar="NAME", help="Measure one --layout only: that at the place which this variable holds."),
    ] = None,
    configmap: Annotated[
        str | None, typer.Option(metavar="NAME", help="Finished profiles also go into this ConfigMap, key by key.")
    ] = None,
    status_configmap: Annotated[
        str | None, typer.Option(metavar="NAME", help="Show where the run stands in this ConfigMap, too.")
    ] = None,
    outcome_file: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Its end in one line, for /dev/termination-log.")
    ] = None,
    output: Annotated[Output, typer.Option(help="A table for people or JSON for machines.")] = Output.TABLE,
) -> None:
    """Measure prefill, decode, mixed and hand-off behaviour, and leave profiles that know their own error.

    Every sample is on the disk before the next one: after a kill, the same command with --resume goes on.
    """
    import asyncio  # noqa: PLC0415 - numpy and aiohttp would slow --help down
    import shlex  # noqa: PLC0415

    from profiler.engines.layout import parse_layout, parse_pair  # noqa: PLC0415
    from profiler.job.indexed import layout_of, outcome, write_outcome  # noqa: PLC0415
    from profiler.job.prepare import prepare  # noqa: PLC0415
    from profiler.job.settings import Settings  # noqa: PLC0415
    from profiler.job.sweep import sweep  # noqa: PLC0415
    from profiler.record.schedule import parse_schedule  # noqa: PLC0415

    try:
        command = tuple(shlex.split(vllm))
    except ValueError as error:
        raise InputError(f"is {vllm!r}: {error}", field="--vllm") from None
    layouts = tuple(parse_layout(text) for text in layout or ())
    if index_env is not None:
        layouts = (layout_of(layouts, index_env),)
    part = layouts[0].name if index_env is not None else None
    settings = Settings(
        model=model,
        config=config,
        stub=stub,
        to=to,
        layouts=layouts,
        pair=None if pair is None else parse_pair(pair),
        share_gpus=share_gpus,
        url=url,
        prefill_url=prefill_url,
        decode_url=decode_url,
        served_model=served_model,
        tp=tp,
        dp=dp,
        gpu=gpu,
        gpus=_indices(gpus),
        max_gpu_minutes=max_gpu_minutes,
        max_error=max_error,
        longest_isl=longest_isl,
        max_num_seqs=max_num_seqs,
        max_num_batched_tokens=max_num_batched_tokens,
        block_size=block_size,
        max_model_len=max_model_len,
        gpu_memory_utilization=gpu_memory_utilization,
        dtype=dtype,
        vllm=command,
        engine_args=(*(engine_arg or ()), *(engine_args or ())),
        port=port,
        startup_timeout_s=startup_timeout_s,
        sample_timeout_s=sample_timeout_s,
        tables=_tables(tables),
        resume=resume,
        overwrite=overwrite,
        name=name,
        part=part,
        status_file=status_file,
        gpu_price_per_hour=gpu_price_per_hour,
        record=tuple(parse_schedule(text, field="--record") for text in record or ()),
    )

    async def whole() -> tuple[int, RunRecord, Path]:
        prepared = await prepare(settings)
        with shown_in(status_configmap, part or name or "run") as watch:
            code, done = await sweep(prepared, watch=watch)
        return code, done, prepared.plan.folder

    code, done, folder = asyncio.run(whole())
    if configmap is not None and (found := [to / path for one in done.layouts for path in one.profiles]):
        gather_into(configmap, found)
    if outcome_file is not None:
        write_outcome(outcome_file, outcome(code, done))
    if output is Output.JSON:
        typer.echo(json.dumps(answer(code, done, folder), indent=2, allow_nan=False))
    else:
        console.stdout.print(_shown(done))
    if code:
        console.stderr.print(f"what is there lies in {folder}; --resume goes on with it", soft_wrap=True, markup=False)
        raise typer.Exit(code)


def answer(code: int, record: RunRecord, folder: Path) -> dict[str, object]:
    """What a machine is told."""
    from dataclasses import asdict  # noqa: PLC0415

    return {"exit_code": code, "run": str(folder), "layouts": [asdict(layout) for layout in record.layouts]}


def _shown(record: RunRecord) -> Table:
    from rich.table import Table  # noqa: PLC0415

    table = Table("layout", "outcome", "GPU-min", "error by table", "profiles or reason", title=record.model["name"])
    for layout in record.layouts:
        errors = [
            f"{name} {100 * row['mean']:.1f} %"
            for rows in layout.tables.values()
            for name, row in rows.items()
            if "mean" in row
        ]
        told = "\n".join(layout.profiles) if layout.outcome == "done" else layout.reason
        table.add_row(layout.name, layout.outcome, f"{layout.gpu_minutes:.2f}", ", ".join(errors), told)
    return table


def _indices(text: str | None) -> tuple[int, ...] | None:
    if text is None:
        return None
    parts = [part.strip() for part in text.split(",")]
    if not all(part.isascii() and part.isdigit() for part in parts) or len(set(parts)) != len(parts):
        raise InputError(f"is {text!r}", expected="different GPUs by number, such as 0,1", field="--gpus")
    return tuple(int(part) for part in parts)


def _tables(text: str) -> tuple[TableName, ...]:
    from profiler.schema import TableName as Names  # noqa: PLC0415

    known = {name: name for name in get_args(Names)}
    wanted = [part.strip() for part in text.split(",") if part.strip()]
    for part in wanted:
        if part not in known:
            raise InputError(f"names {part!r}", expected="some of prefill, decode, mixed", field="--tables")
    return tuple(known[part] for part in wanted)
