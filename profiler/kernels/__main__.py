"""`python -m profiler.kernels`: the command `profiler kernels` for a host where only the checkout lies."""

from __future__ import annotations

import typer

from profiler import console
from profiler.cli.kernels import kernels


def main() -> None:
    """Run the one command."""
    app = typer.Typer(add_completion=False, pretty_exceptions_enable=False)
    app.command()(kernels)
    console.run(app)


if __name__ == "__main__":  # spawned ranks of an all-reduce import this file again
    main()
