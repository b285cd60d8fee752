"""Tables from made-up micro-benchmarks: sums done by hand, round trips, calibration that finds known overheads."""

import json
from pathlib import Path

import numpy as np
import pytest
from typer.testing import CliRunner

from profiler.cli import kernels as cli
from profiler.errors import InputError
from profiler.kernels.micro import CopyPoint, CopyResult, Micro, Operation, Timed, line_through, read_micro
from profiler.kernels.parts import OWN_REDUCE_BYTES, OWN_REDUCE_MS, Parts
from profiler.rapid import ASSUMED, Overheads, calibrated, differences, estimate_tables, save_estimates
from profiler.tables import load_profile
from tests.unit.profiler.kernels import made_up as up

LAYERS = 32


def small_ms(tokens: int) -> float:
    elements = 8 * 4096 + 3 * 14336 + 2 * 6144
    return max(tokens * elements * 2 / 3000e6, 5 * 0.001)


def test_prefill_is_the_sum_of_its_parts() -> None:
    rows = estimate_tables(up.made_up(), up.SHAPE, 1)["prefill"]
    n = 8192
    layer = 4 * up.gemm_ms(n) + small_ms(n) + up.prefill_attention_ms(n)
    expected = LAYERS * layer + up.gemm_ms(1) + ASSUMED.prefill_ms
    assert rows["ttft_ms"][rows["isl"] == n] == pytest.approx(expected)


def test_a_prompt_beyond_one_step_is_chunks() -> None:
    rows = estimate_tables(up.made_up(), up.SHAPE, 1)["prefill"]
    layer = 2 * (4 * up.gemm_ms(8192) + small_ms(8192)) + up.prefill_attention_ms(16384)
    expected = LAYERS * layer + up.gemm_ms(1) + 2 * ASSUMED.prefill_ms
    assert rows["ttft_ms"][rows["isl"] == 16384] == pytest.approx(expected)


def test_decode_is_the_sum_of_its_parts() -> None:
    rows = estimate_tables(up.made_up(), up.SHAPE, 1)["decode"]
    at = (rows["batch"] == 64) & (rows["context_tokens"] == 2048)
    layer = 4 * up.gemm_ms(64) + small_ms(64) + up.decode_attention_ms(64, 2048)
    expected = LAYERS * layer + up.gemm_ms(64) + ASSUMED.decode_ms + 64 * ASSUMED.decode_per_request_ms
    assert rows["itl_ms"][at] == pytest.approx(expected)
    assert rows["kv_tokens"][at] == 64 * 2048


def test_two_reductions_a_layer_between_ranks() -> None:
    rows = estimate_tables(up.made_up(tp=2), up.SHAPE, 2)["prefill"]
    n = 8192
    elements = 8 * 4096 + 3 * 7168 + 2 * 3072
    layer = 4 * up.gemm_ms(n) + n * elements * 2 / 3000e6 + up.prefill_attention_ms(n)
    layer += 2 * up.reduce_ms(n * 4096 * 2)
    expected = LAYERS * layer + up.gemm_ms(1) + ASSUMED.prefill_ms
    assert rows["ttft_ms"][rows["isl"] == n] == pytest.approx(expected)


def test_small_reductions_are_the_engine_s_own() -> None:
    small, largest = 64 * 4096 * 2, 2**28
    own = OWN_REDUCE_MS + small * up.reduce_ms(largest) / largest
    assert own < up.reduce_ms(small)
    parts = Parts(up.made_up(tp=2))
    assert parts.reduce_ms(64) == pytest.approx(own)
    large = 2 * OWN_REDUCE_BYTES // (4096 * 2)
    assert parts.reduce_ms(large) == pytest.approx(up.reduce_ms(2 * OWN_REDUCE_BYTES))


def test_an_8_bit_cache_is_read_at_half_the_bytes() -> None:
    shape = up.SHAPE.model_copy(update={"kv_bytes_per_element": 1.0})
    wide = estimate_tables(up.made_up(), up.SHAPE, 1)["decode"]["itl_ms"]
    narrow = estimate_tables(up.made_up(shape=shape), shape, 1)["decode"]
    saved = (
        LAYERS
        / 2
        * np.array(
            [
                up.decode_attention_ms(int(b), int(c))
                for b, c in zip(narrow["batch"], narrow["context_tokens"], strict=True)
            ]
        )
    )
    assert wide - narrow["itl_ms"] == pytest.approx(saved)


