"""One profile held against another."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from profiler.compare.drift import Region, drift
from profiler.compare.pairs import Layout, layout_of, layout_words
from profiler.compare.provenance import Difference, differences
from profiler.csvfile import KEYS
from profiler.tables import Profile


@dataclass(frozen=True, slots=True)
class Comparison:
    """Profile B against profile A.

    Attributes:
        layout: of both, or of A where two profiles were named.
        a, b: their folders.
        differences: of provenance.
        regions: where both were measured, in the tables' order.
        left_out: what could not be compared, and why.
    """

    layout: Layout
    a: str
    b: str
    differences: tuple[Difference, ...]
    regions: tuple[Region, ...]
    left_out: tuple[str, ...]

    @property
    def worst(self) -> Region | None:
        """The significant region with the largest drift; the largest of all where none is significant."""
        pool = [r for r in self.regions if r.significant] or list(self.regions)
        return max(pool, key=lambda r: abs(r.drift), default=None)

    def beyond(self, tolerance: float) -> tuple[Region, ...]:
        """Regions whose drift is significant and exceeds the tolerance."""
        return tuple(r for r in self.regions if r.significant and abs(r.drift) > tolerance)


def compare(a: Profile, b: Profile) -> Comparison:
    """Profile B against profile A, where both were measured."""
    regions: list[Region] = []
    left_out: list[str] = []
    for table in KEYS:
        rows_a, rows_b = a.samples.get(table), b.samples.get(table)
        if rows_a is None and rows_b is None:
            continue
        if rows_a is None or rows_b is None:
            left_out.append(f"{table}: only {'B' if rows_a is None else 'A'} measured it")
            continue
        found, apart, every = drift(table, a, b)
        regions += found
        if apart:
            left_out.append(f"{table}: {apart} of {every} points, which only one of the two covers")
    return Comparison(
        layout_of(a), str(a.path), str(b.path), tuple(differences(a.meta, b.meta)), tuple(regions), tuple(left_out)
    )


def as_json(comparisons: Iterable[Comparison], alone: Sequence[str], tolerance: float) -> dict[str, Any]:
    """The object of `--output json`."""
    return {
        "tolerance": tolerance,
        "pairs": [
            {
                "layout": layout_words(one.layout),
                "a": one.a,
                "b": one.b,
                "differences": [{"field": d.field, "a": d.a, "b": d.b} for d in one.differences],
                "regions": [_region_json(region, tolerance) for region in one.regions],
                "worst": None if one.worst is None else _region_json(one.worst, tolerance),
                "left_out": list(one.left_out),
            }
            for one in comparisons
        ],
        "without_partner": list(alone),
    }


def _region_json(region: Region, tolerance: float) -> dict[str, Any]:
    return {
        "table": region.table,
        "region": region.name,
        "points": region.points,
        "drift": region.drift,
        "low": region.low,
        "high": region.high,
        "explained": region.explained,
        "significant": region.significant,
        "beyond_tolerance": region.significant and abs(region.drift) > tolerance,
    }
