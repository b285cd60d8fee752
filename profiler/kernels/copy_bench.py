"""Benchmark of the copy of KV blocks: kernel and plain copies side by side, against the machine's own ceiling."""

from __future__ import annotations

import random
from collections.abc import Callable
from functools import partial
from typing import Literal

import torch

from profiler.errors import DependencyError, InputError
from profiler.kernels.block_copy import Copier
from profiler.kernels.caches import Ids, KvCache
from profiler.kernels.clock import Clock, free_bytes, random_bytes
from profiler.kernels.layout import Form, KvLayout
from profiler.kernels.micro import CopyPoint, CopyResult, Operation
from profiler.kernels.plan import Budget
from profiler.schema import ModelShape

Pattern = Literal["contiguous", "scattered"]
Via = Literal["staged", "mapped"]

#: TP sizes between which blocks are permuted, in both directions.
PERMUTATIONS = ((1, 2), (2, 1), (2, 4), (4, 2))
_DTYPES = {1: torch.float8_e4m3fn, 2: torch.bfloat16, 4: torch.float32}
#: Payload of one operation; the buffers come to a handful of times that.
MOVED_BYTES = 1 << 30
_SEED = 20


def make_cache(layout: KvLayout, dtype: torch.dtype, device: torch.device) -> KvCache:
    """A cache full of random bits."""
    return KvCache.of([random_bytes(layout.layer_shape, dtype, device) for _ in range(layout.layers)], layout.form)


