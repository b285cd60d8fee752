"""The Triton kernel that copies runs of bytes between KV caches and buffers: one launch for all layers."""

# mypy: disable-error-code="untyped-decorator, no-untyped-def"
# (Triton compiles the function from its source; its types are the compiler's.)

from __future__ import annotations

import triton
import triton.language as tl


@triton.jit
def copy_runs(
    source_table,
    target_table,
    source_ids,
    target_ids,
    SOURCE_HALF: tl.constexpr,  # noqa: N803 - constants of a compiled kernel
    SOURCE_BLOCK: tl.constexpr,  # noqa: N803
    SOURCE_SLOT: tl.constexpr,  # noqa: N803
    SOURCE_START: tl.constexpr,  # noqa: N803
    TARGET_HALF: tl.constexpr,  # noqa: N803
    TARGET_BLOCK: tl.constexpr,  # noqa: N803
    TARGET_SLOT: tl.constexpr,  # noqa: N803
    TARGET_START: tl.constexpr,  # noqa: N803
    SOURCE_BY_ID: tl.constexpr,  # noqa: N803
    TARGET_BY_ID: tl.constexpr,  # noqa: N803
    SLOTS: tl.constexpr,  # noqa: N803
    RUN: tl.constexpr,  # noqa: N803
    WORD: tl.constexpr,  # noqa: N803
    VECTOR: tl.constexpr,  # noqa: N803
    PIECES: tl.constexpr,  # noqa: N803
    PIECE: tl.constexpr,  # noqa: N803
):
    """Copy one piece of one half (keys or values) of one block of one layer.

    Strides, starts and lengths are in words of type WORD; VECTOR words are what one thread moves at once, and every
    address is a multiple of them. Grid: (blocks * PIECES, layers * 2). Strides are compiled in, since the compiler
    widens an access to 16 bytes only where it can prove the alignment.
    """
    place = tl.program_id(0)
    piece = place % PIECES
    block = place // PIECES
    layer = tl.program_id(1) // 2
    # 64 bits before the products: a cache is larger than 2^31 words
    half = (tl.program_id(1) % 2).to(tl.int64)
    source_block = block.to(tl.int64)
    target_block = block.to(tl.int64)
    if SOURCE_BY_ID:
        source_block = tl.load(source_ids + block)
    if TARGET_BY_ID:
        target_block = tl.load(target_ids + block)
    source = tl.load(source_table + layer).to(tl.pointer_type(WORD))
    target = tl.load(target_table + layer).to(tl.pointer_type(WORD))
    source_at = half * SOURCE_HALF + source_block * SOURCE_BLOCK + SOURCE_START
    target_at = half * TARGET_HALF + target_block * TARGET_BLOCK + TARGET_START
    if VECTOR > 1:
        source = tl.multiple_of(source, 16)
        target = tl.multiple_of(target, 16)
        source_at = tl.multiple_of(source_at, VECTOR)
        target_at = tl.multiple_of(target_at, VECTOR)
    flat = piece * PIECE + tl.arange(0, PIECE)
    if SLOTS == 1:
        source_words = flat
        target_words = flat
    else:
        source_words = flat // RUN * SOURCE_SLOT + flat % RUN
        target_words = flat // RUN * TARGET_SLOT + flat % RUN
    if (SLOTS * RUN) % PIECE == 0:
        words = tl.load(source + source_at + source_words)
        tl.store(target + target_at + target_words, words)
    else:
        inside = flat < SLOTS * RUN
        words = tl.load(source + source_at + source_words, mask=inside)
        tl.store(target + target_at + target_words, words, mask=inside)
