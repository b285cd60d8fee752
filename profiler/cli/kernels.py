"""`profiler kernels`, `profiler block-copy`, `profiler rapid`: what a GPU can do, without an engine."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.table import Table

from profiler import console
from profiler.atomic import write_atomic
from profiler.console import Output
from profiler.errors import DependencyError, InputError

if TYPE_CHECKING:
    from profiler.kernels.bench import Bench
    from profiler.kernels.micro import CopyResult, Micro, Timed

_Model = Annotated[str | None, typer.Option("--model", help="A model that is known by name.")]
_Config = Annotated[Path | None, typer.Option("--config", metavar="FILE", help="The model's config.json, instead.")]
_Dtype = Annotated[str | None, typer.Option(help="Number format of the weights; the config's own by default.")]
_KvDtype = Annotated[str | None, typer.Option(help="Number format of the KV cache; the activations' by default.")]
_Tp = Annotated[int, typer.Option(min=1, help="Tensor parallelism: one rank's share is measured.")]
_Device = Annotated[str | None, typer.Option(help="cuda, cuda:1, or cpu to rehearse; the first GPU by default.")]
_Seconds = Annotated[float, typer.Option(min=1, help="Budget; what does not fit is left out and named.")]
_Answer = Annotated[Output, typer.Option(help="A table for people or JSON for machines.")]


def kernels(
    model: _Model = None,
    config: _Config = None,
    dtype: _Dtype = None,
    kv_dtype: _KvDtype = None,
    tp: _Tp = 1,
    device: _Device = None,
    seconds: _Seconds = 60.0,
    copies: Annotated[bool, typer.Option(help="Also copy KV blocks in the time that is left.")] = True,
    out: Annotated[Path | None, typer.Option(metavar="FILE.json", help="Also write the raw results here.")] = None,
    output: _Answer = Output.TABLE,
) -> None:
    """Time the products, attention, all-reduce and memory of one rank of a model."""
    _writable(out)
    micro = _bench(model, config, dtype, kv_dtype, tp, device, seconds).run(copies=copies)
    _save(out, micro)
    if output is Output.JSON:
        typer.echo(micro.model_dump_json(indent=2))
    else:
        _show_micro(micro)


def block_copy(
    model: _Model = None,
    config: _Config = None,
    dtype: _Dtype = None,
    kv_dtype: _KvDtype = None,
    device: _Device = None,
    seconds: _Seconds = 60.0,
    out: Annotated[Path | None, typer.Option(metavar="FILE.json", help="Also write the results here.")] = None,
    output: _Answer = Output.TABLE,
) -> None:
    """Copy KV blocks of a model on the device, to the host and back, and between TP sizes; GB/s beside the ceiling."""
    _writable(out)
    copies = _bench(model, config, dtype, kv_dtype, 1, device, seconds).copies()
    _save(out, copies)
    if output is Output.JSON:
        typer.echo(copies.model_dump_json(indent=2))
    else:
        _show_copies(copies)


def rapid(
    to: Annotated[Path, typer.Option(metavar="DIR", help="Profiles go to DIR/<role>-tp<T>-dp1.")],
    model: _Model = None,
    config: _Config = None,
    dtype: _Dtype = None,
    kv_dtype: _KvDtype = None,
    tp: _Tp = 1,
    gpu: Annotated[str, typer.Option(help="auto, or the GPU's name where the driver's is not known.")] = "auto",
    device: _Device = None,
    seconds: _Seconds = 60.0,
    micro: Annotated[
        Path | None, typer.Option(metavar="FILE.json", help="Results of an earlier run; nothing is measured.")
    ] = None,
    out: Annotated[
        Path | None, typer.Option(metavar="FILE.json", help="Raw results; DIR/micro-tp<T>.json by default.")
    ] = None,
    calibrate: Annotated[
        list[Path] | None,
        typer.Option(metavar="PROFILE", help="Fit the engine's overheads to measured profiles of this layout."),
    ] = None,
    compare: Annotated[
        list[Path] | None,
        typer.Option(metavar="PROFILE", help="State the error against measured profiles, and change nothing."),
    ] = None,
    link_gb_per_s: Annotated[
        float | None, typer.Option(min=1e-3, help="Payload of one rank's link between prefill and decode workers.")
    ] = None,
    overwrite: Annotated[bool, typer.Option(help="Replace profiles that are there.")] = False,
) -> None:
    """Estimate a first profile from a minute of micro-benchmarks; marked as an estimate."""
    from profiler.kernels.micro import read_micro  # noqa: PLC0415 - numpy and pydantic would slow --help down
    from profiler.rapid import ASSUMED, calibrated, differences, save_estimates  # noqa: PLC0415
    from profiler.tables import load_profile  # noqa: PLC0415

    fitted = [load_profile(path) for path in calibrate or []]
    seen = [load_profile(path) for path in compare or []]
    if micro is not None:
        for flag, value in (("--model", model), ("--config", config), ("--out", out)):
            if value is not None:
                raise InputError("says what the file already says", expected="--micro without it", field=flag)
        found = read_micro(micro)
    else:
        raw = out if out is not None else to / f"micro-tp{tp}.json"
        if out is None:
            _make(to)
        _writable(raw)
        found = _bench(model, config, dtype, kv_dtype, tp, device, seconds).run(copies=False)
        _save(raw, found)
    if gpu != "auto":
        found = found.model_copy(update={"gpu": gpu})
    overheads = calibrated(found, fitted) if fitted else ASSUMED
    if link_gb_per_s is not None:
        overheads = replace(overheads, link_gb_per_s=link_gb_per_s)
    compared = differences(found, overheads, [*seen, *fitted]) if seen or fitted else {}
    profiles = save_estimates(found, to, overheads, compared=compared, overwrite=overwrite)
    for warning in profiles[-1].meta.warnings:
        console.stderr.print(f"[yellow]warning:[/] {warning}", soft_wrap=True)
    for profile in profiles:
        typer.echo(str(profile.path))


def _bench(
    model: str | None,
    config: Path | None,
    dtype: str | None,
    kv_dtype: str | None,
    tp: int,
    device: str | None,
    seconds: float,
) -> Bench:
    from profiler.models.catalog import find_model  # noqa: PLC0415
    from profiler.models.config import read_config  # noqa: PLC0415

    if config is not None and model is None:
        known = read_config(config, dtype=dtype, kv_dtype=kv_dtype)
    elif model is not None and config is None:
        known = find_model(model, dtype=dtype, kv_dtype=kv_dtype)
    else:
        raise InputError("--model and --config name the model", expected="one of them", field="--model")
    try:
        from profiler.kernels.bench import Bench, device_named  # noqa: PLC0415 - torch takes seconds to import
    except ModuleNotFoundError as error:
        if error.name is None or error.name.partition(".")[0] != "torch":
            raise
        raise DependencyError("torch is not installed; pip install 'plimsoll[profiler]'") from None
    return Bench(known.name, known.shape, known.dtype, tp, device_named(device), seconds, _say)


def _say(line: str) -> None:
    console.stderr.print(line)


def _make(folder: Path) -> None:
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise DependencyError(f"{folder}: cannot be made: {error.strerror or error}") from None


def _writable(path: Path | None) -> None:
    """Refuse a place that cannot take the results before any GPU time is spent."""
    if path is not None and not path.parent.is_dir():
        raise InputError("its folder is not there", expected="a file in a folder that is", source=path, field="--out")
    if path is not None and path.is_dir():
        raise InputError("is a folder", expected="a file", source=path, field="--out")


def _save(path: Path | None, result: Micro | CopyResult) -> None:
    if path is None:
        return
    try:
        write_atomic(path, result.model_dump_json(indent=2) + "\n")
    except OSError as error:
        raise DependencyError(f"{path}: cannot be written: {error.strerror or error}") from None
    console.stderr.print(f"wrote {path}")


def _show_micro(micro: Micro) -> None:
    console.stdout.print(
        f"{micro.model} {micro.dtype} TP {micro.tp} on {micro.gpu}: memory {micro.memory_gb_per_s:,.0f} GB/s "
        f"(read plus written), {1e3 * micro.launch_ms:.1f} us a kernel, {micro.seconds:.1f} s",
        soft_wrap=True,
    )
    table = Table("what", "size", "ms", "quartiles", "by", box=None)
    for g in micro.gemm:
        flops = 2 * g.m * g.n * g.k / g.time.median_ms / 1e9
        _row(table, g.name, f"m={g.m} n={g.n} k={g.k}", g.time, f"{g.backend}, {flops:,.0f} TFLOP/s")
    for p in micro.prefill:
        _row(table, "prefill attention", f"{p.tokens} tokens", p.time, p.backend)
    for d in micro.decode:
        _row(table, "decode attention", f"{d.batch} x {d.context}", d.time, d.backend)
    for r in micro.all_reduce:
        _row(table, "all-reduce", f"{r.bytes:,} bytes, {r.ranks} ranks", r.time, r.backend)
    console.stdout.print(table)
    if micro.copies is not None:
        _show_copies(micro.copies)
    for line in micro.skipped:
        console.stderr.print(f"[yellow]left out:[/] {line}", soft_wrap=True)


def _row(table: Table, what: str, size: str, time: Timed, by: str) -> None:
    table.add_row(what, size, f"{time.median_ms:.4f}", f"{time.low_ms:.4f} to {time.high_ms:.4f}", by)


def _show_copies(copies: CopyResult) -> None:
    console.stdout.print(
        f"{copies.blocks} KV blocks of {copies.block_bytes:,} bytes on {copies.gpu}; GB/s of payload, each byte "
        "counted once",
        soft_wrap=True,
    )
    table = Table("operation", "blocks", "by", "GB/s", "ms", "checked", box=None)
    for p in copies.points:
        name = f"{p.operation} {p.detail}".strip()
        table.add_row(name, p.pattern, p.method, f"{p.gb_per_s:,.1f}", f"{p.time.median_ms:.3f}", str(p.checked))
    console.stdout.print(table)
    reasons = {(p.method, p.why) for p in copies.points if p.method not in {"copy", "per_block"}}
    for method, why in sorted(reasons):
        console.stdout.print(f"{method}: {why}", soft_wrap=True)
