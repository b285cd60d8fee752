"""What micro-benchmarks leave behind: a JSON file that can be read again without torch and without a GPU."""

from __future__ import annotations

import datetime as dt
from pathlib import Path
from typing import Annotated, Literal

import numpy as np
from numpy.typing import ArrayLike
from pydantic import BaseModel, ConfigDict, Field

from profiler.errors import InputError
from profiler.schema import ModelShape, load_json, parse_model

_Count = Annotated[int, Field(gt=0)]
_Positive = Annotated[float, Field(gt=0)]

Gemm = Literal["qkv", "o", "gate_up", "down", "lm_head"]
Method = Literal["triton", "index", "per_block", "copy"]
Operation = Literal["gather", "scatter", "copy", "offload", "restore", "permute", "ceiling_d2d", "ceiling_d2h",
                    "ceiling_h2d"]  # fmt: skip


class _Part(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)


class Timed(_Part):
    """Times of one call: median of the repeats, and the quartiles around it.

    Attributes:
        median_ms, low_ms, high_ms: median, 25th and 75th percentile.
        repeats: measurements, each of which is the mean of `calls` calls back to back.
        calls: per measurement, each on data of its own where the data would fit in the cache.
        graph: whether the calls were replayed from a CUDA graph, without gaps between launches.
    """

    median_ms: _Positive
    low_ms: _Positive
    high_ms: _Positive
    repeats: _Count
    calls: _Count = 1
    graph: bool = False


class GemmPoint(_Part):
    """[m, k] times [k, n] on one rank; `backend` is what computed it."""

    name: Gemm
    m: _Count
    n: _Count
    k: _Count
    backend: str
    time: Timed


class PrefillPoint(_Part):
    """Causal attention of one prompt in one layer on one rank."""

    tokens: _Count
    backend: str
    time: Timed


class DecodePoint(_Part):
    """One token each of `batch` requests that hold `context` tokens, in one layer on one rank."""

    batch: _Count
    context: _Count
    backend: str
    time: Timed


class ReducePoint(_Part):
    """All-reduce of `bytes` on every rank."""

    ranks: _Count
    bytes: _Count
    backend: str
    time: Timed


class CopyPoint(_Part):
    """A copy of KV blocks, or the machine's own ceiling for one.

    Attributes:
        operation: what was done; a ceiling is one plain copy of one big buffer.
        method: what did it.
        why: why it was this method.
        pattern: whether block ids were consecutive or shuffled; `plain` for a ceiling.
        detail: such as the TP sizes of a permutation, or the way to the host.
        bytes: of payload, each counted once (memory moves twice that in a copy on the device).
        checked: the result was compared with plain indexing, byte by byte, before timing.
        time: of the whole operation.
    """

    operation: Operation
    method: Method
    why: str
    pattern: Literal["contiguous", "scattered", "plain"]
    detail: str = ""
    bytes: _Count
    checked: bool
    time: Timed

    @property
    def gb_per_s(self) -> float:
        """Payload over median time, GB/s (1e9 bytes)."""
        return self.bytes / self.time.median_ms / 1e6


class CopyResult(_Part):
    """Copies of KV blocks on one machine.

    Attributes:
        gpu: the device's name.
        blocks: moved by each operation.
        block_bytes: of one block in all layers of a rank.
        points: in the order taken.
        skipped: what was left out, with the reason.
    """

    gpu: str
    blocks: _Count
    block_bytes: _Count
    points: tuple[CopyPoint, ...]
    skipped: tuple[str, ...] = ()

    def best(self, operation: Operation, pattern: str = "scattered", detail: str | None = None) -> CopyPoint | None:
        """The fastest checked method for an operation; None where it was not measured."""
        found = [
            p
            for p in self.points
            if p.operation == operation and p.pattern == pattern and p.checked and detail in {None, p.detail}
        ]
        return max(found, key=lambda p: p.gb_per_s, default=None)


class Micro(_Part):
    """All micro-benchmarks of one rank of a model on one machine.

    Attributes:
        model: name of the model, or of the file that it was read from.
        dtype: number format of the weights.
        shape: the whole model, before it is split over `tp` ranks.
        gpu: name that the driver gives, or `cpu`.
        memory_gb_per_s: bytes read plus written of a large copy on the device, over its time.
        launch_ms: what a kernel with next to nothing to do takes in a graph: the least of any kernel.
        seconds: wall-clock time that it all took, start of the interpreter left out.
        skipped: what was left out, with the reason: the budget was spent, memory was short, an operation is not there.
    """

    schema_version: Literal[1] = 1
    model: str
    dtype: str
    shape: ModelShape
    tp: _Count
    gpu: str
    driver: str | None = None
    torch: str
    triton: str | None = None
    date: dt.date | None = None
    seconds: float = 0.0
    memory_gb_per_s: _Positive
    launch_ms: _Positive
    gemm: tuple[GemmPoint, ...] = ()
    prefill: tuple[PrefillPoint, ...] = ()
    decode: tuple[DecodePoint, ...] = ()
    all_reduce: tuple[ReducePoint, ...] = ()
    copies: CopyResult | None = None
    skipped: tuple[str, ...] = ()


def read_micro(path: Path) -> Micro:
    """Read a saved file.

    Raises:
        InputError: it cannot be read, or a field is wrong; names it.
    """
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"cannot be read: {error}", source=path) from None
    return parse_model(Micro, load_json(text, path), path)


def line_through(at: ArrayLike, x: ArrayLike, y: ArrayLike) -> np.ndarray:
    """Piecewise linear through sorted points; beyond the last one in proportion to x, before the first one level.

    What grows by work (a product, a transfer) is in proportion to it once it is large, and never falls below its fixed
    cost when it is small.
    """
    xs, ys = np.asarray(x, dtype=np.float64), np.asarray(y, dtype=np.float64)
    where = np.asarray(at, dtype=np.float64)
    return np.asarray(np.interp(where, xs, ys) * np.maximum(where / xs[-1], 1.0))
