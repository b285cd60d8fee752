"""Lengths drift: prompts and answers grow or shrink while the trace goes on, and no completed request foretells it."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from planner.whatif.policies.base import Setting
from planner.whatif.robustness.disturbance import Disturbance, between
from planner.whatif.traces import Trace, TraceChunk


@dataclass(frozen=True)
class DriftingLengths(Disturbance):
    """ISL and OSL go evenly from the trace's own at its start to these multiples at its end; hits go with ISL."""

    isl: float = 1.5
    osl: float = 1.5

    def __post_init__(self) -> None:
        between("isl", self.isl, 0.1, 10.0)
        between("osl", self.osl, 0.1, 10.0)

    def world(self, setting: Setting) -> Setting:
        """The trace as it comes; a policy that knows the trace knows this one."""
        return replace(setting, trace=_Drifting(setting.trace, self.isl, self.osl))


class _Drifting(Trace):
    """A trace with lengths that drift over its span."""

    def __init__(self, original: Trace, isl: float, osl: float) -> None:
        self._original, self._isl, self._osl = original, isl, osl
        self._span_s = 0.0
        for chunk in original.chunks():
            self._span_s = float(chunk.arrival_s[-1])

    @property
    def name(self) -> str:
        """The original's name with the factors."""
        return f"{self._original.name} (ISL to x{self._isl:g}, OSL to x{self._osl:g})"

    def chunks(self) -> Iterator[TraceChunk]:
        """Yields the requests; see `Trace.chunks`."""
        for chunk in self._original.chunks():
            gone = chunk.arrival_s / max(self._span_s, 1e-9)
            isl = _times(chunk.isl, 1.0 + (self._isl - 1.0) * gone)
            osl = _times(chunk.osl, 1.0 + (self._osl - 1.0) * gone)
            hit = np.minimum(np.round(chunk.prefix_hit_tokens * (1.0 + (self._isl - 1.0) * gone)), isl - 1)
            yield TraceChunk(chunk.arrival_s, isl, osl, hit.astype(np.int32))


def _times(lengths: NDArray[np.int32], factor: NDArray[np.float64]) -> NDArray[np.int32]:
    """At least one token is left."""
    return np.maximum(1, np.round(lengths * factor)).astype(np.int32)
