"""Profiles drawn on one self-contained page: TTFT against ISL, ITL against KV tokens by context."""

from __future__ import annotations

import html
from collections.abc import Sequence
from typing import Any

import numpy as np
import plotly.graph_objects as go
import plotly.io
from numpy.typing import NDArray
from plotly.colors import sample_colorscale

from profiler.curve import PrefillCurve
from profiler.estimate import Where
from profiler.show import error_words, summarise
from profiler.surface import DecodeSurface
from profiler.tables import Profile

INK, GRID = "#1d2733", "#e6eaef"
_BLUE, _RED = "#1f6feb", "#d1242f"

#: Style of our self-contained pages.
STYLE = """
body { margin: 0; background: #f5f7f9; color: #1d2733; font: 15px/1.5 system-ui, sans-serif; }
main { max-width: 1060px; margin: 0 auto; padding: 28px 20px 60px; }
h1 { font-size: 24px; margin: 0 0 18px; } h2 { font-size: 18px; margin: 0; }
section { background: #fff; border: 1px solid #dfe4ea; border-radius: 10px; }
section { padding: 20px 22px; margin-bottom: 22px; }
.facts { color: #57636f; margin: 2px 0 10px; } .chart { margin: 0 -8px; }
dl { display: grid; grid-template-columns: 130px 1fr; gap: 3px 14px; margin: 12px 0 0; font-size: 13.5px; }
dt { color: #57636f; } dd { margin: 0; } .warning { color: #8a5a00; }
"""


def page(profiles: Sequence[Profile]) -> str:
    """HTML of a page that needs no network: the drawing library is inside."""
    sections = "\n".join(_section(profile, first=i == 0) for i, profile in enumerate(profiles))
    return (
        '<!doctype html>\n<html lang="en"><head><meta charset="utf-8"><title>Profiles</title>'
        f"<style>{STYLE}</style></head><body><main><h1>Measured profiles</h1>\n"
        f"{sections}\n</main></body></html>\n"
    )


def _section(profile: Profile, *, first: bool) -> str:
    summary, meta = summarise(profile), profile.meta
    figures = []
    if profile.prefill is not None:
        figures.append(("prefill", prefill_figure(profile.prefill)))
    if profile.decode is not None:
        figures.append(("decode", decode_figure(profile, profile.decode)))
    charts = []
    for i, (name, figure) in enumerate(figures):
        error = error_words(summary["tables"][name]["leave_one_out"])
        code = chart(figure, library=first and i == 0)
        charts.append(f'<p class="facts">{name}: {html.escape(error)}</p>{code}')
    facts = {
        "folder": str(profile.path),
        "fingerprint": summary["fingerprint"][:16],
        "engine": f"{meta.engine.name} {meta.engine.version or '(version unknown)'}",
        "KV capacity": "unknown" if meta.kv_capacity_tokens is None else f"{meta.kv_capacity_tokens:,} tokens",
        "cross-check": meta.kv_capacity_check or "none",
        "source": f"{meta.source.text} ({meta.source.licence})",
    }
    rows = "".join(f"<dt>{name}</dt><dd>{html.escape(text)}</dd>" for name, text in facts.items())
    rows += "".join(f'<dt class="warning">warning</dt><dd>{html.escape(text)}</dd>' for text in meta.warnings)
    title = f"{meta.model.name}, {meta.role} on {meta.gpu.name}, TP {meta.tp}, DP {meta.dp}"
    return f"<section><h2>{html.escape(title)}</h2>{''.join(charts)}<dl>{rows}</dl></section>"


def chart(figure: go.Figure, *, library: bool = False, name: str | None = None) -> str:
    """HTML of a figure; `library` puts the drawing library inside, once per page.

    Args:
        figure: what to draw.
        library: whether the library comes with it.
        name: `id` of its element; a random one if None.
    """
    code = plotly.io.to_html(
        figure,
        full_html=False,
        include_plotlyjs=library,
        div_id=name,
        config={"displayModeBar": False, "responsive": True},
    )
    return f'<div class="chart">{code}</div>'


def prefill_figure(curve: PrefillCurve) -> go.Figure:
    """TTFT against ISL: samples, the curve, its error as a band, dashed where nothing was measured."""
    first, last = float(curve.tokens[0]), float(curve.tokens[-1])
    inside = np.unique(np.append(np.linspace(first, last, 240), curve.tokens))
    below, above = np.linspace(0, first, 20), np.linspace(last, last * 1.2, 40)
    figure = blank_figure("prompt tokens (ISL)", "TTFT, prompt alone (ms)")
    whole = np.concatenate([below, inside, above])
    error = np.array([curve.at(float(x)).error or 0.0 for x in whole])
    middle = curve.ttft_ms(whole)
    figure.add_scatter(
        x=np.concatenate([whole, whole[::-1]]),
        y=np.concatenate([middle * (1 + error), (middle * np.maximum(1 - error, 0))[::-1]]),
        fill="toself", fillcolor="rgba(31,111,235,0.13)", line={"width": 0}, name="expected error",
        hoverinfo="skip",
    )  # fmt: skip
    for i, x in enumerate((below, above)):
        figure.add_scatter(
            x=x, y=curve.ttft_ms(x), mode="lines", line={"color": _BLUE, "dash": "dash", "width": 2},
            name="not measured", legendgroup="outside", showlegend=i == 0,
        )  # fmt: skip
    figure.add_scatter(
        x=inside, y=curve.ttft_ms(inside), mode="lines", line={"color": _BLUE, "width": 2.5}, name="curve"
    )
    figure.add_scatter(
        x=curve.tokens, y=curve.medians_ms, mode="markers", name="measured",
        marker={"color": "#fff", "size": 8, "line": {"color": _BLUE, "width": 2}},
        hovertemplate="ISL %{x:,.0f}<br>%{y:.1f} ms<extra>measured</extra>",
    )  # fmt: skip
    return figure


