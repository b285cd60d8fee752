"""Disturbed runs beside the undisturbed one: a table for people, and one object for machines."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from rich import box
from rich.table import Table

from planner.core.types import Sla
from planner.whatif.outcome import Outcome
from planner.whatif.report_verdict import CLAIRVOYANT, percent
from planner.whatif.run import Result
from planner.whatif.table import as_json

#: Headings, and the widest figure of each.
_COLUMNS = {
    "attain": 8, "points": 7, "TTFT ok": 8, "ITL ok": 8, "GPU-\nhours": 7, "change": 8, "peak": 4, "ups/\ndowns": 7,
}  # fmt: skip


def disturbed_json(requests: int, span_s: float, sla: Sla, results: Sequence[Result]) -> dict[str, Any]:
    """The object of `--output json`, with a disturbance, or null for none, beside each policy's name."""
    answer = as_json(requests, span_s, sla, [result.outcome for result in results])
    bound = _undisturbed_bound(results)
    answer["policies"] = [
        {**figures, "disturbance": result.disturb, "gpu_hours_over_bound": _over(result.outcome, bound)}
        for figures, result in zip(answer["policies"], results, strict=True)
    ]
    return answer


def _undisturbed_bound(results: Sequence[Result]) -> Outcome | None:
    """What the clairvoyant needs when nothing is disturbed; None where it was not asked for."""
    found = [result.outcome for result in results if (result.spec, result.disturb) == (CLAIRVOYANT, None)]
    return found[0] if found else None


def _over(outcome: Outcome, bound: Outcome | None) -> float | None:
    return None if bound is None or bound.gpu_hours <= 0 else outcome.gpu_hours / bound.gpu_hours


def disturbed_table(results: Sequence[Result], sla: Sla) -> Table:
    """Policy by policy, the undisturbed run first; differences are from it.

    Where the clairvoyant bound is among the policies, GPU-hours stand beside those of its undisturbed run, too.
    """
    bound = _undisturbed_bound(results)
    title = f"TTFT {sla.ttft_ms:g} ms, ITL {sla.itl_ms:g} ms, for {sla.attainment:.4g} of requests"
    table = Table(
        title=title, title_justify="left", box=box.SIMPLE, pad_edge=False, padding=(0, 0, 0, 1), show_edge=False
    )
    table.add_column("policy", overflow="fold", min_width=10)
    table.add_column("disturbance", overflow="fold", min_width=19)
    for name, width in (_COLUMNS | ({"x bound": 7} if bound is not None else {})).items():
        # A figure is never cut to make room.
        table.add_column(name, justify="right", no_wrap=True, min_width=width)
    usual: Outcome | None = None
    for result in results:
        outcome = result.outcome
        if result.disturb is None:
            usual = outcome
            table.add_section()
        colour = "green" if outcome.attainment >= sla.attainment else "red"
        table.add_row(
            result.spec if result.disturb is None else "",
            result.disturb or "none",
            f"[{colour}]{percent(outcome.attainment)}[/]",
            _points(outcome, usual),
            percent(outcome.ttft_attainment),
            percent(outcome.itl_attainment),
            f"{outcome.gpu_hours:.2f}",
            _change(outcome, usual),
            f"{outcome.peak_gpus}",
            f"{outcome.scale_ups}/{outcome.scale_downs}",
            *([] if bound is None else [_times(_over(outcome, bound))]),
        )
    return table


def _points(outcome: Outcome, usual: Outcome | None) -> str:
    if usual is None or usual is outcome:
        return ""
    return f"{100 * (outcome.attainment - usual.attainment):+.2f}"


def _times(ratio: float | None) -> str:
    return "-" if ratio is None else f"{ratio:.2f}"


def _change(outcome: Outcome, usual: Outcome | None) -> str:
    if usual is None or usual is outcome or usual.gpu_hours <= 0:
        return ""
    return f"{100 * (outcome.gpu_hours / usual.gpu_hours - 1):+.1f} %"
