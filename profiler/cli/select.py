"""`profiler select`: the cheapest layouts under an SLA, and the files to run them."""

from __future__ import annotations

import json
import math
import re
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from profiler import console
from profiler.atomic import write_atomic
from profiler.console import Output
from profiler.errors import InputError

if TYPE_CHECKING:
    from planner.core.demand import Lengths
    from profiler.selection.choose import Choice

# Imports inside the command keep `profiler --help` quick: numba and plotly take seconds.
# ruff: noqa: PLC0415

#: As `planner whatif` takes at most.
MOST_GPUS = 1_000_000
LONGEST_STARTUP_S = 86_400.0

_IMAGE = "nvcr.io/nvidia/ai-dynamo/vllm-runtime:1.3.1"
_NAME = re.compile(r"[a-z0-9]([-a-z0-9.]{0,251}[a-z0-9])?")
_TRACE = "Lengths of a trace: a file, or generate:NAME, as planner whatif takes it."


class ModeOption(StrEnum):
    """Which graphs are considered."""

    AUTO = "auto"
    DISAGGREGATED = "disaggregated"
    AGGREGATED = "aggregated"


def select(
    profiles: Annotated[list[Path], typer.Option(metavar="DIR", help="Profile, or a folder with profiles below it.")],
    ttft_ms: Annotated[float, typer.Option(metavar="N", help="TTFT limit of a request, ms.")],
    itl_ms: Annotated[float, typer.Option(metavar="N", help="ITL limit of a request, ms.")],
    rps: Annotated[float, typer.Option(metavar="X", help="Requests per second to serve.")],
    attainment: Annotated[float, typer.Option(metavar="X", help="Share of requests that must keep both.")] = 0.95,
    isl: Annotated[float | None, typer.Option(metavar="N", help="Mean input length, tokens.")] = None,
    osl: Annotated[float | None, typer.Option(metavar="N", help="Mean output length, tokens.")] = None,
    isl_cv: Annotated[float, typer.Option(metavar="X", help="Deviation over mean of input lengths.")] = 0.5,
    osl_cv: Annotated[float, typer.Option(metavar="X", help="Deviation over mean of output lengths.")] = 0.5,
    trace: Annotated[str | None, typer.Option(metavar="FILE", help=_TRACE)] = None,
    dispersion: Annotated[
        float, typer.Option(metavar="X", help="Variance over mean of arrivals per second; 1 is Poisson.")
    ] = 1.0,
    mode: Annotated[ModeOption, typer.Option(help="Which graphs to consider.")] = ModeOption.AUTO,
    max_gpus: Annotated[int, typer.Option(metavar="N", help="GPUs that the graph may hold.")] = 64,
    startup_s: Annotated[
        float | None, typer.Option(metavar="N", help="Until a new worker serves, s. [default: as measured]")
    ] = None,
    model: Annotated[str | None, typer.Option(metavar="NAME", help="Where DIR holds several: this model.")] = None,
    gpu: Annotated[str | None, typer.Option(metavar="NAME", help="Where DIR holds several: this GPU.")] = None,
    engine_version: Annotated[
        str | None, typer.Option(metavar="V", help="Where DIR holds several: this version of the engine.")
    ] = None,
    graph_out: Annotated[
        Path | None, typer.Option(metavar="FILE.yaml", help="Write the graph (DynamoGraphDeployment).")
    ] = None,
    planner_out: Annotated[
        Path | None, typer.Option(metavar="FILE.yaml", help="Write the planner's configuration.")
    ] = None,
    name: Annotated[str | None, typer.Option(metavar="NAME", help="Of the graph. [default: the model's]")] = None,
    serve_model: Annotated[
        str | None, typer.Option(metavar="NAME", help="Name or path that workers load. [default: as measured]")
    ] = None,
    image: Annotated[str, typer.Option(metavar="IMAGE", help="Of the graph's containers.")] = _IMAGE,
    control_url: Annotated[
        str, typer.Option(metavar="URL", help="Where the planner reaches the graph.")
    ] = "http://127.0.0.1:7070",
    output: Annotated[Output, typer.Option(help="A table for people or JSON for machines.")] = Output.TABLE,
) -> None:
    """The cheapest layouts and counts that meet an SLA at a load, of all that were measured; optionally as files.

    Exit code 1 when nothing meets the SLA within the GPUs; nothing is written then.
    """
    from planner.core.demand import Demand
    from planner.core.types import Sla
    from profiler.folders import load_profiles
    from profiler.selection.choose import choose
    from profiler.selection.options import of_one_kind, options_of
    from profiler.selection.table import as_json, choice_table, conclusion

    sla = Sla(_above("--ttft-ms", ttft_ms), _above("--itl-ms", itl_ms), _above("--attainment", attainment, most=1.0))
    rate = _above("--rps", rps)
    if not (math.isfinite(dispersion) and dispersion >= 1):
        raise InputError(f"is {dispersion:g}", expected="at least 1, Poisson arrivals", field="--dispersion")
    if not 1 <= max_gpus <= MOST_GPUS:
        raise InputError(f"is {max_gpus}", expected=f"1 to {MOST_GPUS}", field="--max-gpus")
    if startup_s is not None and not 0 <= startup_s <= LONGEST_STARTUP_S:
        raise InputError(f"is {startup_s:g}", expected=f"from 0 to {LONGEST_STARTUP_S:g} seconds", field="--startup-s")
    if name is not None and not _NAME.fullmatch(name):
        raise InputError(f"is {name!r}", expected="lower-case letters, digits and hyphens", field="--name")
    if not re.match(r"https?://", control_url):
        raise InputError(
            f"is {control_url!r}", expected="an address such as http://127.0.0.1:7070", field="--control-url"
        )
    _check_outputs(graph_out, planner_out)
    lengths = _lengths(isl, osl, isl_cv, osl_cv, trace)
    kept = of_one_kind(load_profiles(profiles, field="--profiles"), model=model, gpu=gpu, engine=engine_version)
    choice = choose(options_of(kept, mode.value), Demand(rate, dispersion, lengths), sla, max_gpus)
    if choice.best is not None:
        _write(choice, graph_out, planner_out, name, serve_model, image, control_url, startup_s)
    if output is Output.JSON:
        typer.echo(json.dumps(as_json(choice), indent=2, allow_nan=False))
    else:
        _print(choice_table(choice))
        console.stdout.print(conclusion(choice), markup=False, soft_wrap=True)
        for path in (graph_out, planner_out):
            if path is not None and choice.best is not None:
                console.stdout.print(f"wrote {path}", markup=False, soft_wrap=True)
    if choice.best is None:
        raise typer.Exit(1)


