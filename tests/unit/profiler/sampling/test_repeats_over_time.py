"""Lone prompts are taken again over the whole run: apart in time, a few times, and only where they are short."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from itertools import pairwise

import numpy as np
import pytest

from profiler.measure.base import Point, Sample
from profiler.sampling import Choice, Reason, Sampling, Target
from tests.unit.profiler.sampling.truth import domain, sample

#: Seconds of other measuring between two samples of a lone prompt; most passes; the longest that is taken again.
APART_S, PASSES, CHEAP_S = 6.0, 5, 1.0


def _is_lone(point: Point) -> bool:
    return point.table == "prefill" and point.at[1:] == (1.0, 0.0)


def _run(
    sampling: Sampling, wall_s: Callable[[Point], float], begun: list[Sample] | None = None, noise: float = 0.01
) -> tuple[list[Sample], list[Choice]]:
    """Like `truth.run`, with times of the caller's; a sample's noise is that of its place, so that runs can be cut."""
    samples, choices = list(begun or []), []
    while (choice := sampling.choose(samples)) is not None:
        assert len(samples) < 2000, "does not end"
        choices.append(choice)
        factor = math.exp(np.random.default_rng(len(samples)).normal(0, noise))
        samples.append(replace(sample(choice.point, factor), wall_s=wall_s(choice.point)))
    return samples, choices


def _half_a_second(_: Point) -> float:
    return 0.5


def test_repeats_of_a_lone_prompt_are_apart() -> None:
    samples, choices = _run(Sampling(domain(), Target()), _half_a_second)
    start = next(i for i, c in enumerate(choices) if _is_lone(c.point) and c.why is Reason.REPEAT)
    grid = sorted({s.point for s in samples[:start] if _is_lone(s.point)}, key=lambda point: point.at)
    assert len(grid) > 5
    apart = []
    for point in grid:
        places = [i for i, s in enumerate(samples) if s.point == point]
        apart += [sum(s.wall_s for s in samples[a + 1 : b]) for a, b in pairwise(places)]
    assert min(apart) >= APART_S
    # A pass takes all of them, from the shortest on, before anything else is measured.
    assert [c.point for c in choices[start : start + len(grid)]] == grid


def test_a_lone_prompt_that_was_just_measured_waits_for_what_else_is_left() -> None:
    samples, choices = _run(Sampling(domain(), Target()), _half_a_second)
    added = [i for i, c in enumerate(choices) if c.why is Reason.ERROR]
    first = next(i for i in added if _is_lone(choices[i].point))
    # Decode points that were added before it are to be added still.
    begun = [*samples[: added[0]], samples[first]]
    assert choices[added[0]].point.table == "decode"
    assert Sampling(domain(), Target()).next(begun) == choices[added[0]].point
    # With nothing else to do its repeat comes at once.
    assert Sampling(domain(), Target()).next(samples[: first + 1]) == samples[first].point


def test_a_lone_prompt_is_taken_again_a_few_times_only() -> None:
    # So long a run, and so little noise, that time alone decides.
    tables = domain(tables=("prefill", "decode", "mixed"))
    samples, _ = _run(Sampling(tables, Target(max_error=0.5)), lambda p: 0.5 if _is_lone(p) else 3.0, noise=0.0)
    counts = Counter(s.point for s in samples)
    assert {counts[point] for point in counts if _is_lone(point)} == {PASSES}
    fewer, _ = _run(Sampling(tables, Target(max_error=0.5, max_repeats=3)), lambda p: 0.5 if _is_lone(p) else 3.0)
    counts = Counter(s.point for s in fewer)
    assert {counts[point] for point in counts if _is_lone(point)} == {3}


def test_long_prompts_are_not_taken_again_for_that() -> None:
    long = 4000.0

    def wall_s(point: Point) -> float:
        return CHEAP_S + 0.1 if _is_lone(point) and point.at[0] > long else 0.9

    samples, _ = _run(Sampling(domain(), Target(max_error=0.5)), wall_s, noise=0.0)
    counts = Counter(s.point for s in samples if _is_lone(s.point))
    assert {counts[point] for point in counts if point.at[0] > long} == {2}
    assert min(counts[point] for point in counts if point.at[0] <= long) > 2


def test_a_prompt_that_failed_is_left_alone() -> None:
    sampling = Sampling(domain(), Target())
    samples, choices = _run(sampling, _half_a_second)
    start = next(i for i, c in enumerate(choices) if _is_lone(c.point) and c.why is Reason.REPEAT)
    due = choices[start].point
    other = sampling.choose(samples[:start], {due: 1})
    assert other is not None
    assert _is_lone(other.point)
    assert other.point != due


def test_a_table_that_is_not_asked_for_gets_no_repeats() -> None:
    begun, _ = _run(Sampling(domain(tables=("prefill", "decode")), Target(seconds=20.0)), _half_a_second)
    assert any(_is_lone(s.point) for s in begun)
    _, choices = _run(Sampling(domain(tables=("decode",)), Target()), _half_a_second, begun)
    assert {c.point.table for c in choices} == {"decode"}


@pytest.mark.parametrize("share", [0.35, 0.5, 0.8])
def test_a_run_that_was_killed_goes_on_where_it_was(share: float) -> None:
    samples, choices = _run(Sampling(domain(), Target()), _half_a_second)
    cut = int(share * len(samples))
    again, rest = _run(Sampling(domain(), Target()), _half_a_second, samples[:cut])
    assert rest == choices[cut:]
    assert again == samples
