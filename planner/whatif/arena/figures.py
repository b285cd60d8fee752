"""Pictures of an arena. Names of policies are escaped here, since plotly reads them as markup."""

from __future__ import annotations

import html
import math
from collections.abc import Mapping, Sequence
from itertools import cycle

import numpy as np
import plotly.graph_objects as go
from plotly.subplots import make_subplots

from planner.whatif.arena.record import Load, RunRecord
from planner.whatif.arena.results import CaseResult
from planner.whatif.arena.statistics import Standing, is_bound, is_ours
from planner.whatif.report_figures import BLUE, GREEN, GREY, ORANGE, PALE, PINK, RUST, SKY, Clock
from planner.whatif.report_verdict import STATIC, percent, wanted
from profiler.picture import GRID, INK, axis_style, blank_figure, layout_style

#: Beside ours, the bounds and the fixed fleets; colours repeat with other shapes.
_COLOURS = (ORANGE, PINK, SKY, RUST, "#7a5195", "#8c6d31")
_SHAPES = ("diamond", "circle", "triangle-up", "cross", "pentagon", "hexagon")

#: Attainments this far below the lowest of target, ours and bound are left out of the first view.
_BELOW = 0.15

#: Panels of timelines beside each other, and the height of a row of them in pixels.
COLUMNS, PANEL_PX = 3, 190

#: Panels are cut above so many times what ours or the bound holds at most.
_RUNAWAY = 2


def markers(policies: Sequence[str]) -> Mapping[str, dict[str, object]]:
    """Colour and shape of each policy, the same in every case."""
    look: dict[str, dict[str, object]] = {}
    others = iter(cycle((_COLOURS[i % len(_COLOURS)], shape) for shape in _SHAPES for i in range(len(_COLOURS))))
    ours, bounds, fixed = cycle(("star", "star-open")), cycle(("x", "x-open")), cycle(("square", "square-open"))
    for policy in policies:
        if is_ours(policy):
            look[policy] = {"color": BLUE, "symbol": next(ours), "size": 17}
        elif is_bound(policy):
            look[policy] = {"color": GREEN, "symbol": next(bounds), "size": 12}
        elif policy.startswith(STATIC):
            look[policy] = {"color": GREY, "symbol": next(fixed), "size": 11}
        else:
            colour, shape = next(others)
            look[policy] = {"color": colour, "symbol": shape, "size": 12}
    return look


def frontier_figure(case: CaseResult, look: Mapping[str, dict[str, object]]) -> go.Figure:
    """Attainment against GPU-hours: means and intervals of every policy, the front, the target and the bound."""
    figure = blank_figure("GPU-hours", "requests that attain", 430)
    rows = [row for row in case.rows if row.attainment is not None]
    front = sorted((_at(row) for row in rows if row.on_front), key=lambda point: point[0])
    figure.add_scatter(
        x=[x for x, _ in front], y=[y for _, y in front], mode="lines", hoverinfo="skip", name="front: not dominated",
        line={"color": PALE, "width": 2, "shape": "hv"},
    )  # fmt: skip
    low, high = _window(case)
    shown = [row for row in rows if _at(row)[1] >= low] or rows
    costs = [_at(row)[0] for row in shown]
    pad = 0.06 * (max(costs, default=1.0) - min(costs, default=0.0)) or 0.1
    sides = [max(0.0, min(costs, default=0.0) - pad), max(costs, default=1.0) + pad]
    figure.add_scatter(
        x=sides, y=[case.target] * 2, mode="lines", hoverinfo="skip", name=f"target {wanted(case.target)}",
        line={"color": INK, "width": 1.3, "dash": "dash"},
    )  # fmt: skip
    for row in rows:
        if row.is_bound:
            figure.add_scatter(
                x=[_at(row)[0]] * 2, y=[low, high], mode="lines", hoverinfo="skip", showlegend=False,
                line={"color": GREEN, "width": 1.2, "dash": "dot"},
            )  # fmt: skip
    for row in rows:
        figure.add_scatter(**_point(row, look[row.policy]))
    figure.update_layout(
        showlegend=True, legend={"font": {"size": 12}, "x": 1.01, "y": 1, "yanchor": "top"}, margin_t=10
    )
    figure.update_xaxes(range=sides)
    figure.update_yaxes(range=[low, high], tickformat=".0%" if high - low > 0.06 else ".1%")
    return figure


def hidden(case: CaseResult) -> list[str]:
    """Policies whose attainment is below the first view."""
    low, _ = _window(case)
    return [row.policy for row in case.rows if row.attainment is not None and row.attainment.mean < low]


def _window(case: CaseResult) -> tuple[float, float]:
    rows = [row for row in case.rows if row.attainment is not None]
    floor = min([case.target, *(_at(row)[1] for row in rows if row.is_bound or is_ours(row.policy))])
    low = min(floor, *(y for _, y in map(_at, rows) if y >= floor - _BELOW), floor)
    pad = max(0.08 * (1.0 - low), 0.004)
    return max(low - pad, -0.02), 1.0 + pad / 2


