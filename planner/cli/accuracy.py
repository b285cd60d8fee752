"""`planner accuracy`, `planner slice-trace` and `planner strip-run`: the simulator against recorded runs."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Annotated

import typer

from profiler import console
from profiler.console import Output
from profiler.errors import DependencyError, InputError

# Imports inside the commands keep `planner --help` quick: numba and plotly take seconds.
# ruff: noqa: PLC0415

#: The first requests meet an engine that was idle for long; a few seconds count on neither side.
WARMUP_S = 5.0


def accuracy(
    run: Annotated[list[Path] | None, typer.Option(metavar="FILE.csv", help="A recorded run.")] = None,
    runs: Annotated[Path | None, typer.Option(metavar="DIR", help="All recorded runs below a folder.")] = None,
    profile: Annotated[
        list[Path] | None, typer.Option(metavar="DIR", help="Profiles to use, whatever model and GPU they name.")
    ] = None,
    profiles: Annotated[
        Path | None, typer.Option(metavar="DIR", help="Where each run's own profiles are found, by model and GPU.")
    ] = None,
    layout: Annotated[
        str | None, typer.Option(metavar="LAYOUT", help="Workers: 1a, 1p1d. [default: as recorded]")
    ] = None,
    warmup_s: Annotated[float, typer.Option(help="Requests sent before count on neither side.")] = WARMUP_S,
    output: Annotated[Output, typer.Option(help="A table for people or JSON for machines.")] = Output.TABLE,
    diagnose: Annotated[bool, typer.Option("--diagnose", help="Also where each run's replay is off.")] = False,
    write: Annotated[bool, typer.Option("--write", help="Keep the comparison in the profiles.")] = False,
    plot: Annotated[Path | None, typer.Option(metavar="FILE.html", help="Draw one self-contained page.")] = None,
) -> None:
    """Replay recorded runs through the simulator, and say how far off it is.

    Exit code 1 when a target is missed: 10 % of TTFT's and ITL's mean, p50 and p90, 20 % of TTFT's p99.
    """
    from planner.accuracy.beside import general, own_profiles
    from planner.accuracy.compare import compare
    from planner.accuracy.derived import MissingTraceError, read_run
    from planner.accuracy.match import match
    from planner.accuracy.store import store
    from planner.accuracy.table import accuracy_tables, as_json, diagnosis_tables
    from profiler.folders import load_profiles
    from profiler.record import find_runs

    if not math.isfinite(warmup_s) or warmup_s < 0:
        raise InputError(f"is {warmup_s:g}", expected="seconds, 0 or more", field="--warmup-s")
    if bool(profile) == (profiles is not None):
        raise InputError("both or neither given", expected="one of them", field="--profile, --profiles")
    # Each run with the folder up to which its own profiles are looked for.
    files = {file: file.parent for file in run or []}
    if runs is not None:
        found = find_runs(runs) if runs.is_dir() else []
        if not found:
            raise InputError(
                "holds no recorded run", expected="CSV files with a JSON beside", source=runs, field="--runs"
            )
        files |= dict.fromkeys(found, runs)
    if not files:
        raise InputError("nothing to compare", expected="--run or --runs", field="--run")
    named = profile or []
    field = "--profile" if named else "--profiles"
    loaded = load_profiles([*named, *([profiles] if profiles is not None else [])], field=field)
    if profiles is not None:
        loaded = general(loaded, profiles, list(dict.fromkeys(files.values())))
    comparisons = []
    for file, root in files.items():
        try:
            recording = read_run(file)
        except MissingTraceError as error:
            if file in (run or []):
                raise
            console.stderr.print(f"[yellow]skipped:[/] {error}", soft_wrap=True)
            continue
        # What somebody named himself is used, whatever lies beside the run.
        own = [] if named else own_profiles(file, root)
        matched = match(recording, loaded, by_name=not named, layout=layout, own=own)
        comparisons.append(compare(recording, matched, warmup_s=warmup_s))
    for one in comparisons:
        for note in one.notes:
            console.stderr.print(f"[yellow]note:[/] {one.title}: {note}", soft_wrap=True)
    if output is Output.JSON:
        typer.echo(json.dumps(as_json(comparisons), indent=2, allow_nan=False))
    else:
        console.stdout.print(accuracy_tables(comparisons))
        for one in comparisons if diagnose else ():
            console.stdout.print(diagnosis_tables(one))
    if plot is not None:
        from planner.accuracy.page import page
        from profiler.atomic import write_atomic

        try:
            write_atomic(plot, page(comparisons))
        except OSError as error:
            raise DependencyError(f"{plot}: cannot be written: {error.strerror or error}") from None
        console.stderr.print(f"drew {plot}")
    if write:
        for path in store(comparisons):
            console.stderr.print(f"wrote {path}", soft_wrap=True)
    missed = [f"{one.title} ({', '.join(one.missed)})" for one in comparisons if one.missed]
    if missed:
        console.stderr.print(f"targets missed: {'; '.join(missed)}", soft_wrap=True)
        raise typer.Exit(1)


def slice_trace(
    trace: Annotated[str, typer.Option(metavar="FILE", help="Azure CSV, Mooncake JSONL, plain CSV, or generate:NAME.")],
    to: Annotated[Path, typer.Option(metavar="FILE.csv", help="Plain CSV for `profiler record --trace`.")],
    start_s: Annotated[float, typer.Option(min=0, help="Where the slice begins, s.")] = 0.0,
    duration_s: Annotated[float, typer.Option(min=0, help="How long it is, s.")] = 120.0,
    rate_scale: Annotated[float, typer.Option(help="So many times the requests in the same span.")] = 1.0,
    seed: Annotated[int, typer.Option(min=0, help="Of the scaling.")] = 0,
) -> None:
    """Cut a span out of a trace, for a recording on a machine that has nothing but it."""
    from planner.accuracy.slice import slice_to
    from planner.whatif.traces import open_trace

    source = open_trace(trace, prefix_cache_tokens=0)
    count = slice_to(source, to, start_s=start_s, duration_s=duration_s, rate_scale=rate_scale, seed=seed)
    typer.echo(f"{to}: {count} requests")


def strip_run(
    run: Annotated[Path, typer.Option(metavar="FILE.csv", help="A run recorded from a slice of a trace.")],
    trace: Annotated[str, typer.Option(metavar="PATH", help="The trace, below the folder of PLIMSOLL_TRACES.")],
    to: Annotated[Path, typer.Option(metavar="DIR", help="Folder for the run without the trace's rows.")],
    start_s: Annotated[float, typer.Option(min=0, help="Where the slice begins, s.")] = 0.0,
    duration_s: Annotated[float, typer.Option(min=0, help="How long it is, s.")] = 120.0,
    rate_scale: Annotated[float, typer.Option(help="So many times the requests in the same span.")] = 1.0,
    seed: Annotated[int, typer.Option(min=0, help="Of the scaling.")] = 0,
) -> None:
    """Leave a public trace's rows out of a run; `planner accuracy` derives them again from the trace."""
    from planner.accuracy.derived import strip

    count = strip(run, to, trace=trace, start_s=start_s, duration_s=duration_s, rate_scale=rate_scale, seed=seed)
    typer.echo(f"{to / run.name}: {count} requests")
