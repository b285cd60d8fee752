"""The table of an arena: for a terminal, and as Markdown for a file."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from rich import box
from rich.console import Console
from rich.markup import escape
from rich.measure import Measurement
from rich.table import Table

from planner.whatif.arena.differences import Difference
from planner.whatif.arena.results import CaseResult, Results
from planner.whatif.arena.statistics import Spread, Standing, Summary, is_bound, is_ours
from planner.whatif.report_verdict import CLAIRVOYANT, percent

#: Headings of the rows of a case, and of a summary.
HEADS = ("policy", "attainment", "GPU-hours", "x bound", "ups/downs", "peak", "decisions s", "dominated by")
SUMMARY_HEADS = ("policy", "target met", "mean x bound", "worst x bound", "dominated in", "missed")


def case_rows(case: CaseResult) -> list[tuple[Standing, tuple[str, ...]]]:
    """Each policy with its cells: those that meet the target first, then by GPU-hours; bounds last."""
    rows = [(row, _cells(row)) for row in case.rows]
    return sorted(rows, key=lambda one: _rank(one[0], case.target))


def _rank(row: Standing, target: float) -> tuple[bool, bool, bool, float]:
    cost = row.gpu_hours.mean if row.gpu_hours is not None else float("inf")
    return (row.is_bound, row.attainment is None, not row.reaches(target), cost)


def _cells(row: Standing) -> tuple[str, ...]:
    if row.attainment is None:
        return (row.policy, f"failed: {row.errors[0] if row.errors else 'no run'}", *[""] * (len(HEADS) - 2))
    return (
        row.policy,
        _share(row.attainment),
        _number(row.gpu_hours),
        _number(row.ratio),
        f"{row.scale_ups:.0f}/{row.scale_downs:.0f}",
        f"{row.peak_gpus}",
        f"{row.decisions_s:.1f}",
        ", ".join(row.dominated_by[:2]) + (f" and {len(row.dominated_by) - 2} more" if row.dominated_by[2:] else ""),
    )


def _share(value: Spread) -> str:
    wide = "" if value.half_width is None else f" ±{100 * value.half_width:.1f}"
    return percent(value.mean) + wide


def _number(value: Spread | None) -> str:
    if value is None:
        return "-"
    return f"{value.mean:.2f}" + ("" if value.half_width is None else f" ±{value.half_width:.2f}")


def summary_cells(summary: Summary) -> tuple[str, ...]:
    """The cells of a summary's row."""
    worst = "-" if summary.worst_ratio is None else f"{summary.worst_ratio:.2f} ({summary.worst_case})"
    return (
        summary.policy,
        f"{summary.reached} of {summary.reachable}",
        "-" if summary.ratio is None else f"{summary.ratio:.2f}",
        worst,
        "-" if is_bound(summary.policy) else f"{len(summary.dominated)} of {summary.cases}",
        ", ".join(summary.missed),
    )


def case_words(case: CaseResult) -> str:
    """What a case is, in a line."""
    spec, sla = case.place.case.spec, case.place.case.sla
    requests = sum(t.requests for t in case.terms) / len(case.terms)
    return (
        f"{case.place.source.words}; {requests:,.0f} requests in {case.terms[0].span_s / 60:.0f} min; {spec.graph}; "
        f"TTFT {sla.ttft_ms:g} ms, ITL {sla.itl_ms:g} ms for {100 * sla.attainment:g} %; "
        f"start-up {case.place.case.startup_s:g} s; {spec.max_gpus} GPUs; "
        f"{len(case.terms)} {'seed' if len(case.terms) == 1 else 'seeds'}"
    )


def difference_heads(results: Results) -> tuple[str, ...]:
    """Headings of the differences from the reference."""
    return ("policy", "mean", *(case.name for case in results.cases))


def difference_rows(results: Results) -> list[tuple[str, ...]]:
    """The reference's own figures, and the differences of each other policy from them, by case."""
    own = dict.fromkeys(difference_heads(results)[2:], "-")
    for case in results.cases:
        row = next(row for row in case.rows if row.policy == results.reference)
        if row.attainment is not None and row.gpu_hours is not None:
            own[case.name] = f"{percent(row.attainment.mean)}, {row.gpu_hours.mean:.2f}"
    others = [
        (one.policy, _less(one.mean), *(_less(one.by_case.get(name)) for name in own)) for one in results.differences
    ]
    return [(results.reference, "", *own.values()), *others]


def _less(value: Difference | None) -> str:
    if value is None:
        return "-"
    # Zero is added so that what rounds to nothing is +0, never -0.
    points, percents = round(value.attainment_points, 2) + 0.0, round(value.gpu_hours_percent, 1) + 0.0
    return f"{points:+.2f}, {percents:+.1f} %"


def difference_words(results: Results) -> str:
    """What the differences are."""
    return (
        f"Differences from {results.reference}: attainment in points, GPU-hours in percent; its own row is its "
        f"attainment and GPU-hours."
    )