def decode_figure(profile: Profile, surface: DecodeSurface) -> go.Figure:
    """ITL against KV tokens, one curve per measured context, dashed where nothing was measured."""
    rows = profile.decode_rows
    if rows is None:
        raise ValueError(f"{profile.path} has no decode table")
    figure = blank_figure("KV tokens held by all running requests", "ITL (ms)")
    contexts = surface.contexts
    shown = contexts[np.unique(np.linspace(0, len(contexts) - 1, min(8, len(contexts))).astype(int))]
    colours = sample_colorscale("Viridis", np.linspace(0, 0.85, len(shown)).tolist())
    nearest = shown[np.abs(np.log(rows["context_tokens"][:, None] / shown)).argmin(axis=1)]
    for context, colour in zip(shown, colours, strict=True):
        mine = nearest == context
        last = float(rows["kv_tokens"][mine].max())
        kv = np.unique(np.append(np.linspace(context, last * 1.12, 160), rows["kv_tokens"][mine]))
        itl = surface.itl_ms(kv / context, kv)
        measured = np.array([surface.where(float(k / context), float(k)) is not Where.OUTSIDE for k in kv])
        name = f"context {context:,.0f}"
        for kept, dash, width in ((measured, "solid", 2.2), (_outside(measured), "dash", 1.6)):
            figure.add_scatter(
                x=kv, y=np.where(kept, itl, np.nan), mode="lines", name=name, legendgroup=name,
                showlegend=dash == "solid", line={"color": colour, "dash": dash, "width": width},
                customdata=kv / context,
                hovertemplate="batch %{customdata:,.0f}, KV %{x:,.0f}<br>%{y:.1f} ms",
            )  # fmt: skip
        figure.add_scatter(
            x=rows["kv_tokens"][mine], y=rows["itl_ms"][mine], mode="markers", legendgroup=name,
            showlegend=False, marker={"color": "#fff", "size": 7, "line": {"color": colour, "width": 2}},
            customdata=rows["batch"][mine], name=name,
            hovertemplate="batch %{customdata:,.0f}, KV %{x:,.0f}<br>%{y:.1f} ms, measured",
        )  # fmt: skip
    suspect = {name: column[profile.samples["decode"]["suspect"] == 1] for name, column in
               profile.samples["decode"].items()}  # fmt: skip
    if len(suspect["batch"]):
        figure.add_scatter(
            x=suspect["kv_tokens"], y=suspect["itl_ms"], mode="markers", name="suspect, not used",
            marker={"symbol": "x-thin", "size": 10, "line": {"color": _RED, "width": 2.5}},
            customdata=suspect["batch"],
            hovertemplate="nominal batch %{customdata:,.0f}, KV %{x:,.0f}<br>%{y:.1f} ms",
        )  # fmt: skip
    capacity = profile.meta.kv_capacity_tokens
    if capacity is not None:
        figure.add_vline(
            x=capacity, line={"color": INK, "width": 1, "dash": "dot"}, annotation_text="KV cache full",
            annotation_position="top left", annotation_font_color=INK,
        )  # fmt: skip
    return figure


def _outside(measured: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """What is not measured, with the neighbouring point, so that the dashed line joins the solid one."""
    out = ~measured
    joined = out.copy()
    joined[1:] |= out[:-1]
    joined[:-1] |= out[1:]
    return joined


def axis_style() -> dict[str, Any]:
    """How every axis of ours looks."""
    return {"gridcolor": GRID, "zeroline": False, "rangemode": "tozero", "separatethousands": True}


def layout_style(height: int) -> dict[str, Any]:
    """How every figure of ours looks, `height` in pixels; axes apart."""
    return {
        "template": "plotly_white",
        "height": height,
        "margin": {"l": 64, "r": 16, "t": 24, "b": 56},
        "font": {"family": "system-ui, sans-serif", "size": 13, "color": INK},
        "hoverlabel": {"bgcolor": "#fff"},
    }


def blank_figure(x: str, y: str, height: int = 440) -> go.Figure:
    """An empty figure with the titles of its axes, `height` in pixels."""
    axes = {"xaxis": axis_style() | {"title": {"text": x}}, "yaxis": axis_style() | {"title": {"text": y}}}
    return go.Figure(layout=layout_style(height) | axes)
