"""What a trace is: requests in arrival order, in chunks so that memory stays flat in its length."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, fields

import numpy as np
from numpy.typing import NDArray

CHUNK_REQUESTS = 65_536
"""Requests in every chunk but the last: large enough for NumPy to be at full speed, about 1.3 MB."""


@dataclass(frozen=True, eq=False)
class TraceChunk:
    """Consecutive requests of a trace; arrays of one length, sorted by arrival.

    Attributes:
        arrival_s: float64, seconds since the start of the trace, never decreasing.
        isl: int32, input sequence length in tokens, at least 1.
        osl: int32, output sequence length in tokens, at least 1.
        prefix_hit_tokens: int32, prompt tokens found in the prefix cache; 0 <= hit < isl, because vLLM always
            recomputes at least the last prompt token.
    """

    arrival_s: NDArray[np.float64]
    isl: NDArray[np.int32]
    osl: NDArray[np.int32]
    prefix_hit_tokens: NDArray[np.int32]

    def __len__(self) -> int:
        return len(self.arrival_s)

    def take(self, rows: slice | NDArray[np.intp]) -> TraceChunk:
        """Returns the chosen rows as a chunk of their own; the caller keeps them sorted by arrival."""
        return TraceChunk(self.arrival_s[rows], self.isl[rows], self.osl[rows], self.prefix_hit_tokens[rows])


def empty_chunk() -> TraceChunk:
    """Returns a chunk without requests."""
    lengths = np.zeros(0, dtype=np.int32)
    return TraceChunk(np.zeros(0), lengths, lengths, lengths)


def concatenate(chunks: Iterable[TraceChunk]) -> TraceChunk:
    """Joins chunks, in the order given, into one."""
    parts = list(chunks)
    if not parts:
        return empty_chunk()
    return TraceChunk(*(np.concatenate([getattr(part, f.name) for part in parts]) for f in fields(TraceChunk)))


class Trace(ABC):
    """A stream of requests that can be read again from the start, with the same data each time.

    A trace read from a file is rebased so that its first request arrives at 0 s. A scaled or generated trace
    keeps the clock of what it was made from (its first request arrives at or after 0 s), so that a step at
    600 s is at 600 s.
    """

    @property
    @abstractmethod
    def name(self) -> str:
        """A short name for tables and reports."""

    @abstractmethod
    def chunks(self) -> Iterator[TraceChunk]:
        """Yields the requests from the start, sorted by arrival within and across chunks.

        Every chunk holds `CHUNK_REQUESTS` requests, the last one what remains; none is empty.

        Raises:
            profiler.errors.InputError: the source turns out to be invalid at some line.
        """


def rechunk(parts: Iterable[TraceChunk], size: int = CHUNK_REQUESTS) -> Iterator[TraceChunk]:
    """Regroups chunks of any lengths into chunks of exactly `size` requests, the last one shorter."""
    held: list[TraceChunk] = []
    count = 0
    for part in parts:
        held.append(part)
        count += len(part)
        if count < size:
            continue
        joined = concatenate(held)
        full = count - count % size
        for start in range(0, full, size):
            yield joined.take(slice(start, start + size))
        # A copy, so that the remainder does not keep the whole of `joined` alive.
        held = [joined.take(np.arange(full, count))] if full < count else []
        count -= full
    if count:
        yield concatenate(held)


def collect(trace: Trace) -> TraceChunk:
    """Reads a whole trace into one chunk; memory grows with the trace (20 bytes a request)."""
    return concatenate(trace.chunks())
