"""Sample tables as CSV: the columns of each, read with errors that name the line, written losslessly."""

from __future__ import annotations

import csv
import difflib
import io
import math
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from profiler.errors import InputError
from profiler.schema import TableName

#: Columns of a table by name, each of shape (rows,). An empty optional cell is nan.
Samples = Mapping[str, NDArray[np.float64]]

# float() alone also takes "1_000", " 1", digits of other scripts and "infinity".
_NUMBER = re.compile(r"[+-]?(\d+(\.\d*)?|\.\d+)([eE][+-]?\d{1,4})?", re.ASCII)
# Far beyond any count of tokens or milliseconds, and far from where squares overflow.
_LARGEST, _SMALLEST = 1e15, 1e-9


@dataclass(frozen=True, slots=True)
class Column:
    """A column of a table.

    Attributes:
        name: its header, with the unit.
        kind: what its numbers may be.
        optional: whether the column may be missing and its cells empty.
        default: value of a missing cell.
    """

    name: str
    kind: Literal["positive", "not negative", "whole", "0 or 1"]
    optional: bool = False
    default: float = math.nan


_THROUGHPUT = Column("throughput_tokens_per_s_per_gpu", "positive", optional=True)
_PROMPTS = Column("prompts", "positive", optional=True, default=1.0)
_REPEAT = Column("repeat", "whole", optional=True, default=0.0)

#: Columns by table, in the order in which they are written.
COLUMNS: Mapping[TableName, tuple[Column, ...]] = MappingProxyType(
    {
        # `batch` prompts of `isl` tokens sent at once, of each of which `prefix_hit_tokens` were cached; `ttft_ms` is
        # that of the last of them, `server_ms` the mean time in the engine from being scheduled to the first token.
        "prefill": (
            Column("isl", "positive"),
            Column("ttft_ms", "positive"),
            _THROUGHPUT,
            _REPEAT,
            Column("batch", "positive", optional=True, default=1.0),
            Column("prefix_hit_tokens", "not negative", optional=True, default=0.0),
            Column("server_ms", "positive", optional=True),
            # Sent one after another; the row is of the one of median TTFT.
            _PROMPTS,
        ),
        "decode": (
            Column("batch", "positive"),
            Column("kv_tokens", "positive"),
            Column("context_tokens", "positive"),
            Column("itl_ms", "positive"),
            _THROUGHPUT,
            _REPEAT,
            Column("suspect", "0 or 1", optional=True, default=0.0),
            # Dynamo's x_kv_usage as it was: KV tokens are derived from it, and a product does not divide
            # back.
            Column("kv_usage", "not negative", optional=True),
            # Mean gap between tokens by the engine's own clock.
            Column("server_itl_ms", "positive", optional=True),
        ),
        "mixed": (
            Column("prefill_tokens", "not negative"),
            Column("batch", "not negative"),
            Column("kv_tokens", "not negative"),
            Column("iteration_ms", "positive"),
            _REPEAT,
        ),
        # `transfer_ms` is `total_ms` (TTFT of the pair) less `prefill_ms` (the prefill request) and `first_step_ms`.
        "transfer": (
            Column("tokens", "positive"),
            Column("transfer_ms", "positive"),
            _REPEAT,
            Column("total_ms", "positive", optional=True),
            Column("prefill_ms", "positive", optional=True),
            Column("first_step_ms", "not negative", optional=True),
            # Handed over one after another; the row is of the one of median `transfer_ms`.
            _PROMPTS,
            # TP of the prefill worker; 0 is that of the profile itself.
            Column("prefill_tp", "whole", optional=True, default=0.0),
            # That the decode engine's loop spent on posting the copies, by its own count.
            Column("post_ms", "not negative", optional=True),
        ),
    }
)

#: Coordinates of a point.
KEYS: Mapping[TableName, tuple[str, ...]] = MappingProxyType(
    {
        "prefill": ("isl", "batch", "prefix_hit_tokens"),
        "decode": ("batch", "kv_tokens"),
        "mixed": ("prefill_tokens", "batch", "kv_tokens"),
        "transfer": ("tokens",),
    }
)

#: Columns that may not be the same in two rows: a point's coordinates, where a hand-off came from, and `repeat`.
IDENTITY: Mapping[TableName, tuple[str, ...]] = MappingProxyType(
    {table: (*names, *(("prefill_tp",) if table == "transfer" else ()), "repeat") for table, names in KEYS.items()}
)


