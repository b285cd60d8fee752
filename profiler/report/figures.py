"""Pictures of a report: measured points with their spread, beside curves and predictions."""

from __future__ import annotations

import itertools
from typing import Any

import numpy as np
import plotly.graph_objects as go

from profiler.estimate import LeaveOneOut
from profiler.picture import INK, blank_figure, decode_figure, prefill_figure
from profiler.report.points import Array, Points, points, predicted_mixed, predicted_prompts, timing_of
from profiler.schema import TableName
from profiler.tables import Profile

#: Okabe and Ito's palette, which those with a colour deficiency tell apart.
BLUE, ORANGE, GREEN, PINK, SKY, RUST = "#0072b2", "#e69f00", "#009e73", "#cc79a7", "#56b4e9", "#d55e00"
GREY = "#66717d"


def _spread(found: Points, colour: str) -> dict[str, Any]:
    """Error bars from the least to the largest repeat."""
    return {
        "type": "data",
        "symmetric": False,
        "array": found.high - found.median,
        "arrayminus": found.median - found.low,
        "color": colour,
        "thickness": 1.4,
        "width": 4,
    }


def _finish(figure: go.Figure) -> go.Figure:
    """A legend that leaves a narrow page its width."""
    figure.update_layout(
        legend={"orientation": "h", "yanchor": "bottom", "y": 1.02, "x": 0, "font": {"size": 12}},
        margin={"l": 58, "r": 12, "t": 30, "b": 52},
    )
    return figure


def lone_prompts(profile: Profile) -> go.Figure:
    """TTFT of lone prompts against ISL: curve, expected error, medians with the spread of their repeats."""
    curve = profile.prefill
    if curve is None:
        raise ValueError(f"{profile.path} has no prefill table")
    figure = prefill_figure(curve)
    found = lone_points(profile)
    figure.update_traces(error_y=_spread(found, BLUE), customdata=found.repeats, selector={"name": "measured"})
    figure.update_traces(
        hovertemplate="ISL %{x:,.0f}<br>%{y:.1f} ms, %{customdata} repeats<extra>measured</extra>",
        selector={"name": "measured"},
    )
    return _finish(figure)


def accuracy(found: Points, error: LeaveOneOut, x: str) -> go.Figure:
    """What each point scatters by, and how far the table is off without it, both relative to its median.

    Args:
        found: points, of which the first coordinate is drawn against; a row an error.
        error: of leaving them out, in the same order.
        x: title of the axis.
    """
    figure = blank_figure(x, "of the median (%)", height=280)
    at = found.at[:, 0]
    if (found.repeats > 1).any():
        figure.add_scatter(
            x=at, y=np.zeros(len(at)), mode="markers", name="spread of repeats", marker={"color": BLUE, "size": 4},
            error_y={
                "type": "data", "symmetric": False, "color": BLUE, "thickness": 1.6, "width": 5,
                "array": 100 * (found.high / found.median - 1), "arrayminus": 100 * (1 - found.low / found.median),
            },
            customdata=found.repeats, hovertemplate="%{x:,.0f}: %{customdata} repeats<extra>spread</extra>",
        )  # fmt: skip
    for name, kept, symbol in (
        ("left out, from neighbours on all sides", error.interior, "diamond"),
        ("left out, extrapolated", ~error.interior, "diamond-open"),
    ):
        shown = kept & np.isfinite(error.relative)
        if shown.any():
            figure.add_scatter(
                x=at[shown], y=100 * error.relative[shown], mode="markers", name=name,
                marker={"color": RUST, "size": 8, "symbol": symbol, "line": {"color": RUST, "width": 1.5}},
                hovertemplate="%{x:,.0f}: %{y:.1f} % off<extra>left out</extra>",
            )  # fmt: skip
    # Sweeps go by octaves.
    figure.update_xaxes(type="log", rangemode="normal", dtick="D1" if at.max() < 20 * at.min() else 1)
    figure.update_yaxes(rangemode="normal", zeroline=True, zerolinecolor="#b4bcc6")
    return _finish(figure)


