"""What a trace format is, and the checks that every format shares."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from planner.whatif.traces.readers.source import shown
from planner.whatif.traces.trace import Trace, TraceChunk, rechunk
from profiler.errors import InputError

MAX_LENGTH_TOKENS = 10_000_000
"""Ten times the longest context served today; above it the column is surely not a length in tokens."""
MAX_SPAN_S = 10 * 366 * 86_400.0
"""Ten years; a longer span means that the times are not in the unit that the format says."""


@dataclass(frozen=True)
class Rows:
    """Parsed but unchecked requests.

    Attributes:
        numbers: int64, line number of each in the file.
        time: float64 seconds or int64 nanoseconds, from any origin.
        isl: float64, tokens.
        osl: float64, tokens.
        prefix_hit_tokens: float64, tokens.
    """

    numbers: NDArray[np.int64]
    time: NDArray[np.float64] | NDArray[np.int64]
    isl: NDArray[np.float64]
    osl: NDArray[np.float64]
    prefix_hit_tokens: NDArray[np.float64]


@dataclass(frozen=True)
class FieldNames:
    """What the format calls each field, for errors."""

    time: str
    isl: str
    osl: str
    prefix_hit_tokens: str = "prefix_hit_tokens"


@dataclass(frozen=True)
class Format:
    """A trace format: how to know it by the first line, and how to stream its rows.

    Attributes:
        description: one line for the error that lists what is accepted.
        recognises: says from the first line, without its newline, whether a file is of this format.
        fields: the names of its fields.
        rows: streams the rows of a file; given the path and the prefix cache in tokens (see `open_trace`).
    """

    description: str
    recognises: Callable[[str], bool]
    fields: FieldNames
    rows: Callable[[Path, int | None], Iterator[Rows]]


class FileTrace(Trace):
    """A trace in a file, read again from the start by each call of `chunks`."""

    def __init__(self, path: Path, format_: Format, prefix_cache_tokens: int | None) -> None:
        self._path = path
        self._format = format_
        self._prefix_cache_tokens = prefix_cache_tokens

    @property
    def name(self) -> str:
        """The name of the file."""
        return self._path.name

    def chunks(self) -> Iterator[TraceChunk]:
        """Yields the requests, checked on the way; see `Trace.chunks`."""
        return rechunk(self._checked())

    def _checked(self) -> Iterator[TraceChunk]:
        origin: float | int | None = None
        previous: float | int | None = None
        for rows in self._format.rows(self._path, self._prefix_cache_tokens):
            if not len(rows.numbers):
                continue
            if origin is None or previous is None:
                origin = previous = rows.time[0].item()
            check(self._path, self._format.fields, rows, origin, previous)
            previous = rows.time[-1].item()
            offset = rows.time - origin
            if offset.dtype == np.int64:
                offset = offset / 1e9
            hit = np.zeros_like(rows.isl) if self._prefix_cache_tokens == 0 else rows.prefix_hit_tokens
            yield TraceChunk(
                offset.astype(np.float64),
                rows.isl.astype(np.int32),
                rows.osl.astype(np.int32),
                hit.astype(np.int32),
            )
        if origin is None:
            raise InputError("holds no requests", expected="at least one request", source=self._path)


def check(path: Path, names: FieldNames, rows: Rows, origin: float, previous: float) -> None:
    """Checks the values of parsed rows.

    Args:
        path: the file, for errors.
        names: the names of the fields, for errors.
        rows: the rows, at least one.
        origin: the time of the first request of the file, in the unit of `rows.time`.
        previous: the time of the request before these rows, in the same unit.

    Raises:
        InputError: names the first line that is wrong.
    """
    length_expected = f"a whole number of tokens from 1 to {MAX_LENGTH_TOKENS}"
    unit_s = 1e-9 if rows.time.dtype == np.int64 else 1.0
    elapsed_s: NDArray[np.float64] = ((rows.time - origin) * unit_s).astype(np.float64)
    backwards = np.diff(rows.time, prepend=rows.time.dtype.type(previous)) < 0
    wrong: list[tuple[NDArray[np.bool_], str, NDArray[np.float64], str, str]] = [
        (_not_whole(rows.isl, 1), names.isl, rows.isl, "", length_expected),
        (_not_whole(rows.osl, 1), names.osl, rows.osl, "", length_expected),
        (
            _not_whole(rows.prefix_hit_tokens, 0) | (rows.prefix_hit_tokens >= np.maximum(rows.isl, 1)),
            names.prefix_hit_tokens,
            rows.prefix_hit_tokens,
            "",
            "a whole number of tokens from 0 to isl - 1 (the last token is always computed)",
        ),
        (
            backwards,
            names.time,
            elapsed_s,
            " s after the first request, earlier than the line before",
            "requests sorted by arrival",
        ),
        (
            elapsed_s > MAX_SPAN_S,
            names.time,
            elapsed_s,
            " s after the first request, more than ten years",
            "times in the unit of the format",
        ),
    ]
    first = [(int(np.argmax(bad)), i) for i, (bad, *_) in enumerate(wrong) if bad.any()]
    if not first:
        return
    row, which = min(first)
    _, field, values, remark, expected = wrong[which]
    raise InputError(
        f"found {values[row].item():.12g}{remark}",
        expected=expected,
        source=path,
        line=int(rows.numbers[row]),
        field=field,
    )


def _not_whole(tokens: NDArray[np.float64], at_least: int) -> NDArray[np.bool_]:
    wrong: NDArray[np.bool_] = ~((tokens >= at_least) & (tokens <= MAX_LENGTH_TOKENS) & (np.floor(tokens) == tokens))
    return wrong


def csv_columns(header: str) -> list[str]:
    """Returns the column names of a CSV header line, without spaces and quotes around them."""
    return [name.strip().strip('"').strip() for name in header.split(",")]


def column_positions(path: Path, line: int, header: str, required: list[str]) -> dict[str, int]:
    """Returns the position of every column of a header.

    Raises:
        InputError: a required column is missing, or a column comes twice.
    """
    columns = csv_columns(header)
    for name in required:
        if name not in columns:
            raise InputError(
                f"no such column in the header {shown(header)}",
                expected=f"the columns {','.join(required)}",
                source=path,
                line=line,
                field=name,
            )
    for name in columns:
        if name and columns.count(name) > 1:
            raise InputError("the column comes twice", expected="each column once", source=path, line=line, field=name)
    return {name: columns.index(name) for name in columns}
