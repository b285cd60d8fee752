"""Pictures of the report. Names of policies are escaped here, since plotly reads them as markup."""

from __future__ import annotations

import html
import math
from collections.abc import Mapping, Sequence

import numpy as np
import plotly.graph_objects as go
from plotly.subplots import make_subplots

from planner.core.state import Decision
from planner.core.types import Sla
from planner.whatif.outcome import Outcome
from planner.whatif.replay import Tick
from planner.whatif.report_series import (
    Line,
    attainment,
    forecasts,
    frontier,
    latency,
    load,
    workers,
)
from planner.whatif.report_verdict import CLAIRVOYANT, OURS, Verdict, is_static, percent, wanted
from profiler.picture import GRID, INK, axis_style, blank_figure, layout_style

#: Okabe and Ito's palette, which those with a colour deficiency tell apart; dashes say the same once more.
BLUE, ORANGE, GREEN, PINK, SKY, RUST = "#0072b2", "#e69f00", "#009e73", "#cc79a7", "#56b4e9", "#d55e00"
GREY, PALE = "#66717d", "#b4bcc6"
_OTHERS = ((ORANGE, "dash"), (PINK, "dashdot"), (SKY, "longdash"), (RUST, "dot"), ("#7a5195", "longdashdot"))

#: A TTFT that exceeds the SLA by this factor would flatten everything else on a linear scale.
_EXPLODES = 4.0


def styles(drawn: Sequence[Outcome]) -> Mapping[str, dict[str, object]]:
    """The line of each policy, the same in all pictures."""
    look: dict[str, dict[str, object]] = {}
    others = iter(_OTHERS * 2)
    for outcome in drawn:
        if outcome.policy == OURS:
            colour, dash = BLUE, "solid"
        elif outcome.policy == CLAIRVOYANT:
            colour, dash = GREEN, "dot"
        elif is_static(outcome):
            colour, dash = GREY, "solid"
        else:
            colour, dash = next(others)
        look[outcome.policy] = {"color": colour, "dash": dash, "width": 2.6 if outcome.policy == OURS else 1.7}
    return look


class Clock:
    """Seconds on an axis that a person reads: minutes, hours or days, whichever fits the span."""

    def __init__(self, span_s: float) -> None:
        self.unit, self._second = "min", 60.0
        if span_s > 3 * 86400:
            self.unit, self._second = "days", 86400.0
        elif span_s > 4 * 3600:
            self.unit, self._second = "h", 3600.0
        self.range = [0.0, span_s / self._second]

    def __call__(self, seconds: Line) -> Line:
        """On the axis."""
        return seconds / self._second

    @property
    def title(self) -> str:
        """Of the axis."""
        return f"time ({self.unit})"


def scatter_figure(found: Verdict) -> go.Figure:
    """Attainment against GPU-hours: every policy, the frontier and the target."""
    figure = blank_figure("GPU-hours", "requests that attain", 440)
    everyone = found.ranked
    best = frontier([o for o in everyone if o.policy != CLAIRVOYANT])
    figure.add_scatter(
        x=[o.gpu_hours for o in best], y=[o.attainment for o in best], mode="lines", hoverinfo="skip",
        line={"color": PALE, "width": 2, "shape": "hv"}, name="frontier: none attains more for less",
    )  # fmt: skip
    statics = [o for o in everyone if is_static(o)]
    if statics:
        figure.add_scatter(
            **_points(statics), mode="markers", name="fixed fleets",
            marker={"color": PALE, "size": 9, "line": {"color": GREY, "width": 1}},
        )  # fmt: skip
    look = styles(found.drawn)
    for outcome in found.drawn:
        if is_static(outcome):
            marker = {"color": GREY, "size": 12, "symbol": "square"}
        elif outcome.policy == OURS:
            marker = {"color": BLUE, "size": 18, "symbol": "star"}
        else:
            marker = {"color": look[outcome.policy]["color"], "size": 13, "symbol": "diamond"}
        figure.add_scatter(
            **_points([outcome]), mode="markers", marker=marker | {"line": {"color": "#fff", "width": 1}},
            name=html.escape(outcome.policy),
        )  # fmt: skip
    low, high = _window(found)
    costs = [o.gpu_hours for o in everyone if o.attainment >= low]
    least, most = min(costs, default=0.0), max(costs, default=0.0)
    pad = 0.08 * (most - least) or 0.1 * most or 1.0
    least, most = max(least - pad, 0.0), most + pad
    figure.add_scatter(
        x=[least, most], y=[found.target] * 2, mode="lines", hoverinfo="skip",
        name=f"target {wanted(found.target)}", line={"color": INK, "width": 1.3, "dash": "dash"},
    )  # fmt: skip
    figure.update_layout(**_legend(), margin_t=10)
    figure.update_xaxes(range=[least, most])
    figure.update_yaxes(range=[low, high], tickformat=".0%" if high - low > 0.06 else ".1%")
    return figure


