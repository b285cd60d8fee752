"""The profile in this repository: what it holds, and how well it interpolates."""

from pathlib import Path

import numpy as np
import pytest
from scipy.interpolate import PchipInterpolator

from profiler.interpolate import Where
from profiler.tables import Profile, find_profiles, load_profile

ROOT = Path(__file__).parents[3] / "profiling_results"
H200 = ROOT / "llama-3.1-8b-instruct-fp8" / "h200-sxm" / "vllm-unknown"


@pytest.fixture(scope="module")
def prefill() -> Profile:
    return load_profile(H200 / "prefill-tp1-dp1")


@pytest.fixture(scope="module")
def decode() -> Profile:
    return load_profile(H200 / "decode-tp1-dp1")


def test_every_profile_loads_and_stores_its_own_error() -> None:
    found = find_profiles(ROOT)
    assert len(found) >= 2
    for path in found:
        profile = load_profile(path)
        measured = profile.leave_one_out()
        assert profile.meta.errors.keys() == measured.keys()
        for name, error in measured.items():
            assert profile.meta.errors[name].mean == pytest.approx(error.mean, rel=1e-6)


def test_straight_lines_beat_a_monotone_cubic_on_prefill(prefill: Profile) -> None:
    curve = prefill.prefill
    assert curve is not None
    summary = curve.leave_one_out.summary
    assert summary is not None
    assert (round(summary.mean, 3), round(summary.worst, 3), summary.points) == (0.035, 0.097, 15)
    x, y = curve.tokens, curve.medians_ms
    cubic = [
        abs(float(PchipInterpolator(np.delete(x, i), np.delete(y, i))(x[i])) / y[i] - 1) for i in range(1, len(x) - 1)
    ]
    assert float(np.mean(cubic)) > summary.mean


def test_decode_is_close_and_outside_too(decode: Profile) -> None:
    surface = decode.decode
    assert surface is not None
    left = surface.leave_one_out
    summary = left.summary
    assert summary is not None
    assert summary.points == 26
    assert summary.mean < 0.05
    assert summary.worst < 0.16
    assert left.relative[~left.interior].mean() < 0.03


def test_saturated_rows_are_marked(decode: Profile) -> None:
    rows = decode.samples["decode"]
    assert rows["batch"][rows["suspect"] == 1].tolist() == [1049, 1311, 1573]
    assert decode.meta.kv_capacity_tokens == 945_029


def test_points_that_agree_are_exact_and_the_others_close(decode: Profile) -> None:
    surface = decode.decode
    assert surface is not None
    read = surface.itl_ms(*surface.points.T)
    kept = surface.knots_ms == surface.medians_ms
    assert (read[kept] == surface.medians_ms[kept]).all()
    assert kept.sum() == 32
    assert np.abs(read / surface.medians_ms - 1).max() < 0.06


def test_capacity_is_what_16_bit_keys_and_values_give(decode: Profile) -> None:
    roofline = decode.roofline
    assert roofline is not None
    assert 945_029 / roofline.kv_capacity_that_fits() == pytest.approx(0.97, abs=0.005)


def test_places(decode: Profile) -> None:
    surface = decode.decode
    assert surface is not None
    assert surface.at(100, 300_000).where is Where.EDGE or surface.at(100, 300_000).where is Where.INSIDE
    assert surface.at(50, 400_000).where is Where.INSIDE
    assert surface.at(1000, 300_000).where is Where.OUTSIDE
