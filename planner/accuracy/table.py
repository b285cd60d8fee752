"""Comparisons for people and for machines."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from rich import box
from rich.console import Group, RenderableType
from rich.table import Table

from planner.accuracy.compare import TARGETS, Comparison
from planner.accuracy.diagnosis import diagnose

#: Cells of the column of runs; the rest of 80 is for figures.
_RUN_WIDTH = 13


def as_json(comparisons: Sequence[Comparison]) -> dict[str, Any]:
    """The object of `--output json`, with the diagnosis of each run."""
    return {
        "targets": dict(TARGETS),
        "runs": [
            {
                "run": one.name,
                "file": str(one.recording.path),
                "mode": one.recording.meta.mode,
                "model": one.recording.meta.model,
                "gpu": one.recording.meta.gpu,
                "workers": {role.value: count for role, count in one.matched.counts.items()},
                "profiles": [str(profile.path) for profile in one.matched.profiles],
                "rate_rps": one.recording.meta.rate_rps,
                "requests": int(one.compared.sum()),
                "measured_ms": dict(one.measured_ms),
                "simulated_ms": dict(one.simulated_ms),
                "errors": one.errors,
                "missed": list(one.missed),
                "notes": list(one.notes),
                "diagnosis": diagnose(one),
            }
            for one in comparisons
        ],
        "missed": sum(len(one.missed) for one in comparisons),
    }


def accuracy_tables(comparisons: Sequence[Comparison]) -> RenderableType:
    """A table for each model and GPU, with a row a run: measured ms and the replay's error; misses in red."""
    groups: dict[str, list[Comparison]] = {}
    for one in comparisons:
        groups.setdefault(f"{one.recording.meta.model} on {one.recording.meta.gpu}", []).append(one)
    width = max((len(one.name) for one in comparisons), default=0)
    parts: list[RenderableType] = ["[italic]measured ms, and the simulator's error[/]"]
    for title, group in groups.items():
        parts += ["", _table(title, group, min(width, _RUN_WIDTH))]
    return Group(*parts)


def _table(title: str, comparisons: Sequence[Comparison], width: int) -> Table:
    table = Table(
        title=title, title_justify="left", box=box.SIMPLE, pad_edge=False, padding=(0, 0, 0, 1), show_edge=False
    )
    # One width in all tables, so that their columns stand below each other.
    table.add_column("run", overflow="fold", min_width=width, max_width=width)
    for name, least in (("rps", 4), ("n", 3)):
        table.add_column(name, justify="right", no_wrap=True, min_width=least)
    for name in TARGETS:
        kind, _, which = name.partition("_")
        # A figure is never cut to make room.
        table.add_column(f"{kind.upper()}\n{which}", justify="right", no_wrap=True, min_width=6)
    for one in comparisons:
        cells = []
        for name in TARGETS:
            if name not in one.measured_ms:
                cells.append("-")
                continue
            colour = "red" if name in one.missed else "green"
            cells.append(f"{one.measured_ms[name]:.4g}\n[{colour}]{one.errors[name]:+.1%}[/]")
        rate = f"{one.recording.meta.rate_rps:.3g}"
        table.add_row(one.name, rate, f"{int(one.compared.sum())}", *cells)
    return table


def diagnosis_tables(comparison: Comparison) -> RenderableType:
    """What `diagnose` finds, as tables."""
    found = diagnose(comparison)
    parts: list[RenderableType] = [f"[bold]{comparison.title}[/]"]
    for name, title in (("by_isl", "isl"), ("by_in_flight", "in_flight"), ("over_time", "sent_s")):
        parts.append(_split_table(title, found[name]))
    offset, alone, waits = found["offset"], found["alone"], found["queueing"]
    parts.append(
        f"TTFT measured - simulated: median {offset['median_ms']:+.1f} ms; fit {offset['constant_ms']:+.1f} ms,"
        f" {offset['ms_per_1000_prompt_tokens']:+.2f} ms per 1000 prompt tokens,"
        f" {offset['ms_per_request_in_flight']:+.2f} ms per request in flight"
    )
    if alone["requests"]:
        parts.append(f"{alone['requests']} requests that found nothing under way: {alone['median_offset_ms']:+.1f} ms")
    parts.append(f"share of TTFT that is waiting: {waits['measured']:.0%} measured, {waits['simulated']:.0%} simulated")
    for name, mean in found["parts"].items():
        if mean["measured_ms"] is not None and mean["simulated_ms"] is not None:
            both = f"{mean['measured_ms']:.1f} ms measured, {mean['simulated_ms']:.1f} ms simulated"
            parts.append(f"{name.replace('_', '-')} part of TTFT, mean: {both}")
    for worker, means in found["engine"].items():
        parts.append(
            f"{worker}, by its own counters: " + ", ".join(f"{key} {value:.4g}" for key, value in means.items())
        )
    return Group(*parts)


def _split_table(title: str, rows: Sequence[dict[str, Any]]) -> Table:
    table = Table(box=box.SIMPLE, pad_edge=False, show_edge=False)
    for name in (title, "requests", "TTFT", "simulated", "error", "ITL", "simulated", "error"):
        table.add_column(name, justify="right")
    for row in rows:
        low, high = row[title]
        cells = [f"{low:.0f} to {high:.0f}", str(row["requests"])]
        for kind in ("ttft", "itl"):
            one = row[kind]
            cells += [_number(one["measured_ms"]), _number(one["simulated_ms"]), _share(one["error"])]
        table.add_row(*cells)
    return table


def _number(value: float | None) -> str:
    return "-" if value is None else f"{value:.1f}"


def _share(value: float | None) -> str:
    return "-" if value is None else f"{value:+.1%}"
