"""More or fewer requests in the same span, or the same requests in less time."""

from __future__ import annotations

import math
from collections.abc import Iterator
from itertools import chain, islice

import numpy as np
from numpy.typing import NDArray

from planner.whatif.traces.trace import CHUNK_REQUESTS, Trace, TraceChunk, concatenate, empty_chunk, rechunk
from profiler.errors import InputError

KERNEL_S = 1.0
"""Half-width of the kernel: arrivals move by less than a second, so bursts of seconds stay where they are."""
NEIGHBOURS = 32
"""Requests before and after an original whose lengths its further copies may take."""
MAX_RATE_SCALE = 1000.0
_BLOCK_COPIES = 262_144
_BLOCK_ORIGINALS_AT_LEAST = 256


def scaled(
    trace: Trace,
    *,
    rate_scale: float = 1.0,
    time_scale: float = 1.0,
    seed: int = 0,
    kernel_s: float = KERNEL_S,
) -> Trace:
    """Returns a trace with more or fewer requests, or at another speed; it streams as the original does.

    A `rate_scale` above 1 samples arrivals around the originals: each original becomes `rate_scale` requests
    (the fraction is drawn), each at the original's time plus a uniform jitter of +-`kernel_s`, reflected at
    both ends of the span. The first has the original's lengths and prefix hit, the others those of random
    neighbours. Where timestamps are coarser than the kernel, it grows to half their quantum, so that it
    spreads them over the gap. A `rate_scale` below 1 keeps each original with that probability, where it is.
    The rate is scaled first.

    Args:
        trace: the original.
        rate_scale: requests per request, above 0 and at most 1000; 1 leaves them as they are.
        time_scale: arrivals are divided by it, so 2 is twice the rate in half the time; 1 leaves them.
        seed: of the random numbers; the same seed gives the same trace.
        kernel_s: half-width of the jitter, in seconds of the original's clock.

    Raises:
        InputError: a scale, the kernel or the seed is out of range.
    """
    if not 0 < rate_scale <= MAX_RATE_SCALE:
        raise InputError(
            f"found {rate_scale}",
            expected=f"a number above 0, at most {MAX_RATE_SCALE:g}",
            field="rate scale",
        )
    if not 1e-6 <= time_scale <= 1e6:
        raise InputError(f"found {time_scale}", expected="a number from 1e-6 to 1e6", field="time scale")
    if not 0 <= kernel_s <= 3600:
        raise InputError(f"found {kernel_s}", expected="seconds from 0 to 3600", field="kernel")
    if seed < 0:
        raise InputError(f"found {seed}", expected="a whole number, at least 0", field="seed")
    if rate_scale < 1:
        trace = _Thinned(trace, rate_scale, seed)
    elif rate_scale > 1:
        trace = _Multiplied(trace, rate_scale, seed, kernel_s)
    return trace if time_scale == 1 else _Compressed(trace, time_scale)


class _Compressed(Trace):
    """Arrivals divided by a factor."""

    def __init__(self, original: Trace, factor: float) -> None:
        self._original = original
        self._factor = factor

    @property
    def name(self) -> str:
        """The original's name with the factor."""
        return f"{self._original.name} (time x{self._factor:g})"

    def chunks(self) -> Iterator[TraceChunk]:
        """Yields the requests; see `Trace.chunks`."""
        for chunk in self._original.chunks():
            yield TraceChunk(chunk.arrival_s / self._factor, chunk.isl, chunk.osl, chunk.prefix_hit_tokens)


class _RateScaled(Trace):
    """What thinning and multiplying share."""

    def __init__(self, original: Trace, scale: float, seed: int) -> None:
        self._original = original
        self._scale = scale
        self._seed = seed

    @property
    def name(self) -> str:
        """The original's name with the factor."""
        return f"{self._original.name} (rate x{self._scale:g})"

    def _blocks(self, size: int) -> Iterator[tuple[TraceChunk, np.random.Generator]]:
        """Yields originals in blocks with a generator each, the same however the original is chunked."""
        for index, block in enumerate(rechunk(self._original.chunks(), size)):
            yield block, np.random.Generator(np.random.PCG64(np.random.SeedSequence([self._seed, index])))


