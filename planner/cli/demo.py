"""`planner demo`."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Annotated

import typer

from profiler import console
from profiler.errors import InputError

# Imports inside the command keep `planner --help` quick.
# ruff: noqa: PLC0415


def demo(
    trace: Annotated[str, typer.Option(metavar="FILE", help="Workload, as for whatif.")] = "generate:documents",
    speed_up: Annotated[float, typer.Option(metavar="X", help="Simulated seconds per second, up to 20.")] = 5.0,
    profile: Annotated[Path | None, typer.Option(metavar="DIR", help="[default: the one that comes with it]")] = None,
    max_gpus: Annotated[int, typer.Option(metavar="N", help="Simulated GPUs, 2 to 16.")] = 12,
    port: Annotated[int, typer.Option(metavar="N", help="Of the page; 0 for any.")] = 8010,
    out: Annotated[Path, typer.Option(metavar="DIR", help="Files, logs, decisions; emptied first.")] = Path("out/demo"),
) -> None:
    """Watch the planner scale simulated vLLM workers behind a real gateway, on this machine, without GPU or cluster."""
    from planner.demo.run import run
    from planner.demo.settings import DemoSettings, bundled_profiles
    from worker_graph.local.gateway import executable
    from worker_graph.local.ports import check_free

    if not (math.isfinite(speed_up) and 0 < speed_up <= 20):
        raise InputError(f"is {speed_up:g}", expected="above 0 and up to 20", field="--speed-up")
    if not 2 <= max_gpus <= 16:
        raise InputError(f"is {max_gpus}", expected="2 to 16", field="--max-gpus")
    if not 0 <= port <= 65535:
        raise InputError(f"is {port}", expected="0 to 65535", field="--port")
    if out.exists() and not (out / "graph.yaml").exists() and any(out.iterdir()):
        raise InputError(f"{out} holds other files", expected="an empty folder or an earlier demo's", field="--out")
    executable("smg")
    check_free("127.0.0.1", port, "the page (--port)")
    settings = DemoSettings(trace=trace, speed_up=speed_up, max_gpus=max_gpus)
    try:
        run(settings, profile or bundled_profiles(), out.absolute(), port)
    except KeyboardInterrupt:
        console.stderr.print("interrupted; everything was ended")
        raise typer.Exit(130) from None