def test_rows_beyond_the_cache_are_left_out() -> None:
    rows = estimate_tables(up.made_up(), up.SHAPE, 1, capacity_tokens=100_000)["decode"]
    assert rows["kv_tokens"].max() <= 100_000
    with pytest.raises(InputError, match="no decode row within 100 tokens"):
        estimate_tables(up.made_up(), up.SHAPE, 1, capacity_tokens=100)


def test_lines_are_level_before_and_in_proportion_beyond() -> None:
    assert line_through([0.5, 1.5, 4.0], [1, 2], [10.0, 20.0]).tolist() == [10.0, 15.0, 40.0]


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"gemm": ()}, "product qkv was not measured"),
        ({"prefill": ()}, "field prefill"),
        ({"decode": ()}, "field decode"),
        ({"tp": 2}, "has n, k"),
    ],
)
def test_missing_parts_are_refused(change: dict[str, object], words: str) -> None:
    micro = up.made_up().model_copy(update=change)
    with pytest.raises(InputError, match=words):
        estimate_tables(micro, micro.shape, micro.tp)


def test_another_model_or_layout_is_refused() -> None:
    with pytest.raises(InputError, match="layers 32 for 33"):
        estimate_tables(up.made_up(), up.SHAPE.model_copy(update={"layers": 33}), 1)
    with pytest.raises(InputError, match="was measured at TP 1"):
        estimate_tables(up.made_up(), up.SHAPE, 2)
    lone = up.made_up(tp=2).model_copy(update={"all_reduce": ()})
    with pytest.raises(InputError, match="not measured between 2 ranks"):
        estimate_tables(lone, up.SHAPE, 2)


def test_profiles_say_that_they_are_estimates(tmp_path: Path) -> None:
    profiles = save_estimates(up.made_up(), tmp_path / "out")
    assert {p.path.name for p in profiles} == {"prefill-tp1-dp1", "decode-tp1-dp1", "aggregated-tp1-dp1"}
    for profile in profiles:
        meta = load_profile(profile.path).meta
        assert meta.source.form == "estimated"
        assert "estimated from micro-benchmarks" in meta.warnings[0]
        assert any("not known" in w for w in meta.warnings)
    both = load_profile(tmp_path / "out" / "aggregated-tp1-dp1")
    assert set(both.samples) == {"prefill", "decode"}
    assert both.meta.kv_capacity_tokens is not None
    assert both.decode is not None
    assert both.decode.itl_ms(64, 64 * 2048) == pytest.approx(float(both.samples["decode"]["itl_ms"][
        (both.samples["decode"]["batch"] == 64) & (both.samples["decode"]["context_tokens"] == 2048)][0]))  # fmt: skip


def test_nothing_is_written_beside_a_profile_that_is_there(tmp_path: Path) -> None:
    save_estimates(up.made_up(), tmp_path)
    (tmp_path / "prefill-tp1-dp1" / "profile.json").rename(tmp_path / "kept.json")
    with pytest.raises(InputError, match="exists"):
        save_estimates(up.made_up(), tmp_path)


def test_calibration_finds_the_overheads_of_a_measured_profile(tmp_path: Path) -> None:
    truth = Overheads(22.5, 2.25, 0.03, "truth")
    measured = save_estimates(up.made_up(), tmp_path / "measured", truth)[:2]
    before = differences(up.made_up(), ASSUMED, measured)
    assert before["prefill"].worst > 0.1
    assert before["prefill"].bias < 0
    found = calibrated(up.made_up(), measured)
    assert found.prefill_ms == pytest.approx(22.5)
    assert found.decode_ms == pytest.approx(2.25)
    assert found.decode_per_request_ms == pytest.approx(0.03)
    assert found.source == "calibrated on measured prefill and decode"
    after = differences(up.made_up(), found, measured)
    assert max(after[t].worst for t in ("prefill", "decode")) < 1e-9
    [estimate] = [p for p in save_estimates(up.made_up(), tmp_path / "e", found, compared=before)
                  if p.meta.role == "aggregated"]  # fmt: skip
    assert any("mean error" in w and "prefill" in w for w in estimate.meta.warnings)


