"""Arithmetic of streams that run side by side: what one iteration takes, from when tokens came.

A busy server merges tokens into one chunk, so the gap between two chunks is no iteration. What is exact are pairs of
(time, tokens so far): between two of them the engine made as many iterations as tokens.
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

#: When how many tokens of one stream had come, increasing.
Timeline = Sequence[tuple[float, int]]


@dataclass(frozen=True, slots=True)
class Window:
    """A span in which all streams ran.

    Attributes:
        start_s: when the last of them had its first token.
        end_s: when the first of them had its last token.
    """

    start_s: float
    end_s: float


def common(spans: Sequence[tuple[float, float]]) -> Window | None:
    """The span in which all streams ran, from their first and last tokens; None if there is none."""
    if not spans:
        return None
    start, end = max(first for first, _ in spans), min(last for _, last in spans)
    return Window(start, end) if end > start else None


def steps_in(timelines: Sequence[Timeline], window: Window) -> int:
    """Fewest iterations that any stream shows between two chunks inside the window."""
    return min(_inside(timeline, window)[1] for timeline in timelines)


def step_ms(timelines: Sequence[Timeline], window: Window) -> float | None:
    """Milliseconds of one iteration inside the window; None where no stream shows one.

    Time over tokens of all streams together: each weighs by what it shows.
    """
    shown = [_inside(timeline, window) for timeline in timelines]
    tokens = sum(steps for _, steps in shown)
    return 1e3 * sum(span for span, _ in shown) / tokens if tokens else None


def mixed_ms(timelines: Sequence[Timeline], window: Window, quiet_ms: float, mixed_steps: int) -> float | None:
    """Milliseconds of one of the iterations in the window that held prefill, too.

    Of the n iterations that a stream shows, `mixed_steps` held prefill and the others took `quiet_ms`; the rest of the
    time is theirs. The median over the streams.

    Args:
        timelines: of the decoding streams.
        window: from before the first prompt was sent until after the last was answered.
        quiet_ms: an iteration without prefill.
        mixed_steps: iterations that held prefill.
    """
    values = []
    for timeline in timelines:
        times = [time for time, _ in timeline]
        first, last = bisect_right(times, window.start_s) - 1, bisect_left(times, window.end_s)
        if first < 0 or last >= len(timeline):
            continue
        steps = timeline[last][1] - timeline[first][1]
        if steps < mixed_steps:
            continue
        left = 1e3 * (times[last] - times[first]) - (steps - mixed_steps) * quiet_ms
        values.append(left / mixed_steps)
    return float(np.median(values)) if values else None


def _inside(timeline: Timeline, window: Window) -> tuple[float, int]:
    """Seconds and iterations between the first and the last chunk inside the window."""
    times = [time for time, _ in timeline]
    first, last = bisect_left(times, window.start_s), bisect_right(times, window.end_s) - 1
    if last <= first:
        return 0.0, 0
    return times[last] - times[first], timeline[last][1] - timeline[first][1]
