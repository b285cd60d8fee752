"""The report as HTML: sections, table and decisions. Everything that a user named is escaped."""

from __future__ import annotations

import html
from collections.abc import Mapping, Sequence

from planner.core.state import Decision
from planner.core.types import Level, Role
from planner.whatif.outcome import Outcome
from planner.whatif.report import Report
from planner.whatif.report_assets import POLICY_OF_PAGE, SCRIPT, STYLES
from planner.whatif.report_change import change_figure, changes
from planner.whatif.report_figures import (
    attainment_figure,
    hidden_below,
    latency_figure,
    load_figure,
    scatter_figure,
    workers_figure,
)
from planner.whatif.report_series import attainment, latency
from planner.whatif.report_verdict import CLAIRVOYANT, OURS, Verdict, percent, verdict, wanted
from profiler.picture import STYLE, chart

#: Decisions listed at most; the first of them, since a page is for reading and the journal has them all.
MOST_DECISIONS = 500


def page(report: Report) -> str:
    """HTML of a page that needs no network: the drawing library is inside."""
    found = verdict(report.outcomes, report.sla)
    body = "\n".join(
        (
            _head(report, found),
            _table(report, found),
            _scatter(found),
            _load(report, found),
            _workers(found),
            _changes(found),
            _latency(report, found),
            _attainment(found),
            _decisions(report),
            _settings(report),
        )
    )
    return (
        f'<!doctype html>\n<html lang="en"><head><meta charset="utf-8">{POLICY_OF_PAGE}'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f"<title>{_e(report.title)}</title><style>{STYLE}{STYLES}</style></head>\n"
        f"<body><main>{body}</main><script>{SCRIPT}</script></body></html>\n"
    )


def _e(text: str) -> str:
    return html.escape(text, quote=True)


def _section(name: str, title: str, inside: str, caption: str = "") -> str:
    caption = f'<p class="facts">{caption}</p>' if caption else ""
    return f'<section id="{name}"><h2>{title}</h2>{caption}{inside}</section>'


def _head(report: Report, found: Verdict) -> str:
    sla = report.sla
    facts = (
        f"{_e(report.trace_name)}: {report.requests:,} requests in {_span(report.span_s)}. "
        f"SLA: TTFT within {sla.ttft_ms:g} ms and ITL within {sla.itl_ms:g} ms "
        f"for {wanted(sla.attainment)} of requests."
    )
    tiles = (
        _tile(found, found.ours, "Our planner", "was not replayed", remark="the code that runs live", kind="ours"),
        _tile(found, found.static, "Best fixed fleet", "none was replayed", remark="counts chosen in hindsight"),
        _tile(found, found.bound, "Clairvoyant bound", "was not replayed", remark="knows the trace; not for use"),
    )
    sentences = " ".join(_e(sentence) for sentence in found.details)
    notes = "".join(f"<li>{_e(note)}</li>" for note in report.notes)
    return (
        f'<h1>{_e(report.title)}</h1><p class="facts">{facts}</p>'
        f'<section id="headline"><h2 class="verdict">{_e(found.headline)}</h2>'
        f'<div class="tiles">{"".join(tiles)}</div><p>{sentences}</p>'
        + (f'<ul class="notes">{notes}</ul>' if notes else "")
        + "</section>"
    )


def _tile(found: Verdict, outcome: Outcome | None, role: str, absent: str, *, remark: str, kind: str = "") -> str:
    if outcome is None:
        return f'<div class="tile {kind}"><b>{role}</b><span class="none">{absent}</span></div>'
    ok = found.reaches(outcome)
    mark = '<span class="yes">✓ meets the target</span>' if ok else '<span class="no">✗ misses the target</span>'
    name = "" if outcome.policy in (OURS, CLAIRVOYANT) else _e(outcome.policy)
    under = ", ".join(part for part in (name, remark) if part)
    return (
        f'<div class="tile {kind}"><b>{role}</b><span class="under">{under}</span>'
        f'<span class="big">{outcome.gpu_hours:.2f}<small> GPU-hours</small></span>'
        f'<span class="share">{percent(outcome.attainment)} attain</span>{mark}</div>'
    )


#: Heading, and whether it holds numbers.
_COLUMNS = (
    "policy", "target met", "attainment", "TTFT attained", "ITL attained", "TTFT p50 (ms)", "TTFT p99 (ms)",
    "ITL p50 (ms)", "ITL p99 (ms)", "GPU-hours", "peak GPUs", "ups / downs", "not completed",
)  # fmt: skip


