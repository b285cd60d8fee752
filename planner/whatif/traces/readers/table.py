"""CSV rows to columns, a block at a time; pandas does the work, a bisection finds the line that stops it."""

from __future__ import annotations

import io
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from planner.whatif.traces.readers.source import line_blocks, shown
from profiler.errors import InputError

Convert: TypeAlias = Callable[["pd.Series[Any]"], NDArray[Any]]
"""Turns the text of a column into numbers; raises ValueError when some cell cannot be."""


class Column:
    """A column to read.

    Args:
        name: its name in the header.
        position: its place in a row, counted from 0.
        expected: what a cell should be, for errors.
        convert: how to read its text; None for a finite number, exact if it is whole.
    """

    def __init__(self, name: str, position: int, expected: str, convert: Convert | None = None) -> None:
        self.name = name
        self.position = position
        self.expected = expected
        self.convert = convert


def exact_floats(text: pd.Series[Any]) -> NDArray[np.float64]:
    """Returns the float64 nearest to each cell; pandas' own parser may be off by the last bit.

    Raises:
        ValueError: a cell is not a number.
    """
    return text.to_numpy(dtype=object).astype(np.float64)


class _UnreadableError(ValueError):
    """Some row of a block cannot be read."""


def csv_rows(path: Path, width: int, columns: list[Column]) -> Iterator[tuple[NDArray[np.int64], list[NDArray[Any]]]]:
    """Streams the rows under the header of a CSV file.

    Args:
        path: the file; its first line that is not blank is the header.
        width: columns of the header; every row must have as many.
        columns: the columns to return; others are not looked at.

    Yields:
        The line number of each row, and one array per column in the order asked for.

    Raises:
        InputError: names the line, the column and the cell that cannot be read.
    """
    header_seen = False
    for block in line_blocks(path):
        data, numbers = block.data, block.numbers
        if not header_seen and len(numbers):
            data, numbers = data[data.index(b"\n") + 1 :], numbers[1:]
            header_seen = True
        if not len(numbers):
            continue
        try:
            parsed = _parse(data, len(numbers), width, columns)
        except _UnreadableError:
            # The rows before the bad line come first: they may hold an earlier mistake of another kind.
            lines = data.splitlines(keepends=True) if b"\r" not in data else _split(data)
            good = _readable_rows(lines, width, columns)
            if good:
                yield numbers[:good], _parse(b"".join(lines[:good]), good, width, columns)
            raise _explain(path, int(numbers[good]), lines[good], width, columns) from None
        yield numbers, parsed


def _parse(data: bytes, rows: int, width: int, columns: list[Column]) -> list[NDArray[Any]]:
    """Reads whole rows at once.

    Raises:
        _UnreadableError: at least one of them is wrong.
    """
    buffer = np.frombuffer(data, dtype=np.uint8)
    ends = np.flatnonzero(buffer == 0x0A)
    commas = np.searchsorted(np.flatnonzero(buffer == 0x2C), ends)
    # pandas fills short rows and may drop cells of long ones; neither may pass.
    if np.any(np.diff(commas, prepend=0) != width - 1):
        raise _UnreadableError
    try:
        frame = pd.read_csv(
            io.BytesIO(data),
            header=None,
            usecols=sorted({column.position for column in columns}),
            dtype={c.position: np.float64 if c.convert is None else str for c in columns},
            lineterminator="\n",
            skip_blank_lines=False,
            engine="c",
            # One piece: the block is small already, and pieces may disagree on a type.
            low_memory=False,
        )
        if len(frame) != rows:
            raise _UnreadableError
        arrays = [frame[c.position].to_numpy() if c.convert is None else c.convert(frame[c.position]) for c in columns]
    except (ValueError, OverflowError) as error:
        raise _UnreadableError from error
    if not all(np.isfinite(array).all() for array in arrays):
        raise _UnreadableError
    return arrays


def _split(data: bytes) -> list[bytes]:
    return [line + b"\n" for line in data.split(b"\n")[:-1]]


def _readable_rows(lines: list[bytes], width: int, columns: list[Column]) -> int:
    """Returns how many lines come before the first that cannot be read, halving the search each time."""
    low, high = 0, len(lines)
    while high - low > 1:
        middle = (low + high) // 2
        try:
            _parse(b"".join(lines[low:middle]), middle - low, width, columns)
            low = middle
        except _UnreadableError:
            high = middle
    return low


def _explain(path: Path, number: int, line: bytes, width: int, columns: list[Column]) -> InputError:
    """Returns the error for one line that cannot be read."""
    text = line.decode().rstrip("\n")
    cells = text.split(",")
    if len(cells) != width:
        return InputError(
            f"{len(cells)} cells in {shown(text)}",
            expected=f"{width} cells as in the header (is the line cut off?)",
            source=path,
            line=number,
        )
    for column in columns:
        alone = Column(column.name, 0, column.expected, column.convert)
        cell = cells[column.position].strip()
        try:
            _parse(cell.encode() + b"\n", 1, 1, [alone])
        except _UnreadableError:
            found = f"found {shown(cell)}" if cell else "the cell is empty"
            return InputError(found, expected=column.expected, source=path, line=number, field=column.name)
    return InputError(
        f"cannot be read as a row: {shown(text)}",
        expected=f"{width} cells separated by commas",
        source=path,
        line=number,
    )
