from __future__ import annotations

import numpy as np
import pytest
from pydantic import ValidationError

from planner.whatif.traces import GeneratedTrace, GeneratorSpec, collect, open_trace, summarize
from planner.whatif.traces.presets import PRESETS
from planner.whatif.traces.spec import LengthMode, LengthSpec
from profiler.errors import InputError


def counts(trace: GeneratedTrace, width_s: float) -> np.ndarray:
    bins = round(trace.spec.duration_s / width_s)
    return np.bincount((collect(trace).arrival_s / width_s).astype(int), minlength=bins)


@pytest.mark.parametrize("preset", PRESETS)
def test_presets_are_valid_and_repeat(preset: str) -> None:
    trace = open_trace(f"generate:{preset},duration_s=900")
    first, again = collect(trace), collect(trace)
    assert len(first) > 100
    assert np.array_equal(first.arrival_s, again.arrival_s)
    assert np.array_equal(first.osl, again.osl)
    assert np.all(np.diff(first.arrival_s) >= 0)
    assert first.arrival_s[0] >= 0
    assert first.arrival_s[-1] < 900
    assert not np.array_equal(first.isl, collect(open_trace(f"generate:{preset},duration_s=900,seed=1")).isl)


def test_plain_poisson() -> None:
    summary = summarize(GeneratedTrace(GeneratorSpec(rps=10, duration_s=20_000)))
    assert summary.rps_mean == pytest.approx(10, rel=0.02)
    assert summary.dispersion_per_second == pytest.approx(1, abs=0.05)


@pytest.mark.parametrize("memory_s", [1, 5, 60])
def test_dispersion_is_what_was_asked_for(memory_s: float) -> None:
    spec = GeneratorSpec(rps=20, duration_s=100_000, dispersion=4, dispersion_memory_s=memory_s)
    summary = summarize(GeneratedTrace(spec))
    assert summary.rps_mean == pytest.approx(20, rel=0.05)
    assert summary.dispersion_per_second == pytest.approx(4, rel=0.1)


def test_idle_time_leaves_the_mean_rate() -> None:
    trace = GeneratedTrace(GeneratorSpec(rps=20, duration_s=100_000, idle_share=0.4, idle_duration_s=30))
    assert (counts(trace, 1) == 0).mean() == pytest.approx(0.4, abs=0.04)
    assert summarize(trace).rps_mean == pytest.approx(20, rel=0.07)


def test_step_flash_trend_and_day() -> None:
    step = counts(GeneratedTrace(GeneratorSpec(rps=50, duration_s=1200, step_at_s=600, step_factor=3)), 600)
    assert step[1] / step[0] == pytest.approx(3, rel=0.05)
    flash = counts(GeneratedTrace(GeneratorSpec(rps=50, duration_s=1200, flash_at_s=600, flash_factor=8)), 60)
    assert flash[:10].max() < 70 * 60
    assert flash[10:12].max() > 6 * 50 * 60
    trend = counts(GeneratedTrace(GeneratorSpec(rps=50, duration_s=3600, trend_per_hour=1)), 60)
    assert trend[-5:].mean() / trend[:5].mean() == pytest.approx(2, rel=0.1)
    day = GeneratorSpec(rps=50, duration_s=2000, daily_amplitude=0.5, daily_period_s=1000, daily_peak_s=250)
    profile = counts(GeneratedTrace(day), 100)
    assert profile[2] / profile[7] == pytest.approx(3, rel=0.15)
    assert profile[12] == pytest.approx(profile[2], rel=0.1)


def test_bursts_raise_the_peak() -> None:
    calm = GeneratorSpec(rps=50, duration_s=7200)
    burst = calm.model_copy(update={"bursts_per_hour": 20.0, "burst_factor": 5.0})
    assert counts(GeneratedTrace(burst), 1).max() > 2.5 * counts(GeneratedTrace(calm), 1).max()


def test_lengths_follow_the_spec() -> None:
    lengths = LengthSpec(
        modes=(
            LengthMode(weight=3, median_tokens=100, sigma=0.1),
            LengthMode(weight=1, median_tokens=900, sigma=0.1),
        ),
        tail_share=0.1,
        tail_start_tokens=2000,
        tail_alpha=1.5,
        max_tokens=50_000,
    )
    isl = collect(GeneratedTrace(GeneratorSpec(rps=100, duration_s=1000, isl=lengths))).isl
    assert (isl < 300).mean() == pytest.approx(0.675, abs=0.01)
    assert ((isl > 500) & (isl < 1500)).mean() == pytest.approx(0.225, abs=0.01)
    assert (isl >= 2000).mean() == pytest.approx(0.1, abs=0.005)
    assert (isl >= 8000).mean() == pytest.approx(0.1 / 8, abs=0.002)
    assert isl.max() <= 50_000


def test_correlation_of_lengths() -> None:
    got = collect(GeneratedTrace(GeneratorSpec(rps=100, duration_s=500, length_correlation=0.7)))
    assert np.corrcoef(np.log(got.isl), np.log(got.osl))[0, 1] == pytest.approx(0.7, abs=0.03)


@pytest.mark.parametrize("share", [0.1, 0.5, 0.95])
def test_prefix_hits(share: float) -> None:
    trace = GeneratedTrace(GeneratorSpec(rps=100, duration_s=500, prefix_hit_share=share, prefix_block_tokens=1))
    got = collect(trace)
    assert summarize(trace).mean_hit_share == pytest.approx(share, abs=0.02)
    assert np.all((got.prefix_hit_tokens >= 0) & (got.prefix_hit_tokens < got.isl))


