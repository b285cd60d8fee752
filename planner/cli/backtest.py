"""`planner backtest`."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from planner.cli.outputs import check_outputs, write_output
from profiler import console
from profiler.console import Output
from profiler.errors import InputError

if TYPE_CHECKING:
    from planner.core.forecast import ForecastSettings
    from planner.whatif.backtest import Issued, Series

# Imports inside the command keep `planner --help` quick: plotly and statsmodels take seconds.
# ruff: noqa: PLC0415

_TRACE = "Azure CSV, Mooncake JSONL, CSV with arrival_s,isl,osl, or generate:NAME[,key=value…]."

#: Bins ahead that a forecast may have, as in a replay.
MOST_INTERVALS_AHEAD = 10_000


def backtest(
    trace: Annotated[str, typer.Option(metavar="FILE", help=_TRACE)],
    interval_s: Annotated[
        float | None, typer.Option(metavar="N", help="Width of an interval, s. [default: as tuned, 15]")
    ] = None,
    horizon_s: Annotated[
        str, typer.Option(metavar="N,N…", help="How far ahead, s; rounded up to whole intervals.")
    ] = "30,60,120,300",
    warmup_s: Annotated[float, typer.Option(metavar="N", help="Forecasts made before it do not count.")] = 600.0,
    rate_scale: Annotated[float, typer.Option(metavar="X", help="So many times the requests in the same span.")] = 1.0,
    time_scale: Annotated[float, typer.Option(metavar="X", help="Compress time by so much.")] = 1.0,
    config: Annotated[Path | None, typer.Option(metavar="FILE", help="YAML with the planner's tuning.")] = None,
    seed: Annotated[int, typer.Option(metavar="N", help="Of the trace's scaling.")] = 0,
    output: Annotated[Output, typer.Option(help="Tables for people or JSON for machines.")] = Output.TABLE,
    report: Annotated[Path | None, typer.Option(metavar="FILE.html", help="Write one self-contained page.")] = None,
) -> None:
    """Score the planner's forecasts on the arrivals of a trace, against the simplest ones."""
    from rich.console import Console
    from rich.measure import Measurement

    from planner.config import load_tuning
    from planner.core.settings import Tuning
    from planner.explain import printable
    from planner.whatif.backtest import Target, series_of
    from planner.whatif.backtest.page import page
    from planner.whatif.backtest.table import Scored, absent, as_json, backtest_table
    from planner.whatif.traces import open_trace, scaled

    tuning = load_tuning(config) if config is not None else Tuning()
    width_s = tuning.interval_s if interval_s is None else interval_s
    if not (math.isfinite(width_s) and 0.1 <= width_s <= 86_400):
        raise InputError(f"is {width_s:g}", expected="from 0.1 to 86400 seconds", field="--interval-s")
    if not (math.isfinite(warmup_s) and warmup_s >= 0):
        raise InputError(f"is {warmup_s:g}", expected="seconds, 0 or more", field="--warmup-s")
    steps = _steps(horizon_s, width_s)
    check_outputs({"--report": report}, {"--trace": Path(trace), "--config": config})
    source = scaled(open_trace(trace, prefix_cache_tokens=0), rate_scale=rate_scale, time_scale=time_scale, seed=seed)
    series = series_of(source, width_s)
    warmup = math.ceil(warmup_s / width_s)
    needed = max(1, warmup) + max(steps)
    if len(series.rates_rps) < needed:
        right = f"at least {needed} for this warm-up and horizon; shorter ones by --interval-s, --warmup-s, --horizon-s"
        raise InputError(f"has {len(series.rates_rps)} whole intervals of {width_s:g} s", expected=right,
                         field="--trace")  # fmt: skip
    scored = Scored.of(series, _evaluated(tuning.forecast, series, steps, warmup))
    name = printable(source.name)
    if report is not None:
        write_output("--report", report, page(f"Backtest: {name}", scored))
    if output is Output.JSON:
        typer.echo(json.dumps(as_json(scored), allow_nan=False))
        return
    console.stdout.print(
        f"{name}: {series.requests:,} requests in {series.span_s:,.0f} s, {len(series.rates_rps):,} intervals of "
        f"{width_s:g} s, {series.rates_rps.mean():.4g} requests/s on average", markup=False, soft_wrap=True,
    )  # fmt: skip
    for target in Target:
        table = backtest_table(scored, target)
        # Lines that do not fit the terminal wrap there; cut to its width, figures would be lost, and to a pipe, too.
        wide = Measurement.get(console.stdout, console.stdout.options.update(width=1000), table).maximum
        console.stdout.print()
        Console(highlight=False, width=max(wide, console.stdout.width)).print(table)
    for forecaster in absent(scored):
        console.stdout.print(f"{forecaster}: never had enough of a past to forecast from", markup=False)
    if report is not None:
        console.stdout.print(f"report: {report.resolve().as_uri()}", markup=False, soft_wrap=True)


def _steps(text: str, width_s: float) -> list[int]:
    """Horizons in intervals, ascending, each once."""
    right = f"seconds above 0, such as 30,60,120, up to {MOST_INTERVALS_AHEAD:,} intervals"
    try:
        horizons = [float(part) for part in text.split(",")]
    except ValueError:
        raise InputError(f"is {text!r}", expected=right, field="--horizon-s") from None
    if not all(0 < horizon <= MOST_INTERVALS_AHEAD * width_s for horizon in horizons):
        raise InputError(f"is {text!r}", expected=right, field="--horizon-s")
    return sorted({math.ceil(round(horizon / width_s, 9)) for horizon in horizons})


def _evaluated(settings: ForecastSettings, series: Series, steps: list[int], warmup: int) -> dict[int, Issued]:
    """All forecasts, with a progress bar on standard error."""
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    from planner.whatif.backtest import evaluate

    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, console=console.stderr, transient=True) as progress:
        task = progress.add_task("forecasting", total=len(series.rates_rps))
        return evaluate(
            settings, series, steps, warmup_bins=warmup,
            on_progress=lambda bins: progress.update(task, completed=bins),
        )  # fmt: skip
