"""The table of a what-if for people, and its one object for machines."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from rich import box
from rich.table import Table

from planner.core.types import Sla
from planner.whatif.outcome import Outcome
from planner.whatif.report_verdict import percent, verdict


def as_json(requests: int, span_s: float, sla: Sla, outcomes: Sequence[Outcome]) -> dict[str, Any]:
    """The object of `--output json`."""
    return {
        "trace": {"requests": requests, "span_s": span_s},
        "sla": {"ttft_ms": sla.ttft_ms, "itl_ms": sla.itl_ms, "attainment": sla.attainment},
        "policies": [outcome.as_json() for outcome in outcomes],
    }


def outcome_table(outcomes: Sequence[Outcome], sla: Sla) -> Table:
    """One row per policy."""
    title = f"TTFT {sla.ttft_ms:g} ms, ITL {sla.itl_ms:g} ms, for {sla.attainment:.4g} of requests"
    table = Table(
        title=title, title_justify="left", box=box.SIMPLE, pad_edge=False, padding=(0, 0, 0, 1), show_edge=False
    )
    table.add_column("policy", overflow="fold", min_width=14)
    ranked = verdict(outcomes, sla).ranked
    rows = [_figures(outcome) for outcome in ranked]
    names = ("attain", "TTFT ok", "ITL ok", "TTFT\np99 ms", "ITL\np99 ms", "GPU-\nhours", "peak", "ups/\ndowns")
    for index, name in enumerate(names):
        # A figure is never cut to make room.
        width = max(map(len, [*name.split("\n"), *(row[index] for row in rows)]))
        table.add_column(name, justify="right", no_wrap=True, min_width=width)
    for outcome, (attained, *rest) in zip(ranked, rows, strict=True):
        style = "bold" if outcome.policy.startswith("planner") else None
        colour = "green" if outcome.attainment >= sla.attainment else "red"
        table.add_row(outcome.policy, f"[{colour}]{attained}[/]", *rest, style=style)
    return table


def _figures(outcome: Outcome) -> tuple[str, ...]:
    return (
        percent(outcome.attainment),
        percent(outcome.ttft_attainment),
        percent(outcome.itl_attainment),
        _number(outcome.ttft_ms["p99"], 0),
        _number(outcome.itl_ms["p99"], 1),
        f"{outcome.gpu_hours:.2f}",
        f"{outcome.peak_gpus}",
        f"{outcome.scale_ups}/{outcome.scale_downs}",
    )


def _number(value: float | None, digits: int) -> str:
    return "-" if value is None else f"{value:.{digits}f}"


def change_words(outcome: Outcome) -> str:
    """What came of a layout change, in a sentence."""
    course = outcome.layout_change
    if course is None or course.began_s is None:
        return "the layout change did not begin: the load was never known"
    if course.ended_s is None:
        return f"the layout change began at {course.began_s:g} s and had not ended at the replay's end"
    came = "done" if course.reached else "rolled back"
    attained = f"{course.attained / course.requests:.1%} of {course.requests:,}" if course.requests else "none"
    return (
        f"layout change of {course.old_workers} to {course.new_workers} workers {came} in "
        f"{course.ended_s - course.began_s:,.0f} s from {course.began_s:g} s on; surge {course.surge_gpu_s / 3600:.2f} "
        f"GPU-hours, up to {course.peak_gpus} GPUs; least capacity {course.least:.0%}; of the requests meanwhile "
        f"{attained} attained"
    )