def _table(report: Report, found: Verdict) -> str:
    heads = "".join(
        f'<th scope="col"{"" if i else " class=text"}><button type="button">{name}</button></th>'
        for i, name in enumerate(_COLUMNS)
    )
    rows = "".join(_row(found, outcome) for outcome in found.ranked)
    many = len(found.ranked)
    return _section(
        "policies",
        "Policies",
        f'<div class="scroll"><table class="sortable"><thead><tr>{heads}</tr></thead>'
        f"<tbody>{rows}</tbody></table></div>",
        f"{many} {'policy' if many == 1 else 'policies'} on the same requests; those that meet "
        f"{wanted(report.sla.attainment)} first, then by GPU-hours. A heading sorts.",
    )


def _row(found: Verdict, outcome: Outcome) -> str:
    ok = found.reaches(outcome)
    classes = [] if ok else ["missed"]
    classes += ["ours"] if outcome.policy == OURS else []
    lost = outcome.failed + outcome.unfinished
    cells = [
        _cell(1.0 if ok else 0.0, "✓ yes" if ok else "✗ no", "yes" if ok else "no"),
        *(_cell(x, percent(x)) for x in (outcome.attainment, outcome.ttft_attainment, outcome.itl_attainment)),
        *(_ms(outcome.ttft_ms.get(p)) for p in ("p50", "p99")),
        *(_ms(outcome.itl_ms.get(p)) for p in ("p50", "p99")),
        _cell(outcome.gpu_hours, f"{outcome.gpu_hours:.2f}"),
        _cell(outcome.peak_gpus, f"{outcome.peak_gpus}"),
        _cell(outcome.scale_ups + outcome.scale_downs, f"{outcome.scale_ups} / {outcome.scale_downs}"),
        _cell(lost, f"{lost:,}"),
    ]
    name = f'<th scope="row">{_e(outcome.policy)}</th>'
    return f'<tr class="{" ".join(classes)}">{name}{"".join(cells)}</tr>'


def _cell(value: float, text: str, kind: str = "") -> str:
    kind = f' class="{kind}"' if kind else ""
    return f'<td data-v="{value!r}"{kind}>{text}</td>'


def _ms(value: float | None) -> str:
    if value is None:
        return '<td data-v="" title="nothing completed">—</td>'
    return _cell(value, f"{value:,.0f}" if value >= 100 else f"{value:.1f}")


def _scatter(found: Verdict) -> str:
    below = hidden_below(found)
    caption = "Up is better, left is cheaper; the table has the numbers."
    if below:
        names = ", ".join(_e(o.policy) for o in below[:4]) + (" and others" if len(below) > 4 else "")
        caption += f" Below the picture: {names}; a double click brings all into view."
    return _section(
        "scatter", "Attainment against cost", chart(scatter_figure(found), library=True, name="chart-scatter"), caption
    )


def _load(report: Report, found: Verdict) -> str:
    # The same requests come under every policy; the one that looks most often shows them best.
    ticks = max((o.ticks for o in (found.ours, *found.ranked) if o is not None), key=len)
    figure = load_figure(ticks, report.decisions, report.span_s)
    if report.decisions:
        caption = (
            "Each forecast is drawn at the time that it was for: the last bin that it covers, when workers asked for "
            "at its making serve. The rate sized for is the worst bin of the quantile, plus what waited then."
        )
    else:
        caption = "Arrivals as the policies observed them; no decisions of our planner came with this report."
    return _section("load", "Load and forecast", chart(figure, name="chart-load"), caption)


def _workers(found: Verdict) -> str:
    tabs, panels = [], []
    for i, outcome in enumerate(found.drawn):
        tabs.append(
            f'<button type="button" role="tab" id="tab-{i}" aria-controls="panel-{i}" '
            f'aria-selected="{"true" if i == 0 else "false"}">{_e(outcome.policy)}</button>'
        )
        code = chart(workers_figure(outcome), name=f"chart-workers-{i}")
        panels.append(f'<div role="tabpanel" id="panel-{i}" aria-labelledby="tab-{i}">{code}</div>')
    inside = f'<div class="tabs" role="tablist">{"".join(tabs)}</div>{"".join(panels)}'
    caption = "What each pool holds after every tick. Starting and draining workers hold their GPUs too."
    if changes(found.drawn):
        caption += " While the layout of a pool changes, those of its new layout are in the next picture alone."
    return _section("workers", "Workers", inside, caption)


def _changes(found: Verdict) -> str:
    """Of every policy under which a layout change began, drawn or not; nothing where there is none."""
    begun = changes(found.ranked)
    if not begun:
        return ""
    inside = "".join(
        f'<p class="facts">{_e(one.words)}</p>{chart(change_figure(one.course), name=f"chart-change-{i}")}'
        for i, one in enumerate(begun)
    )
    caption = "The workers of either layout from the begin of the change to its end."
    return _section("layout-change", f"Layout change of {_e(begun[0].course.pool)}", inside, caption)


