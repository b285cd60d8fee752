"""How far the measured times of a table drifted, by region, and how much of it the tables' own errors explain."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Protocol

import numpy as np
from numpy.typing import NDArray
from scipy.special import stdtrit

from profiler.csvfile import KEYS, Samples
from profiler.estimate import Estimate, Where
from profiler.schema import TableName
from profiler.tables import Profile

#: Bounds of regions. A factor of four or eight keeps several points of a sweep by octaves in each.
TOKEN_BOUNDS = (256, 1024, 4096, 16_384, 65_536)
BATCH_BOUNDS = (8, 64, 256)

#: Share of repeats' medians that lie within their stated error.
CONFIDENCE = 0.95
#: Standard error of a median over that of a mean, for many normal samples: sqrt(pi / 2).
MEDIAN_OVER_MEAN = 1.2533

#: Time that a table measures.
VALUE: Mapping[TableName, str] = {
    "prefill": "ttft_ms",
    "decode": "itl_ms",
    "mixed": "iteration_ms",
    "transfer": "transfer_ms",
}

Point = tuple[float, ...]


@dataclass(frozen=True, slots=True)
class Region:
    """Drift of one region of a table.

    Attributes:
        table: it belongs to.
        name: of the region, in words.
        points: compared.
        drift: median of B / A - 1 over them; above 0 means that B is slower.
        low, high: least and largest of B / A - 1.
        explained: relative difference that the errors of both tables explain; None where neither knows its own.
    """

    table: TableName
    name: str
    points: int
    drift: float
    low: float
    high: float
    explained: float | None

    @property
    def significant(self) -> bool:
        """Whether the drift is more than the tables' own errors."""
        return self.explained is not None and abs(self.drift) > self.explained


def drift(table: TableName, a: Profile, b: Profile) -> tuple[list[Region], int, int]:
    """Regions of a table that both profiles hold.

    Returns:
        The regions, and how many of how many points only one of the two covers.
    """
    first, second = _table(table, a), _table(table, b)
    every = set(first.samples) | set(second.samples)
    apart = sum(first.at(point) is None or second.at(point) is None for point in every)
    return list(_regions(table, first, second)), apart, len(every)


class _Reader(Protocol):
    """A table's value at a point that was not measured, with its expected error."""

    def __call__(self, point: Point) -> Estimate: ...


@dataclass(frozen=True)
class _Table:
    """One table of one profile: measured points with their repeats, and how to read between them (None: not at all)."""

    samples: Mapping[Point, NDArray[np.float64]]
    read: _Reader | None

    @cached_property
    def noise(self) -> float | None:
        """Half-width of one sample's interval, relative: the spread of repeats, pooled over the table's points.

        Two or three repeats of one point say little about its spread; all of the table's together say enough. None
        where no point was repeated.
        """
        relative = [values / values.mean() for values in self.samples.values() if len(values) > 1]
        freedom = sum(len(values) - 1 for values in relative)
        if freedom == 0:
            return None
        variance = sum(float(((values - 1.0) ** 2).sum()) for values in relative) / freedom
        return float(stdtrit(freedom, 0.5 + CONFIDENCE / 2)) * float(np.sqrt(variance))

    def at(self, point: Point) -> tuple[float, float | None] | None:
        """Value and relative error of it; None where it was neither measured nor lies among measured points.

        The error of a measured point is the half-width of its median's interval. Where nothing was repeated, as between
        points, the table's leave-one-out error near the point counts.
        """
        repeats = self.samples.get(point)
        estimate = self.read(point) if self.read is not None else None
        if repeats is not None:
            middle = float(np.median(repeats))
            if self.noise is not None:
                shape = MEDIAN_OVER_MEAN if len(repeats) > 2 else 1.0  # of one or two, the median is the mean
                return middle, self.noise * shape / float(np.sqrt(len(repeats)))
            return middle, None if estimate is None else estimate.error
        if estimate is None or estimate.where is Where.OUTSIDE:
            return None
        return estimate.value, estimate.error


def _regions(table: TableName, first: _Table, second: _Table) -> Iterator[Region]:
    grouped: dict[tuple[tuple[int, ...], str], list[tuple[float, float | None]]] = {}
    for point in sorted(set(first.samples) | set(second.samples)):
        one, other = first.at(point), second.at(point)
        if one is None or other is None:
            continue
        known = [error for error in (one[1], other[1]) if error is not None]
        # An unknown error is no reason to trust a table more than its partner.
        error = None if not known else float(np.hypot(known[0], known[-1]))
        grouped.setdefault(_region(table, point), []).append((other[0] / one[0] - 1.0, error))
    for (_, name), found in sorted(grouped.items()):
        drift = np.array([value for value, _ in found])
        errors = [error for _, error in found if error is not None]
        yield Region(
            table=table,
            name=name,
            points=len(found),
            drift=float(np.median(drift)),
            low=float(drift.min()),
            high=float(drift.max()),
            explained=float(np.median(errors)) if errors else None,
        )


