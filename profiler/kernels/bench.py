"""All micro-benchmarks of a model within a budget of seconds."""

from __future__ import annotations

import datetime as dt
import shutil
import subprocess
from collections.abc import Callable
from functools import partial
from typing import TypeVar

import torch

from profiler.errors import DependencyError, InputError
from profiler.kernels.allreduce import all_reduce
from profiler.kernels.attention import Attention
from profiler.kernels.clock import Clock, free_bytes
from profiler.kernels.copy_bench import MOVED_BYTES, CopyBench
from profiler.kernels.gemm import Products, activation_dtype, check_dtype
from profiler.kernels.memory import launch_ms, memory_gb_per_s
from profiler.kernels.micro import CopyResult, DecodePoint, GemmPoint, Micro, PrefillPoint, ReducePoint
from profiler.kernels.plan import (
    BATCHES,
    CONTEXTS,
    LENGTHS,
    REDUCE_BYTES,
    TOKENS,
    Budget,
    RankShape,
    coarse_first,
    decode_points,
    rank_shape,
)
from profiler.schema import ModelShape

T = TypeVar("T")
Progress = Callable[[str], None]

#: Share that a part may take of what is left; all-reduce comes first, as it cannot be cut short.
_GEMM, _ATTENTION = 0.45, 0.5
#: What a rehearsal on a processor may take of the grids.
_CPU_TOKENS, _CPU_LENGTHS, _CPU_BATCHES, _CPU_CONTEXTS = (1, 8, 64, 256), (128, 256, 512), (1, 8), (128, 512)


def device_named(name: str | None) -> torch.device:
    """The device to measure: `cuda`, `cuda:1`, `cpu`; None takes the first GPU.

    Raises:
        InputError: there is no such GPU; a processor has to be asked for, as its times say nothing about a GPU.
    """
    if name is None:
        name = "cuda"
    try:
        device = torch.device(name)
    except RuntimeError:
        raise InputError(f"is {name!r}", expected="cuda, cuda:N or cpu", field="--device") from None
    if device.type not in {"cuda", "cpu"}:
        raise InputError(f"is {name!r}", expected="cuda, cuda:N or cpu", field="--device")
    if device.type == "cuda":
        index = device.index or 0
        count = torch.cuda.device_count() if torch.cuda.is_available() else 0
        if index >= count:
            found = f"{count} GPU{'' if count == 1 else 's'} found"
            raise InputError(f"{name}: {found}", expected="a GPU, or --device cpu to rehearse", field="--device")
        device = torch.device("cuda", index)
        torch.cuda.set_device(device)
    return device


