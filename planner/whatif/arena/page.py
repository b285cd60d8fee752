"""The page of an arena: one file that needs no network. Everything that a user named is escaped."""

from __future__ import annotations

import html
from collections.abc import Mapping, Sequence

import plotly.graph_objects as go
from plotly.offline import get_plotlyjs

from planner.whatif.arena import statistics
from planner.whatif.arena.assets import SCRIPT, STYLES
from planner.whatif.arena.figures import frontier_figure, hidden, markers, timelines_figure
from planner.whatif.arena.record import RunRecord
from planner.whatif.arena.results import CaseResult, Results
from planner.whatif.arena.statistics import Standing, is_ours
from planner.whatif.arena.table import (
    HEADS,
    SUMMARY_HEADS,
    case_rows,
    case_words,
    difference_heads,
    difference_rows,
    difference_words,
    ours_in_words,
    summary_cells,
)
from planner.whatif.report_assets import POLICY_OF_PAGE
from planner.whatif.report_assets import STYLES as SHARED
from planner.whatif.report_verdict import CLAIRVOYANT, percent
from profiler.picture import STYLE


def page(results: Results) -> str:
    """HTML of the page. Pictures are drawn when they come into view: a set may have a hundred of them."""
    look = markers([summary.policy for summary in results.summaries])
    cases = "\n".join(_case(case, look) for case in results.cases)
    title = html.escape(f"Arena: {results.name}")
    return (
        f'<!doctype html>\n<html lang="en"><head><meta charset="utf-8">{POLICY_OF_PAGE}'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f"<title>{title}</title><style>{STYLE}{SHARED}{STYLES}</style></head>\n"
        f'<body><main><h1>{title}</h1><p class="facts">{_e(results.about)}</p>\n'
        f"{_summary(results)}\n{_compared(results)}{_overview(results)}\n{cases}</main>"
        f"<script>{get_plotlyjs()}</script><script>{SCRIPT}</script></body></html>\n"
    )


def _e(text: str) -> str:
    return html.escape(text, quote=True)


def _summary(results: Results) -> str:
    rows = [
        ("ours" if is_ours(one.policy) else "", [_e(cell) for cell in summary_cells(one)]) for one in results.summaries
    ]
    failures = "".join(
        f"<li>{_e(f'{run.case}, {run.policy}, seed {run.seed}: {run.error}')}</li>" for run in results.failures
    )
    failed = f'<p class="no">Runs that failed:</p><ul class="notes">{failures}</ul>' if failures else ""
    how = (
        f"Target met: of the cases in which the bound meets it. x bound: GPU-hours over those of the clairvoyant bound "
        f"with the same start-up time, of cases in which the target was met. Dominated: another real policy attains at "
        f"least as much for at most as many GPU-hours, and more by {100 * statistics.ATTAINMENT_TOLERANCE:g} points or "
        f"for {100 * statistics.GPU_HOURS_TOLERANCE:g} % fewer. ± is Student's t over seeds, "
        f"{100 * statistics.CONFIDENCE:g} %."
    )
    words = _e(ours_in_words(results))
    return (
        f'<section id="summary"><h2 class="verdict">{words or "All cases"}</h2>'
        f"{_table(SUMMARY_HEADS, rows, text=(0, 5))}"
        f'<p class="facts under">{_e(how)}</p>{failed}</section>'
    )


def _overview(results: Results) -> str:
    """Our planner in every case, with links to them."""
    rows = []
    for case in results.cases:
        mine = next((row for row in case.rows if is_ours(row.policy)), None)
        bound = next((row for row in case.rows if row.policy == CLAIRVOYANT), None)
        link = f'<a href="#case-{_e(case.name)}">{_e(case.name)}</a>'
        rows.append(("", [link, *_attained(mine, case), *_attained(bound, case), *_standing(mine)]))
    heads = ("case", "planner", "GPU-hours", "bound", "GPU-hours", "x bound", "dominated by")
    return f'<section id="cases"><h2>Cases</h2>{_table(heads, rows, text=(0, 6))}</section>'


def _compared(results: Results) -> str:
    """The differences from the set's reference."""
    if not results.reference:
        return ""
    rows = [
        ("ours" if place == 0 else "", [_e(cell) for cell in row]) for place, row in enumerate(difference_rows(results))
    ]
    return (
        f'<section id="differences"><h2>Differences</h2><p class="facts">{_e(difference_words(results))}</p>'
        f"{_table(difference_heads(results), rows, text=(0,))}</section>\n"
    )


