"""One answer of `/v1/completions` with `stream: true`: bytes as they came in, read once the stream has ended.

While it runs, only bytes and times are kept, which is all that a client at hundreds of streams can afford; at its end
one pass finds every event and the time at which its last byte was there. A server may cut its bytes anywhere; to read
them whole also makes that irrelevant.
"""

from __future__ import annotations

import json
import re
from bisect import bisect_left
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

#: Data lines that arrived whole, per the event stream format of HTML; comments (keep-alives) start with a colon.
_DATA = re.compile(rb"^data:[ ]?([^\r\n]*)\r?\n", re.MULTILINE)


class Counting(StrEnum):
    """How tokens are counted in a stream, apart from what its usage says."""

    CHUNKS = "chunks"
    """One per chunk with text: a lower bound, since a busy engine merges tokens into one chunk."""
    WORDS = "words"
    """One per word: exact for engines whose tokens are words."""
    IDS = "ids"
    """One per token id (`return_token_ids` of vLLM): exact."""


@dataclass(frozen=True, slots=True)
class Reading:
    """What a stream held.

    Attributes:
        done: it ended with `[DONE]`.
        first_s, last_s: when the first and the last chunk with a choice were there; None without one.
        counted_tokens: tokens in its chunks.
        prompt_tokens, completion_tokens: as its usage says; None without one.
        finish_reason: the last one given; empty without one.
        error: the error that it carried, or what cannot be read in it; empty when all is well.
        text: all text, joined.
    """

    done: bool
    first_s: float | None
    last_s: float | None
    counted_tokens: int
    prompt_tokens: int | None
    completion_tokens: int | None
    finish_reason: str
    error: str
    text: str


class Transcript:
    """The bytes of one stream, each piece with the time at which it came."""

    __slots__ = ("_ends", "_pieces", "_size", "_times")

    def __init__(self) -> None:
        self._pieces: list[bytes] = []
        self._ends: list[int] = []
        self._times: list[float] = []
        self._size = 0

    def add(self, piece: bytes, at_s: float) -> None:
        """Bytes that came at this time, on any clock that does not go back."""
        self._size += len(piece)
        self._pieces.append(piece)
        self._ends.append(self._size)
        self._times.append(at_s)

    def read(self, counting: Counting) -> Reading:
        """Everything in it so far; a line that is not whole yet does not count."""
        body = b"".join(self._pieces)
        done = False
        lines: list[tuple[bytes, int]] = []
        for match in _DATA.finditer(body):
            if match[1] == b"[DONE]":
                done = True
            else:
                lines.append((match[1], match.end()))
        events, error = _decode([line for line, _ in lines])
        first = last = None
        texts: list[str] = []
        counted, finish_reason = 0, ""
        usage: dict[str, Any] = {}
        for event, (_, end) in zip(events, lines, strict=False):
            if not isinstance(event, dict):
                error = error or f"an event is a {type(event).__name__}"
                continue
            if event.get("error"):
                error = error or str(event["error"])
            usage = event.get("usage") or usage
            if not event.get("choices"):
                continue
            choice = event["choices"][0]
            finish_reason = choice.get("finish_reason") or finish_reason
            text = choice.get("text") or ""
            ids = choice.get("token_ids") or ()
            texts.append(text)
            counted += len(ids) if counting is Counting.IDS else bool(text)
            # A token may have no text: its bytes are half a character, and the rest comes with the next one.
            first = end if first is None else first
            last = end
        whole = "".join(texts)
        return Reading(
            done=done,
            first_s=None if first is None else self._time(first),
            last_s=None if last is None else self._time(last),
            counted_tokens=len(whole.split()) if counting is Counting.WORDS else counted,
            prompt_tokens=usage.get("prompt_tokens"),
            completion_tokens=usage.get("completion_tokens"),
            finish_reason=finish_reason,
            error=error,
            text=whole,
        )

    @property
    def pieces(self) -> int:
        """Pieces that have come so far: about one for each chunk, at no cost."""
        return len(self._times)

    def timeline(self) -> list[tuple[float, int]]:
        """When how many tokens had come: (time, tokens so far) at each chunk that brought some.

        Tokens are counted by the usage in each chunk (`continuous_usage_stats` of vLLM); without one, by words.
        """
        steps: list[tuple[float, int]] = []
        lines = [(match[1], match.end()) for match in _DATA.finditer(b"".join(self._pieces)) if match[1] != b"[DONE]"]
        events, _ = _decode([line for line, _ in lines])
        tokens = 0
        for event, (_, end) in zip(events, lines, strict=False):
            if not isinstance(event, dict) or not event.get("choices"):
                continue
            usage = event.get("usage")
            if usage:
                have = int(usage.get("completion_tokens") or 0)
            else:
                have = tokens + len((event["choices"][0].get("text") or "").split())
            if have > tokens:
                tokens = have
                steps.append((self._time(end), tokens))
        return steps

    def _time(self, end: int) -> float:
        """When the byte before this offset was there."""
        return self._times[bisect_left(self._ends, end)]


def _decode(lines: list[bytes]) -> tuple[list[Any], str]:
    """The events of data lines, up to the first that is not JSON, and what is wrong with that one.

    All in one call first: one by one takes twice as long.
    """
    try:
        return list(json.loads(b"[" + b",".join(lines) + b"]")), ""
    except ValueError:
        events = []
        for line in lines:
            try:
                events.append(json.loads(line))
            except ValueError:
                return events, f"an event is not JSON: {line[:80].decode(errors='replace')}"
        return events, ""
