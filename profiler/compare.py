"""Two profiles beside each other: what differs in how they came about, and how far the measured times drifted.

A region drifts by the median relative difference of B against A over the points in it. Every point has an error of its
own in either table, and a drift is significant only where it exceeds what these errors explain together.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray
from scipy.special import stdtrit

from profiler.csvfile import KEYS, Samples
from profiler.errors import InputError
from profiler.estimate import Estimate, Where
from profiler.schema import ProfileMeta, TableName
from profiler.tables import Profile

#: What makes two profiles a pair: role, TP, DP.
Layout = tuple[str, int, int]

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
class Difference:
    """One fact that is not the same in both; values as in `profile.json`, None for unknown."""

    field: str
    a: Any
    b: Any


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


def pair(a: Sequence[Profile], b: Sequence[Profile]) -> tuple[list[tuple[Profile, Profile]], list[str]]:
    """Profiles of two folders paired by role, TP and DP; and what has no partner, in words.

    One profile on each side is a pair whatever its layout: whoever names two profiles means these two.

    Raises:
        InputError: a side has two profiles of one layout, or there is no pair, or the two profiles have other roles.
    """
    if len(a) == len(b) == 1:
        if a[0].meta.role != b[0].meta.role:
            problem = f"is of role {b[0].meta.role}"
            raise InputError(problem, expected=f"role {a[0].meta.role}, as {a[0].path}", source=b[0].path)
        return [(a[0], b[0])], []
    first, second = _by_layout(a), _by_layout(b)
    alone = [f"{profile.path}: no partner" for key, profile in first.items() if key not in second]
    alone += [f"{profile.path}: no partner" for key, profile in second.items() if key not in first]
    pairs = [(first[key], second[key]) for key in sorted(first) if key in second]
    if not pairs:
        have = ", ".join(layout_words(key) for key in sorted(first))
        raise InputError("has no profile of a layout that the first has", expected=have, field="B")
    return pairs, alone


def layout_of(profile: Profile) -> Layout:
    """Role, TP and DP."""
    return profile.meta.role, profile.meta.tp, profile.meta.dp


def layout_words(layout: Layout) -> str:
    """As in the names of profiles' folders."""
    role, tp, dp = layout
    return f"{role}-tp{tp}-dp{dp}"


def _by_layout(profiles: Sequence[Profile]) -> dict[Layout, Profile]:
    found: dict[Layout, Profile] = {}
    for profile in profiles:
        other = found.setdefault(layout_of(profile), profile)
        if other is not profile:
            problem = f"is {layout_words(layout_of(profile))}, as {other.path}"
            raise InputError(problem, expected="one profile of a layout below the folder", source=profile.path)
    return found


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
        first, second = _table(table, a), _table(table, b)
        regions += _regions(table, first, second)
        every = set(first.samples) | set(second.samples)
        apart = sum(first.at(point) is None or second.at(point) is None for point in every)
        if apart:
            left_out.append(f"{table}: {apart} of {len(every)} points, which only one of the two covers")
    return Comparison(
        layout_of(a), str(a.path), str(b.path), tuple(_differences(a.meta, b.meta)), tuple(regions), tuple(left_out)
    )


# -- provenance ----------------------------------------------------------------------------------------------------


def _differences(a: ProfileMeta, b: ProfileMeta) -> Iterator[Difference]:
    for name, one, other in _facts(a, b):
        if one != other:
            yield Difference(name, one, other)


def _facts(a: ProfileMeta, b: ProfileMeta) -> Iterator[tuple[str, Any, Any]]:
    yield "model", a.model.name, b.model.name
    yield "dtype", a.model.dtype, b.model.dtype
    yield "gpu", a.gpu.name, b.gpu.name
    yield "gpus per worker", a.gpu.count_per_worker, b.gpu.count_per_worker
    yield "tp", a.tp, b.tp
    yield "dp", a.dp, b.dp
    yield "driver", a.driver, b.driver
    yield "engine", a.engine.name, b.engine.name
    yield "engine version", a.engine.version, b.engine.version
    yield "engine arguments", _words(a.engine.arguments), _words(b.engine.arguments)
    for name in type(a.limits).model_fields:
        yield name, getattr(a.limits, name), getattr(b.limits, name)
    yield "kv_capacity_tokens", a.kv_capacity_tokens, b.kv_capacity_tokens
    yield "form", a.source.form, b.source.form
    yield "date", None if a.date is None else str(a.date), None if b.date is None else str(b.date)
    yield "commit", a.commit, b.commit


def _words(arguments: tuple[str, ...] | None) -> str | None:
    return None if arguments is None else " ".join(arguments)


# -- drift ---------------------------------------------------------------------------------------------------------


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
    samples = _points(table, rows, np.ones(len(rows[VALUE[table]]), dtype=np.bool_))
    if table == "mixed":  # it knows no error between its points
        return _Table(samples, None)
    curve = profile.prefill if table == "prefill" else profile.transfer
    if curve is None:
        return _Table(samples, None)
    if table == "transfer":
        return _Table(samples, lambda p: curve.at(p[0]))

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
    columns = [rows[name] if name in rows else np.full(count, defaults[name]) for name in KEYS[table]]
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
    return (_slot(point[0], TOKEN_BOUNDS),), f"{_range(point[0], TOKEN_BOUNDS)} tokens"


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
