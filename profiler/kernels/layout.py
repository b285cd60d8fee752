"""How KV blocks lie in memory: addresses of a copy, checks of what is asked for, heads of tensor-parallel ranks.

A layer of a KV cache is [2, blocks, block_size, kv_heads, head_dim] (`kv_first`) or [blocks, 2, block_size, kv_heads,
head_dim] (`block_first`); index 0 of the axis of length 2 holds keys, 1 values. Nothing here needs torch.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Literal

from profiler.errors import InputError

Form = Literal["kv_first", "block_first"]

#: Widest access of a GPU thread.
WIDEST_BYTES = 16


@dataclass(frozen=True, slots=True)
class KvLayout:
    """Sizes of one rank's KV cache.

    Attributes:
        layers: tensors, one a layer.
        blocks: of each layer.
        block_size: tokens of a block.
        kv_heads: of this rank.
        head_dim: elements of a head.
        dtype: name of the number format, as torch has it without `torch.`.
        element_bytes: bytes of one number.
        form: which of the two axes comes first.
    """

    layers: int
    blocks: int
    block_size: int
    kv_heads: int
    head_dim: int
    dtype: str
    element_bytes: int
    form: Form

    @property
    def layer_shape(self) -> tuple[int, ...]:
        """Shape of one layer's tensor."""
        inner = (self.block_size, self.kv_heads, self.head_dim)
        return (2, self.blocks, *inner) if self.form == "kv_first" else (self.blocks, 2, *inner)

    @property
    def slot_bytes(self) -> int:
        """Keys (or values) of one token in one layer."""
        return self.kv_heads * self.head_dim * self.element_bytes

    @property
    def half_bytes(self) -> int:
        """Keys (or values) of one block in one layer."""
        return self.block_size * self.slot_bytes

    @property
    def block_bytes(self) -> int:
        """Keys and values of one block in all layers."""
        return 2 * self.layers * self.half_bytes

    def buffer_shape(self, count: int) -> tuple[int, ...]:
        """Shape of the contiguous buffer of `count` blocks: a block of all layers is one piece."""
        return (count, self.layers, 2, self.block_size, self.kv_heads, self.head_dim)


@dataclass(frozen=True, slots=True)
class Side:
    """Addresses of one side of a copy, in bytes: pointer[layer] + half, block and slot times their strides + start.

    Attributes:
        pointers: first byte of each layer.
        half_stride: from keys to values of a block.
        block_stride: from a block to the next.
        slot_stride: from a token to the next.
        start: of the first head that is copied, within a token.
    """

    pointers: tuple[int, ...]
    half_stride: int
    block_stride: int
    slot_stride: int
    start: int = 0


@dataclass(frozen=True, slots=True)
class Runs:
    """The contiguous pieces of a copy.

    Attributes:
        slots: pieces of each half of a block.
        run_bytes: bytes of each.
        word_bytes: widest access (16, 8, 4, 2 or 1 bytes) that every address and length allows.
    """

    slots: int
    run_bytes: int
    word_bytes: int


def plan_runs(source: Side, target: Side, block_size: int, run_bytes: int) -> Runs:
    """How to copy `run_bytes` of each token: whole blocks at once where both sides hold the tokens back to back."""
    slots = block_size
    if source.slot_stride == run_bytes == target.slot_stride:
        slots, run_bytes = 1, run_bytes * block_size
    lengths = [run_bytes]
    for side in (source, target):
        lengths += [*side.pointers, side.half_stride, side.block_stride, side.start]
        if slots > 1:
            lengths.append(side.slot_stride)
    return Runs(slots, run_bytes, math.gcd(WIDEST_BYTES, *lengths))


