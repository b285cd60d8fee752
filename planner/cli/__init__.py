"""The command line `planner`: one module per verb, or per pair of verbs that share their subject."""

from __future__ import annotations

import typer

from planner.cli import accuracy, arena, backtest, demo, doctor, graph, journal, service, whatif
from profiler import console

app = typer.Typer(
    name="planner",
    help="Plimsoll: how many vLLM workers does the coming traffic need to meet the SLA at the fewest GPUs?",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)


@app.callback()
def _root() -> None:
    """Keeps `planner` a command with verbs however many there are."""


app.command()(demo.demo)
app.command()(whatif.whatif)
app.command()(arena.arena)
app.command()(backtest.backtest)
app.command()(accuracy.accuracy)
app.command("slice-trace")(accuracy.slice_trace)
app.command("strip-run")(accuracy.strip_run)
app.command()(service.run)
app.command()(service.validate)
app.command()(doctor.doctor)
app.command()(journal.explain)
app.command()(journal.replay)
app.add_typer(graph.app, name="graph")


def main() -> None:
    """Entry point."""
    console.run(app)