def _latency(report: Report, found: Verdict) -> str:
    width = latency(found.drawn[0]).width_s
    merged = f", the worst of every {_span(width)}" if width > 10.0 else ""
    caption = (
        f"95th percentile of the requests that arrived in each 10 s and completed{merged}; a gap where none did. "
        "Click a name in the legend to show or hide it."
    )
    code = chart(latency_figure(found.drawn, report.sla), name="chart-latency")
    return _section("latency", "Latency", code, caption)


def _attainment(found: Verdict) -> str:
    width = attainment(found.drawn[0])[2]
    caption = f"Of the requests that arrived, in steps of {_span(width)}; those that never completed count as missed."
    code = chart(attainment_figure(found.drawn, found.target), name="chart-attainment")
    return _section("attainment", "Attainment over time", code, caption)


def _decisions(report: Report) -> str:
    moved = [d for d in report.decisions if _moves(d)]
    if not moved:
        why = "No decision changed a pool." if report.decisions else "No decisions came with this report."
        return _section("decisions", "Decisions", f'<p class="facts">{why}</p>')
    heads = "".join(
        f"<th scope=col>{name}</th>"
        for name in ("time", "change", "limit", "predicted", "sized for", "reasons", "runner-up, and why it lost")
    )
    rows = "".join(_decision(d) for d in moved[:MOST_DECISIONS])
    cut = f" The first {MOST_DECISIONS} are listed." if len(moved) > MOST_DECISIONS else ""
    return _section(
        "decisions",
        "Decisions",
        f"<details><summary>{len(moved):,} of {len(report.decisions):,} decisions changed a pool</summary>"
        f'<div class="scroll"><table class="decisions"><thead><tr>{heads}</tr></thead>'
        f"<tbody>{rows}</tbody></table></div></details>",
        f"What our planner changed, and why.{cut}",
    )


def _moves(decision: Decision) -> bool:
    """Whether it asks for something else than was asked for; an unknown present is no change."""
    return any(decision.current.get(pool, count) != count for pool, count in decision.plan.items())


def _decision(decision: Decision) -> str:
    moves = "<br>".join(
        f'{_e(pool)} <b class="{"up" if count > decision.current[pool] else "down"}">'
        f"{decision.current[pool]} → {count}</b>"
        for pool, count in decision.plan.items()
        if decision.current.get(pool, count) != count
    )
    # Moves are in the column before.
    said = [r for r in decision.reasons if not r.endswith((":scale_up", ":scale_down"))]
    reasons = " ".join(f"<code>{_e(reason)}</code>" for reason in said)
    if decision.clamps:
        reasons += f'<div class="facts">{"<br>".join(_e(clamp) for clamp in decision.clamps)}</div>'
    level = "" if decision.level is Level.MODEL else f"<br><i>{_e(decision.level)}</i>"
    predicted = "—" if decision.predicted_attainment is None else percent(decision.predicted_attainment)
    sized = "—" if decision.demand is None else f"{decision.demand.rate_rps:.1f}/s"
    other = decision.runner_up
    lost = "—"
    if other is not None:
        lost = f"{_plan(other.workers)}: {_e(decision.why_not_runner_up)}"
    return (
        f"<tr><td>{_moment(decision.at_s)}</td><td>{moves}</td><td>{_e(decision.limit)}{level}</td>"
        f"<td>{predicted}</td><td>{sized}</td><td>{reasons}</td><td>{lost}</td></tr>"
    )


def _plan(workers: Mapping[Role, int]) -> str:
    """Counts as on the command line: 3p4d."""
    return "".join(f"{count}{role[:1]}" for role, count in workers.items())


def _settings(report: Report) -> str:
    rows: Sequence[tuple[str, str]] = (
        ("trace", f"{report.trace_name}: {report.requests:,} requests in {report.span_s:,.1f} s"),
        *report.settings,
    )
    listed = "".join(f"<dt>{_e(name)}</dt><dd>{_e(value)}</dd>" for name, value in rows)
    return _section("settings", "How this was run", f"<dl>{listed}</dl>")


def _span(seconds: float) -> str:
    """A length of time in words."""
    for unit, size in (("days", 86400.0), ("h", 3600.0), ("min", 60.0)):
        if seconds >= size * (1.0 if unit == "min" else 1.5):
            return f"{seconds / size:.3g} {unit}"
    return f"{seconds:.3g} s"


def _moment(seconds: float) -> str:
    """A time on the trace's clock: h:mm:ss."""
    whole = round(seconds)
    return f"{whole // 3600}:{whole // 60 % 60:02d}:{whole % 60:02d}"
