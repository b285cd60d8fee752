import pytest

from profiler.load import Outcome, Result, summarize


def result(outcome: Outcome = Outcome.COMPLETED, ttft_ms: float | None = 100.0, itl_ms: float | None = 10.0) -> Result:
    return Result(0.0, 8, 4, outcome, ttft_ms=ttft_ms, itl_ms=itl_ms, counted_tokens=4, late_ms=1.0)


def test_attainment_is_of_what_was_offered() -> None:
    results = [
        result(),
        result(ttft_ms=100.1),
        result(itl_ms=10.1),
        result(itl_ms=None),
        result(Outcome.CUT),
        result(Outcome.EMPTY, ttft_ms=None, itl_ms=None),
        result(Outcome.CUT),
        result(),
    ]
    summary = summarize(results, 100.0, 10.0)
    assert (summary.offered, summary.completed, summary.attained) == (8, 5, 3)
    assert summary.attainment == pytest.approx(3 / 8)
    assert summary.lost == {"cut": 2, "empty": 1}
    assert summary.counted_tokens == 32
    assert summary.ttft_ms["p50"] == 100.0
    assert summary.late_ms == {"p50": 1.0, "p99": 1.0, "max": 1.0}


def test_nothing_offered() -> None:
    summary = summarize([], 100.0, 10.0)
    assert (summary.offered, summary.attainment, summary.ttft_ms, summary.late_ms) == (0, 0.0, {}, {})
