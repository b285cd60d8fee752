"""A run as one pod of an indexed Job: which layout is its own, and what it leaves for `kubectl`."""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from pathlib import Path

from profiler.errors import DependencyError, InputError
from profiler.job.record import RunRecord
from profiler.models.layouts import Layout

#: Bytes of a termination message that Kubernetes keeps.
MOST_BYTES = 4096


def layout_of(layouts: Sequence[Layout], variable: str) -> Layout:
    """The layout whose place in the list, counted from 0, an environment variable holds.

    Raises:
        InputError: there are no layouts, or the variable holds no place among them.
    """
    if not layouts:
        raise InputError("is given without layouts", expected="--layout for each index", field="--index-env")
    value = os.environ.get(variable)
    right = f"0 to {len(layouts) - 1}, for one layout each: {', '.join(layout.name for layout in layouts)}"
    if value is None or not (value.isascii() and value.isdigit()):
        problem = f"{variable} is not set" if value is None else f"{variable} is {value!r}"
        raise InputError(problem, expected=right, field="--index-env")
    if int(value) >= len(layouts):
        raise InputError(f"{variable} is {value}", expected=right, field="--index-env")
    return layouts[int(value)]


def outcome(code: int, record: RunRecord) -> str:
    """What became of a run, short enough for a pod's termination message: one JSON object."""
    told: dict[str, object] = {"exit_code": code}
    rows: list[dict[str, object]] = []
    for layout in record.layouts:
        row: dict[str, object] = {"layout": layout.name, "outcome": layout.outcome}
        row |= {"gpu_minutes": round(layout.gpu_minutes, 2)}
        row |= {"reason": layout.reason[:500]} if layout.reason else {}
        row |= {"profiles": [Path(path).name for path in layout.profiles]} if layout.profiles else {}
        rows.append(row)
    while len((text := json.dumps(told | {"layouts": rows})).encode()) > MOST_BYTES:
        rows.pop()
        told["more"] = len(record.layouts) - len(rows)
    return text


def write_outcome(file: Path, text: str) -> None:
    """Write the file in place: `/dev/termination-log` is a mount, which nothing can be renamed onto.

    Raises:
        DependencyError: it cannot be written.
    """
    try:
        file.write_text(text + "\n", encoding="utf-8")
    except OSError as error:
        raise DependencyError(f"{file}: cannot be written: {error.strerror or error}") from None