class CopyBench:
    """The benchmark for one model's blocks.

    Args:
        shape: the model.
        device: that copies.
        clock, budget: of the whole run.
        moved_bytes: payload of one operation; less where memory is short.
        block_size: tokens of a block.
        form: of the caches.
    """

    def __init__(
        self,
        shape: ModelShape,
        device: torch.device,
        clock: Clock,
        budget: Budget,
        *,
        moved_bytes: int = MOVED_BYTES,
        block_size: int = 16,
        form: Form = "kv_first",
    ) -> None:
        if shape.kv_bytes_per_element not in _DTYPES:
            problem = f"{shape.kv_bytes_per_element:g} bytes an element"
            raise InputError(problem, expected="1, 2 or 4", field="kv_bytes_per_element")
        self._dtype = _DTYPES[int(shape.kv_bytes_per_element)]
        self._device, self._clock, self._budget = device, clock, budget
        self._shape, self._block_size, self._form = shape, block_size, form
        one = self._layout(1, shape.kv_heads)
        # Caches twice the payload for source and target, and a buffer: five times what one operation moves.
        moved = min(moved_bytes, free_bytes(device) // 8)
        self._count = max(2, moved // one.block_bytes)
        self._points: list[CopyPoint] = []

    def _layout(self, blocks: int, kv_heads: int) -> KvLayout:
        shape = self._shape
        size = self._dtype.itemsize
        name = str(self._dtype).removeprefix("torch.")
        return KvLayout(shape.layers, blocks, self._block_size, kv_heads, shape.head_dim, name, size, self._form)

    def run(self) -> CopyResult:
        """All of it, the most telling first, until the budget is spent.

        Raises:
            DependencyError: a copy gave something else than plain indexing.
        """
        chosen = Copier(self._device)
        quick = {chosen.choice.method: chosen}
        quick.setdefault("index", Copier(self._device, "index"))
        layout = self._layout(2 * self._count, self._shape.kv_heads)
        cache = make_cache(layout, self._dtype, self._device)
        host = torch.empty(layout.buffer_shape(self._count), dtype=self._dtype, pin_memory=self._device.type == "cuda")
        self._ceilings(host)
        patterns: tuple[Pattern, ...] = ("scattered", "contiguous")
        for pattern in patterns:
            for copier in quick.values():
                self._on_device(copier, cache, pattern)
                self._to_host(copier, cache, host, pattern)
        for copier in quick.values():
            self._permutations(copier)
        # Thousands of calls each, so last: what an engine without a kernel does.
        slow = Copier(self._device, "per_block")
        self._on_device(slow, cache, "scattered")
        self._to_host(slow, cache, host, "scattered")
        gpu = torch.cuda.get_device_name(self._device) if self._device.type == "cuda" else "cpu"
        return CopyResult(gpu=gpu, blocks=self._count, block_bytes=layout.block_bytes, points=tuple(self._points))

    def _ids(self, pattern: Pattern, blocks: int, seed: int) -> list[int]:
        if pattern == "contiguous":
            return list(range(self._count))
        return random.Random(seed).sample(range(blocks), self._count)  # noqa: S311 - an order, not a secret

    def _ceilings(self, host: torch.Tensor) -> None:
        """One plain copy of one contiguous buffer in each direction."""
        here = random_bytes(host.shape, self._dtype, self._device)
        there = _poisoned(host.shape, self._dtype, self._device)
        runs: tuple[tuple[Operation, torch.Tensor, torch.Tensor], ...] = (
            ("ceiling_d2d", here, there),
            ("ceiling_d2h", here, host),
            ("ceiling_h2d", host, there),
        )
        for operation, source, target in runs:
            target.view(torch.uint8).fill_(0xA5)
            target.copy_(source)
            right = _same(target, here)
            time = self._clock.measure([partial(target.copy_, source, non_blocking=True)], operation, graph=False)
            self._points.append(
                CopyPoint(operation=operation, method="copy", why="the machine's own", pattern="plain",
                          bytes=host.numel() * host.element_size(), checked=right, time=time)
            )  # fmt: skip

    def _on_device(self, copier: Copier, cache: KvCache, pattern: Pattern) -> None:
        layout = cache.layout
        ids = Ids.of(self._ids(pattern, layout.blocks, _SEED), cache, distinct=True)
        others = Ids.of(self._ids(pattern, layout.blocks, _SEED + 1), cache, distinct=True)
        buffer = _poisoned(layout.buffer_shape(self._count), self._dtype, self._device)
        self._point("gather", copier, pattern, partial(copier.gather, cache, ids, buffer),
                    lambda: _same(buffer, _reference(cache, ids)))  # fmt: skip
        fresh = random_bytes(buffer.shape, self._dtype, self._device)
        self._point("scatter", copier, pattern, partial(copier.scatter, fresh, cache, ids),
                    lambda: _same(fresh, _reference(cache, ids)))  # fmt: skip
        target = make_cache(layout, self._dtype, self._device)
        self._point("copy", copier, pattern, partial(copier.copy, cache, target, ids, others),
                    lambda: _same(_reference(target, others), _reference(cache, ids)))  # fmt: skip

    def _to_host(self, copier: Copier, cache: KvCache, host: torch.Tensor, pattern: Pattern) -> None:
        ids = Ids.of(self._ids(pattern, cache.layout.blocks, _SEED + 2), cache, distinct=True)
        ways: tuple[Via, ...] = ("staged",)
        if copier.choice.method == "triton" and self._device.type == "cuda":
            ways = ("staged", "mapped")
        for via in ways:
            detail = "" if copier.choice.method == "per_block" else via
            host.view(torch.uint8).fill_(0xA5)
            self._point("offload", copier, pattern, partial(copier.offload, cache, ids, host, via),
                        lambda: _same(host, _reference(cache, ids)), detail)  # fmt: skip
            # Something else than what the blocks already hold must come back.
            host.view(torch.uint8).bitwise_xor_(0xFF)
            self._point("restore", copier, pattern, partial(copier.restore, host, cache, ids, via),
                        lambda: _same(host, _reference(cache, ids)), detail)  # fmt: skip

    def _permutations(self, copier: Copier) -> None:
        heads = self._shape.kv_heads
        for source_tp, target_tp in PERMUTATIONS:
            detail = f"tp{source_tp} to tp{target_tp}"
            if any(heads % tp and tp % heads for tp in (source_tp, target_tp)):
                self._budget.skipped.append(f"permute {detail}: {heads} KV heads do not split so")
                continue
            if not self._budget.allows(f"permute {detail} by {copier.choice.method}"):
                continue
            sources, targets = self._ranks(source_tp), self._ranks(target_tp)
            ids = Ids.of(self._ids("scattered", 2 * self._count, _SEED + 3), sources[0], distinct=True)
            others = Ids.of(self._ids("scattered", 2 * self._count, _SEED + 4), targets[0], distinct=True)
            copier.permute(sources, targets, ids, others, heads)
            self._point("permute", copier, "scattered", partial(copier.permute, sources, targets, ids, others, heads),
                        partial(_same_heads, sources, targets, ids, others, heads), detail,
                        self._count * targets[0].layout.block_bytes * target_tp)  # fmt: skip

    def _ranks(self, tp: int) -> list[KvCache]:
        """Caches of all ranks; those that hold copies of a head hold the same bits, as an engine's do."""
        heads = self._shape.kv_heads
        layout = self._layout(2 * self._count, max(1, heads // tp))
        copies = max(1, tp // heads)
        made: list[KvCache] = []
        for rank in range(tp):
            cache = make_cache(layout, self._dtype, self._device)
            if rank % copies:
                for mine, first in zip(cache.tensors, made[rank - rank % copies].tensors, strict=True):
                    mine.copy_(first)
            made.append(cache)
        return made

    def _point(
        self,
        operation: Operation,
        copier: Copier,
        pattern: Pattern,
        call: Callable[[], object],
        right: Callable[[], bool],
        detail: str = "",
        size: int | None = None,
    ) -> None:
        """Copy once and compare, then time; nothing where the budget is spent."""
        method, why = copier.choice.method, copier.choice.why
        what = " ".join(part for part in (operation, detail, pattern, "by", method) if part)
        if not self._budget.allows(what):
            return
        call()
        if self._device.type == "cuda":
            torch.cuda.synchronize(self._device)
        if not right():
            raise DependencyError(f"{what}: the result differs from plain indexing")
        time = self._clock.measure([call], what, graph=False)
        self._points.append(
            CopyPoint(operation=operation, method=method, why=why, pattern=pattern, detail=detail, checked=True,
                      bytes=size or self._count * self._layout(1, self._shape.kv_heads).block_bytes, time=time)
        )  # fmt: skip


def _poisoned(shape: tuple[int, ...], dtype: torch.dtype, device: torch.device) -> torch.Tensor:
    raw = torch.full((*shape[:-1], shape[-1] * dtype.itemsize), 0xA5, dtype=torch.uint8, device=device)
    return raw.view(dtype)


def _reference(cache: KvCache, ids: Ids) -> torch.Tensor:
    """[n, layers, 2, block_size, kv_heads, bytes of a head]: the blocks by plain indexing, byte by byte."""
    return torch.stack([cache.halves(layer).view(torch.uint8)[ids.tensor] for layer in range(cache.layout.layers)], 1)


def _heads_of_all(caches: list[KvCache], ids: Ids, kv_heads: int) -> torch.Tensor:
    """Blocks with the heads of all ranks side by side; of replicas, every one must agree with the first."""
    parts = [_reference(cache, ids) for cache in caches]
    copies = max(1, len(caches) // kv_heads)
    for rank, part in enumerate(parts):
        if not part.equal(parts[rank - rank % copies]):
            raise DependencyError(
                f"rank {rank} of {len(caches)} holds another replica than rank {rank - rank % copies}"
            )
    return torch.cat(parts[::copies], dim=-2)


def _same_heads(sources: list[KvCache], targets: list[KvCache], ids: Ids, others: Ids, kv_heads: int) -> bool:
    return bool(_heads_of_all(sources, ids, kv_heads).equal(_heads_of_all(targets, others, kv_heads)))


def _same(one: torch.Tensor, other: torch.Tensor) -> bool:
    return bool(one.view(torch.uint8).to(other.device).equal(other.view(torch.uint8)))
