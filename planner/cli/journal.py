"""`planner explain` and `planner replay`: what decision records say."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from profiler import console
from profiler.console import Output
from profiler.errors import InputError

if TYPE_CHECKING:
    from planner.core.record import DecisionRecord

# Imports inside the commands keep `planner --help` quick: statsmodels takes seconds.
# ruff: noqa: PLC0415


def explain(
    journal: Annotated[Path, typer.Argument(metavar="FILE.jsonl", help="Decision records.")],
    at: Annotated[float | None, typer.Option(metavar="S", help="The decision in force at this time, s.")] = None,
    line: Annotated[int | None, typer.Option(metavar="N", help="The decision in this line, from 1.")] = None,
    output: Annotated[Output, typer.Option(help="A page for people or the record as JSON.")] = Output.TABLE,
) -> None:
    """Why the planner decided what it did. Without --at or --line: the last decision that changed something."""
    from planner.core.record import to_line
    from planner.explain import explained

    record = _choose(_records(journal), at, line, journal)
    if output is Output.JSON:
        typer.echo(to_line(record))
    else:
        console.stdout.print(explained(record))


def replay(
    journal: Annotated[Path, typer.Argument(metavar="FILE.jsonl", help="Decision records.")],
    output: Annotated[Output, typer.Option(help="A line for people or JSON for machines.")] = Output.TABLE,
) -> None:
    """Decide every record again and compare, bit for bit. Exit code 1 when a decision differs."""
    from planner.core.record import decide_again
    from planner.explain import first_difference
    from planner.rebuild import capacity_of

    records = _records(journal)
    models = {}
    differing = []
    for number, record in records.items():
        key = (record.profiles, record.capacity, record.settings.model_dump_json())
        try:
            if key not in models:
                models[key] = capacity_of(record)
            again = decide_again(record, models[key])
        except (ArithmeticError, AttributeError, LookupError, TypeError, ValueError) as error:
            # Every field has the right form, and together they are no state that a planner can be in.
            problem = f"cannot be decided again: {error}"
            raise InputError(
                problem, expected="a record as the planner wrote it", source=journal, line=number
            ) from None
        if again != record.decision:
            differing.append({"line": number, "field": first_difference(record.decision, again)})
    if output is Output.JSON:
        typer.echo(json.dumps({"records": len(records), "differing": differing}))
    elif differing:
        first = differing[0]
        console.stdout.print(
            f"{len(differing)} of {len(records)} differ; the first in line {first['line']}, {first['field']}"
        )
    else:
        console.stdout.print(f"{len(records)} records, every decision the same")
    if differing:
        raise typer.Exit(1)


def _records(path: Path) -> dict[int, DecisionRecord]:
    """The records by their line, counted from 1; at least one."""
    from planner.core.record import from_line

    try:
        lines = path.read_text(encoding="utf-8").split("\n")
    except OSError as error:
        raise InputError(f"cannot be read: {error.strerror or error}", source=path) from None
    except UnicodeDecodeError as error:
        raise InputError(f"is not text (byte {error.start})", expected="decision records", source=path) from None
    records = {n: from_line(text, source=str(path), number=n) for n, text in enumerate(lines, start=1) if text.strip()}
    if not records:
        raise InputError("holds no record", expected="one decision record per line", source=path)
    return records


def _choose(records: dict[int, DecisionRecord], at: float | None, line: int | None, path: Path) -> DecisionRecord:
    if line is not None and at is not None:
        raise InputError("goes without --line", source=path, field="--at")
    if line is not None:
        if line not in records:
            lines = f"a line with a record, {min(records)} to {max(records)}"
            raise InputError(f"is {line}", expected=lines, source=path, field="--line")
        return records[line]
    every = list(records.values())
    if at is not None:
        before = [record for record in every if record.decision.at_s <= at]
        if not before:
            first = every[0].decision.at_s
            raise InputError(f"is {at:g}", expected=f"{first:g} or later", source=path, field="--at")
        return before[-1]
    changed = [
        r for r in every if any(r.decision.plan[n] != c for n, c in r.decision.current.items() if n in r.decision.plan)
    ]
    return (changed or every)[-1]
