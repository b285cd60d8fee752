"""The sums of a replay: percentiles against NumPy's, shares of what was offered, and the timeline."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from planner.core.types import Sla
from planner.whatif.outcome import Histogram, Outcome, Tally
from planner.whatif.simulator.simulation import Finished

SLA = Sla(ttft_ms=100.0, itl_ms=10.0)


def finished(arrival_ms: list[float], ttft: list[float], itl: list[float]) -> Finished:
    ones = np.ones(len(arrival_ms), dtype=np.int64)
    return Finished(np.array(arrival_ms), ones * 100, ones * 10, ones * 0, np.array(ttft), np.array(itl))


def summed(tally: Tally, *, offered: int, failed: int = 0, span_s: float = 30.0) -> Outcome:
    return tally.outcome(
        policy="by hand",
        offered=offered,
        failed=failed,
        preempted=0,
        span_s=span_s,
        gpu_hours=1.5,
        peak_gpus=4,
        scale_ups=1,
        scale_downs=2,
        wall_s=0.5,
        ticks=(),
    )


@pytest.mark.parametrize("seed", [1, 2, 3])
@pytest.mark.parametrize("spread", [0.1, 1.0, 3.0])
def test_percentiles_are_numpys_within_half_a_percent(seed: int, spread: float) -> None:
    values = np.random.default_rng(seed).lognormal(4.0, spread, 50_000)
    histogram = Histogram()
    for part in np.array_split(values, 7):
        histogram.add(part)
    summary = histogram.summary()
    assert summary["mean"] == pytest.approx(values.mean(), rel=1e-12)
    for name, share in (("p50", 0.5), ("p90", 0.9), ("p99", 0.99)):
        assert summary[name] == pytest.approx(np.quantile(values, share), rel=0.005), name


@settings(deadline=None)
@given(st.lists(st.floats(0.02, 1e6), min_size=1, max_size=40))
def test_percentiles_of_few_values_are_values_that_occurred(values: list[float]) -> None:
    histogram = Histogram()
    histogram.add(np.array(values))
    summary = histogram.summary()
    for name, share in (("p50", 0.5), ("p90", 0.9), ("p99", 0.99)):
        exact = np.quantile(values, share, method="inverted_cdf")
        assert summary[name] == pytest.approx(exact, rel=0.0026), name


def test_an_empty_histogram_has_no_values() -> None:
    histogram = Histogram()
    histogram.add(np.empty(0))
    assert histogram.summary() == {"mean": None, "p50": None, "p90": None, "p99": None}


def test_values_beyond_the_bins_are_held_at_their_ends() -> None:
    histogram = Histogram()
    histogram.add(np.array([0.0, 1e12]))
    summary = histogram.summary()
    assert summary["p50"] == pytest.approx(0.01, rel=0.01)
    assert summary["p99"] is not None
    assert 1e6 < summary["p99"] < 1e12
    assert summary["mean"] == 5e11


def test_a_request_attains_when_both_latencies_do() -> None:
    tally = Tally(SLA)
    # Both at their limits; TTFT late; ITL late; both late; one token only, in time and late.
    tally.add(finished([0.0] * 6, [100.0, 100.1, 50.0, 101.0, 99.0, 101.0], [10.0, 9.0, 10.1, 11.0, np.nan, np.nan]))
    # Beside these six, one failed and three never ended: not attained, and counted.
    outcome = summed(tally, offered=10, failed=1)
    assert (outcome.completed, outcome.failed, outcome.unfinished) == (6, 1, 3)
    assert outcome.attained == 2
    assert outcome.attainment == pytest.approx(0.2)
    assert outcome.ttft_attainment == pytest.approx(0.3)
    assert outcome.itl_attainment == pytest.approx(0.4)
    assert outcome.itl_ms["mean"] == pytest.approx((10.0 + 9.0 + 10.1 + 11.0) / 4)
    assert outcome.as_json()["goodput_rps"] == pytest.approx(2 / 30)
    assert outcome.as_json()["simulated_requests_per_s"] == pytest.approx(20.0)


def test_nothing_offered() -> None:
    outcome = summed(Tally(SLA), offered=0, span_s=0.0)
    assert outcome.attainment == 0.0
    assert outcome.as_json()["goodput_rps"] == 0.0
    assert outcome.ttft_ms["p90"] is None
    assert np.isnan(outcome.timeline.ttft_p95_ms).all()


def test_the_timeline_goes_by_arrival() -> None:
    tally = Tally(SLA)
    tally.add(finished([25_000.0, 1_000.0], [50.0, 200.0], [5.0, 5.0]))
    tally.add(finished([9_999.0, 10_000.0], [50.0, 80.0], [np.nan, 20.0]))
    timeline = summed(tally, offered=4, span_s=39.0).timeline
    assert timeline.start_s.tolist() == [0.0, 10.0, 20.0, 30.0]
    assert timeline.completed.tolist() == [2, 1, 1, 0]
    assert timeline.attained.tolist() == [1, 0, 1, 0]
    # Bins of 3 %; none where nothing completed.
    assert timeline.ttft_p95_ms[:3] == pytest.approx([200.0, 80.0, 50.0], rel=0.03)
    assert timeline.itl_p95_ms[:3] == pytest.approx([5.0, 20.0, 5.0], rel=0.03)
    assert np.isnan(timeline.ttft_p95_ms[3])


def test_the_timelines_percentile_is_numpys_within_its_bins() -> None:
    tally = Tally(SLA)
    values = np.random.default_rng(4).lognormal(4.0, 0.8, 5000)
    for part in np.array_split(values, 5):
        tally.add(finished([12_000.0] * len(part), part.tolist(), (part / 10).tolist()))
    timeline = summed(tally, offered=5000).timeline
    assert timeline.ttft_p95_ms[1] == pytest.approx(np.quantile(values, 0.95), rel=0.03)
    assert timeline.itl_p95_ms[1] == pytest.approx(np.quantile(values, 0.95) / 10, rel=0.03)
