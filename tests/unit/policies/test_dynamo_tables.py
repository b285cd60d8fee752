"""The classic interpolators: exact at table points, held at the ends, all rows used."""

from dataclasses import replace

import numpy as np
import pytest

from planner.whatif.policies.dynamo_tables import RESOLUTION, DecodeLookup, PrefillLookup
from profiler.errors import InputError


def test_prefill_is_exact_at_table_points_and_held_outside(prefill):
    lookup, rows = PrefillLookup(prefill), prefill.samples["prefill"]
    for isl, ttft, rate in zip(rows["isl"], rows["ttft_ms"], rows["throughput_tokens_per_s_per_gpu"], strict=True):
        assert lookup.ttft_ms(isl) == pytest.approx(ttft)
        assert lookup.throughput(isl) == pytest.approx(rate)
    assert lookup.ttft_ms(1.0) == pytest.approx(20.0)
    assert lookup.ttft_ms(1e6) == pytest.approx(200.0)
    assert lookup.throughput(1e6) == pytest.approx(20_000.0)


def test_prefill_between_points_is_the_cubic(prefill):
    # the not-a-knot cubic through five points, here by Newton's divided differences of the first and last four
    from scipy.interpolate import CubicSpline  # noqa: PLC0415

    rows = prefill.samples["prefill"]
    expected = CubicSpline(rows["isl"], rows["ttft_ms"], bc_type="not-a-knot")(550.0)
    assert PrefillLookup(prefill).ttft_ms(550.0) == pytest.approx(float(expected))


def test_repeats_are_averaged_and_a_missing_throughput_is_computed(prefill):
    isl = np.array([100.0, 100.0, 1000.0, 2000.0, 3000.0])
    rows = {"isl": isl, "ttft_ms": np.array([18.0, 22.0, 50.0, 100.0, 150.0]), "repeat": np.array([0.0, 1, 0, 0, 0])}
    lookup = PrefillLookup(replace(prefill, samples={"prefill": rows}))
    assert lookup.ttft_ms(100.0) == pytest.approx(20.0)
    assert lookup.throughput(2000.0) == pytest.approx(20_000.0)


def test_three_prompt_lengths_are_too_few(prefill):
    rows = {name: column[:3] for name, column in prefill.samples["prefill"].items()}
    with pytest.raises(InputError, match="at least 4"):
        PrefillLookup(replace(prefill, samples={"prefill": rows}))


def test_decode_is_exact_at_its_cells(decode):
    lookup = DecodeLookup(decode)
    assert lookup.itl_grid.shape == (RESOLUTION, RESOLUTION)
    for column in (0, 9, 50, 99):
        # 2,000 tokens lie in a row of their own, inside the samples
        usage = lookup.kv_axis[column]
        assert lookup.itl_ms(usage * 100_000 / 2000.0, 2000.0) == pytest.approx(5.0 + 10.0 * usage, abs=1e-3)


def test_decode_is_held_outside(decode):
    lookup = DecodeLookup(decode)
    assert lookup.itl_ms(1e6, 4000.0) == pytest.approx(15.0)
    assert lookup.itl_ms(0.0, 1e9) == pytest.approx(5.0, abs=1e-3)


def test_best_scans_from_the_full_cache_downward(decode):
    lookup = DecodeLookup(decode)
    cell = lookup.best(10.0, 2000.0)
    assert cell.kv_usage == pytest.approx(49 / 99)
    assert cell.itl_ms <= 10.0
    assert cell.throughput == pytest.approx(1000.0 + 4000.0 * 49 / 99, rel=1e-3)
    # a dip of the interpolated ITL beyond the limit is taken, as the peer takes it
    lookup.itl_grid[lookup._row(2000.0), 90] = 9.0
    assert lookup.best(10.0, 2000.0).kv_usage == pytest.approx(90 / 99)


def test_an_itl_that_cannot_be_met_gives_the_emptiest_cell(decode):
    cell = DecodeLookup(decode).best(1.0, 2000.0)
    assert cell.kv_usage == 0.0
    assert cell.throughput == pytest.approx(1000.0, rel=1e-3)


def test_cells_outside_the_samples_are_the_nearest_sample(decode):
    rows = decode.samples["decode"]
    kept = rows["kv_usage"] < 0.6
    lookup = DecodeLookup(replace(decode, samples={"decode": {name: column[kept] for name, column in rows.items()}}))
    assert not np.isnan(lookup.itl_grid).any()
    assert lookup.best(100.0, 2000.0).itl_ms == pytest.approx(5.0 + 10.0 * 6 / 11)


def test_suspect_rows_count(decode):
    # those above 0.9 are; without them the row would end at the nearest good one, 5 + 10 * 9/11 ms
    assert DecodeLookup(decode).itl_ms(50.0, 2000.0) == pytest.approx(15.0)
    assert DecodeLookup(decode).best(15.1, 2000.0).kv_usage == 1.0


def test_usage_comes_from_tokens_where_it_was_not_recorded(decode):
    rows = {name: column for name, column in decode.samples["decode"].items() if name != "kv_usage"}
    expected = DecodeLookup(decode).itl_grid
    assert np.allclose(DecodeLookup(replace(decode, samples={"decode": rows})).itl_grid, expected)


def test_without_a_capacity_or_an_area_there_is_no_grid(decode, prefill):
    unknown = decode.meta.model_copy(update={"kv_capacity_tokens": None})
    with pytest.raises(InputError, match="kv_capacity_tokens"):
        DecodeLookup(replace(decode, meta=unknown))
    line = {name: column[:12:4] for name, column in decode.samples["decode"].items()}
    with pytest.raises(InputError, match="do not span an area"):
        DecodeLookup(replace(decode, samples={"decode": line}))
    with pytest.raises(InputError, match="missing, and dynamo-classic needs it"):
        DecodeLookup(prefill)
