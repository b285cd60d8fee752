"""What was found, for people and for machines."""

from __future__ import annotations

from itertools import groupby
from typing import Any

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from planner.doctor.base import Check, Verdict
from planner.doctor.run import Report

_STYLES = {Verdict.PASS: "green", Verdict.WARN: "yellow", Verdict.FAIL: "bold red", Verdict.SKIP: "dim"}

#: Below this width a fix stands below what was found, not beside it.
_WIDE = 120


def as_json(report: Report) -> dict[str, Any]:
    """The object of `--output json`."""
    return {
        "exit_code": report.exit_code,
        "counts": {verdict.value.lower(): report.count(verdict) for verdict in Verdict},
        "checks": [
            {
                "group": one.group.value,
                "name": one.name,
                "verdict": one.verdict.value,
                "found": one.found,
                "fix": one.fix,
            }
            for one in report.checks
        ],
    }


def as_table(report: Report, width: int) -> RenderableType:
    """A section for each group, and a line that sums up.

    Args:
        report: what was found.
        width: of the terminal, in characters.
    """
    parts: list[RenderableType] = []
    names = max((len(one.name) for one in report.checks), default=0)
    for group, checks in groupby(report.checks, key=lambda one: one.group):
        parts += [Text(group.value, style="bold"), _section(list(checks), min(names, width // 4), width), Text()]
    counts = {verdict: report.count(verdict) for verdict in Verdict}
    words = [("failed", Verdict.FAIL), ("warnings", Verdict.WARN), ("passed", Verdict.PASS), ("skipped", Verdict.SKIP)]
    summary = Text()
    for index, (word, verdict) in enumerate(words):
        summary.append(", " if index else "")
        shown = word.rstrip("s") if counts[verdict] == 1 else word
        summary.append(f"{counts[verdict]} {shown}", style=_STYLES[verdict] if counts[verdict] else "")
    return Group(*parts, summary)


def _section(checks: list[Check], names: int, width: int) -> Table:
    wide = width >= _WIDE
    table = Table.grid(padding=(0, 2, 0, 0), expand=False)
    table.add_column(width=6, no_wrap=True)
    table.add_column(width=names, overflow="fold")
    table.add_column(ratio=3 if wide else None, overflow="fold")
    if wide:
        table.add_column(ratio=2, overflow="fold")
        table.expand = True
    for one in checks:
        verdict = Text(f"  {one.verdict.value}", style=_STYLES[one.verdict])
        fix = Text(f"-> {one.fix}", style="italic") if one.fix else Text()
        if wide:
            table.add_row(verdict, one.name, Text(one.found), fix)
        else:
            found = Text(one.found)
            table.add_row(verdict, one.name, Group(found, fix) if one.fix else found)
    return table
