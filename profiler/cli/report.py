"""`profiler report`: one page of a run, or of profiles alone."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from profiler.atomic import write_atomic
from profiler.errors import InputError


def report(
    folder: Annotated[
        Path, typer.Argument(metavar="DIR", help="A run's folder, a profile, or a folder with profiles below it.")
    ],
    to: Annotated[Path, typer.Option(metavar="FILE.html", help="Write one self-contained page.")],
) -> None:
    """Draw a run or profiles: tables with error bars, errors, cost, validation, what was skipped and why."""
    from profiler.report import read_subject  # noqa: PLC0415 - numpy and pydantic would slow --help down

    if to.is_dir() or not to.parent.is_dir():
        problem = "is a folder" if to.is_dir() else "has no folder"
        raise InputError(problem, expected="a file in a folder that exists", source=to, field="--to")
    subject = read_subject(folder)
    from profiler.report.page import page  # noqa: PLC0415 - plotly takes long to import

    text = page(subject)
    try:
        write_atomic(to, text)
    except OSError as error:
        raise InputError(f"cannot be written: {error.strerror or error}", source=to, field="--to") from None
    typer.echo(str(to))
