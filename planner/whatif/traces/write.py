"""Traces to plain CSV, which `open_trace` reads back unchanged."""

from __future__ import annotations

from pathlib import Path

import pandas as pd

from planner.whatif.traces.trace import Trace
from profiler.errors import InputError


def write_csv(trace: Trace, path: Path) -> int:
    """Writes a trace as CSV and returns its number of requests.

    The header is arrival_s,isl,osl,prefix_hit_tokens. The file appears under its name only once it is
    complete. Times are written in full, so that they read back bit for bit; a reader rebases them to the
    first arrival.

    Raises:
        InputError: the file cannot be written, or the trace is invalid at some line.
    """
    part = path.with_name(f"{path.name}.part")
    requests = 0
    try:
        with part.open("w", encoding="utf-8", newline="") as file:
            file.write("arrival_s,isl,osl,prefix_hit_tokens\n")
            for chunk in trace.chunks():
                columns = [chunk.arrival_s, chunk.isl, chunk.osl, chunk.prefix_hit_tokens]
                pd.DataFrame(dict(enumerate(columns))).to_csv(file, header=False, index=False, lineterminator="\n")
                requests += len(chunk)
        part.replace(path)
    except OSError as error:
        raise InputError(
            f"cannot be written ({error})",
            expected="a path in an existing folder that can be written",
            source=path,
        ) from error
    finally:
        part.unlink(missing_ok=True)
    return requests