def read_table(path: Path, table: TableName) -> Samples:
    """Read a table.

    Raises:
        InputError: the file cannot be read, or a column, a line or a value is wrong; names file, line and
            field.
    """
    columns = COLUMNS[table]
    rows = _read_rows(path)
    if not rows:
        raise InputError("is empty", expected=f"a header {','.join(c.name for c in columns)}", source=path)
    header_line, header = rows[0]
    _check_header(path, header_line, header, columns)
    values: dict[str, list[float]] = {column.name: [] for column in columns}
    seen: dict[tuple[float, ...], int] = {}
    for line, cells in rows[1:]:
        if len(cells) != len(header):
            raise InputError(f"has {len(cells)} fields", expected=f"{len(header)}", source=path, line=line)
        record = dict(zip(header, cells, strict=True))
        for column in columns:
            values[column.name].append(_number(path, line, column, record.get(column.name)))
        names = IDENTITY[table]
        key = tuple(values[name][-1] for name in names)
        if key in seen:
            shown = [name for name in names if name in header or name == "repeat"]
            problem = f"the same {', '.join(shown)} as line {seen[key]}"
            raise InputError(problem, expected="one row per point and repeat", source=path, line=line, field=names[0])
        seen[key] = line
    if not seen:
        raise InputError("holds no samples", expected="at least one row", source=path)
    return MappingProxyType({name: np.array(column) for name, column in values.items()})


def table_text(table: TableName, samples: Samples) -> str:
    """The CSV of a table; floats are written so that they read back bit for bit, nan as an empty cell."""
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    names = [c.name for c in COLUMNS[table] if not (c.optional and c.name not in samples)]
    # A column that is empty throughout says nothing.
    names = [name for name in names if not np.isnan(samples[name]).all()]
    writer.writerow(names)
    writer.writerows(zip(*([_cell(float(v)) for v in samples[name]] for name in names), strict=True))
    return out.getvalue()


def _cell(value: float) -> str:
    if math.isnan(value):
        return ""
    if value.is_integer() and abs(value) < 2**53 and math.copysign(1.0, value) > 0:
        return str(int(value))
    return repr(value)


def _read_rows(path: Path) -> list[tuple[int, list[str]]]:
    """Rows that are not blank, each with the line on which it ends."""
    try:
        text = path.read_text(encoding="utf-8-sig")
    except OSError as error:
        raise InputError(f"cannot be read: {error.strerror or error}", source=path) from None
    except UnicodeDecodeError as error:
        raise InputError(f"is not text (byte {error.start})", expected="CSV in UTF-8", source=path) from None
    reader = csv.reader(io.StringIO(text, newline=""), strict=True)
    rows = []
    try:
        rows = [(reader.line_num, cells) for cells in reader if cells]
    except csv.Error as error:
        raise InputError(f"is not CSV: {error}", source=path, line=reader.line_num) from None
    return rows


def _check_header(path: Path, line: int, header: list[str], columns: tuple[Column, ...]) -> None:
    known = [column.name for column in columns]
    for name in header:
        if name not in known:
            close = difflib.get_close_matches(name, known, n=1, cutoff=0.0)[0]
            shown = name if len(name) <= 40 else name[:37] + "..."
            problem = f"unknown column; did you mean {close!r}?"
            raise InputError(problem, source=path, line=line, field=repr(shown))
        if header.count(name) > 1:
            raise InputError("is there twice", source=path, line=line, field=name)
    for column in columns:
        if not column.optional and column.name not in header:
            raise InputError("missing column", source=path, line=line, field=column.name)


def _number(path: Path, line: int, column: Column, cell: str | None) -> float:
    if cell is None or (column.optional and cell == ""):
        return column.default

    def wrong(expected: str) -> InputError:
        shown = repr(cell if len(cell) <= 40 else cell[:37] + "...")
        return InputError(f"is {shown}", expected=expected, source=path, line=line, field=column.name)

    if not _NUMBER.fullmatch(cell):
        raise wrong("a finite number")
    value = float(cell)
    if not abs(value) <= _LARGEST:
        raise wrong(f"a finite number up to {_LARGEST:g}")
    if column.kind == "positive" and value < _SMALLEST:
        raise wrong("a positive number")
    if value < 0:
        raise wrong("a number that is not negative")
    if column.kind == "whole" and not value.is_integer():
        raise wrong("a whole number")
    if column.kind == "0 or 1" and value not in {0.0, 1.0}:
        raise wrong("0 or 1")
    return value