def _copies(gather: float, scatter: float) -> CopyResult:
    """Copies at these rates, GB/s."""

    def point(operation: Operation, rate: float) -> CopyPoint:
        ms = 1e3 / rate
        time = Timed(median_ms=ms, low_ms=ms, high_ms=ms, repeats=5)
        return CopyPoint(operation=operation, method="triton", why="test", pattern="scattered", detail="", bytes=10**9,
                         checked=True, time=time)  # fmt: skip

    points = [point("gather", gather), point("scatter", scatter)]
    return CopyResult(gpu="NVIDIA H100", blocks=512, block_bytes=2**21, points=tuple(points))


def test_the_hand_off_is_put_together_from_copies(tmp_path: Path) -> None:
    micro = up.made_up().model_copy(update={"copies": _copies(1000.0, 500.0)})
    rows = estimate_tables(micro, up.SHAPE, 1)["transfer"]
    # 131,072 bytes a token: 32 layers, keys and values of 8 heads of 128 numbers of two bytes.
    gigabytes = rows["tokens"] * 131_072 / 1e9
    assert np.all(rows["tokens"] % 16 == 0)
    expected = 12.5 + 1e3 * gigabytes * (1 / 1000 + 1 / 20 + 1 / 500)
    assert rows["transfer_ms"] == pytest.approx(expected)
    truth = Overheads(22.5, 2.25, 0.03, "truth", handoff_ms=30.0)
    measured = save_estimates(micro, tmp_path, truth)
    [decode] = [load_profile(p.path) for p in measured if p.meta.role == "decode"]
    assert decode.transfer is not None
    assert any("assumed" in warning and "20 GB/s" in warning for warning in decode.meta.warnings)
    assert differences(micro, ASSUMED, [decode])["transfer"].bias < 0
    found = calibrated(micro, [decode])
    assert found.handoff_ms == pytest.approx(30.0)
    assert found.source == "calibrated on measured decode and transfer"


def test_without_copies_there_is_no_hand_off(tmp_path: Path) -> None:
    profiles = save_estimates(up.made_up(), tmp_path)
    assert all("transfer" not in profile.samples for profile in profiles)


def test_calibration_on_another_layout_is_refused(tmp_path: Path) -> None:
    measured = save_estimates(up.made_up(tp=2), tmp_path)
    with pytest.raises(InputError, match="TP 2"):
        calibrated(up.made_up(), measured)


def test_results_read_back_as_they_were(tmp_path: Path) -> None:
    file = tmp_path / "m.json"
    file.write_text(up.made_up().model_dump_json(), encoding="utf-8")
    assert read_micro(file) == up.made_up()
    data = json.loads(file.read_text(encoding="utf-8"))
    data["gemm"][0]["time"]["median_ms"] = -1
    file.write_text(json.dumps(data), encoding="utf-8")
    with pytest.raises(InputError, match=r"gemm\.0\.time\.median_ms"):
        read_micro(file)


def app() -> object:
    import typer  # noqa: PLC0415

    made = typer.Typer()
    made.command()(cli.rapid)
    return made


def test_the_command_estimates_from_a_file(tmp_path: Path) -> None:
    file = tmp_path / "m.json"
    file.write_text(up.made_up().model_dump_json(), encoding="utf-8")
    done = CliRunner().invoke(app(), ["--micro", str(file), "--to", str(tmp_path / "p")], catch_exceptions=False)
    assert done.exit_code == 0
    assert str(tmp_path / "p" / "prefill-tp1-dp1") in done.stdout
    assert load_profile(tmp_path / "p" / "decode-tp1-dp1").meta.gpu.name == "NVIDIA H100 80GB HBM3"


def test_the_command_refuses_two_sources(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="--model"):
        CliRunner().invoke(
            app(), ["--micro", "m.json", "--model", "x", "--to", str(tmp_path)], catch_exceptions=False
        )  # fmt: skip
    with pytest.raises(InputError, match="one of them"):
        CliRunner().invoke(app(), ["--to", str(tmp_path / "p")], catch_exceptions=False)


def test_micro_json_has_no_nan() -> None:
    assert Micro.model_validate_json(up.made_up().model_dump_json()) == up.made_up()
