"""`profiler show`, `profiler import`, `profiler export`: tables that are there."""

from __future__ import annotations

import json
from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from profiler import console
from profiler.atomic import write_atomic
from profiler.console import Output
from profiler.errors import DependencyError, InputError

_DYNAMO = "Dynamo's profiling results: raw_data.npz in selected_{prefill,decode}_interpolation, or *_raw_data.json."


class Format(StrEnum):
    """Dynamo's two forms of a table."""

    NPZ = "npz"
    JSON = "json"


def show(
    folder: Annotated[Path, typer.Argument(metavar="DIR", help="A profile, or a folder with profiles below it.")],
    output: Annotated[Output, typer.Option(help="A table for people or JSON for machines.")] = Output.TABLE,
    draw: Annotated[Path | None, typer.Option(metavar="FILE.html", help="Draw one self-contained page.")] = None,
) -> None:
    """Provenance, ranges, leave-one-out errors and warnings of profiles; optionally a picture."""
    from profiler import show as shown  # noqa: PLC0415 - numpy and pydantic would slow --help down
    from profiler.tables import find_profiles, load_profile  # noqa: PLC0415

    if not folder.is_dir():
        raise InputError("is not a folder", expected="a profile", source=folder)
    profiles = [load_profile(path) for path in find_profiles(folder)]
    if not profiles:
        raise InputError("holds no profile", expected="a folder with a profile.json", source=folder)
    summaries = [shown.summarise(profile) for profile in profiles]
    if draw is not None:
        from profiler.picture import page  # noqa: PLC0415 - plotly takes long to import

        _write(draw, page(profiles))
        console.stderr.print(f"drew {draw}")
    if output is Output.JSON:
        typer.echo(json.dumps({"profiles": summaries}, indent=2, allow_nan=False))
    else:
        for summary in summaries:
            console.stdout.print(shown.table(summary))


def import_(
    source: Annotated[Path, typer.Argument(metavar="SOURCE", help=_DYNAMO)],
    to: Annotated[Path, typer.Option(metavar="DIR", help="Profiles go to DIR/<role>-tp<T>-dp<D>.")],
    model: Annotated[str, typer.Option(help="Model that was measured.")],
    gpu: Annotated[str, typer.Option(help="GPU, such as h200-sxm or the driver's name for it.")],
    dtype: Annotated[str, typer.Option(help="Number format of the weights: bfloat16, fp8, ...")] = "bfloat16",
    kv_dtype: Annotated[str, typer.Option(help="Number format of the KV cache.")] = "bfloat16",
    model_config: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="The model's config.json; gives rooflines and a memory check."),
    ] = None,
    engine: Annotated[str, typer.Option(help="Engine that was measured.")] = "vllm",
    engine_version: Annotated[str | None, typer.Option(help="Its version; leave out when unknown.")] = None,
    engine_args: Annotated[str | None, typer.Option(help="Its arguments, as on a command line.")] = None,
    driver: Annotated[str | None, typer.Option(help="GPU driver; leave out when unknown.")] = None,
    tp: Annotated[int, typer.Option(min=1, help="Tensor parallelism of a worker.")] = 1,
    dp: Annotated[int, typer.Option(min=1, help="Data parallelism of a worker.")] = 1,
    max_num_seqs: Annotated[int | None, typer.Option(min=1)] = None,
    max_num_batched_tokens: Annotated[int | None, typer.Option(min=1)] = None,
    block_size: Annotated[int | None, typer.Option(min=1)] = None,
    max_model_len: Annotated[int | None, typer.Option(min=1)] = None,
    provenance: Annotated[str, typer.Option(help="Where the tables come from.")] = "imported from Dynamo's tables",
    licence: Annotated[str, typer.Option(help="Their licence.")] = "unknown",
    overwrite: Annotated[bool, typer.Option(help="Replace profiles that are there.")] = False,
) -> None:
    """Check Dynamo's tables and bring them in with what you know of them; refuses what contradicts itself."""
    import shlex  # noqa: PLC0415

    from profiler.importer import Described, read_dynamo, save_all, shape_from_config  # noqa: PLC0415
    from profiler.schema import Engine, Limits, ModelInfo  # noqa: PLC0415

    for flag, text in (("--model", model), ("--gpu", gpu), ("--engine", engine), ("--dtype", dtype)):
        if not text.strip():
            raise InputError("is empty", field=flag)
    for flag, text in (("--provenance", provenance), ("--licence", licence)):
        if not text.strip():
            raise InputError("is empty", field=flag)
    try:
        arguments = None if engine_args is None else tuple(shlex.split(engine_args))
    except ValueError as error:
        raise InputError(str(error), field="--engine-args") from None
    shape = None if model_config is None else shape_from_config(model_config, dtype, kv_dtype)
    described = Described(
        model=ModelInfo(name=model, dtype=dtype, shape=shape),
        gpu=gpu,
        engine=Engine(name=engine, version=engine_version, arguments=arguments),
        tp=tp,
        dp=dp,
        source=provenance,
        licence=licence,
        limits=Limits(
            max_num_seqs=max_num_seqs,
            max_num_batched_tokens=max_num_batched_tokens,
            block_size=block_size,
            max_model_len=max_model_len,
        ),
        driver=driver,
    )
    for profile in save_all(read_dynamo(source, described), to, overwrite=overwrite):
        for warning in profile.meta.warnings:
            console.stderr.print(f"[yellow]warning:[/] {profile.meta.role}: {warning}", soft_wrap=True)
        typer.echo(str(profile.path))


def export(
    folder: Annotated[Path, typer.Argument(metavar="DIR", help="A profile, or a folder with one per role.")],
    to: Annotated[Path, typer.Option(metavar="OUT", help="A new folder for Dynamo's files.")],
    format_: Annotated[Format, typer.Option("--format", help="Dynamo's npz or its JSON.")] = Format.NPZ,
) -> None:
    """Write profiles as Dynamo's tables. What was imported from Dynamo comes out as it went in."""
    from profiler.dynamo import export_files  # noqa: PLC0415
    from profiler.tables import find_profiles, load_profile, replace_folder  # noqa: PLC0415

    if not folder.is_dir():
        raise InputError("is not a folder", expected="a profile", source=folder)
    if to.exists():
        raise InputError("exists", expected="a new folder", source=to, field="--to")
    files: dict[str, bytes] = {}
    for path in find_profiles(folder):
        made = export_files(load_profile(path), "dynamo-npz" if format_ is Format.NPZ else "dynamo-json")
        for name, content in made.items():
            if name in files:
                raise InputError(f"a second profile for {name}", expected="one per role", source=path)
            files[name] = content
    if not files:
        raise InputError("holds no profile with a prefill or decode table", source=folder)
    try:
        replace_folder(to, files)
    except OSError as error:
        raise DependencyError(f"{to}: cannot be written: {error.strerror or error}") from None
    typer.echo(str(to))


def _write(path: Path, text: str) -> None:
    """Write a file at once, through a temporary one beside it."""
    try:
        write_atomic(path, text)
    except OSError as error:
        raise DependencyError(f"{path}: cannot be written: {error.strerror or error}") from None