def accuracy_of(name: TableName, profile: Profile) -> go.Figure | None:
    """`accuracy` of a table; None for one that no point can be left out of."""
    if name == "transfer":
        chosen = profile.transfer_from(profile.meta.tp)
        return (
            None
            if chosen is None
            else accuracy(_handed(profile, chosen[1]), chosen[0].leave_one_out, "tokens handed off")
        )
    curve = profile.prefill if name == "prefill" else None
    if name == "decode" and profile.decode is not None and profile.decode_rows is not None:
        found = points(profile.decode_rows, ("batch", "kv_tokens"), "itl_ms")
        # The surface has its points in the same order: by batch, then by KV tokens.
        turned = Points(found.at[:, ::-1], found.median, found.low, found.high, found.repeats)
        return accuracy(turned, profile.decode.leave_one_out, "KV tokens held by all running requests")
    if curve is None:
        return None
    return accuracy(lone_points(profile), curve.leave_one_out, "prompt tokens (ISL)")


def lone_points(profile: Profile) -> Points:
    """Points of lone prompts without a prefix hit."""
    found = points(profile.samples["prefill"], ("isl", "batch", "prefix_hit_tokens"), "ttft_ms")
    return found.where((found.at[:, 1] == 1) & (found.at[:, 2] == 0))


def other_prompts(profile: Profile) -> tuple[go.Figure, Array] | None:
    """Batched prompts and prefix hits: measured against predicted, and the errors of the predictions.

    Returns:
        None where no such point was measured.
    """
    found = points(profile.samples["prefill"], ("isl", "batch", "prefix_hit_tokens"), "ttft_ms")
    found = found.where((found.at[:, 1] > 1) | (found.at[:, 2] > 0))
    if len(found) == 0:
        return None
    isl, batch, hit = found.at.T
    predicted = predicted_prompts(timing_of(profile), isl, batch, hit)
    figure = blank_figure("predicted by the engine model (ms)", "measured TTFT of the last prompt (ms)")
    for name, kept, colour, symbol in (
        ("several prompts at once", (batch > 1) & (hit == 0), BLUE, "circle"),
        ("prefix hits", hit > 0, ORANGE, "diamond"),
    ):
        if kept.any():
            text = "ISL %{customdata[0]:,.0f}, batch %{customdata[1]:,.0f}, hit %{customdata[2]:,.0f}"
            _against(figure, name, predicted[kept], found.where(kept), colour, symbol, text)
    return _finish(_diagonal(figure, predicted, found)), _errors(predicted, found)


def mixed(profile: Profile) -> tuple[go.Figure, Array] | None:
    """Iterations with prefill and decode: measured against predicted, and the errors of the predictions.

    Returns:
        None where the profile holds no prefill or decode table to predict from.
    """
    if profile.prefill is None or profile.decode is None:
        return None
    found = points(profile.samples["mixed"], ("prefill_tokens", "batch", "kv_tokens"), "iteration_ms")
    tokens, batch, kv = found.at.T
    predicted = predicted_mixed(timing_of(profile), tokens, batch, kv)
    figure = blank_figure("predicted by the engine model (ms)", "measured iteration (ms)")
    lengths = np.unique(tokens)
    colours = (BLUE, ORANGE, GREEN, PINK, SKY, RUST, GREY)
    for i, length in enumerate(lengths):
        kept = tokens == length
        text = "prefill %{customdata[0]:,.0f} tokens, batch %{customdata[1]:,.0f}, KV %{customdata[2]:,.0f}"
        name = f"{length:,.0f} prefill tokens"
        _against(figure, name, predicted[kept], found.where(kept), colours[i % len(colours)], "circle", text)
    return _finish(_diagonal(figure, predicted, found)), _errors(predicted, found)


