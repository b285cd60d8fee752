"""The report of a replay: one self-contained page that says which policy to run, and shows why."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from planner.core.state import Decision
from planner.core.types import Sla
from planner.whatif.outcome import Outcome
from profiler.atomic import write_atomic


@dataclass(frozen=True)
class Report:
    """What the page tells.

    Attributes:
        title: of the page.
        trace_name, requests, span_s: the load that was replayed.
        sla: what every policy was held to.
        settings: facts of the run as (name, value), such as profile, start-up time, seed and command line.
        outcomes: one per policy; names as in `--policy`.
        decisions: of our planner's run, in order; may be empty.
        notes: caveats, in words.
    """

    title: str
    trace_name: str
    requests: int
    span_s: float
    sla: Sla
    settings: list[tuple[str, str]]
    outcomes: tuple[Outcome, ...]
    decisions: tuple[Decision, ...]
    notes: tuple[str, ...]


def write_report(path: Path, report: Report) -> None:
    """Write the page; whoever opens `path` meanwhile sees the old page or the new one, never half of one.

    Args:
        path: of the HTML file; its folder must exist.
        report: what to tell.

    Raises:
        ValueError: the report holds no outcome.
        OSError: the file cannot be written.
    """
    if not report.outcomes:
        raise ValueError("a report needs the outcome of at least one policy")
    from planner.whatif.report_page import page  # noqa: PLC0415 - plotly takes long to import

    write_atomic(path, page(report))
