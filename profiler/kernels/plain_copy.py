"""Copies of KV blocks by plain torch calls: what is left where the kernel cannot run, and what it is compared with."""

from __future__ import annotations

import math

import torch

from profiler.kernels.caches import Ids, KvCache
from profiler.kernels.layout import Move

_WORDS = ((8, torch.int64), (4, torch.int32), (2, torch.int16), (1, torch.uint8))


def wide(tensors: list[torch.Tensor]) -> list[torch.Tensor]:
    """Views of the same bytes as the widest integers that all of them allow.

    Indexing has kernels for integers where it has none for 8-bit floats, and moves more bytes with each element.
    """
    size = math.gcd(*(n for t in tensors for n in _alignments(t)))
    dtype = next(dtype for bytes_, dtype in _WORDS if size % bytes_ == 0)
    return [t.view(dtype) for t in tensors]


def _alignments(tensor: torch.Tensor) -> list[int]:
    size = tensor.element_size()
    strides = [stride * size for stride in tensor.stride()[:-1]]
    return [tensor.shape[-1] * size, tensor.storage_offset() * size, tensor.data_ptr(), *strides]


class Index:
    """One `index_select` or `index_copy_` a layer."""

    def gather(self, cache: KvCache, ids: Ids, out: torch.Tensor) -> None:
        """Blocks into a buffer."""
        for layer in range(cache.layout.layers):
            source, target = wide([cache.halves(layer), out[:, layer]])
            torch.index_select(source, 0, ids.tensor, out=target)

    def scatter(self, buffer: torch.Tensor, cache: KvCache, ids: Ids) -> None:
        """A buffer into blocks."""
        for layer in range(cache.layout.layers):
            source, target = wide([buffer[:, layer], cache.halves(layer)])
            target.index_copy_(0, ids.tensor, source)

    def copy(self, source: KvCache, target: KvCache, source_ids: Ids, target_ids: Ids, move: Move) -> None:
        """Heads of blocks of one cache into heads of blocks of another."""
        for layer in range(source.layout.layers):
            a, b = wide([_heads(source, layer, move, source=True), _heads(target, layer, move, source=False)])
            b.index_copy_(0, target_ids.tensor, a.index_select(0, source_ids.tensor))


class PerBlock:
    """One `copy_` a block and layer: what an engine without a kernel for it does."""

    def gather(self, cache: KvCache, ids: Ids, out: torch.Tensor) -> None:
        """Blocks into a buffer, which may be on the host."""
        for layer in range(cache.layout.layers):
            halves = cache.halves(layer)
            for place, block in enumerate(ids.numbers):
                for half in range(2):
                    out[place, layer, half].copy_(halves[block, half], non_blocking=True)

    def scatter(self, buffer: torch.Tensor, cache: KvCache, ids: Ids) -> None:
        """A buffer, which may be on the host, into blocks."""
        for layer in range(cache.layout.layers):
            halves = cache.halves(layer)
            for place, block in enumerate(ids.numbers):
                for half in range(2):
                    halves[block, half].copy_(buffer[place, layer, half], non_blocking=True)

    def copy(self, source: KvCache, target: KvCache, source_ids: Ids, target_ids: Ids, move: Move) -> None:
        """Heads of blocks of one cache into heads of blocks of another."""
        for layer in range(source.layout.layers):
            a, b = (_heads(source, layer, move, source=True), _heads(target, layer, move, source=False))
            for one, other in zip(source_ids.numbers, target_ids.numbers, strict=True):
                b[other].copy_(a[one], non_blocking=True)


def _heads(cache: KvCache, layer: int, move: Move, *, source: bool) -> torch.Tensor:
    first = move.source_head if source else move.target_head
    return cache.halves(layer)[:, :, :, first : first + move.heads]
