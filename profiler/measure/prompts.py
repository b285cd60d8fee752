"""Prompts of token ids as streams: request i's prompt is a beginning of stream i, whatever its length.

An engine that keeps a prefix cache computes each stream once: decode points of the same requests, at shorter contexts
or in smaller batches, then cost no prefill. Two streams differ from their first tokens on, so no two requests share a
block, and a step reads as much memory as with prompts of different users.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

#: Ids that every tokenizer has and that are no special tokens in any that matters: past the first, below 1,000.
FIRST_ID, IDS = 100, 900
#: Tokens of a stream are made in pieces of so many.
_PIECE = 4096


class Streams:
    """Streams by number.

    Args:
        seed: another one gives other streams.
    """

    def __init__(self, seed: int) -> None:
        self._seed = seed
        self._fresh = 1 << 40
        self._made: dict[int, NDArray[np.int64]] = {}

    def fresh(self) -> int:
        """A stream that was never used."""
        self._fresh += 1
        return self._fresh

    def tokens(self, stream: int, count: int) -> NDArray[np.int64]:
        """The first `count` ids of a stream."""
        have = self._made.get(stream)
        if have is None or len(have) < count:
            size = -(-count // _PIECE) * _PIECE
            rng = np.random.default_rng((self._seed, stream))
            # Drawn whole again: the beginning is the same, since draws of one generator are.
            have = rng.integers(FIRST_ID, FIRST_ID + IDS, size=size)
            if stream < 1 << 40:
                self._made[stream] = have
        return have[:count]

    def prompt(self, stream: int, count: int) -> str:
        """The JSON of a prompt."""
        return as_json(self.tokens(stream, count))

    def extended(self, head: NDArray[np.int64], count: int) -> str:
        """The JSON of a prompt that begins with these ids and goes on with fresh ones, `count` in all."""
        return as_json(np.concatenate([head, self.tokens(self.fresh(), count - len(head))]))


def as_json(ids: NDArray[np.int64]) -> str:
    """A JSON list of whole numbers."""
    return f"[{','.join(map(str, ids.tolist()))}]"
