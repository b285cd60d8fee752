"""Where an estimate is taken: dense, as points cost nothing, and up to the limits of one data-parallel rank."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

SHORTEST_ISL = 32

#: Matrix kernels work in tiles of so many tokens: the first token of a further tile costs as much as a whole one. A
#: grid of powers of two alone would see full tiles only, and call everything between them as cheap.
TILE_TOKENS = 256
#: Beyond so many tokens one tile more is a few percent.
LAST_STEP = 2048

SHORTEST_CONTEXT = 128
LARGEST_MIXED_CONTEXT = 16384


@dataclass(frozen=True)
class Grid:
    """Points of one data-parallel rank.

    Attributes:
        isl: prompts' lengths, increasing.
        decode: (batch, context), by context, then batch.
        mixed: (prompt tokens, batch, context); together within the tokens of one iteration.
    """

    isl: tuple[int, ...]
    decode: tuple[tuple[int, int], ...]
    mixed: tuple[tuple[int, int, int], ...]


def grid(*, longest_isl: int, longest_context: int, max_num_seqs: int, max_num_batched_tokens: int, kv: int) -> Grid:
    """The grid within a rank's limits.

    Args:
        longest_isl: longest prompt.
        longest_context: longest context of a decode step.
        max_num_seqs: requests that run at once.
        max_num_batched_tokens: tokens of one iteration.
        kv: tokens of KV cache; no step holds more.
    """
    contexts = _doublings(min(SHORTEST_CONTEXT, longest_context), longest_context)
    batches = _with_steps(_doublings(1, max_num_seqs))
    decode = [(batch, context) for context in contexts for batch in _with_last(batches, kv // context)]
    tokens = [256, 1024, 4096, max_num_batched_tokens]
    mixed = [
        (min(new, max_num_batched_tokens - batch), batch, context)
        for context in contexts[::2]
        if context <= LARGEST_MIXED_CONTEXT
        for batch in _doublings(1, max_num_seqs, by=4)
        for new in tokens
        if batch * context + new <= kv and min(new, max_num_batched_tokens - batch) > 0
    ]
    lengths = _with_steps(_doublings(min(SHORTEST_ISL, longest_isl), longest_isl))
    return Grid(tuple(lengths), tuple(decode), tuple(dict.fromkeys(mixed)))


def chunks(isl: int, max_num_batched_tokens: int) -> tuple[tuple[int, int], ...]:
    """A lone prompt's iterations as the engine cuts it: (new tokens, tokens before them)."""
    return tuple((min(max_num_batched_tokens, isl - at), at) for at in range(0, isl, max_num_batched_tokens))


def _doublings(first: int, last: int, by: int = 2) -> list[int]:
    values = [first]
    while values[-1] * by < last:
        values.append(values[-1] * by)
    return values if values[-1] == last else [*values, last]


def _with_steps(tokens: list[int]) -> list[int]:
    """Values with those halfway to their doubles, from a quarter of a tile on, and with first tokens of tiles."""
    halfway = [3 * n // 2 for n in tokens if n >= TILE_TOKENS // 4]
    further = [n + 1 for n in tokens if n % TILE_TOKENS == 0 and n <= LAST_STEP]
    return sorted({*tokens, *(n for n in (*halfway, *further) if n < tokens[-1])})


def _with_last(batches: Iterable[int], most: int) -> list[int]:
    """Batches up to the most that fit, which is one of them where it cuts others off."""
    every = list(batches)
    inside = [batch for batch in every if batch <= most]
    return inside if len(inside) == len(every) or not most else sorted({*inside, most})