def decode(profile: Profile) -> go.Figure:
    """ITL against KV tokens by context, with the spread of repeats."""
    surface, rows = profile.decode, profile.decode_rows
    if surface is None or rows is None:
        raise ValueError(f"{profile.path} has no decode table")
    figure = decode_figure(profile, surface)
    found = points(rows, ("batch", "kv_tokens"), "itl_ms")
    repeated = found.where(found.repeats > 1)
    if len(repeated):
        figure.add_scatter(
            x=repeated.at[:, 1], y=repeated.median, mode="markers", marker={"color": INK, "size": 2},
            error_y=_spread(repeated, INK), name="spread of repeats", customdata=repeated.repeats,
            hovertemplate="KV %{x:,.0f}<br>%{y:.2f} ms, %{customdata} repeats<extra>median</extra>",
        )  # fmt: skip
    return _finish(figure)


def transfer(profile: Profile) -> go.Figure:
    """Hand-off against tokens: for each TP that it came from the curve, and medians with their spread."""
    rows = profile.samples.get("transfer")
    if rows is None:
        raise ValueError(f"{profile.path} has no transfer table")
    figure = blank_figure("tokens handed off", "hand-off (ms)", height=360)
    origins = profile.handed_from(rows)
    for tp, colour in zip(np.unique(origins), itertools.cycle((BLUE, ORANGE, GREEN)), strict=False):
        chosen = profile.transfer_from(int(tp))
        assert chosen is not None  # noqa: S101 - its rows are there
        curve, _ = chosen
        name = f"from TP{tp:.0f}"
        grid = np.unique(np.append(np.linspace(curve.tokens[0], curve.tokens[-1], 200), curve.tokens))
        figure.add_scatter(
            x=grid, y=curve.transfer_ms(grid), mode="lines", name=name, line={"color": colour, "width": 2.4}
        )
        found = _handed(profile, int(tp))
        figure.add_scatter(
            x=found.at[:, 0], y=found.median, mode="markers", name=f"measured {name}",
            error_y=_spread(found, colour), customdata=found.repeats,
            marker={"color": "#fff", "size": 8, "line": {"color": colour, "width": 2}},
            hovertemplate="%{x:,.0f} tokens<br>%{y:.2f} ms, %{customdata} repeats<extra>measured</extra>",
        )  # fmt: skip
    return _finish(figure)


def _handed(profile: Profile, tp: int) -> Points:
    """Points of the hand-off from workers of one TP."""
    rows = profile.samples["transfer"]
    mine = profile.handed_from(rows) == tp
    return points({column: values[mine] for column, values in rows.items()}, ("tokens",), "transfer_ms")


def _against(figure: go.Figure, name: str, x: Array, found: Points, colour: str, symbol: str, text: str) -> None:
    figure.add_scatter(
        x=x, y=found.median, mode="markers", name=name, error_y=_spread(found, colour), customdata=found.at,
        marker={"color": colour, "size": 8, "symbol": symbol, "opacity": 0.85},
        hovertemplate=f"{text}<br>predicted %{{x:.1f}} ms, measured %{{y:.1f}} ms",
    )  # fmt: skip


def _diagonal(figure: go.Figure, predicted: Array, found: Points) -> go.Figure:
    """Where both are equal, and 10 % around it."""
    top = 1.05 * float(max(predicted.max(), found.high.max()))
    line = np.array([0.0, top])
    figure.add_scatter(
        x=np.concatenate([line, line[::-1]]), y=np.concatenate([1.1 * line, 0.9 * line[::-1]]), fill="toself",
        mode="lines",
        fillcolor="rgba(102,113,125,0.12)", line={"width": 0}, name="within 10 %", hoverinfo="skip",
    )  # fmt: skip
    figure.add_scatter(
        x=line, y=line, mode="lines", line={"color": GREY, "width": 1.2, "dash": "dot"}, name="equal", hoverinfo="skip"
    )
    return figure


def _errors(predicted: Array, found: Points) -> Array:
    return np.asarray(predicted / found.median - 1.0)
