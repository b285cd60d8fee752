"""Readers of trace files: one module and one line in `FORMATS` per format."""

from __future__ import annotations

from pathlib import Path

from planner.whatif.traces.readers import azure, mooncake, plain
from planner.whatif.traces.readers.base import FileTrace, Format
from planner.whatif.traces.readers.source import first_line, shown
from planner.whatif.traces.trace import Trace
from profiler.errors import InputError

FORMATS: tuple[Format, ...] = (
    plain.FORMAT,
    azure.FORMAT,
    mooncake.FORMAT,
)


def open_file(path: Path, *, prefix_cache_tokens: int | None) -> Trace:
    """Opens a trace file, its format recognised by its first line; the rest is checked while it is read.

    Raises:
        InputError: the file cannot be read, is empty, has a header only, or is of no known format.
    """
    line, text, more = first_line(path)
    for format_ in FORMATS:
        if not format_.recognises(text):
            continue
        # A JSON Lines file has no header: its first line is a request.
        if not more and not text.startswith("{"):
            raise InputError("holds a header and no requests", expected="at least one request", source=path, line=line)
        return FileTrace(path, format_, prefix_cache_tokens)
    raise InputError(
        f"no known trace format begins with {shown(text)}",
        expected="; or ".join(format_.description for format_ in FORMATS),
        source=path,
        line=line,
    )
