"""The command line `profiler`: one module per verb, or per group of verbs that share their subject."""

from __future__ import annotations

import typer

from profiler import console
from profiler.cli import compare, estimate, gather, kernels, models, record, report, run, select, tables

app = typer.Typer(
    name="profiler",
    help="How fast is a model on a GPU at this TP and DP, and how sure are we? Measures, shows, compares, selects.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)

app.command()(run.run)
app.command()(record.record)
app.command()(report.report)
app.command()(gather.gather)
app.command()(tables.show)
app.command()(compare.compare)
app.command()(select.select)
app.command()(models.layouts)
app.command("model-stub")(models.model_stub)
app.command()(estimate.estimate)
app.command()(kernels.rapid)
app.command()(kernels.kernels)
app.command("block-copy")(kernels.block_copy)
app.command("import")(tables.import_)
app.command()(tables.export)


def main() -> None:
    """Run the command line."""
    console.run(app)
