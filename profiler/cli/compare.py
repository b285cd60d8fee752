"""`profiler compare`: how far two profiles, or two folders of them, differ."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from profiler import console
from profiler.console import Output
from profiler.errors import InputError

if TYPE_CHECKING:
    from rich.table import Table

    from profiler.compare import Comparison

_PROFILES = "A profile, or a folder with one profile a layout below it."


def compare(
    a: Annotated[Path, typer.Argument(metavar="A", help=_PROFILES)],
    b: Annotated[Path, typer.Argument(metavar="B", help="What to hold against A; paired with it by role, TP and DP.")],
    output: Annotated[Output, typer.Option(help="A table for people or JSON for machines.")] = Output.TABLE,
    tolerance: Annotated[float, typer.Option(metavar="X", help="Relative drift that is still well.")] = 0.05,
) -> None:
    """What differs between two profiles, and the drift of B against A by region of each table.

    Exit code 1 when a drift exceeds the tolerance and what the tables' own errors explain.
    """
    from profiler.compare import as_json, pair  # noqa: PLC0415 - numpy and pydantic would slow --help down
    from profiler.compare import compare as compared  # noqa: PLC0415
    from profiler.folders import load_profiles  # noqa: PLC0415

    if not (math.isfinite(tolerance) and tolerance >= 0):
        raise InputError(f"is {tolerance:g}", expected="a share from 0, such as 0.05", field="--tolerance")
    pairs, alone = pair(load_profiles([a], field="A"), load_profiles([b], field="B"))
    comparisons = [compared(first, second) for first, second in pairs]
    if output is Output.JSON:
        typer.echo(json.dumps(as_json(comparisons, alone, tolerance), indent=2, allow_nan=False))
    else:
        for comparison in comparisons:
            _show(comparison, tolerance)
        for line in alone:
            console.stdout.print(line, markup=False, soft_wrap=True)
    if any(comparison.beyond(tolerance) for comparison in comparisons):
        raise typer.Exit(1)


def _show(comparison: Comparison, tolerance: float) -> None:
    from profiler.compare import layout_words  # noqa: PLC0415

    def say(text: str) -> None:
        console.stdout.print(text, markup=False, soft_wrap=True)

    console.stdout.print(f"[bold]{layout_words(comparison.layout)}[/]")
    say(f"A  {comparison.a}\nB  {comparison.b}")
    for difference in comparison.differences:
        say(f"{difference.field}: {_shown(difference.a)} → {_shown(difference.b)}")
    if not comparison.differences:
        say("provenance: the same in both")
    if comparison.regions:
        console.stdout.print(_regions(comparison, tolerance))
    for line in comparison.left_out:
        say(f"not compared: {line}")
    worst = comparison.worst
    if worst is not None and worst.significant:
        say(f"largest significant drift: {worst.table}, {worst.name}: {worst.drift:+.1%}\n")
    elif worst is not None:
        say(f"no significant drift; the largest is {worst.table}, {worst.name}: {worst.drift:+.1%}\n")


def _regions(comparison: Comparison, tolerance: float) -> Table:
    from rich import box  # noqa: PLC0415
    from rich.table import Table  # noqa: PLC0415

    table = Table(box=box.SIMPLE, pad_edge=False, show_edge=False)
    table.add_column("table")
    table.add_column("region", overflow="fold")
    for name in ("points", "drift", "from … to", "explained", ""):
        table.add_column(name, justify="right", no_wrap=True)
    for region in comparison.regions:
        beyond = region in comparison.beyond(tolerance)
        verdict = "drifted" if beyond else "within tolerance" if region.significant else "not significant"
        colour = "red" if beyond else "green"
        explained = "unknown" if region.explained is None else f"±{region.explained:.1%}"
        table.add_row(
            region.table,
            region.name,
            str(region.points),
            f"{region.drift:+.1%}",
            f"{region.low:+.1%} … {region.high:+.1%}",
            explained,
            f"[{colour}]{verdict}[/]",
        )
    return table


def _shown(value: Any) -> str:
    if value is None:
        return "unknown"
    return f"{value:,}" if isinstance(value, int) else str(value)
