"""A slice of a trace as plain CSV, for a recording on a machine that has the trace's readers not."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np

from planner.whatif.traces import Trace, TraceChunk, scaled, write_csv
from planner.whatif.traces.trace import rechunk
from profiler.errors import InputError


class _Slice(Trace):
    """The requests of a span, from 0 s on."""

    def __init__(self, original: Trace, start_s: float, duration_s: float) -> None:
        self._original, self._start_s, self._end_s = original, start_s, start_s + duration_s

    @property
    def name(self) -> str:
        return f"{self._original.name} ({self._start_s:g} to {self._end_s:g} s)"

    def chunks(self) -> Iterator[TraceChunk]:
        return rechunk(self._parts())

    def _parts(self) -> Iterator[TraceChunk]:
        for chunk in self._original.chunks():
            if chunk.arrival_s[0] >= self._end_s:
                return
            mine = np.flatnonzero((chunk.arrival_s >= self._start_s) & (chunk.arrival_s < self._end_s))
            part = chunk.take(mine)
            # Prompts that are recorded are fresh: nothing can be found in a prefix cache.
            yield TraceChunk(part.arrival_s - self._start_s, part.isl, part.osl, np.zeros_like(part.isl))


def sliced(trace: Trace, *, start_s: float, duration_s: float, rate_scale: float, seed: int) -> Trace:
    """A span of a trace from 0 s on, its rate scaled as a what-if scales it, without prefix hits."""
    return scaled(_Slice(trace, start_s, duration_s), rate_scale=rate_scale, seed=seed)


def slice_to(trace: Trace, to: Path, *, start_s: float, duration_s: float, rate_scale: float, seed: int) -> int:
    """Write a slice (`sliced`) as plain CSV; returns its number of requests.

    Raises:
        InputError: the trace is wrong, the span holds no request, or the file cannot be written.
    """
    cut = sliced(trace, start_s=start_s, duration_s=duration_s, rate_scale=rate_scale, seed=seed)
    count = write_csv(cut, to)
    if count == 0:
        to.unlink()
        raise InputError(f"holds no request from {start_s:g} to {start_s + duration_s:g} s", field="--start-s")
    return count