def hidden_below(found: Verdict) -> tuple[Outcome, ...]:
    """Policies whose attainment is too low for the scatter's window."""
    low, _ = _window(found)
    return tuple(o for o in found.ranked if o.attainment < low)


def _window(found: Verdict) -> tuple[float, float]:
    """Shares to show: ours, the target and whatever is near; one hopeless policy must not flatten the rest."""
    floor = min(found.target, *(o.attainment for o in (found.ours, found.static) if o is not None), 1.0)
    near = [o.attainment for o in found.ranked if o.attainment >= floor - 0.2]
    low = min(near, default=floor)
    low = min(low, found.target)
    pad = max(0.08 * (1.0 - low), 0.004)
    return max(low - pad, -0.02), 1.0 + pad / 2


def _points(outcomes: Sequence[Outcome]) -> dict[str, object]:
    return {
        "x": [o.gpu_hours for o in outcomes],
        "y": [o.attainment for o in outcomes],
        "customdata": [[html.escape(o.policy), percent(o.attainment)] for o in outcomes],
        "hovertemplate": "<b>%{customdata[0]}</b><br>%{customdata[1]} attain<br>%{x:.2f} GPU-hours<extra></extra>",
    }


def load_figure(ticks: Sequence[Tick], decisions: Sequence[Decision], span_s: float) -> go.Figure:
    """Arrivals as they were observed, and what our planner expected for that moment."""
    clock = Clock(span_s)
    figure = blank_figure(clock.title, "requests per second", 380)
    bin_s = float(np.median([tick.interval_s for tick in ticks])) if ticks else 10.0
    expected = forecasts(decisions, bin_s)
    if expected is not None:
        when = clock(expected.for_s)
        figure.add_scatter(
            x=when, y=_rounded(expected.median_rps), mode="lines", name="forecast, median",
            line={"color": BLUE, "width": 1.8}, hovertemplate="%{y:.1f}/s",
        )  # fmt: skip
        if expected.level > 0.5:
            figure.add_scatter(
                x=when, y=_rounded(expected.high_rps), mode="lines", fill="tonexty", line={"width": 0},
                fillcolor="rgba(0,114,178,0.22)", name=f"forecast, up to its {expected.level:.4g} quantile",
                hovertemplate="%{y:.1f}/s",
            )  # fmt: skip
        figure.add_scatter(
            x=when, y=_rounded(expected.sized_rps), mode="lines", name="sized for (surge included)",
            line={"color": ORANGE, "width": 1.6, "shape": "hvh"}, hovertemplate="%{y:.1f}/s",
        )  # fmt: skip
    at, rate = load(ticks, span_s)
    figure.add_scatter(
        x=clock(at), y=_rounded(rate), mode="lines", name="observed arrivals",
        line={"color": INK, "width": 1.1}, hovertemplate="%{y:.1f}/s",
    )  # fmt: skip
    return over_time(figure, clock)


def workers_figure(outcome: Outcome) -> go.Figure:
    """Ready, starting and draining workers of each pool, stacked, and the plan."""
    pools = workers(outcome)
    clock = Clock(outcome.span_s)
    figure = make_subplots(rows=max(len(pools), 1), cols=1, shared_xaxes=True, vertical_spacing=0.09)
    figure.update_layout(layout_style(70 + 190 * max(len(pools), 1)))
    for row, (pool, line) in enumerate(pools.items(), start=1):
        when = clock(line.at_s)
        for name, values, colour in (
            ("ready", line.ready, "rgba(0,114,178,0.65)"),
            ("starting", line.starting, "rgba(230,159,0,0.85)"),
            ("draining", line.draining, "rgba(120,130,141,0.65)"),
        ):
            figure.add_scatter(
                x=when, y=values, mode="lines", stackgroup="supply", fillcolor=colour, name=name,
                line={"width": 0, "shape": "hv"}, legendgroup=name, showlegend=row == 1,
                hovertemplate="%{y:.0f}", row=row, col=1,
            )  # fmt: skip
        figure.add_scatter(
            x=when, y=line.plan, mode="lines", name="plan", legendgroup="plan", showlegend=row == 1,
            line={"color": INK, "width": 1.4, "shape": "hv", "dash": "dot"}, hovertemplate="%{y:.0f}",
            row=row, col=1,
        )  # fmt: skip
        figure.update_yaxes(axis_style() | {"title": {"text": html.escape(f"{pool} workers")}}, row=row, col=1)
        top = float(np.max(line.ready + line.starting + line.draining, initial=1.0))
        figure.update_yaxes(range=[0, 1.12 * top], tickformat="d", dtick=1 if top < 6 else None, row=row, col=1)
    return over_time(figure, clock)