def _at(row: Standing) -> tuple[float, float]:
    """GPU-hours and attainment of a policy with runs that were done."""
    if row.gpu_hours is None or row.attainment is None:
        raise ValueError(f"{row.policy} has no run that was done")
    return row.gpu_hours.mean, row.attainment.mean


def _point(row: Standing, look: Mapping[str, object]) -> dict[str, object]:
    x, y = _at(row)
    bars = {
        name: {"type": "data", "array": [spread.half_width], "thickness": 1, "width": 3, "color": look["color"]}
        for name, spread in (("error_x", row.gpu_hours), ("error_y", row.attainment))
        if spread is not None and spread.half_width is not None
    }
    beaten = f"<br>dominated by {html.escape(', '.join(row.dominated_by))}" if row.dominated_by else ""
    return bars | {
        "x": [x],
        "y": [y],
        "mode": "markers",
        "name": html.escape(row.policy),
        "marker": {**look, "line": {"color": "#fff", "width": 1}},
        "opacity": 0.55 if row.dominated_by else 1.0,
        "hovertemplate": (
            f"<b>{html.escape(row.policy)}</b><br>{percent(y)} attain<br>{x:.2f} GPU-hours{beaten}<extra></extra>"
        ),
    }


#: The line of each pool: prefill and decode, or aggregated.
_POOLS = (ORANGE, BLUE, PINK)


def timelines_figure(runs: Sequence[RunRecord], load: Load, span_s: float) -> go.Figure:
    """Workers over time, a panel for each policy, the load behind them in grey; the same scale in every panel.

    Args:
        runs: of one seed that were done, in the order to show them; at least one.
        load: of that seed.
        span_s: of the trace.
    """
    clock = Clock(span_s)
    rows = math.ceil(len(runs) / COLUMNS)
    figure = make_subplots(
        rows=rows, cols=COLUMNS, specs=[[{"secondary_y": True}] * COLUMNS] * rows, shared_xaxes=True,
        horizontal_spacing=0.045, vertical_spacing=0.36 / max(rows, 2), subplot_titles=[_title(run) for run in runs],
    )  # fmt: skip
    figure.update_layout(layout_style(70 + PANEL_PX * rows))
    peaks: list[tuple[RunRecord, int]] = []
    times = clock(np.array(load.at_s)).tolist()
    for index, run in enumerate(runs):
        at = {"row": index // COLUMNS + 1, "col": index % COLUMNS + 1}
        figure.add_scatter(
            x=times, y=load.rps, mode="lines", fill="tozeroy", fillcolor="rgba(102,113,125,0.16)", line={"width": 0},
            name="load", legendgroup="load", showlegend=index == 0, hovertemplate="%{y:.1f}/s", secondary_y=True, **at,
        )  # fmt: skip
        if run.figures is None:
            continue
        line = run.figures.timeline
        # What one sees at the first tick is the best guess of the start; what the last one left lasts to the end.
        when = clock(np.array([0.0, *line.at_s, span_s])).tolist()
        for colour, pool in zip(cycle(_POOLS), line.ready):
            held, ready = line.held[pool], line.ready[pool]
            peaks.append((run, max(1, *held)))
            for values, name, dash, width in ((held, "held", "dot", 1.1), (ready, "ready", "solid", 1.8)):
                figure.add_scatter(
                    x=when, y=[values[0], *values, values[-1]], mode="lines", name=f"{pool} {name}",
                    legendgroup=f"{pool} {name}",
                    line={"color": colour, "dash": dash, "width": width, "shape": "hv"}, showlegend=index == 0,
                    hovertemplate="%{y:.0f}", **at,
                )  # fmt: skip
    near = [peak for run, peak in peaks if is_ours(run.policy) or is_bound(run.policy)]
    # One policy that runs away would flatten all others.
    top = min(max((peak for _, peak in peaks), default=1), _RUNAWAY * max(near, default=10**6))
    counts = {"range": [0, 1.1 * top], "tickformat": "d", "dtick": 1 if top < 6 else None}
    figure.update_yaxes(axis_style() | counts, secondary_y=False)
    figure.update_yaxes(
        range=[0, 1.1 * max(load.rps, default=1.0)], showgrid=False, showticklabels=False, secondary_y=True
    )
    figure.update_xaxes(range=clock.range, gridcolor=GRID, zeroline=False)
    for panel in range(max(0, len(runs) - COLUMNS), len(runs)):
        figure.update_xaxes(
            title={"text": clock.title}, showticklabels=True, row=panel // COLUMNS + 1, col=panel % COLUMNS + 1
        )  # fmt: skip
    figure.update_annotations(font={"size": 12.5})
    legend = {"orientation": "h", "x": 0, "y": 1, "yanchor": "top", "yref": "container"}
    figure.update_layout(showlegend=True, margin_t=60, legend=legend)
    return figure


def _title(run: RunRecord) -> str:
    if run.figures is None:
        return html.escape(run.policy)
    return f"<b>{html.escape(run.policy)}</b>  {percent(run.figures.attainment)}, {run.figures.gpu_hours:.2f} GPU-h"