def tables(results: Results, width: int | None = None) -> list[Table]:
    """One table per case, the summary, and the differences from a reference.

    Args:
        results: of the arena.
        width: characters in a line; columns that say least are left out where all do not fit. None: all are shown.
    """
    made = [_case_table(case, width) for case in results.cases]
    if results.cases:
        rows = [
            _Row(tuple(map(escape, summary_cells(one))), "bold" if is_ours(one.policy) else None)
            for one in results.summaries
        ]
        made.append(_table("All cases", SUMMARY_HEADS, rows, text=(0, 3, 5), width=width, spare=(4,)))
    return [*made, *_difference_tables(results, width)]


def _difference_tables(results: Results, width: int | None) -> list[Table]:
    """The differences, in as many tables beside each other as lines are too short for."""
    if not results.reference:
        return []
    rows = [tuple(map(escape, row)) for row in difference_rows(results)]
    heads = difference_heads(results)
    first, cell = max(len(row[0]) for row in rows), max(len(text) for row in [heads, *rows] for text in row[1:])
    columns = list(range(1, len(heads)))
    at_once = len(columns) if width is None else max(1, (width - first - 1) // (cell + 1))
    made = []
    for place in range(0, len(columns), at_once):
        shown = [0, *columns[place : place + at_once]]
        title = difference_words(results) if place == 0 else ""
        cells = [_Row(tuple(row[i] for i in shown), "bold" if k == 0 else None) for k, row in enumerate(rows)]
        made.append(_table(title, [heads[i] for i in shown], cells, text=(0,), width=width))
    return made


def _case_table(case: CaseResult, width: int | None) -> Table:
    rows = []
    for row, (name, attained, *rest) in case_rows(case):
        colour = "green" if row.reaches(case.target) else "red"
        style = "bold" if is_ours(row.policy) else "dim" if row.is_bound else None
        rows.append(_Row((escape(name), f"[{colour}]{escape(attained)}[/]", *map(escape, rest)), style))
    return _table(f"{case.name}: {case_words(case)}", HEADS, rows, text=(0, 7), width=width, spare=(6, 4, 5, 7))


@dataclass(frozen=True)
class _Row:
    """Cells of rich's markup, and the row's style."""

    cells: tuple[str, ...]
    style: str | None


def _table(
    title: str,
    heads: Sequence[str],
    rows: Sequence[_Row],
    *,
    text: Sequence[int],
    width: int | None,
    spare: Sequence[int] = (),
) -> Table:
    """A table, without as many of the spare columns, from the first on, as do not fit.

    Args:
        title: above it.
        heads: of the columns.
        rows: below them.
        text: columns whose cells may be folded.
        width: characters in a line; None for as many as are needed.
        spare: columns that may be left out.
    """
    for left_out in range(len(spare) + 1):
        shown = [index for index in range(len(heads)) if index not in spare[:left_out]]
        table = Table(
            title=escape(title), title_justify="left", box=box.SIMPLE, pad_edge=False, padding=(0, 1, 0, 0),
            show_edge=False,
        )  # fmt: skip
        for index in shown:
            if index in text:
                table.add_column(heads[index], overflow="fold", min_width=14)
            else:
                table.add_column(heads[index], justify="right", no_wrap=True)
        for row in rows:
            table.add_row(*(row.cells[index] for index in shown), style=row.style)
        if width is None or least_width(table) <= width:
            break
    return table


def least_width(table: Table) -> int:
    """Characters that a table needs in a line."""
    console = Console(width=1000)
    return Measurement.get(console, console.options, table).minimum


def markdown(results: Results) -> str:
    """The same as Markdown, with the summary first."""
    parts = [f"# Arena: {results.name}", results.about, _lines(SUMMARY_HEADS, map(summary_cells, results.summaries))]
    if results.reference:
        compared = _lines(difference_heads(results), difference_rows(results))
        parts += ["## Differences", difference_words(results), compared]
    for case in results.cases:
        about = case.place.case.spec.about
        cells = [one for _, one in case_rows(case)]
        parts += [f"## {case.name}", *([about] if about else []), f"{case_words(case)}.", _lines(HEADS, cells)]
    return "\n\n".join(part for part in parts if part) + "\n"


def _lines(heads: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    def line(cells: Sequence[str]) -> str:
        return "| " + " | ".join(cell.replace("|", "\\|").replace("\n", " ") for cell in cells) + " |"

    return "\n".join([line(heads), line(["---"] * len(heads)), *(line(cells) for cells in rows)])


def ours_in_words(results: Results) -> str:
    """How our planner did, in a sentence; empty where it did not run."""
    mine = next((one for one in results.summaries if is_ours(one.policy) and one.cases), None)
    if mine is None:
        return ""
    ratio = ""
    if mine.ratio is not None and mine.worst_ratio is not None:
        worst = f"at worst {mine.worst_ratio:.2f}, {mine.worst_case}"
        ratio = f", at {mine.ratio:.2f} times the bound's GPU-hours on average ({worst})"
    known = any(row.policy == CLAIRVOYANT for case in results.cases for row in case.rows)
    of = "cases in which the bound reaches it" if known else "cases"
    return (
        f"{mine.policy} reaches the target in {mine.reached} of {mine.reachable} {of}{ratio}; "
        f"it is dominated in {len(mine.dominated)} of {mine.cases}."
    )
