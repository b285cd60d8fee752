from __future__ import annotations

import tracemalloc
from pathlib import Path

import numpy as np
import pytest

from planner.whatif.traces import Trace, collect, open_trace, scaled, summarize, write_csv
from profiler.errors import InputError


def peak_mib(trace: Trace) -> float:
    tracemalloc.start()
    try:
        summarize(trace)
        return tracemalloc.get_traced_memory()[1] / 2**20
    finally:
        tracemalloc.stop()


def workload(requests: int) -> Trace:
    return open_trace(f"generate:conversation,daily_amplitude=0,rps=500,duration_s={requests // 500}")


def test_memory_is_flat_in_the_length_of_a_generated_trace() -> None:
    small, large = (peak_mib(workload(n)) for n in (200_000, 2_000_000))
    assert large < 1.2 * small + 1


def test_memory_is_flat_in_the_length_of_a_scaled_trace() -> None:
    small, large = (peak_mib(scaled(workload(n), rate_scale=10, seed=1)) for n in (50_000, 200_000))
    assert large < 1.4 * small + 1


def test_memory_is_flat_in_the_length_of_a_file(tmp_path: Path) -> None:
    peaks = []
    for requests in (200_000, 800_000):
        path = tmp_path / f"{requests}.csv"
        write_csv(workload(requests), path)
        peaks.append(peak_mib(open_trace(path)))
    assert peaks[1] < 1.2 * peaks[0] + 1


def test_written_traces_read_back_bit_for_bit(tmp_path: Path) -> None:
    trace = open_trace("generate:code,prefix_hit_share=0.5,duration_s=900")
    path = tmp_path / "out.csv"
    original = collect(trace)
    assert write_csv(trace, path) == len(original)
    back = collect(open_trace(path))
    assert np.array_equal(back.arrival_s, original.arrival_s - original.arrival_s[0])
    assert np.array_equal(back.isl, original.isl)
    assert np.array_equal(back.osl, original.osl)
    assert np.array_equal(back.prefix_hit_tokens, original.prefix_hit_tokens)
    assert list(tmp_path.iterdir()) == [path]


def test_a_failed_write_leaves_no_file(tmp_path: Path) -> None:
    bad = tmp_path / "bad.csv"
    bad.write_text("arrival_s,isl,osl\n0,1,1\n1,0,1\n")
    with pytest.raises(InputError):
        write_csv(open_trace(bad), tmp_path / "out.csv")
    with pytest.raises(InputError, match="cannot be written"):
        write_csv(open_trace("generate:code,duration_s=60"), tmp_path / "nowhere" / "out.csv")
    assert list(tmp_path.iterdir()) == [bad]


def test_summary_agrees_with_the_whole_trace() -> None:
    trace = workload(150_000)
    chunk, summary = collect(trace), summarize(trace)
    assert summary.requests == len(chunk)
    assert summary.span_s == chunk.arrival_s[-1] - chunk.arrival_s[0]
    assert summary.isl.mean == pytest.approx(chunk.isl.mean())
    for share in (50, 95, 99):
        exact = np.percentile(chunk.osl, share, method="inverted_cdf")
        assert getattr(summary.osl, f"p{share}") == exact
    per_second = np.bincount(chunk.arrival_s.astype(int))
    assert summary.dispersion_per_second == pytest.approx(per_second.var() / per_second.mean())
    per_minute = np.bincount((chunk.arrival_s // 60).astype(int))
    assert summary.minute_peak_to_mean == pytest.approx(per_minute.max() / (60 * summary.rps_mean))


def test_summary_of_almost_nothing() -> None:
    empty = scaled(open_trace("generate:code,rps=1e-9,duration_s=10"), rate_scale=3, seed=0)
    summary = summarize(empty)
    assert (summary.requests, summary.rps_mean, summary.isl.p50) == (0, 0, 0)
