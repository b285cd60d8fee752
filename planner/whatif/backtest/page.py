"""The backtest on one self-contained page: at each horizon what came, beside the bands that were forecast for it."""

from __future__ import annotations

import html

import numpy as np
import plotly.graph_objects as go

from planner.core.forecast import ENSEMBLE
from planner.whatif.backtest.evaluate import LEVELS, Issued
from planner.whatif.backtest.score import Target
from planner.whatif.backtest.series import Floats
from planner.whatif.backtest.table import WORDS, Scored, figures
from planner.whatif.report_assets import POLICY_OF_PAGE
from planner.whatif.report_figures import BLUE, ORANGE, Clock
from planner.whatif.report_series import MOST_POINTS
from profiler.picture import INK, STYLE, blank_figure, chart

#: Beside the style that all our pages share.
_STYLES = """
table { border-collapse: collapse; font-size: 13.5px; font-variant-numeric: tabular-nums; margin: 8px 0 14px; }
th, td { padding: 4px 9px; text-align: right; border-bottom: 1px solid #e6eaef; white-space: nowrap; }
tbody th { text-align: left; font-weight: 500; } tr.ours > * { background: #e3f0f9; font-weight: 650; }
.scroll { overflow-x: auto; } h3 { font-size: 15px; margin: 14px 0 0; }
"""
_HEADS = (
    "loss (req/s)", "of last value's", "of seasonal naive's", "≤ p10", "≤ p50", "≤ p90", "≤ p95", "p10 to p90",
    "bias (req/s)",
)  # fmt: skip


def page(title: str, scored: Scored, drawn: tuple[Target, ...] = (Target.WORST, Target.MEAN)) -> str:
    """HTML of a page that needs no network: the drawing library is inside."""
    series, first, sections = scored.series, True, []
    for steps, issued in scored.issued.items():
        parts = []
        for target in drawn:
            caption = html.escape(WORDS[target])
            picture = chart(figure(issued, target, series.span_s), library=first)
            parts.append(f"<h3>{caption[0].upper()}{caption[1:]}</h3>{_table(scored, steps, target)}{picture}")
            first = False
        sections.append(f"<section><h2>{steps * series.interval_s:g} s ahead</h2>{''.join(parts)}</section>")
    facts = (
        f"{series.requests:,} requests in {series.span_s:,.0f} s, {len(series.rates_rps):,} intervals of "
        f"{series.interval_s:g} s, {series.rates_rps.mean():.4g} requests/s on average. The ensemble is what the "
        "planner sizes with. A quantile is calibrated where as many outcomes are at or below it as it says."
    )
    return (
        f'<!doctype html>\n<html lang="en"><head><meta charset="utf-8">{POLICY_OF_PAGE}'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f"<title>{html.escape(title)}</title><style>{STYLE}{_STYLES}</style></head><body><main>"
        f'<h1>{html.escape(title)}</h1><p class="facts">{html.escape(facts)}</p>'
        f"{''.join(sections)}</main></body></html>\n"
    )


def figure(issued: Issued, target: Target, span_s: float) -> go.Figure:
    """What came, at the end of its window, and the ensemble's bands and median for it."""
    clock = Clock(span_s)
    drawn = blank_figure(clock.title, "requests per second", 380)
    every = -(-len(issued.made_s) // MOST_POINTS) or 1
    bins = float(np.diff(issued.made_s).min()) if len(issued.made_s) > 1 else 0.0
    when = clock(issued.made_s[::every] + issued.steps * bins)
    seen = target.of_outcomes(issued.outcomes_rps)[::every]
    stated = target.of_quantiles(issued.quantiles_rps[ENSEMBLE])[::every]
    at = dict(zip(LEVELS, stated.T, strict=True))
    for low, high, alpha in ((0.1, 0.9, 0.14), (0.25, 0.75, 0.2)):
        drawn.add_scatter(
            x=np.concatenate([when, when[::-1]]), y=_rounded(np.concatenate([at[high], at[low][::-1]])), fill="toself",
            fillcolor=f"rgba(0,114,178,{alpha})", line={"width": 0}, hoverinfo="skip",
            name=f"p{100 * low:g} to p{100 * high:g}",
        )  # fmt: skip
    for level, colour, name in ((0.5, BLUE, "median"), (0.95, ORANGE, "p95")):
        line = {"color": colour, "width": 1.6}
        drawn.add_scatter(x=when, y=_rounded(at[level]), mode="lines", name=name, line=line, hovertemplate="%{y:.1f}/s")
    drawn.add_scatter(
        x=when,
        y=_rounded(seen),
        mode="lines",
        name="came",
        line={"color": INK, "width": 1.1},
        hovertemplate="%{y:.1f}/s",
    )
    drawn.update_xaxes(range=clock.range)
    return drawn


def _rounded(values: Floats) -> list[float]:
    """Two decimals: more would only make the page large."""
    return [round(value, 2) for value in values.tolist()]


def _table(scored: Scored, steps: int, target: Target) -> str:
    heads = "".join(f'<th scope="col">{name}</th>' for name in ("forecaster", *_HEADS))
    rows = "".join(
        f"<tr{' class=ours' if name == ENSEMBLE else ''}><th scope='row'>{html.escape(name)}</th>"
        + "".join(f"<td>{html.escape(text)}</td>" for text in figures(score))
        + "</tr>"
        for name, score in scored.scores[steps][target].items()
    )
    return f'<div class="scroll"><table><thead><tr>{heads}</tr></thead><tbody>{rows}</tbody></table></div>'
