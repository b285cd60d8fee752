"""Prompts that nothing has seen before, at the cost of a slice.

Engines reuse the KV cache of equal beginnings, block by block: a block is reused only if all before it is equal, too.
So each prompt begins with a few words that spell a number of its own, and goes on with a piece of one long random text.
Two prompts then share no first block, and building one of 4,000 words takes microseconds.
"""

from __future__ import annotations

import json
import random
from enum import StrEnum
from itertools import accumulate

#: Words in the vocabulary, `w0` to `w999`; ids are taken from as many, past the special ones.
WORDS = 1000
_FIRST_ID = 10
#: Digits to base WORDS that any 64-bit number fits in.
_DIGITS = 7
#: Words of the random text; a longer prompt goes round.
_POOL = 1 << 16
_MASK = (1 << 64) - 1


class Kind(StrEnum):
    """What prompts are made of."""

    WORDS = "words"
    """Text; a tokenizer makes one or more tokens of a word, so the true length is what the engine's usage says."""
    IDS = "ids"
    """Token ids, for engines that are asked directly; the length is exact."""


class Prompts:
    """Prompts by their number; equal seeds give equal prompts on every machine.

    Args:
        kind: text or token ids.
        seed: of the random text and of the numbers that prompts begin with.
    """

    def __init__(self, kind: Kind, seed: int) -> None:
        rng = random.Random(seed)  # noqa: S311 - prompts, no secrets
        self._kind = kind
        self._salt = rng.getrandbits(64)
        pool = [self._piece(rng.randrange(WORDS)) for _ in range(_POOL)]
        self._text = "".join(pool)
        self._starts = list(accumulate((len(piece) for piece in pool), initial=0))

    def as_json(self, number: int, length: int) -> str:
        """The JSON text of one prompt.

        Args:
            number: of the request; no two below 2**64 give prompts that begin alike, from seven words on.
            length: in words or ids, at least 1.
        """
        mixed = _mix(self._salt + number)
        digits = [mixed // WORDS**place % WORDS for place in range(min(_DIGITS, length))]
        parts = [self._piece(digit) for digit in digits]
        start, left = mixed % _POOL, length - len(digits)
        while left > 0:
            taken = min(left, _POOL - start)
            parts.append(self._text[self._starts[start] : self._starts[start + taken]])
            start, left = 0, left - taken
        inner = "".join(parts)[:-1]  # without the last separator
        # Nothing in a word needs escaping.
        return f'"{inner}"' if self._kind is Kind.WORDS else f"[{inner}]"

    def _piece(self, word: int) -> str:
        return f"w{word} " if self._kind is Kind.WORDS else f"{_FIRST_ID + word},"


def render(prompt: str | list[int]) -> str:
    """The JSON text of a given prompt."""
    return json.dumps(prompt)


def _mix(number: int) -> int:
    """Spread a number over 64 bits, one to one (the finalizer of SplitMix64, Steele et al. 2014)."""
    number &= _MASK
    number = (number ^ number >> 30) * 0xBF58476D1CE4E5B9 & _MASK
    number = (number ^ number >> 27) * 0x94D049BB133111EB & _MASK
    return number ^ number >> 31