def check_ids(ids: Sequence[int], blocks: int, field: str, *, distinct: bool) -> None:
    """Block ids lie within the cache and, in a destination, occur once.

    Raises:
        InputError: there is none, one is out of range, or a destination is named twice.
    """
    if not ids:
        raise InputError("names no block", expected="at least one", field=field)
    for place, block in enumerate(ids):
        if not 0 <= block < blocks:
            expected = f"ids from 0 to {blocks - 1}"
            raise InputError(f"block {block} at position {place} is not in the cache", expected=expected, field=field)
    if distinct and len(set(ids)) != len(ids):
        twice = next(block for place, block in enumerate(ids) if block in ids[:place])
        problem = f"block {twice} is there twice, and which of the two would win is not defined"
        raise InputError(problem, expected="each destination once", field=field)


def check_same(source: KvLayout, target: KvLayout, *, heads: bool = True) -> None:
    """Both caches hold blocks of the same kind; their number of blocks and their form may differ.

    Args:
        source: the cache that is read.
        target: the cache that is written.
        heads: whether the number of KV heads must be the same too; not for a permutation between TP sizes.

    Raises:
        InputError: layers, block size, heads, head size or number format differ; names all of them.
    """
    names = ["layers", "block_size", "head_dim", "dtype", "element_bytes"] + (["kv_heads"] if heads else [])
    wrong = [n for n in names if getattr(source, n) != getattr(target, n)]
    if wrong:
        found = "; ".join(f"{n} is {getattr(source, n)} and {getattr(target, n)}" for n in wrong)
        raise InputError(f"source and target do not fit: {found}", expected="the same in both", field=wrong[0])


def heads_of_rank(kv_heads: int, tp: int, rank: int) -> range:
    """KV heads that a tensor-parallel rank holds; with more ranks than heads each head is on tp / kv_heads ranks.

    As vLLM splits them: contiguous shares, replicas on neighbouring ranks.

    Raises:
        InputError: neither of the two numbers divides the other.
    """
    if kv_heads % tp and tp % kv_heads:
        expected = f"a TP size that divides {kv_heads} KV heads, or a multiple of it"
        raise InputError(f"{kv_heads} KV heads on {tp} ranks", expected=expected, field="tp")
    if tp >= kv_heads:
        head = rank * kv_heads // tp
        return range(head, head + 1)
    share = kv_heads // tp
    return range(rank * share, (rank + 1) * share)


@dataclass(frozen=True, slots=True)
class Move:
    """Neighbouring heads that go from one rank's cache to another's; head numbers are local to the rank."""

    source_rank: int
    source_head: int
    target_rank: int
    target_head: int
    heads: int


def plan_permutation(kv_heads: int, source_tp: int, target_tp: int) -> tuple[Move, ...]:
    """Who sends which heads to whom when caches of `source_tp` ranks become caches of `target_tp` ranks.

    Every head of every target rank is written exactly once. Where a head has replicas in the source, they take turns,
    so that none sends everything.

    Raises:
        InputError: a TP size does not fit the number of KV heads.
    """
    holders: dict[int, list[int]] = {}
    for rank in range(source_tp):
        for head in heads_of_rank(kv_heads, source_tp, rank):
            holders.setdefault(head, []).append(rank)
    moves: list[Move] = []
    for target in range(target_tp):
        mine = heads_of_rank(kv_heads, target_tp, target)
        for head in mine:
            rank = holders[head][target % len(holders[head])]
            local = head - heads_of_rank(kv_heads, source_tp, rank).start
            last = moves[-1] if moves else None
            if (
                last is not None
                and (last.source_rank, last.target_rank) == (rank, target)
                and (last.source_head + last.heads == local)
            ):
                moves[-1] = Move(rank, last.source_head, target, last.target_head, last.heads + 1)
            else:
                moves.append(Move(rank, local, target, head - mine.start, 1))
    return tuple(moves)


def chunks(count: int, size: int) -> Iterable[range]:
    """Consecutive pieces of `range(count)` of at most `size`."""
    return (range(start, min(start + size, count)) for start in range(0, count, size))