def latency_figure(drawn: Sequence[Outcome], sla: Sla) -> go.Figure:
    """TTFT and ITL, 95th percentiles over time, against the SLA; some policies wait in the legend."""
    clock = Clock(drawn[0].span_s)
    figure = make_subplots(rows=2, cols=1, shared_xaxes=True, vertical_spacing=0.08)
    figure.update_layout(layout_style(560))
    look, worst = styles(drawn), {1: 0.0, 2: 0.0}
    # drawn last is on top, hence ours last; its rank keeps it first in the legend
    for rank, outcome in reversed(list(enumerate(drawn))):
        line = latency(outcome)
        for row, values in ((1, line.ttft_ms), (2, line.itl_ms)):
            worst[row] = max(worst[row], float(np.max(values, initial=0.0, where=np.isfinite(values))))
            figure.add_scatter(
                x=clock(line.at_s), y=_rounded(values), mode="lines", name=html.escape(outcome.policy),
                legendgroup=outcome.policy, legendrank=rank, showlegend=row == 1, line=look[outcome.policy],
                visible=True if _shown(rank) else "legendonly",
                hovertemplate="%{y:,.1f} ms", row=row, col=1,
            )  # fmt: skip
    for row, name, limit in ((1, "TTFT", sla.ttft_ms), (2, "ITL", sla.itl_ms)):
        figure.add_scatter(
            x=clock.range, y=[limit, limit], mode="lines", name="SLA", legendgroup="SLA", legendrank=999,
            showlegend=row == 1, line={"color": INK, "width": 1.3, "dash": "dash"}, hoverinfo="skip",
            row=row, col=1,
        )  # fmt: skip
        style = axis_style() | {"title": {"text": f"{name} p95 (ms)"}}
        if worst[row] > _EXPLODES * limit:
            style |= _log_axis(limit, worst[row])
        figure.update_yaxes(style, row=row, col=1)
    return over_time(figure, clock)


def attainment_figure(drawn: Sequence[Outcome], target: float) -> go.Figure:
    """Share of requests that attain, by time of arrival."""
    clock = Clock(drawn[0].span_s)
    figure = blank_figure(clock.title, "requests that attain", 360)
    look = styles(drawn)
    for rank, outcome in reversed(list(enumerate(drawn))):
        at, share, _ = attainment(outcome)
        figure.add_scatter(
            x=clock(at), y=np.round(share, 4), mode="lines", name=html.escape(outcome.policy), legendrank=rank,
            line=look[outcome.policy], visible=True if _shown(rank) else "legendonly",
            hovertemplate="%{y:.1%}",
        )  # fmt: skip
    figure.add_scatter(
        x=clock.range, y=[target, target], mode="lines", name="target", legendrank=999, hoverinfo="skip",
        line={"color": INK, "width": 1.3, "dash": "dash"},
    )  # fmt: skip
    figure.update_yaxes(tickformat=".0%", rangemode="normal")
    return over_time(figure, clock)


def _log_axis(limit: float, worst: float) -> dict[str, object]:
    """A logarithmic axis whose labels are whole numbers: 1, 2, 5, or the decades alone where there are many."""
    low, high = math.floor(math.log10(limit)) - 2, math.ceil(math.log10(worst)) + 1
    steps = (1, 2, 5) if high - low < 6 else (1,)
    values = [step * 10.0**power for power in range(low, high) for step in steps]
    return {"type": "log", "rangemode": "normal", "tickvals": values, "ticktext": [f"{v:,g}" for v in values]}


def _shown(rank: int) -> bool:
    """Whether a line is there from the start: ours and the best fixed fleet; more would bury both."""
    return rank < 2


def _rounded(values: Line) -> Line:
    """Four digits: a pixel needs no more."""
    size = np.floor(np.log10(np.maximum(np.abs(np.nan_to_num(values)), 1e-3)))
    return np.asarray(np.round(values * 10.0 ** (3 - size)) / 10.0 ** (3 - size), dtype=np.float64)


def _legend() -> dict[str, object]:
    """Above the picture, so that it takes lines of its own on a phone."""
    return {
        "legend": {"orientation": "h", "x": 0, "y": 1.02, "yanchor": "bottom", "font": {"size": 12}},
        "showlegend": True,
    }


def over_time(figure: go.Figure, clock: Clock) -> go.Figure:
    """A picture whose axis is the clock's, with the legend above it."""
    figure.update_layout(**_legend(), hovermode="x unified", margin_t=10)
    figure.update_xaxes(range=clock.range, gridcolor=GRID, zeroline=False)
    # Of stacked pictures only the lowest names the axis; it is the last one that plotly holds.
    *_, last = figure.select_xaxes()
    last.update(title={"text": clock.title})
    return figure