def _table(table: TableName, profile: Profile) -> _Table:
    rows = profile.samples[table]
    if table == "decode":
        surface = profile.decode
        good = rows["suspect"] == 0 if "suspect" in rows else np.ones(len(rows["batch"]), dtype=np.bool_)
        return _Table(_points(table, rows, good), None if surface is None else lambda p: surface.at(p[0], p[1]))
    if table == "transfer":
        # Hand-offs from prefill workers of different TPs are different things: neither reads a point of the other.
        told = {**rows, "prefill_tp": profile.handed_from(rows)}
        every = np.ones(len(rows["tokens"]), dtype=np.bool_)

        def handed(point: Point) -> Estimate:
            found = profile.transfer_from(int(point[1]))
            if found is None or found[1] != point[1]:
                return Estimate(float("nan"), Where.OUTSIDE, None)
            return found[0].at(point[0])

        return _Table(_points(table, told, every), handed)
    samples = _points(table, rows, np.ones(len(rows[VALUE[table]]), dtype=np.bool_))
    if table == "mixed":  # it knows no error between its points
        return _Table(samples, None)
    curve = profile.prefill
    if curve is None:
        return _Table(samples, None)

    def lone(point: Point) -> Estimate:
        # The curve is of lone prompts without a hit; of others only measured points are comparable.
        if point[1:] != (1.0, 0.0):
            return Estimate(float("nan"), Where.OUTSIDE, None)
        return curve.at(point[0])

    return _Table(samples, lone)


def _points(table: TableName, rows: Samples, kept: NDArray[np.bool_]) -> dict[Point, NDArray[np.float64]]:
    """Repeats by point; a coordinate without a column has its default."""
    defaults = {"batch": 1.0, "prefix_hit_tokens": 0.0}
    count = len(kept)
    names = (*KEYS[table], "prefill_tp") if table == "transfer" else KEYS[table]
    columns = [rows[name] if name in rows else np.full(count, defaults[name]) for name in names]
    found: dict[Point, list[float]] = {}
    for index in np.flatnonzero(kept):
        point = tuple(float(column[index]) for column in columns)
        found.setdefault(point, []).append(float(rows[VALUE[table]][index]))
    return {point: np.array(values) for point, values in found.items()}


def _region(table: TableName, point: Point) -> tuple[tuple[int, ...], str]:
    """Place of a point's region in the order of regions, and its name."""
    if table == "prefill":
        isl, batch, hit = point
        if hit > 0:
            return (2, 0), "with prefix hits"
        if batch > 1:
            return (1, 0), "several prompts at once"
        return (0, _slot(isl, TOKEN_BOUNDS)), f"ISL {_range(isl, TOKEN_BOUNDS)}"
    if table == "decode":
        batch, kv = point
        place = _slot(batch, BATCH_BOUNDS), _slot(kv / batch, TOKEN_BOUNDS)
        return place, f"batch {_range(batch, BATCH_BOUNDS)}, context {_range(kv / batch, TOKEN_BOUNDS)}"
    if table == "mixed":
        tokens, batch, _ = point
        place = _slot(tokens, TOKEN_BOUNDS), _slot(batch, BATCH_BOUNDS)
        return place, f"prefill {_range(tokens, TOKEN_BOUNDS)} tokens, batch {_range(batch, BATCH_BOUNDS)}"
    tokens, prefill_tp = point
    place = int(prefill_tp), _slot(tokens, TOKEN_BOUNDS)
    return place, f"{_range(tokens, TOKEN_BOUNDS)} tokens from TP{prefill_tp:.0f}"


def _slot(value: float, bounds: Sequence[int]) -> int:
    return int(np.searchsorted(bounds, value, side="left"))


def _range(value: float, bounds: Sequence[int]) -> str:
    slot = _slot(value, bounds)
    if slot == 0:
        return f"to {bounds[0]:,}"
    if slot == len(bounds):
        return f"above {bounds[-1]:,}"
    low, high = list(itertools.pairwise(bounds))[slot - 1]
    return f"{low:,} to {high:,}"
