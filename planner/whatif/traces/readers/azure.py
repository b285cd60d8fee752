"""Azure LLM inference traces: CSV with TIMESTAMP,ContextTokens,GeneratedTokens."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from planner.whatif.traces.readers.base import FieldNames, Format, Rows, column_positions, csv_columns
from planner.whatif.traces.readers.source import first_line
from planner.whatif.traces.readers.table import Column, csv_rows

_FIELDS = FieldNames("TIMESTAMP", "ContextTokens", "GeneratedTokens")
_REQUIRED = [_FIELDS.time, _FIELDS.isl, _FIELDS.osl]
_SHORTEST_TIMESTAMP = len("2023-11-16 18:15:46")


def _nanoseconds(text: pd.Series[Any]) -> NDArray[np.int64]:
    """Returns int64 nanoseconds since 1970, in UTC unless the text names an offset.

    Raises:
        ValueError: a cell is empty, not a date with a time of day, or out of the range of nanoseconds (1678
        to 2262).
    """
    if text.isna().any() or int(text.str.len().min()) < _SHORTEST_TIMESTAMP:
        raise ValueError("not a date with a time of day")
    times = pd.to_datetime(text, format="ISO8601", utc=True)
    # pandas reads "NaT" and the like as missing.
    if times.isna().any():
        raise ValueError("not a date with a time of day")
    return times.dt.tz_localize(None).dt.as_unit("ns").to_numpy().astype(np.int64)


def _rows(path: Path, prefix_cache_tokens: int | None) -> Iterator[Rows]:
    """Streams the rows; the format records nothing about prefixes, so there are no hits."""
    del prefix_cache_tokens
    line, header, _ = first_line(path)
    positions = column_positions(path, line, header, _REQUIRED)
    columns = [
        Column(_FIELDS.time, positions[_FIELDS.time], "a time such as 2023-11-16 18:15:46.6805900", _nanoseconds),
        Column(_FIELDS.isl, positions[_FIELDS.isl], "a whole number of tokens"),
        Column(_FIELDS.osl, positions[_FIELDS.osl], "a whole number of tokens"),
    ]
    for numbers, (time, isl, osl) in csv_rows(path, len(csv_columns(header)), columns):
        yield Rows(numbers, time, isl, osl, np.zeros(len(numbers)))


def _recognises(line: str) -> bool:
    """Whether a first line has a column of this format; named, so that a trace can be handed to another process."""
    return bool(set(csv_columns(line)) & set(_REQUIRED))


FORMAT = Format(
    description="Azure LLM inference trace, CSV with the header TIMESTAMP,ContextTokens,GeneratedTokens",
    recognises=_recognises,
    fields=_FIELDS,
    rows=_rows,
)
