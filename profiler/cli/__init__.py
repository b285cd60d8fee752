"""The command line `profiler`: one module per verb, or per group of verbs that share their subject."""

from __future__ import annotations

import typer

from profiler import console
from profiler.cli import tables

app = typer.Typer(
    name="profiler",
    help="Measured tables of an engine on a GPU: look at them, bring in Dynamo's, give them back.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)

app.command()(tables.show)
app.command("import")(tables.import_)
app.command()(tables.export)


def main() -> None:
    """Run the command line."""
    console.run(app)
