"""`planner run` and `planner validate`: the long-running planner."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import typer

from profiler import console
from profiler.console import Output

# Imports inside the commands keep `planner --help` quick: statsmodels takes seconds.
# ruff: noqa: PLC0415

_CONFIG = typer.Option("--config", metavar="FILE", help="YAML; see docs/reference/planner-yaml.md.")


def run(config: Annotated[Path, _CONFIG]) -> None:
    """Plan and scale until SIGTERM or Ctrl-C."""
    from planner.explain import explained
    from planner.service.run import run as run_service

    run_service(config, explained)


def validate(
    config: Annotated[Path, typer.Argument(metavar="CONFIG", help="YAML of `planner run`.")],
    output: Annotated[Output, typer.Option(help="Lines for people or JSON for machines.")] = Output.TABLE,
) -> None:
    """Check a configuration and whether what it names can be reached. Exit code 1 when something cannot."""
    from planner.service.run import validate as check

    findings = check(config)
    if output is Output.JSON:
        typer.echo(json.dumps([{"about": one.about, "ok": one.ok, "text": one.text} for one in findings]))
    else:
        for one in findings:
            console.stdout.print(f"{'ok' if one.ok else 'no'}  {one.about}: {one.text}", markup=False, soft_wrap=True)
    if not all(one.ok for one in findings):
        raise typer.Exit(1)
