"""The table of a what-if for people, and its one object for machines."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

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
    table = Table(title=f"TTFT {sla.ttft_ms:g} ms, ITL {sla.itl_ms:g} ms, for {sla.attainment:.4g} of requests")
    table.add_column("policy", overflow="fold")
    for name in (
        "attainment",
        "TTFT ok",
        "ITL ok",
        "TTFT p50/p99 ms",
        "ITL p50/p99 ms",
        "GPU-hours",
        "peak",
        "ups/downs",
    ):
        table.add_column(name, justify="right", no_wrap=True)
    for outcome in verdict(outcomes, sla).ranked:
        style = "bold" if outcome.policy.startswith("planner") else None
        colour = "green" if outcome.attainment >= sla.attainment else "red"
        table.add_row(
            outcome.policy,
            f"[{colour}]{percent(outcome.attainment)}[/]",
            percent(outcome.ttft_attainment),
            percent(outcome.itl_attainment),
            _pair(outcome.ttft_ms, 0),
            _pair(outcome.itl_ms, 1),
            f"{outcome.gpu_hours:.2f}",
            f"{outcome.peak_gpus}",
            f"{outcome.scale_ups}/{outcome.scale_downs}",
            style=style,
        )
    return table


def _pair(summary: Mapping[str, float | None], digits: int) -> str:
    p50, p99 = summary["p50"], summary["p99"]
    return "-" if p50 is None or p99 is None else f"{p50:.{digits}f}/{p99:.{digits}f}"
