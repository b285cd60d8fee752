"""Dynamo's tables: what is refused, what is marked, and that nothing is lost."""

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from profiler.dynamo import export_files
from profiler.errors import InputError
from profiler.importer import Described, read_dynamo, save_all, shape_from_config
from profiler.schema import ModelInfo

Arrays = dict[str, np.ndarray]
Write = Callable[[Arrays, Arrays], Path]


def test_npz_comes_out_as_it_went_in(
    prefill: Arrays, decode: Arrays, write: Write, described: Described, tmp_path: Path
) -> None:
    decode["z_itl"] = decode["z_itl"].astype(np.float32)
    prefill["prefill_isl"] = prefill["prefill_isl"].astype(np.int32)
    decode = dict(reversed(decode.items()))
    source = write(prefill, decode)
    for profile in save_all(read_dynamo(source, described), tmp_path / "out", overwrite=False):
        for name, content in export_files(profile, "dynamo-npz").items():
            assert content == (source / name).read_bytes()


def test_json_comes_out_as_it_went_in(prefill: Arrays, decode: Arrays, described: Described, tmp_path: Path) -> None:
    source = tmp_path / "plain"
    source.mkdir()
    tables = {"prefill": prefill, "decode": decode | {"max_kv_tokens": np.array(100_000)}}
    for half, arrays in tables.items():
        text = json.dumps({key: values.tolist() for key, values in arrays.items()})
        (source / f"{half}_raw_data.json").write_text(text + "\n")
    for profile in save_all(read_dynamo(source, described), tmp_path / "out", overwrite=False):
        for name, content in export_files(profile, "dynamo-json").items():
            assert content == (source / name).read_bytes()
        assert set(export_files(profile, "dynamo-npz"))


def test_npz_and_json_hold_the_same(
    prefill: Arrays, decode: Arrays, write: Write, described: Described, tmp_path: Path
) -> None:
    profiles = save_all(read_dynamo(write(prefill, decode), described), tmp_path / "out", overwrite=False)
    for name, content in export_files(profiles[1], "dynamo-json").items():
        assert name == "decode_raw_data.json"
        assert json.loads(content) == {key: values.tolist() for key, values in decode.items()}


Break = Callable[[Arrays, Arrays], object]


def _set(half: str, key: str, at: int, value: float) -> Break:
    def change(prefill: Arrays, decode: Arrays) -> None:
        (prefill if half == "prefill" else decode)[key][at] = value

    return change


def _swap(key: str, a: int, b: int) -> Break:
    def change(prefill: Arrays, decode: Arrays) -> None:
        arrays = prefill if key in prefill else decode
        for name, column in arrays.items():
            if name != "max_kv_tokens":
                column[[a, b]] = column[[b, a]]

    return change


def _drop(key: str) -> Break:
    return lambda prefill, decode: (prefill if key in prefill else decode).pop(key)


def _put(half: str, key: str, values: object) -> Break:
    return lambda prefill, decode: (prefill if half == "prefill" else decode).update({key: np.array(values)})


def _empty(prefill: Arrays, decode: Arrays) -> None:
    prefill.update({key: values[:0] for key, values in prefill.items()})


REFUSED: list[tuple[Break, str]] = [
    (_set("prefill", "prefill_ttft", 1, np.nan), "prefill_ttft: is nan in row 2"),
    (_set("decode", "z_itl", 2, np.inf), "z_itl: is inf in row 3"),
    (_set("prefill", "prefill_ttft", 1, -3.0), "prefill_ttft: is -3 in row 2"),
    (_set("decode", "z_thpt_per_gpu", 0, 0.0), "z_thpt_per_gpu: is 0 in row 1"),
    (_set("prefill", "prefill_isl", 1, 100), "prefill_isl: 100 in row 2 is a duplicate"),
    (_swap("prefill_isl", 1, 2), "1000 in row 3 follows 2000; expected increasing lengths"),
    (_set("decode", "x_kv_usage", 1, 0.005), "row 2 is a duplicate: context 500, usage 0.005"),
    (_swap("x_kv_usage", 1, 2), "expected growing usage"),
    (_swap("x_kv_usage", 2, 3), "expected rows of growing context"),
    (_set("decode", "x_kv_usage", 5, 1.06), "x_kv_usage: is 1.06 in row 6; expected 0 to 1.05"),
    (_set("decode", "x_kv_usage", 0, -0.1), "x_kv_usage: is -0.1 in row 1"),
    (_drop("z_itl"), "z_itl: missing key"),
    (_put("prefill", "extra", [1.0] * 4), "extra: unknown key"),
    (_put("prefill", "prefill_ttft", [1.0] * 3), "prefill_ttft: has 3 values, and prefill_isl has 4"),
    (_empty, "prefill_isl: holds no points"),
    (_put("prefill", "prefill_ttft", ["a"] * 4), "prefill_ttft: holds <U1"),
    (_put("prefill", "prefill_ttft", [None] * 4), "is not an npz of plain arrays"),
    (_put("prefill", "prefill_ttft", [[1.0, 1.0], [1.0, 1.0]]), r"prefill_ttft: has shape \(2, 2\)"),
    (_put("decode", "max_kv_tokens", [1, 2]), "max_kv_tokens: is 1, 2"),
    (_put("decode", "max_kv_tokens", [0]), "max_kv_tokens: is 0"),
    # Little shows 98 % of the nominal batch here, so 30 % more capacity is over the 20 % that are believed.
    (_put("decode", "max_kv_tokens", [130_000]), r"130,000 .* contradict .* 1\.33 times"),
    (_put("decode", "max_kv_tokens", [2_000]), "2,000 tokens contradict .* less than one"),
]


