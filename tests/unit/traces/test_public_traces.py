from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest

from planner.whatif.traces import collect, open_trace, scaled, summarize

FOLDER = os.environ.get("PLIMSOLL_TRACES")
CONVERSATION = "azure2023/AzureLLMInferenceTrace_conv.csv"
CODE = "azure2023/AzureLLMInferenceTrace_code.csv"
MOONCAKE = "mooncake/conversation_trace.jsonl"

pytestmark = [
    pytest.mark.traces,
    pytest.mark.skipif(FOLDER is None, reason="PLIMSOLL_TRACES is not set: no public traces to read"),
]


def public(name: str) -> Path:
    assert FOLDER is not None
    return Path(FOLDER) / name


def minutes(arrival_s: np.ndarray) -> np.ndarray:
    return np.bincount((arrival_s // 60).astype(int), minlength=60)


@pytest.mark.parametrize(("name", "requests"), [(CONVERSATION, 19_366), (CODE, 8_819), (MOONCAKE, 12_031)])
def test_every_request_is_read(name: str, requests: int) -> None:
    chunk = collect(open_trace(public(name)))
    assert len(chunk) == requests
    assert chunk.arrival_s[0] == 0
    assert np.all(np.diff(chunk.arrival_s) >= 0)
    assert np.all((chunk.prefix_hit_tokens >= 0) & (chunk.prefix_hit_tokens < chunk.isl))


def test_summary_of_the_conversation_trace() -> None:
    summary = summarize(open_trace(public(CONVERSATION)))
    assert summary.span_s == pytest.approx(3501.72, abs=0.01)
    assert summary.isl.mean == pytest.approx(1154.70, abs=0.01)
    assert (summary.isl.p50, summary.isl.p95) == (1020, 4083)
    assert summary.osl.mean == pytest.approx(211.13, abs=0.01)
    assert (summary.osl.p50, summary.osl.p95) == (129, 451)
    assert summary.minute_peak_to_mean == pytest.approx(1.53, abs=0.01)
    assert summary.dispersion_per_second == pytest.approx(1.386, abs=0.001)


def test_prefix_hits_of_mooncake_grow_with_the_cache() -> None:
    shares = [
        summarize(open_trace(public(MOONCAKE), prefix_cache_tokens=size)).mean_hit_share
        for size in (0, 1_000_000, 10_000_000, None)
    ]
    assert shares[0] == 0
    assert shares == sorted(shares)
    assert shares[-1] == pytest.approx(0.409, abs=0.001)


def test_ten_times_the_conversation_trace() -> None:
    original = collect(open_trace(public(CONVERSATION)))
    tenfold = scaled(open_trace(public(CONVERSATION)), rate_scale=10, seed=3)
    got = collect(tenfold)
    assert len(got) == 193_660
    assert got.arrival_s[-1] - got.arrival_s[0] == pytest.approx(3501.7, abs=1)
    assert np.corrcoef(minutes(original.arrival_s), minutes(got.arrival_s))[0, 1] > 0.98
    assert got.isl.mean() == pytest.approx(original.isl.mean(), rel=0.02)
    # Copying every request ten times would give 13.9; requests drawn anew at ten times the rate about 4.9.
    assert summarize(tenfold).dispersion_per_second < 10


def test_coarse_timestamps_are_spread_over_their_gap() -> None:
    got = collect(scaled(open_trace(public(MOONCAKE)), rate_scale=10, seed=3))
    assert len(got) == 120_310
    tenths = np.bincount((got.arrival_s * 10 % 30).astype(int), minlength=30)
    assert tenths.min() > 0.8 * tenths.mean()


@pytest.mark.parametrize(("workload", "name"), [("conversation", CONVERSATION), ("code", CODE)])
def test_generated_workloads_resemble_the_real_ones(workload: str, name: str) -> None:
    real = summarize(open_trace(public(name)))
    runs = [summarize(open_trace(f"generate:{workload},seed={seed}")) for seed in range(8)]

    def mean(values: list[float]) -> float:
        return float(np.mean(values))

    assert mean([r.rps_mean for r in runs]) == pytest.approx(real.rps_mean, rel=0.15)
    assert mean([r.minute_peak_to_mean for r in runs]) == pytest.approx(real.minute_peak_to_mean, rel=0.25)
    assert mean([r.dispersion_per_second for r in runs]) == pytest.approx(real.dispersion_per_second, rel=0.25)
    assert mean([r.isl.mean for r in runs]) == pytest.approx(real.isl.mean, rel=0.05)
    assert mean([r.isl.p95 for r in runs]) == pytest.approx(real.isl.p95, rel=0.05)
    assert mean([r.osl.mean for r in runs]) == pytest.approx(real.osl.mean, rel=0.08)
    assert mean([r.osl.p95 for r in runs]) == pytest.approx(real.osl.p95, rel=0.1)
