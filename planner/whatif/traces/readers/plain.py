"""Plain CSV: a header with arrival_s,isl,osl and optionally prefix_hit_tokens; other columns are ignored."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np

from planner.whatif.traces.readers.base import FieldNames, Format, Rows, column_positions, csv_columns
from planner.whatif.traces.readers.source import first_line
from planner.whatif.traces.readers.table import Column, csv_rows, exact_floats
from profiler.errors import InputError

_REQUIRED = ["arrival_s", "isl", "osl"]
_HIT = "prefix_hit_tokens"
_TIME_EXPECTED = "a time in seconds, at least 0"


def _recognises(line: str) -> bool:
    # One known name is enough, so that a missing column is reported as that.
    return bool(set(csv_columns(line)) & set(_REQUIRED))


def _rows(path: Path, prefix_cache_tokens: int | None) -> Iterator[Rows]:
    """Streams the rows; the hits are recorded in the file, so the size of the cache has no say in them."""
    del prefix_cache_tokens
    line, header, _ = first_line(path)
    positions = column_positions(path, line, header, _REQUIRED)
    names = [*_REQUIRED, _HIT] if _HIT in positions else _REQUIRED
    columns = [
        Column(names[0], positions[names[0]], _TIME_EXPECTED, exact_floats),
        *(Column(name, positions[name], "a whole number of tokens") for name in names[1:]),
    ]
    for numbers, arrays in csv_rows(path, len(csv_columns(header)), columns):
        negative = np.flatnonzero(arrays[0] < 0)
        if len(negative):
            raise InputError(
                f"found {arrays[0][negative[0]]}",
                expected=_TIME_EXPECTED,
                source=path,
                line=int(numbers[negative[0]]),
                field="arrival_s",
            )
        hit = arrays[3] if len(arrays) > 3 else np.zeros(len(numbers))
        yield Rows(numbers, arrays[0], arrays[1], arrays[2], hit)


FORMAT = Format(
    description="plain CSV with the header arrival_s,isl,osl and optionally prefix_hit_tokens",
    recognises=_recognises,
    fields=FieldNames("arrival_s", "isl", "osl"),
    rows=_rows,
)