class Bench:
    """One run of the micro-benchmarks.

    Args:
        model: name, for the record.
        shape: of the whole model.
        dtype: number format of the weights.
        tp: ranks; one rank's share is measured on one GPU, all-reduce on `tp` of them.
        device: to measure.
        seconds: budget for all of it.
        say: takes one line for each part.
    """

    def __init__(
        self, model: str, shape: ModelShape, dtype: str, tp: int, device: torch.device, seconds: float, say: Progress
    ) -> None:
        self._model, self._shape, self._dtype, self._tp, self._say = model, shape, check_dtype(dtype), tp, say
        self._rank: RankShape = rank_shape(shape, tp)
        self._clock = Clock(device)
        self._budget = Budget(seconds)
        self._gpu = device.type == "cuda"

    def run(self, *, copies: bool = True) -> Micro:
        """Everything that the budget allows; what it does not is in `skipped`.

        Raises:
            InputError: there are fewer GPUs than ranks.
        """
        self._say("memory bandwidth")
        bandwidth, launch = memory_gb_per_s(self._clock), launch_ms(self._clock)
        reduced = self._reduce()
        gemm = self._gemm()
        prefill, decode = self._attention()
        wanted = copies and self._budget.allows("copies of KV blocks")
        copied = self._try("copies of KV blocks", self.copies) if wanted else None
        return Micro(
            model=self._model,
            dtype=self._dtype,
            shape=self._shape,
            tp=self._tp,
            gpu=gpu_name(self._clock.device),
            driver=driver_version() if self._gpu else None,
            torch=str(torch.__version__),
            triton=_triton_version(),
            date=dt.datetime.now(dt.UTC).date(),
            seconds=round(self._budget.spent, 3),
            memory_gb_per_s=bandwidth,
            launch_ms=launch,
            gemm=tuple(sorted(gemm, key=lambda p: (p.name, p.m))),
            prefill=tuple(sorted(prefill, key=lambda p: p.tokens)),
            decode=tuple(sorted(decode, key=lambda p: (p.batch, p.context))),
            all_reduce=tuple(reduced),
            copies=copied,
            skipped=(*self._budget.skipped, *self._clock.notes),
        )

    def copies(self) -> CopyResult:
        """The copy of KV blocks alone.

        Raises:
            DependencyError: a copy gave something else than plain indexing.
        """
        self._say("copies of KV blocks")
        if self._gpu:
            torch.cuda.empty_cache()
        moved = MOVED_BYTES if self._gpu else 4 << 20
        result = CopyBench(self._shape, self._clock.device, self._clock, self._budget, moved_bytes=moved).run()
        return result.model_copy(update={"skipped": tuple(self._budget.skipped)})

    def _reduce(self) -> list[ReducePoint]:
        if self._tp == 1:
            return []
        self._say(f"all-reduce between {self._tp} ranks")
        sizes = REDUCE_BYTES if self._gpu else REDUCE_BYTES[:3]
        # Processes start, import and connect before the first byte moves.
        limit = max(60.0, self._budget.left)
        call = partial(all_reduce, self._tp, sizes, self._clock.device.type, timeout_s=limit)
        return self._try(f"all-reduce between {self._tp} ranks", call) or []

    def _gemm(self) -> list[GemmPoint]:
        self._say("matrix products")
        found: list[GemmPoint] = []
        tokens = coarse_first(TOKENS if self._gpu else _CPU_TOKENS)
        kept: dict[str, Products] = {}
        until = self._budget.part(_GEMM)
        for m in tokens:
            for name, (n, k) in self._rank.products.items():
                # Only the last token of a prompt goes through the output head.
                if (name == "lm_head" and m > max(BATCHES)) or not self._budget.allows(f"{name} m={m}", until):
                    continue
                if name not in kept:
                    made = self._try(f"weights of {name}", partial(Products, self._clock, name, n, k, self._dtype))
                    if made is None:
                        continue
                    kept[name] = made
                point = self._try(f"{name} m={m}", partial(kept[name].measure, m))
                found += [point] if point is not None else []
        return found

    def _attention(self) -> tuple[list[PrefillPoint], list[DecodePoint]]:
        self._say("attention")
        attention = Attention(self._clock, self._rank, activation_dtype(self._dtype))
        prefill: list[PrefillPoint] = []
        decode: list[DecodePoint] = []
        per_token = 2 * self._rank.kv_heads * self._rank.head_dim * activation_dtype(self._dtype).itemsize
        grid = decode_points(
            per_token,
            free_bytes(self._clock.device) / 4,
            BATCHES if self._gpu else _CPU_BATCHES,
            CONTEXTS if self._gpu else _CPU_CONTEXTS,
        )
        lengths = coarse_first(LENGTHS if self._gpu else _CPU_LENGTHS)
        until = self._budget.part(_ATTENTION / 2)
        for tokens in lengths:
            if self._budget.allows(f"prefill attention {tokens}", until):
                one = self._try(f"prefill attention {tokens}", partial(attention.prefill, tokens))
                prefill += [one] if one is not None else []
        until = self._budget.part(_ATTENTION)
        for batch, context in grid:
            what = f"decode attention {batch} x {context}"
            if self._budget.allows(what, until):
                point = self._try(what, partial(attention.decode, batch, context))
                decode += [point] if point is not None else []
        return prefill, decode

    def _try(self, what: str, call: Callable[[], T]) -> T | None:
        """A point that this machine cannot take is noted; the others go on, and what was measured is kept."""
        try:
            return call()
        except torch.cuda.OutOfMemoryError:
            self._budget.skipped.append(f"{what}: out of memory")
            torch.cuda.empty_cache()
        except (DependencyError, RuntimeError) as error:
            first = str(error).strip().partition("\n")[0]
            self._budget.skipped.append(f"{what}: {type(error).__name__}: {first}")
        return None


def gpu_name(device: torch.device) -> str:
    """The driver's name of a GPU, or `cpu`."""
    return torch.cuda.get_device_name(device) if device.type == "cuda" else "cpu"


def driver_version() -> str | None:
    """Of the GPU driver; None where nvidia-smi does not say."""
    program = shutil.which("nvidia-smi")
    if program is None:
        return None
    command = [program, "--query-gpu=driver_version", "--format=csv,noheader"]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=20, check=True)  # noqa: S603 - fixed words
    except (OSError, subprocess.SubprocessError):
        return None
    lines = done.stdout.split()
    return lines[0] if lines else None


def _triton_version() -> str | None:
    try:
        import triton  # noqa: PLC0415 - not there on every machine
    except ImportError:
        return None
    return str(triton.__version__)
