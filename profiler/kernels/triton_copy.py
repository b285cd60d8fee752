"""Launches of the Triton kernel: addresses in tables on the device, lengths in words that every address allows."""

from __future__ import annotations

import torch
import triton.language as tl
from triton import knobs

from profiler.kernels.block_kernel import copy_runs
from profiler.kernels.caches import Ids, KvCache, buffer_side
from profiler.kernels.layout import Move, Side, plan_runs

#: Bytes that one program of 128 threads moves: 8 accesses of 16 bytes in flight a thread.
PIECE_BYTES = 16 << 10
_WORDS = {8: tl.int64, 4: tl.int32, 2: tl.int16, 1: tl.int8}
_MOST_TABLES = 64


def interpreted() -> bool:
    """Whether Triton runs kernels on the processor (TRITON_INTERPRET=1)."""
    return bool(knobs.runtime.interpret)


class Kernel:
    """Moves blocks with one launch for all layers.

    Args:
        piece_bytes: most that one program moves; a power of two.
    """

    def __init__(self, piece_bytes: int = PIECE_BYTES) -> None:
        self._piece_bytes = piece_bytes
        self._tables: dict[tuple[tuple[int, ...], torch.device], torch.Tensor] = {}

    def gather(self, cache: KvCache, ids: Ids, out: torch.Tensor) -> None:
        """Blocks into a buffer; one on the host must be pinned, which the device then reaches by the same address."""
        run = cache.layout.slot_bytes
        self._launch(cache.side(), buffer_side(out, cache.layout), ids, None, cache, run)

    def scatter(self, buffer: torch.Tensor, cache: KvCache, ids: Ids) -> None:
        """A buffer into blocks; one on the host must be pinned."""
        run = cache.layout.slot_bytes
        self._launch(buffer_side(buffer, cache.layout), cache.side(), None, ids, cache, run)

    def copy(self, source: KvCache, target: KvCache, source_ids: Ids, target_ids: Ids, move: Move) -> None:
        """Heads of blocks of one cache into heads of blocks of another."""
        run = move.heads * source.layout.head_dim * source.layout.element_bytes
        sides = source.side(move.source_head), target.side(move.target_head)
        self._launch(*sides, source_ids, target_ids, source, run)

    def _launch(
        self, source: Side, target: Side, source_ids: Ids | None, target_ids: Ids | None, cache: KvCache, run_bytes: int
    ) -> None:
        layout = cache.layout
        runs = plan_runs(source, target, layout.block_size, run_bytes)
        # 16-byte accesses are pairs of 8-byte words, which the compiler joins; narrower ones are single words.
        word = min(runs.word_bytes, 8)
        vector = runs.word_bytes // word
        total = runs.slots * runs.run_bytes // word
        piece = min(self._piece_bytes // word, 1 << max(0, total - 1).bit_length())
        pieces = -(-total // piece)
        given = source_ids if source_ids is not None else target_ids
        if given is None:
            raise ValueError("a copy without block ids")
        numbers = given.tensor
        tables = self._table(source.pointers, cache.device), self._table(target.pointers, cache.device)
        # Triton launches on the current device, which need not be the one that holds the caches.
        with torch.cuda.device_of(numbers):
            copy_runs[(len(given) * pieces, layout.layers * 2)](
                *tables,
                numbers if source_ids is None else source_ids.tensor,
                numbers if target_ids is None else target_ids.tensor,
                SOURCE_HALF=source.half_stride // word,
                SOURCE_BLOCK=source.block_stride // word,
                SOURCE_SLOT=source.slot_stride // word,
                SOURCE_START=source.start // word,
                TARGET_HALF=target.half_stride // word,
                TARGET_BLOCK=target.block_stride // word,
                TARGET_SLOT=target.slot_stride // word,
                TARGET_START=target.start // word,
                SOURCE_BY_ID=source_ids is not None,
                TARGET_BY_ID=target_ids is not None,
                SLOTS=runs.slots,
                RUN=runs.run_bytes // word,
                WORD=_WORDS[word],
                VECTOR=vector,
                PIECES=pieces,
                PIECE=piece,
            )

    def _table(self, pointers: tuple[int, ...], device: torch.device) -> torch.Tensor:
        key = (pointers, device)
        if key not in self._tables:
            if len(self._tables) >= _MOST_TABLES:
                self._tables.clear()
            self._tables[key] = torch.tensor(pointers, dtype=torch.int64, device=device)
        return self._tables[key]
