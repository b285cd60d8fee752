"""Iteration times from streams whose truth is known, with tokens merged into chunks as busy servers do."""

from __future__ import annotations

import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from profiler.measure import steady
from profiler.measure.steady import Window


def stream(times: list[float], merge: list[int]) -> list[tuple[float, int]]:
    """A timeline of tokens that came at these times, so many of them merged into each chunk."""
    timeline, at = [], 0
    for size in merge:
        at = min(len(times), at + size)
        timeline.append((times[at - 1], at))
        if at == len(times):
            break
    return timeline


def spans(timelines: list[list[tuple[float, int]]]) -> list[tuple[float, float]]:
    return [(timeline[0][0], timeline[-1][0]) for timeline in timelines]


def batch(steps_s: list[float], streams: int, rng: random.Random, largest: int = 3) -> list[list[tuple[float, int]]]:
    """Streams of one engine: all have a token after each of its iterations; each starts an iteration after the last."""
    ends = [sum(steps_s[: k + 1]) for k in range(len(steps_s))]
    return [stream(ends[first:], [1, *(rng.randint(1, largest) for _ in range(len(ends)))]) for first in range(streams)]


@given(
    st.integers(1, 8), st.integers(24, 80), st.floats(1.0, 50.0), st.integers(1, 4), st.randoms(use_true_random=False)
)
def test_a_steady_step_comes_back_whatever_is_merged(
    streams: int, steps: int, step_ms: float, largest: int, rng: random.Random
) -> None:
    timelines = batch([step_ms / 1000.0] * steps, streams, rng, largest)
    window = steady.common(spans(timelines))
    assert window is not None
    assert steady.step_ms(timelines, window) == pytest.approx(step_ms, rel=1e-6)


@given(
    st.integers(1, 6), st.floats(2.0, 30.0), st.floats(1.5, 20.0), st.integers(1, 6), st.randoms(use_true_random=False)
)
def test_iterations_with_prefill_are_told_from_the_others(
    streams: int, quiet_ms: float, factor: float, prompts: int, rng: random.Random
) -> None:
    mixed_ms = factor * quiet_ms
    steps_ms = [quiet_ms] * 30
    for _ in range(prompts):
        steps_ms += [mixed_ms] + [quiet_ms] * rng.randint(2, 5)
    tail = [quiet_ms] * 6
    timelines = batch([step / 1000.0 for step in steps_ms + tail], streams, rng)
    start, end = sum(steps_ms[:29]) / 1000.0, sum(steps_ms) / 1000.0
    assert steady.mixed_ms(timelines, Window(start, end), quiet_ms, prompts) == pytest.approx(mixed_ms, rel=1e-6)


def test_streams_that_do_not_overlap_have_no_window() -> None:
    assert steady.common([(0.0, 1.0), (2.0, 3.0)]) is None
    assert steady.common([]) is None


def test_a_window_without_two_chunks_shows_no_step() -> None:
    timelines = [[(0.0, 1), (1.0, 5)], [(0.9, 1), (2.0, 9)]]
    window = steady.common(spans(timelines))
    assert window == Window(0.9, 1.0)
    assert steady.steps_in(timelines, window) == 0
    assert steady.step_ms(timelines, window) is None
