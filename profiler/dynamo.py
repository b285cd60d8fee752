"""Dynamo's tables in and out: `raw_data.npz` in two folders, or two JSON files; the same again on export."""

from __future__ import annotations

import io
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from profiler.csvfile import Samples
from profiler.dynamo_checks import check_capacity, check_decode, check_prefill, saturated
from profiler.errors import InputError
from profiler.roofline import Roofline
from profiler.schema import ArrayForm, ProfileMeta, load_json
from profiler.tables import Profile

Half = Literal["prefill", "decode"]
Form = Literal["dynamo-npz", "dynamo-json"]

KEYS: Mapping[Half, tuple[str, ...]] = MappingProxyType(
    {
        "prefill": ("prefill_isl", "prefill_ttft", "prefill_thpt_per_gpu"),
        "decode": ("x_kv_usage", "y_context_length", "z_itl", "z_thpt_per_gpu", "max_kv_tokens"),
    }
)


@dataclass(frozen=True)
class RawTable:
    """A table of Dynamo as it lies on disk.

    Attributes:
        path: the file.
        form: npz or JSON.
        arrays: the arrays in the file's order, as they are.
    """

    path: Path
    form: Form
    arrays: Mapping[str, NDArray[Any]]

    @property
    def forms(self) -> dict[str, ArrayForm]:
        """Number format and shape of each array, for an export that gives them back."""
        return {name: ArrayForm(dtype=a.dtype.str, shape=a.shape) for name, a in self.arrays.items()}

    def column(self, key: str) -> NDArray[np.float64]:
        """An array as float64, flat."""
        return self.arrays[key].astype(np.float64).ravel()


def raw_file(half: Half, form: Form) -> str:
    """Where Dynamo keeps a table below its profiling folder."""
    return f"selected_{half}_interpolation/raw_data.npz" if form == "dynamo-npz" else f"{half}_raw_data.json"


def find_raw(folder: Path, half: Half) -> RawTable | None:
    """Read one half of Dynamo's profile; None when the folder has none. The npz wins, as it does in Dynamo.

    Raises:
        InputError: the file is there and is not such a table.
    """
    npz, plain = folder / raw_file(half, "dynamo-npz"), folder / raw_file(half, "dynamo-json")
    if npz.exists():
        return _checked(RawTable(npz, "dynamo-npz", _read_npz(npz)), half)
    if plain.exists():
        return _checked(RawTable(plain, "dynamo-json", _read_json(plain)), half)
    return None


def prefill_samples(raw: RawTable) -> Samples:
    """The samples of Dynamo's prefill table.

    Raises:
        InputError: a value is not plausible, or the lengths are not strictly increasing; see `dynamo_checks`.
    """
    isl, ttft, throughput = (raw.column(key) for key in KEYS["prefill"])
    check_prefill(raw.path, isl, ttft, throughput)
    return MappingProxyType(
        {
            "isl": isl,
            "ttft_ms": ttft,
            "throughput_tokens_per_s_per_gpu": throughput,
            "repeat": np.zeros(len(isl)),
        }
    )


def decode_samples(raw: RawTable, gpus: int, roofline: Roofline | None) -> tuple[Samples, int, str, list[str]]:
    """The samples of Dynamo's decode table, its KV capacity, how that was cross-checked, and warnings.

    Batch is what the capacity implies, usage x capacity / context. Rows in which the engine ran far fewer
    requests than that together are kept and marked suspect.

    Args:
        raw: the table.
        gpus: GPUs of one worker (TP x DP); throughput in the table is per GPU.
        roofline: of the worker, for the check against memory; None when shape or GPU is not known.

    Raises:
        InputError: a value is not plausible, the sweep is not sorted, or the capacity contradicts the table.
    """
    usage, context, itl, throughput, capacities = (raw.column(key) for key in KEYS["decode"])
    check_decode(raw.path, usage, context, itl, throughput)
    capacity, check = check_capacity(raw.path, capacities, (usage, context, itl, throughput), gpus, roofline)
    kv = usage * capacity
    batch = kv / context
    # usage was divided by the capacity once, so the product is off by a rounding; whole counts are meant.
    near = np.round(batch)
    batch = np.where(np.abs(batch - near) < 1e-6 * near, near, batch)
    suspect = saturated(batch, throughput * gpus * itl / 1e3)
    warnings = []
    for at in sorted(set(context[suspect])):
        rows = suspect & (context == at)
        listed = ", ".join(f"{b:g}" for b in batch[rows])
        warnings.append(
            f"decode at context {at:g}: nominal batches {listed} are more than 10 % above what throughput x"
            " ITL says ran together (the engine was saturated); kept as raw samples, marked suspect, left out"
            " of the surface"
        )
    columns = {
        "batch": batch,
        "kv_tokens": np.round(kv, 3),
        "context_tokens": context,
        "itl_ms": itl,
        "throughput_tokens_per_s_per_gpu": throughput,
        "repeat": np.zeros(len(kv)),
        "suspect": suspect.astype(np.float64),
        "kv_usage": usage,
    }
    return MappingProxyType(columns), capacity, check, warnings


def export_files(profile: Profile, form: Form) -> dict[str, bytes]:
    """Dynamo's files for the tables of a profile, by name below Dynamo's profiling folder.

    A table that was imported from Dynamo comes out as it went in: same keys, order, number formats and
    values. For one that was measured here repeats are reduced to medians, and suspect rows are left out.

    Raises:
        InputError: the profile lacks what Dynamo's format needs (KV capacity, throughput).
    """
    halves: dict[Half, dict[str, NDArray[Any]]] = {}
    if "prefill" in profile.samples:
        halves["prefill"] = _prefill_arrays(profile)
    if "decode" in profile.samples:
        halves["decode"] = _decode_arrays(profile)
    files = {}
    for half, arrays in halves.items():
        kept = _as_imported(profile.meta, arrays)
        files[raw_file(half, form)] = _npz_bytes(kept) if form == "dynamo-npz" else _json_bytes(kept)
    return files


