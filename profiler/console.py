"""What both command lines share: where output goes, and how an error ends the program."""

from __future__ import annotations

import sys
from collections.abc import Callable
from enum import StrEnum

from rich.console import Console

from profiler.errors import PlimsollError

#: Progress, logs and errors. Standard output is kept for the answer.
stderr = Console(stderr=True, highlight=False)
stdout = Console(highlight=False)


class Output(StrEnum):
    """How to answer."""

    TABLE = "table"
    JSON = "json"


def run(app: Callable[[], object]) -> None:
    """Run a typer application; a PlimsollError becomes one line on standard error and its exit code."""
    try:
        app()
    except PlimsollError as error:
        stderr.print(f"[bold red]error:[/] {_plain(str(error))}", soft_wrap=True)
        sys.exit(error.exit_code)
    except BrokenPipeError:
        # The reader went away (`planner whatif … | head`): nothing left to say, and nobody to say it to.
        sys.stderr.close()
        sys.exit(0)


def _plain(text: str) -> str:
    """Keep brackets in messages from being read as rich markup."""
    return text.replace("[", "\\[")
