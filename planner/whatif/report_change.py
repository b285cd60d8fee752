"""A layout change in the report: the workers of both layouts while it goes on."""

from __future__ import annotations

import html
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import plotly.graph_objects as go
from plotly.subplots import make_subplots

from planner.whatif.outcome import Outcome
from planner.whatif.report_figures import Clock, over_time
from planner.whatif.report_series import steps
from planner.whatif.table import change_words
from planner.whatif.transition import Course
from profiler.picture import INK, axis_style, layout_style

#: Of the change's length, what is shown before and after it.
_AROUND = 0.06

_PHASES = (
    ("ready", "rgba(0,114,178,0.65)"),
    ("starting", "rgba(230,159,0,0.85)"),
    ("draining", "rgba(120,130,141,0.65)"),
)


@dataclass(frozen=True)
class Change:
    """One that began: what came of it in a sentence, and its course."""

    words: str
    course: Course


def changes(outcomes: Sequence[Outcome]) -> list[Change]:
    """Those that began, in the order of the policies; a replay has one change, and each policy its own course."""
    return [
        Change(f"{outcome.policy}: {change_words(outcome)}.", outcome.layout_change)
        for outcome in outcomes
        if outcome.layout_change is not None and outcome.layout_change.moments
    ]


def change_figure(course: Course) -> go.Figure:
    """Ready, starting and draining workers of the old layout and of the new one, from the begin to the end.

    Args:
        course: of a change that began.
    """
    if course.began_s is None:
        raise ValueError("the change did not begin")
    end_s = course.ended_s if course.ended_s is not None else course.moments[-1].at_s
    clock = Clock(end_s)
    figure = make_subplots(rows=2, cols=1, shared_xaxes=True, vertical_spacing=0.09)
    figure.update_layout(layout_style(440))
    for row, (layout, gpus) in enumerate(zip(course.layouts, course.gpus, strict=True), start=1):
        table = np.array([(one.at_s, *(one.new if row == 2 else one.old)) for one in course.moments], dtype=np.float64)
        at_s, *phases = steps(table).T
        for (name, colour), values in zip(_PHASES, phases, strict=True):
            figure.add_scatter(
                x=clock(at_s), y=values, mode="lines", stackgroup="supply", fillcolor=colour, name=name,
                line={"width": 0, "shape": "hv"}, legendgroup=name, showlegend=row == 1,
                hovertemplate="%{y:.0f}", row=row, col=1,
            )  # fmt: skip
        top = float(np.max(table[:, 1:].sum(axis=1), initial=1.0))
        title = {"text": html.escape(f"{layout} workers ({gpus} GPU{'' if gpus == 1 else 's'})")}
        figure.update_yaxes(axis_style() | {"title": title, "range": [0, 1.3 * top], "tickformat": "d"}, row=row, col=1)
        figure.update_yaxes(dtick=1 if top < 6 else None, row=row, col=1)
    over_time(figure, clock)
    around = _AROUND * max(end_s - course.began_s, 1.0)
    figure.update_xaxes(range=[float(clock(np.array(x))) for x in (course.began_s - around, end_s + around)])
    came = "done" if course.reached else "rolled back"
    marks = [(course.began_s, "begins", "left")]
    marks += [(course.ended_s, came, "right")] if course.ended_s is not None else []
    for at_s, text, side in marks:
        figure.add_vline(x=float(clock(np.array(at_s))), line={"color": INK, "width": 1.4, "dash": "dash"})
        figure.add_annotation(
            x=float(clock(np.array(at_s))), y=1.0, xref="x", yref="paper", text=text, showarrow=False,
            xanchor=side, yanchor="top", font={"size": 12, "color": INK}, bgcolor="rgba(255,255,255,0.85)",
        )  # fmt: skip
    return figure