def _prefill_arrays(profile: Profile) -> dict[str, NDArray[Any]]:
    rows = profile.samples["prefill"]
    if profile.meta.source.arrays is None:
        curve = profile.prefill
        assert curve is not None  # noqa: S101 - the table is there
        isl, ttft = curve.tokens, curve.medians_ms
        return dict(zip(KEYS["prefill"], (isl, ttft, isl / ttft * 1e3 / profile.meta.tp), strict=True))
    columns = rows["isl"], rows["ttft_ms"], rows["throughput_tokens_per_s_per_gpu"]
    return dict(zip(KEYS["prefill"], columns, strict=True))


def _decode_arrays(profile: Profile) -> dict[str, NDArray[Any]]:
    meta, rows = profile.meta, profile.samples["decode"]
    if meta.kv_capacity_tokens is None:
        problem = "unknown, and Dynamo's decode table is in shares of it"
        raise InputError(problem, source=profile.path / "profile.json", field="kv_capacity_tokens")
    capacity = np.array([meta.kv_capacity_tokens])
    if meta.source.arrays is None:
        surface = profile.decode
        assert surface is not None  # noqa: S101 - the table is there
        batch, kv = surface.points.T
        order = np.lexsort((kv, kv / batch))
        batch, kv, itl = batch[order], kv[order], surface.medians_ms[order]
        per_gpu = batch / itl * 1e3 / meta.gpu.count_per_worker
        columns = kv / meta.kv_capacity_tokens, kv / batch, itl, per_gpu, capacity
        return dict(zip(KEYS["decode"], columns, strict=True))
    names = ("kv_usage", "context_tokens", "itl_ms", "throughput_tokens_per_s_per_gpu")
    return dict(zip(KEYS["decode"], (*(rows[name] for name in names), capacity), strict=True))


def _as_imported(meta: ProfileMeta, arrays: dict[str, NDArray[Any]]) -> dict[str, NDArray[Any]]:
    forms = meta.source.arrays
    if forms is None:
        return arrays
    return {name: arrays[name].astype(form.dtype).reshape(form.shape) for name, form in forms.items()}


def _npz_bytes(arrays: Mapping[str, NDArray[Any]]) -> bytes:
    out = io.BytesIO()
    np.savez(out, allow_pickle=False, **arrays)
    return out.getvalue()


def _json_bytes(arrays: Mapping[str, NDArray[Any]]) -> bytes:
    return (json.dumps({name: array.tolist() for name, array in arrays.items()}) + "\n").encode()


def _checked(raw: RawTable, half: Half) -> RawTable:
    for name in raw.arrays:
        if name not in KEYS[half]:
            raise InputError("unknown key", expected=", ".join(KEYS[half]), source=raw.path, field=name)
    for name in KEYS[half]:
        if name not in raw.arrays:
            raise InputError("missing key", source=raw.path, field=name)
        array = raw.arrays[name]
        if array.dtype.kind not in "iuf" or array.dtype.itemsize > 8:
            raise InputError(
                f"holds {array.dtype}", expected="numbers of 64 bits or fewer", source=raw.path, field=name
            )
        if array.ndim > 1 or (array.ndim == 0 and name != "max_kv_tokens"):
            raise InputError(f"has shape {array.shape}", expected="one dimension", source=raw.path, field=name)
        values = array.astype(np.float64)
        for i in np.flatnonzero(~np.isfinite(values)):
            problem = f"is {values.ravel()[i]} in row {i + 1}"
            raise InputError(problem, expected="finite numbers", source=raw.path, field=name)
        if (array.dtype.kind in "iu") and (np.abs(values) > 2**53).any():
            raise InputError("holds an integer beyond 2^53", source=raw.path, field=name)
    columns = [name for name in KEYS[half] if name != "max_kv_tokens"]
    length = len(raw.arrays[columns[0]])
    for name in columns:
        if len(raw.arrays[name]) != length:
            problem = f"has {len(raw.arrays[name])} values, and {columns[0]} has {length}"
            raise InputError(problem, expected="equal lengths", source=raw.path, field=name)
    if length == 0:
        raise InputError("holds no points", source=raw.path, field=columns[0])
    return raw


def _read_npz(path: Path) -> dict[str, NDArray[Any]]:
    try:
        # From memory: given a path, numpy leaves the file open when the archive is broken.
        with np.load(io.BytesIO(path.read_bytes()), allow_pickle=False) as file:
            return {name: file[name] for name in file.files}
    except Exception as error:  # noqa: BLE001 - zip, zlib, the header's parser and numpy each raise their own kinds
        raise InputError(f"is not an npz of plain arrays: {error}", source=path) from None


def _read_json(path: Path) -> dict[str, NDArray[Any]]:
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"cannot be read: {error}", source=path) from None
    data = load_json(text, path)
    if not isinstance(data, dict):
        raise InputError(f"holds a {type(data).__name__}", expected="an object of lists", source=path)
    arrays = {}
    for name, values in data.items():
        flat = values if isinstance(values, list) else [values]
        if not all(isinstance(value, int | float) and not isinstance(value, bool) for value in flat):
            raise InputError("holds something else than numbers", expected="a list", source=path, field=name)
        try:
            # One float makes all of them floats, as numpy does; the form is kept so that an export matches.
            arrays[name] = np.array(values, dtype=np.int64 if all(isinstance(v, int) for v in flat) else np.float64)
        except OverflowError:
            raise InputError("holds an integer beyond 64 bits", source=path, field=name) from None
    return arrays
