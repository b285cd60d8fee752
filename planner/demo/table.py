"""The demo in the terminal: one line per pool and the latest decision, renewed in place."""

from __future__ import annotations

from typing import Any

from rich.console import Group, RenderableType
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from planner.core.types import Sla


def live_table(
    *,
    elapsed_s: float,
    span_s: float,
    speed_up: float,
    sla: Sla,
    progress: dict[str, int],
    state: dict[str, Any] | None,
) -> RenderableType:
    """What is going on.

    Args:
        elapsed_s: since the load began, of the schedule.
        span_s: of the whole load.
        speed_up: for the heading.
        sla: the limits.
        progress: requests `sent`, `completed`, `attained`, `lost` so far.
        state: the planner's `/api/state`, or None while it does not answer.
    """
    bar = Table.grid(padding=(0, 1))
    clock = f"{elapsed_s / 60:.1f} of {span_s / 60:.1f} min, {speed_up:g} times as fast"
    bar.add_row(Text(clock), ProgressBar(total=span_s, completed=min(elapsed_s, span_s), width=30))
    return Group(bar, _requests(progress, sla), *_planner(state))


def _requests(progress: dict[str, int], sla: Sla) -> Text:
    ended = progress["completed"] + progress["lost"]
    share = f"{progress['attained'] / ended:.1%}" if ended else "-"
    limits = f"TTFT {sla.ttft_ms:g} ms and ITL {sla.itl_ms:g} ms"
    return Text(
        f"{progress['sent']} requests sent, {progress['completed']} completed, {progress['lost']} lost; "
        f"{share} of those ended kept {limits} (wanted: {sla.attainment:.0%})"
    )


def _planner(state: dict[str, Any] | None) -> list[RenderableType]:
    if state is None:
        return [Text("the planner does not answer", style="bold red")]
    last = state["last"]
    if last is None:
        return [Text("no decision yet")]
    decision = last["decision"]
    table = Table("pool", "asked for", "ready", "starting", "draining", box=None, padding=(0, 2, 0, 0))
    for name, pool in decision["pools"].items():
        counts = (pool["ready"], pool["starting"], pool["terminating"])
        table.add_row(name, str(decision["plan"].get(name, "-")), *map(str, counts))
    rate, forecast = decision["arrivals_rps"], decision["forecast"]
    seen = "request rate unknown" if rate is None else f"{rate:.1f} requests/s seen"
    ahead = f", {forecast['median_rps']:.1f} forecast" if forecast is not None else ""
    reasons = ", ".join(decision["reasons"][:4])
    return [table, Text(f"{seen}{ahead}; level {decision['level']}: {reasons}", overflow="ellipsis", no_wrap=True)]