class _Thinned(_RateScaled):
    """Each original kept with a probability, at its own time."""

    def chunks(self) -> Iterator[TraceChunk]:
        """Yields the requests; see `Trace.chunks`."""
        blocks = self._blocks(CHUNK_REQUESTS)
        return rechunk(block.take(np.flatnonzero(rng.random(len(block)) < self._scale)) for block, rng in blocks)


class _Multiplied(_RateScaled):
    """Several requests sampled around each original."""

    def __init__(self, original: Trace, scale: float, seed: int, kernel_s: float) -> None:
        super().__init__(original, scale, seed)
        self._kernel_s = kernel_s

    def chunks(self) -> Iterator[TraceChunk]:
        """Yields the requests; see `Trace.chunks`."""
        return rechunk(self._sorted_copies())

    def _sorted_copies(self) -> Iterator[TraceChunk]:
        # Blocks shrink as the scale grows, so that their copies always fit.
        size = min(CHUNK_REQUESTS, max(_BLOCK_ORIGINALS_AT_LEAST, _BLOCK_COPIES // math.ceil(self._scale)))
        blocks = self._blocks(size)
        # The quantum is judged on as many requests as a chunk has, whatever the size of the blocks.
        head = list(islice(blocks, max(1, CHUNK_REQUESTS // size)))
        if not head:
            return
        arrivals = np.concatenate([block.arrival_s for block, _ in head])
        kernel_s = max(self._kernel_s, quantum_s(arrivals) / 2)
        held = empty_chunk()
        last_s = 0.0
        for block, rng in chain(head, blocks):
            last_s = float(block.arrival_s[-1])
            held = _sorted(concatenate([held, self._copies(block, rng, kernel_s)]))
            # Copies of later originals come no earlier than this, so what is before it is final.
            final = int(np.searchsorted(held.arrival_s, last_s - kernel_s))
            if final:
                yield held.take(slice(0, final))
                held = held.take(np.arange(final, len(held)))
        # Reflected rather than clipped: clipping would pile up half of the last second at one instant.
        inside = np.where(held.arrival_s > last_s, 2 * last_s - held.arrival_s, held.arrival_s)
        yield _sorted(TraceChunk(np.clip(inside, 0.0, last_s), held.isl, held.osl, held.prefix_hit_tokens))

    def _copies(self, block: TraceChunk, rng: np.random.Generator, kernel_s: float) -> TraceChunk:
        """Returns the requests that come from a block of originals, unsorted."""
        originals = len(block)
        whole = math.floor(self._scale)
        counts = whole + (rng.random(originals) < self._scale - whole)
        parent = np.repeat(np.arange(originals), counts)
        is_first = np.zeros(len(parent), dtype=bool)
        is_first[np.cumsum(counts) - counts] = True
        arrival_s = np.abs(block.arrival_s[parent] + kernel_s * rng.uniform(-1.0, 1.0, len(parent)))
        neighbour = parent + rng.integers(-NEIGHBOURS, NEIGHBOURS + 1, len(parent))
        # Reflected at the ends of the block, then clipped where the block is shorter than the neighbourhood.
        neighbour = np.abs(neighbour)
        neighbour = np.where(neighbour >= originals, 2 * (originals - 1) - neighbour, neighbour)
        lengths = block.take(np.where(is_first, parent, np.clip(neighbour, 0, originals - 1)))
        return TraceChunk(arrival_s, lengths.isl, lengths.osl, lengths.prefix_hit_tokens)


def quantum_s(arrival_s: NDArray[np.float64]) -> float:
    """Returns the step in which timestamps come, in seconds; 0 when they are (nearly) all different.

    Timestamps count as quantised when at least half of the requests share theirs with an earlier one; the
    step is then the median gap between different timestamps, which small errors of the clock do not move.
    """
    different = np.unique(arrival_s)
    if len(different) < 2 or len(different) > len(arrival_s) / 2:
        return 0.0
    return float(np.median(np.diff(different)))


def _sorted(chunk: TraceChunk) -> TraceChunk:
    return chunk.take(np.argsort(chunk.arrival_s, kind="stable"))