def test_hits_come_in_blocks_and_can_be_off() -> None:
    text = "generate:conversation,prefix_hit_share=0.5,prefix_block_tokens=64"
    assert np.all(collect(open_trace(text)).prefix_hit_tokens % 64 == 0)
    assert not collect(open_trace(text, prefix_cache_tokens=0)).prefix_hit_tokens.any()


def test_overrides_apply() -> None:
    trace = open_trace("generate:conversation,rps=20,duration_s=1800,seed=7")
    assert isinstance(trace, GeneratedTrace)
    assert (trace.spec.rps, trace.spec.duration_s, trace.spec.seed) == (20, 1800, 7)


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("generate:", "no workload ''"),
        ("generate:conversion", "did you mean conversation?"),
        ("generate:code,rsp=3", "did you mean rps?"),
        ("generate:code,rps", "is not a setting"),
        ("generate:code,rps=1,rps=2", "set twice"),
        ("generate:code,rps=0", "found '0'"),
        ("generate:code,rps=nan", "found"),
        ("generate:code,rps=many", "found 'many'"),
        ("generate:code,seed=1.5", "found '1.5'"),
        ("generate:code,isl=5", "no setting 'isl'"),
        ("generate:code,name=x", "no setting 'name'"),
        ("generate:step,rps=100000,burst_factor=1000,bursts_per_hour=1", "do not go together"),
        ("generate:code,duration_s=1e99", "found '1e99'"),
    ],
)
def test_bad_workloads(text: str, says: str) -> None:
    with pytest.raises(InputError) as caught:
        open_trace(text)
    assert says in str(caught.value)
    assert caught.value.expected


def test_the_spec_is_frozen_and_closed() -> None:
    with pytest.raises(ValidationError):
        GeneratorSpec(rsp=3)  # type: ignore[call-arg]
    with pytest.raises(ValidationError):
        LengthSpec(modes=(LengthMode(weight=1, median_tokens=5, sigma=1),), min_tokens=10, max_tokens=5)


def test_extreme_specs_hold_up() -> None:
    busy = GeneratorSpec(rps=100_000, duration_s=3.05, dispersion=1000, length_correlation=-1)
    assert len(collect(GeneratedTrace(busy))) > 0
    heavy = LengthSpec(
        modes=(LengthMode(weight=1, median_tokens=1e7, sigma=4),),
        tail_share=0.5,
        tail_start_tokens=1e7,
        tail_alpha=0.11,
        max_tokens=10_000_000,
    )
    assert collect(GeneratedTrace(GeneratorSpec(isl=heavy, duration_s=100))).isl.max() == 10_000_000
    # A long quiet trace is walked through, not stored.
    assert len(collect(GeneratedTrace(GeneratorSpec(rps=1e-5, duration_s=100_000)))) < 20


def test_a_step_that_ends_a_weekend_and_nights() -> None:
    pulse = GeneratorSpec(rps=50, duration_s=900, step_at_s=300, step_duration_s=300, step_factor=0.2)
    before, within, after = counts(GeneratedTrace(pulse), 300)
    assert within / before == pytest.approx(0.2, rel=0.1)
    assert after / before == pytest.approx(1, rel=0.05)
    week = counts(GeneratedTrace(GeneratorSpec(rps=20, duration_s=1600, daily_period_s=200, weekend_factor=0.25)), 200)
    # No weekend comes before the first day; the eighth follows one.
    assert week[:5] / week[:5].mean() == pytest.approx(np.ones(5), rel=0.06)
    assert week[5:7].mean() / week[:5].mean() == pytest.approx(0.25, rel=0.12)
    assert week[7] / week[:5].mean() == pytest.approx(1, rel=0.08)
    hours = counts(GeneratedTrace(GeneratorSpec(rps=99, duration_s=1600, daily_period_s=200, weekend_factor=0.25)), 4)
    assert hours[0] / hours[5:200].mean() == pytest.approx(1, rel=0.2)
    assert hours[350] / hours[5:200].mean() < 0.7
    night = GeneratorSpec(rps=20, duration_s=1000, daily_period_s=500, daily_peak_s=250, night_share=0.4)
    busy = counts(GeneratedTrace(night), 10) > 0
    # The trough is at 0, 500 and 1000: a fifth of the period is dark on either side of each.
    dark = [*range(10), *range(40, 60), *range(90, 100)]
    assert not busy[dark].any()
    assert np.delete(busy, dark).all()


def test_lengths_drift_with_time_within_their_bounds() -> None:
    mode = LengthSpec(modes=(LengthMode(weight=1, median_tokens=1000, sigma=0),), max_tokens=2500)
    spec = GeneratorSpec(rps=5, duration_s=7200, isl=mode, osl=mode, isl_growth_per_hour=1, osl_growth_per_hour=-0.25)
    chunk = collect(GeneratedTrace(spec))
    hour = int(np.searchsorted(chunk.arrival_s, 3600))
    assert chunk.isl[0] == pytest.approx(1000, abs=2)
    assert chunk.isl[hour] == pytest.approx(2000, abs=2)
    assert chunk.isl[-1] == 2500
    assert chunk.osl[hour] == pytest.approx(750, abs=2)
    assert chunk.osl[-1] == pytest.approx(500, abs=2)


def test_the_substitute_of_the_long_conversation_trace_is_like_it() -> None:
    # Requests, mean and 95th percentile of input, mean output and mean hit share of the public trace.
    summary = summarize(open_trace("generate:long-conversation,duration_s=3537"))
    assert summary.requests == pytest.approx(12_031, rel=0.08)
    assert summary.isl.mean == pytest.approx(12_035, rel=0.08)
    assert summary.isl.p95 == pytest.approx(39_552, rel=0.1)
    assert summary.osl.mean == pytest.approx(343, rel=0.08)
    assert summary.mean_hit_share == pytest.approx(0.409, abs=0.03)