def _lengths(isl: float | None, osl: float | None, isl_cv: float, osl_cv: float, trace: str | None) -> Lengths:
    from profiler.selection.load import drawn_lengths, trace_lengths

    if trace is not None:
        for flag, value in (("--isl", isl), ("--osl", osl)):
            if value is not None:
                raise InputError("is given beside --trace", expected="lengths or a trace", field=flag)
        return trace_lengths(trace)
    if isl is None or osl is None:
        missing = "--isl" if isl is None else "--osl"
        raise InputError("missing", expected="a mean length in tokens, or --trace FILE", field=missing)
    for flag, tokens in (("--isl", isl), ("--osl", osl)):
        if not 1 <= tokens <= 1e7:
            raise InputError(f"is {tokens:g}", expected="from 1 to 10,000,000 tokens", field=flag)
    for flag, spread in (("--isl-cv", isl_cv), ("--osl-cv", osl_cv)):
        if not 0 <= spread <= 10:
            raise InputError(f"is {spread:g}", expected="from 0 (equal lengths) to 10", field=flag)
    return drawn_lengths(isl, osl, isl_cv, osl_cv)


def _write(
    choice: Choice,
    graph_out: Path | None,
    planner_out: Path | None,
    name: str | None,
    serve_model: str | None,
    image: str,
    control_url: str,
    startup_s: float | None,
) -> None:
    from profiler.selection.files import deployment, graph_yaml, planner_yaml

    best = choice.best
    if best is None:
        raise ValueError("nothing was chosen")
    to = deployment(best, name=name, model=serve_model, image=image, control_url=control_url, startup_s=startup_s)
    texts = []
    if graph_out is not None:
        texts.append(("--graph-out", graph_out, graph_yaml(choice, best, to)))
    if planner_out is not None:
        texts.append(("--planner-out", planner_out, planner_yaml(choice, best, to, planner_out.parent)))
    for flag, path, text in texts:
        try:
            write_atomic(path, text)
        except OSError as error:
            raise InputError(f"cannot be written: {error.strerror or error}", source=path, field=flag) from None


def _check_outputs(graph_out: Path | None, planner_out: Path | None) -> None:
    """Found out before the work, not after it."""
    for flag, path in (("--graph-out", graph_out), ("--planner-out", planner_out)):
        if path is None:
            continue
        if path.is_dir() or not path.parent.is_dir():
            problem = "is a folder" if path.is_dir() else "has no folder"
            raise InputError(problem, expected="a file in a folder that exists", source=path, field=flag)
    if graph_out is not None and planner_out is not None and graph_out.resolve() == planner_out.resolve():
        raise InputError("is the file of --graph-out, too", source=planner_out, field="--planner-out")


def _above(flag: str, value: float, most: float = math.inf) -> float:
    if not (math.isfinite(value) and 0 < value <= most):
        right = "a number above 0" if math.isinf(most) else f"a share above 0 and up to {most:g}"
        raise InputError(f"is {value:g}", expected=right, field=flag)
    return value


def _print(table: object) -> None:
    """Lines that do not fit the terminal wrap there; cut to its width, figures would be lost."""
    from rich.console import Console
    from rich.measure import Measurement

    needed = Measurement.get(console.stdout, console.stdout.options.update(width=1000), table).minimum  # type: ignore[arg-type]
    Console(highlight=False, width=max(needed, console.stdout.width)).print(table)
