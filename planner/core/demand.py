"""Demand: how many requests come, how bursty, and of which lengths."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from planner.core.types import LengthSample


@dataclass(frozen=True, eq=False)
class Lengths:
    """A sample of the joint distribution of lengths as arrays, tokens, shape (n,); n is at least 1."""

    isl: NDArray[np.float64]
    osl: NDArray[np.float64]
    hit: NDArray[np.float64]

    @classmethod
    def of(cls, sample: LengthSample) -> Lengths:
        """The arrays of a sample."""
        return cls(
            isl=np.asarray(sample.isl, dtype=np.float64),
            osl=np.asarray(sample.osl, dtype=np.float64),
            hit=np.asarray(sample.prefix_hit_tokens, dtype=np.float64),
        )


@dataclass(frozen=True, eq=False)
class Demand:
    """A stationary load.

    Attributes:
        rate_rps: requests per second.
        dispersion: variance over mean of the arrivals per second; 1 for Poisson, never taken below it.
        lengths: sample of the joint distribution of lengths.
    """

    rate_rps: float
    dispersion: float
    lengths: Lengths


def merge_samples(older: LengthSample, newer: LengthSample, keep: int) -> LengthSample:
    """The `keep` newest requests of two samples, oldest first."""

    def tail(a: tuple[int, ...], b: tuple[int, ...]) -> tuple[int, ...]:
        return (a + b)[-keep:]

    return LengthSample(
        isl=tail(older.isl, newer.isl),
        osl=tail(older.osl, newer.osl),
        prefix_hit_tokens=tail(older.prefix_hit_tokens, newer.prefix_hit_tokens),
    )