def _attained(row: Standing | None, case: CaseResult) -> tuple[str, str]:
    if row is None or row.attainment is None or row.gpu_hours is None:
        return "—", "—"
    kind, mark = ("yes", "✓") if row.reaches(case.target) else ("no", "✗")
    return f'<span class="{kind}">{mark} {percent(row.attainment.mean)}</span>', f"{row.gpu_hours.mean:.2f}"


def _standing(row: Standing | None) -> tuple[str, str]:
    if row is None:
        return "—", "—"
    return "—" if row.ratio is None else f"{row.ratio.mean:.2f}", _e(", ".join(row.dominated_by)) or "—"


def _table(heads: Sequence[str], rows: Sequence[tuple[str, Sequence[str]]], text: Sequence[int]) -> str:
    """A table of cells that are HTML already; each row has a class."""
    kinds = [" class=text" if place in text else "" for place in range(len(heads))]
    top = "".join(f'<th scope="col"{kind}>{_e(head)}</th>' for kind, head in zip(kinds, heads, strict=True))

    def line(kind: str, cells: Sequence[str]) -> str:
        first, *rest = cells
        inside = "".join(f"<td{of}>{cell}</td>" for of, cell in zip(kinds[1:], rest, strict=True))
        return f'<tr class="{kind}"><th scope="row">{first}</th>{inside}</tr>'

    body = "".join(line(kind, cells) for kind, cells in rows)
    return f'<div class="scroll"><table><thead><tr>{top}</tr></thead><tbody>{body}</tbody></table></div>'


def _case(case: CaseResult, look: Mapping[str, dict[str, object]]) -> str:
    about = case.place.case.spec.about
    rows = []
    for row, (name, attained, *rest) in case_rows(case):
        kind = "ours" if is_ours(row.policy) else "bound" if row.is_bound else ""
        mark = f'<span class="{"yes" if row.reaches(case.target) else "no"}">{_e(attained)}</span>'
        rows.append((kind, [_e(name), mark, *map(_e, rest)]))
    below = hidden(case)
    caption = "Up is better, left is cheaper; bars are intervals over seeds, pale marks are dominated."
    if below:
        caption += f" Below the picture: {', '.join(below)}; a double click brings all into view."
    parts = [
        f'<h2>{_e(case.name)}</h2><p class="facts">{_e(about)}<br>{_e(case_words(case))}.</p>',
        _table(HEADS, rows, text=(0, 7)),
    ]
    if any(row.attainment is not None for row in case.rows):
        parts += [f'<p class="facts under">{_e(caption)}</p>', _lazy(f"front-{case.name}", frontier_figure(case, look))]
    parts += _timelines(case)
    return f'<section class="case" id="case-{_e(case.name)}">{"".join(parts)}</section>'


def _timelines(case: CaseResult) -> list[str]:
    """Decisions of the first seed side by side: ours and the bounds first, then as in the table."""
    terms = case.terms[0]
    order = {row.policy: place for place, (row, _) in enumerate(case_rows(case))}
    runs = [run for run in case.runs if run.seed == terms.seed and run.figures is not None]
    runs.sort(key=lambda run: _panel(run, order))
    if not runs:
        return []
    caption = (
        f"Workers over time, seed {terms.seed}; dotted with those that start or drain; cut above twice the most "
        f"that ours or the bound holds (the table has every peak). Grey: the load, up to "
        f"{max(terms.load.rps, default=0.0):.3g} requests a second."
    )
    figure = timelines_figure(runs, terms.load, terms.span_s)
    return [f'<p class="facts under">{_e(caption)}</p>', _lazy(f"time-{case.name}", figure)]


def _panel(run: RunRecord, order: dict[str, int]) -> tuple[bool, bool, int]:
    return not is_ours(run.policy), not statistics.is_bound(run.policy), order[run.policy]


def _lazy(name: str, figure: go.Figure) -> str:
    """A picture that is drawn when it comes into view; its place is kept until then."""
    # Inside a script only its own end tag is special.
    code = str(figure.to_json()).replace("</", "<\\/")
    return (
        f'<div class="chart lazy" id="{_e(name)}" style="min-height:{figure.layout.height}px"></div>'
        f'<script type="application/json" data-for="{_e(name)}">{code}</script>'
    )