@pytest.mark.parametrize(("change", "message"), REFUSED, ids=[message for _, message in REFUSED])
def test_refused(
    *, change: Break, message: str, prefill: Arrays, decode: Arrays, write: Write, described: Described
) -> None:
    change(prefill, decode)
    folder = write(prefill, decode)
    with pytest.raises(InputError, match=message) as caught:
        read_dynamo(folder, described)
    assert "raw_data.npz" in str(caught.value)


def test_a_table_with_the_capacity_of_another_is_refused(
    prefill: Arrays, decode: Arrays, write: Write, described: Described
) -> None:
    """NVIDIA shipped a table of a 32B model with 8,224 tokens where 502,272 was right."""
    decode["x_kv_usage"] = decode["x_kv_usage"] * 100_000 / 502_272
    decode["max_kv_tokens"] = np.array([8_224])
    with pytest.raises(InputError, match=r"8,224 tokens contradict the table.*expected about 49\d,\d{3}"):
        read_dynamo(write(prefill, decode), described)
    decode["max_kv_tokens"] = np.array([502_272])
    read_dynamo(write(prefill, decode), described)


def test_another_tp_contradicts_the_table(prefill: Arrays, decode: Arrays, write: Write, described: Described) -> None:
    with pytest.raises(InputError, match="another TP x DP than 2"):
        read_dynamo(write(prefill, decode), replace(described, tp=2))


def test_capacity_that_does_not_fit_in_memory_is_refused(
    prefill: Arrays, decode: Arrays, write: Write, described: Described, tmp_path: Path
) -> None:
    config = tmp_path / "config.json"
    sizes = {
        "hidden_size": 8192, "num_hidden_layers": 80, "num_attention_heads": 64, "num_key_value_heads": 8,
        "intermediate_size": 28672, "vocab_size": 128256,
    }  # fmt: skip
    config.write_text(json.dumps(sizes))
    shape = shape_from_config(config, "fp8", "bfloat16")
    assert shape.head_dim == 128
    described = replace(described, model=ModelInfo(name="70b", dtype="fp8", shape=shape), gpu="h100-sxm")
    # 0.9 of 79.6 GiB less 71 GB of weights leaves room for about 19,000 tokens of 327,680 bytes.
    with pytest.raises(InputError, match="100,000 tokens are more than fits beside the weights"):
        read_dynamo(write(prefill, decode), described)
    read_dynamo(write(prefill, decode), replace(described, gpu="h200-sxm"))


def test_saturated_rows_are_kept_and_not_used(
    prefill: Arrays, decode: Arrays, write: Write, described: Described, tmp_path: Path
) -> None:
    decode["z_thpt_per_gpu"][2] *= 0.85
    profile = save_all(read_dynamo(write(prefill, decode), described), tmp_path / "out", overwrite=False)[1]
    assert profile.samples["decode"]["suspect"].tolist() == [0, 0, 1, 0, 0, 0]
    assert profile.decode is not None
    assert len(profile.decode.points) == 5
    assert any("context 500: nominal batches 100 are" in warning for warning in profile.meta.warnings)


@pytest.mark.parametrize("content", [b"", b"PK\x03\x04nonsense", b"\x93NUMPY\x01\x00", b"hello"])
def test_files_that_are_no_npz(content: bytes, tmp_path: Path, described: Described) -> None:
    file = tmp_path / "selected_decode_interpolation" / "raw_data.npz"
    file.parent.mkdir()
    file.write_bytes(content)
    with pytest.raises(InputError, match="is not an npz of plain arrays"):
        read_dynamo(tmp_path, described)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("{", "not JSON"), ("[1]", "holds a list"), ('{"prefill_isl": "a"}', "something else than numbers"),
        ('{"prefill_isl": [NaN]}', "NaN is not a number"), ('{"prefill_isl": [true]}', "something else"),
        ('{"prefill_isl": [[1], [2]]}', "something else"), ("[" * 100_000, "not JSON that can be read"),
        ('{"prefill_isl": [' + "9" * 40 + "]}", "beyond 64 bits"),
    ],
)  # fmt: skip
def test_json_that_is_no_table(text: str, message: str, tmp_path: Path, described: Described) -> None:
    (tmp_path / "prefill_raw_data.json").write_text(text)
    with pytest.raises(InputError, match=message):
        read_dynamo(tmp_path, described)


def test_a_folder_without_tables_is_refused(tmp_path: Path, described: Described) -> None:
    with pytest.raises(InputError, match="holds no table of Dynamo"):
        read_dynamo(tmp_path, described)
