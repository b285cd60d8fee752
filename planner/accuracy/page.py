"""Runs and replays drawn on one self-contained page: distributions of TTFT and ITL, and TTFT over time."""

from __future__ import annotations

import html
from collections.abc import Sequence

import numpy as np
import plotly.graph_objects as go
from numpy.typing import NDArray
from plotly.subplots import make_subplots

from planner.accuracy.compare import Comparison
from planner.accuracy.diagnosis import in_flight
from profiler.picture import STYLE, chart

_MEASURED, _SIMULATED = "#1d2733", "#0072b2"


def page(comparisons: Sequence[Comparison]) -> str:
    """HTML that needs no network."""
    sections = "\n".join(_section(one, first=place == 0) for place, one in enumerate(comparisons))
    return (
        '<!doctype html>\n<html lang="en"><head><meta charset="utf-8"><title>Measured and simulated</title>'
        f"<style>{STYLE}</style></head><body><main><h1>Measured and simulated</h1>\n{sections}\n</main></body></html>\n"
    )


def _section(one: Comparison, *, first: bool) -> str:
    meta = one.recording.meta
    workers = " ".join(f"{count} {role.value}" for role, count in one.matched.counts.items())
    facts = f"{meta.model} on {meta.gpu}, {workers}, {meta.rate_rps:.3g} requests/s, {int(one.compared.sum())} compared"
    worst = ", ".join(f"{name.replace('_', ' ')} {error:+.1%}" for name, error in one.errors.items())
    notes = "".join(f'<p class="warning">{html.escape(note)}</p>' for note in one.notes)
    return (
        f'<section><h2>{html.escape(one.name)}</h2><p class="facts">{html.escape(facts)}<br>'
        f"{html.escape(worst)}</p>{chart(figure(one), library=first)}{notes}</section>"
    )


def figure(one: Comparison) -> go.Figure:
    """CDFs of TTFT and ITL; TTFT over time; what TTFT was measured above the replay, by prompt length and by load."""
    off = "TTFT measured - simulated, ms"
    titles = ("TTFT, ms", "ITL, ms", "TTFT over time, ms", f"{off}, by prompt tokens", f"{off}, by requests in flight")
    specs = [[{}, {}], [{"colspan": 2}, None], [{}, {}]]
    drawn = make_subplots(rows=3, cols=2, specs=specs, subplot_titles=titles)
    kept, at = one.compared, one.recording.sent_s[one.compared]
    for name, source, colour in (("measured", one.recording, _MEASURED), ("simulated", one.replayed, _SIMULATED)):
        series = (source.ttft_ms[kept], source.itl_ms[kept])
        for column, values in enumerate(series, start=1):
            x, y = cdf(values)
            line = {"color": colour, "shape": "hv"}
            trace = go.Scatter(x=x, y=y, name=name, legendgroup=name, showlegend=column == 1, line=line)
            drawn.add_trace(trace, row=1, col=column)
        dots = {"color": colour, "size": 4, "opacity": 0.6}
        points = go.Scatter(
            x=at, y=series[0], name=name, legendgroup=name, showlegend=False, mode="markers", marker=dots
        )
        drawn.add_trace(points, row=2, col=1)
    recording = one.recording
    load = in_flight(recording.sent_s, recording.ttft_ms, recording.itl_ms, recording.osl)[kept]
    residual = (recording.ttft_ms - one.replayed.ttft_ms)[kept]
    for column, by in enumerate((recording.isl[kept], load), start=1):
        dots = {"color": _MEASURED, "size": 4, "opacity": 0.6}
        points = go.Scatter(x=by, y=residual, mode="markers", marker=dots, showlegend=False)
        drawn.add_trace(points, row=3, col=column)
    drawn.update_xaxes(title_text="seconds", row=2, col=1)
    drawn.update_yaxes(title_text="share of requests", row=1, col=1)
    drawn.update_layout(height=920, margin={"l": 60, "r": 20, "t": 40, "b": 50}, template="plotly_white")
    return drawn


def cdf(values: NDArray[np.float64]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Values in order and the share of values at or below each; NaN is left out."""
    good = np.sort(values[np.isfinite(values)])
    return good, np.arange(1, len(good) + 1) / max(1, len(good))
