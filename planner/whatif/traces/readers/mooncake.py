"""Mooncake traces: JSON Lines with timestamp (ms), input_length, output_length and prefix block hashes."""

from __future__ import annotations

import json
import math
from collections import OrderedDict
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NoReturn

import numpy as np

from planner.whatif.traces.readers.base import MAX_LENGTH_TOKENS, FieldNames, Format, Rows
from planner.whatif.traces.readers.source import line_blocks, shown
from profiler.errors import InputError

BLOCK_TOKENS = 512
"""Tokens of prompt behind one hash."""
_MAX_TIMESTAMP_MS = 1e15
"""Milliseconds since 1970 fit 600 times over; above it floating point loses the millisecond."""
_FIELDS = FieldNames("timestamp", "input_length", "output_length", "hash_ids")


class PrefixCache:
    """A least-recently-used cache of prompt blocks, one for the whole fleet.

    Every worker of a fleet sees only a part of the requests, so a cache shared by all of them hits at least
    as often as the workers' own: the hits are an upper bound of what routing can reach.

    Args:
        capacity_tokens: what it holds; None for no limit (it then grows with the distinct blocks of the
        trace).
    """

    def __init__(self, capacity_tokens: int | None) -> None:
        self._capacity_blocks = math.inf if capacity_tokens is None else capacity_tokens // BLOCK_TOKENS
        self._blocks: OrderedDict[int, None] = OrderedDict()

    def serve(self, hash_ids: list[int]) -> int:
        """Returns how many leading blocks of a prompt are cached, then caches all of them."""
        blocks = self._blocks
        matched = 0
        for block in hash_ids:
            if block not in blocks:
                break
            matched += 1
        # The last block first, so that the head of a prompt, which others share, is the last of it to be
        # evicted.
        for block in reversed(hash_ids):
            blocks[block] = None
            blocks.move_to_end(block)
        while len(blocks) > self._capacity_blocks:
            blocks.popitem(last=False)
        return matched


def _rows(path: Path, prefix_cache_tokens: int | None) -> Iterator[Rows]:
    cache = None if prefix_cache_tokens == 0 else PrefixCache(prefix_cache_tokens)
    for block in line_blocks(path):
        numbers = block.numbers.tolist()
        values = np.zeros((len(numbers), 4))
        count = 0
        failure: InputError | None = None
        for number, line in zip(numbers, block.data.split(b"\n"), strict=False):
            try:
                time_ms, isl, osl, hash_ids = _request(path, number, line)
            except InputError as error:
                # The rows before it go first: they may hold an earlier mistake, such as time going backwards.
                failure = error
                break
            hit = 0 if cache is None else min(cache.serve(hash_ids) * BLOCK_TOKENS, isl - 1)
            values[count] = time_ms / 1000, isl, osl, hit
            count += 1
        yield Rows(block.numbers[:count], *(values[:count, i].copy() for i in range(4)))
        if failure is not None:
            raise failure


def _request(path: Path, number: int, line: bytes) -> tuple[float, int, int, list[int]]:
    """Reads one line.

    Raises:
        InputError: it is not a request.
    """

    def fail(problem: str, expected: str, field: str | None = None) -> NoReturn:
        raise InputError(problem, expected=expected, source=path, line=number, field=field)

    try:
        record: Any = json.loads(line)
    except (ValueError, RecursionError) as error:
        reason = error.msg if isinstance(error, json.JSONDecodeError) else "nested or long beyond reason"
        fail(
            f"malformed JSON ({reason}) in {shown(line.decode())}",
            "one JSON object per line (is the line cut off?)",
        )
    if not isinstance(record, dict):
        fail(f"found {shown(line.decode())}", "a JSON object")
    for field in (_FIELDS.time, _FIELDS.isl, _FIELDS.osl):
        if field not in record:
            fail("is missing", "timestamp, input_length, output_length and optionally hash_ids", field)
    time_ms, isl, osl = record[_FIELDS.time], record[_FIELDS.isl], record[_FIELDS.osl]
    # bool is an int to Python, not to whoever wrote the trace.
    if isinstance(time_ms, bool) or not isinstance(time_ms, int | float) or not 0 <= time_ms <= _MAX_TIMESTAMP_MS:
        fail(f"found {_json(time_ms)}", "a time in milliseconds, at least 0", _FIELDS.time)
    for field, tokens in ((_FIELDS.isl, isl), (_FIELDS.osl, osl)):
        if isinstance(tokens, bool) or not isinstance(tokens, int) or not 1 <= tokens <= MAX_LENGTH_TOKENS:
            fail(f"found {_json(tokens)}", f"a whole number of tokens from 1 to {MAX_LENGTH_TOKENS}", field)
    hash_ids = record.get("hash_ids", [])
    if not isinstance(hash_ids, list):
        fail(f"found {_json(hash_ids)}", "a list of integers", "hash_ids")
    if not all(type(block) is int for block in hash_ids):
        wrong = next(block for block in hash_ids if type(block) is not int)
        fail(f"found {_json(wrong)} in the list", "a list of integers", "hash_ids")
    return time_ms, isl, osl, hash_ids


def _json(value: object) -> str:
    try:
        return shown(json.dumps(value))
    except (ValueError, RecursionError):
        # Integers of thousands of digits and deep nesting can be read but not written back.
        return f"a {type(value).__name__} too large to show"


def _recognises(line: str) -> bool:
    """Whether a first line opens a JSON object; named, so that a trace can be handed to another process."""
    return line.startswith("{")


FORMAT = Format(
    description="Mooncake trace, JSON Lines with timestamp, input_length, output_length and hash_ids",
    recognises=_recognises,
    fields=_FIELDS,
    rows=_rows,
)
