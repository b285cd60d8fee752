"""Lines of the pictures against values worked out by hand."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest

from planner.core.state import Decision
from planner.core.types import Unknown
from planner.whatif.outcome import Outcome
from planner.whatif.report_series import MOST_POINTS, attainment, forecasts, frontier, latency, load, workers

Make = Callable[..., Outcome]


def test_load_is_per_second_at_the_middle_of_each_interval(outcome: Make) -> None:
    at, rate = load(outcome("planner").ticks, 600.0)
    assert at[:2].tolist() == [5.0, 15.0]
    assert len(at) == 60
    assert set(rate.tolist()) == {10.0}


def test_load_ends_with_the_trace(outcome: Make) -> None:
    last = replace(outcome("planner").ticks[0], at_s=10.0, arrivals=40)
    at, rate = load([last], 4.0)
    assert (at.tolist(), rate.tolist()) == ([2.0], [10.0])


def test_thinned_load_keeps_the_requests(outcome: Make) -> None:
    at, rate = load(outcome("planner", span_s=50_000.0).ticks, 50_000.0)
    assert len(at) <= MOST_POINTS
    assert rate.tolist() == pytest.approx([10.0] * len(rate))


def test_forecasts_stand_at_the_time_that_they_are_for(decision: Callable[..., Decision]) -> None:
    blind = replace(decision(20.0, 1, 1), forecast=Unknown("none"), demand=None)
    found = forecasts([decision(10.0, 1, 1), blind, decision(30.0, 1, 2)], 10.0)
    assert found is not None
    assert found.for_s.tolist() == [35.0, 55.0]
    assert found.median_rps.tolist() == [12.0, 12.0]
    assert found.high_rps.tolist() == [17.0, 17.0]
    assert found.sized_rps.tolist() == [30.0, 30.0]
    assert found.level == 0.9
    assert forecasts([blind], 10.0) is None


def test_workers_hold_every_step_and_nothing_twice(outcome: Make) -> None:
    line = workers(outcome("planner"))["prefill"]
    assert line.at_s.tolist() == [0.0, 50.0, 80.0, 600.0]
    assert line.ready.tolist() == [1, 1, 2, 2]
    assert line.starting.tolist() == [0, 1, 0, 0]
    assert line.plan.tolist() == [1, 2, 2, 2]


def test_thinned_workers_keep_peaks(outcome: Make) -> None:
    base = outcome("planner", span_s=50_000.0)
    ticks = tuple(
        replace(t, ready={"prefill": 99 if i == 2345 else i % 2, "decode": 1}) for i, t in enumerate(base.ticks)
    )
    line = workers(replace(base, ticks=ticks))["prefill"]
    assert len(line.at_s) <= MOST_POINTS
    assert line.ready.max() == 99


def test_workers_of_a_fixed_fleet_span_the_trace(outcome: Make) -> None:
    one = outcome("static:1p2d", span_s=30.0, interval_s=60.0)
    line = workers(one)["decode"]
    assert (line.at_s.tolist(), line.ready.tolist()) == ([0.0, 30.0], [2, 2])


def test_latency_of_merged_buckets_is_the_worst(outcome: Make) -> None:
    base = outcome("planner", span_s=50_000.0)
    ttft = base.timeline.ttft_p95_ms.copy()
    ttft[7], ttft[10:30] = 5000.0, np.nan
    line = latency(replace(base, timeline=replace(base.timeline, ttft_p95_ms=ttft)))
    assert line.width_s == 60.0
    assert len(line.at_s) <= MOST_POINTS
    assert line.ttft_ms[1] == 5000.0
    assert np.isnan(line.ttft_ms[2:5]).all()
    assert line.at_s[0] == 30.0


@pytest.mark.parametrize("interval_s", [10.0, 15.0, 60.0])
def test_attainment_counts_what_never_completed(outcome: Make, interval_s: float) -> None:
    base = outcome("planner", 0.8, interval_s=interval_s)
    half = replace(base.timeline, completed=base.timeline.completed // 2, attained=base.timeline.attained // 2)
    _, share, width = attainment(replace(base, timeline=half))
    assert width == 10.0
    assert share[:-1].tolist() == pytest.approx([0.4] * 60)


def test_attainment_without_requests_is_a_gap(outcome: Make) -> None:
    base = outcome("planner", completed=False)
    silent = replace(base, ticks=tuple(replace(t, arrivals=0) for t in base.ticks))
    assert np.isnan(attainment(silent)[1]).all()


def test_long_traces_are_shown_by_the_minute(outcome: Make) -> None:
    at, share, width = attainment(outcome("planner", 0.8, span_s=3600.0))
    assert width == 60.0
    assert at[0] == 30.0
    assert share[:-1].tolist() == pytest.approx([0.8] * 60)


def test_the_frontier_holds_what_nothing_beats(outcome: Make) -> None:
    a, b, c = outcome("a", 0.5, 1.0), outcome("b", 0.9, 2.0), outcome("c", 0.99, 4.0)
    beaten = [outcome("d", 0.4, 1.0), outcome("e", 0.9, 3.0), outcome("f", 0.7, 2.5)]
    assert frontier([c, *beaten, a, b]) == (a, b, c)
