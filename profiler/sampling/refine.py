"""Where a table gains most from one more sample, once every point of its grid has its first repeats."""

from __future__ import annotations

import math
import statistics
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise

from profiler.measure.base import Point
from profiler.sampling.domain import Domain
from profiler.sampling.grid import decode_point
from profiler.sampling.left_out import LeftOut, Line, context_of, left_out, left_out_line
from profiler.sampling.noise import Measured
from profiler.sampling.words import Reason
from profiler.schema import TableError, TableName

#: No interior point may be off by more than this many times the mean error that is aimed at.
WORST = 3.0
#: Halves of an interval are at least this ratio wide, or a table of a jump would never end.
_FINEST = 1.05
#: An interval this narrow that is still off holds a knee rather than a bend.
_KNEE_WITHIN = 2.5
#: Share of the error aimed at beyond which the scatter of single repeats is taken to hide it.
_SCATTER = 0.8
#: Contexts nearer than this are not worth a row of their own.
_FINEST_ROWS = 1.25
#: A row left out is predicted across a gap twice as wide as the table's, over which a kink's error is twice as large.
_ROW_GAP = 2.0
#: CUDA graphs are captured at batches that are multiples of this, and steps are padded up to them.
_GRAPH_STEP = 8


@dataclass(frozen=True, slots=True)
class Candidate:
    """A sample worth taking.

    Attributes:
        point: where.
        why: reason.
        gain: what is to be gained: the error or half-width there, relative to what is aimed at.
    """

    point: Point
    why: Reason
    gain: float


@dataclass(frozen=True, slots=True)
class State:
    """How good a table is, and what would make it better.

    Attributes:
        error: leave-one-out error; None where it is not defined.
        severity: worst of its figures relative to what is aimed at; at most 1 at the target.
        candidates: best first; empty at the target, and where nothing useful is left.
        noisy: whether noise hides what is left: repeats scatter as much as the error aimed at, or are used up.
    """

    error: TableError | None
    severity: float
    candidates: tuple[Candidate, ...]
    noisy: bool


def lines(table: TableName, points: Mapping[Point, Measured]) -> list[Line]:
    """Lines along which a table is interpolated, shortest context first; none for a mixed table."""
    good = [point for point in points.values() if point.values]
    if table == "prefill":
        good = [point for point in good if point.point.at[1:] == (1.0, 0.0)]
    if table in {"prefill", "transfer"}:
        return [_line(good, 0)] if good else []
    rows: dict[float, list[Measured]] = {}
    if table == "decode":
        for point in good:
            rows.setdefault(point.point.at[1] / point.point.at[0], []).append(point)
    return [_line(rows[context], 1) for context in sorted(rows)]


def assess(
    domain: Domain,
    table: TableName,
    points: Mapping[Point, Measured],
    max_error: float,
    max_repeats: int,
    refused: Callable[[Point], bool],
) -> State:
    """Judge a table whose points all have their first repeats.

    Args:
        domain: what can be measured.
        table: which.
        points: measured ones.
        max_error: aimed at.
        max_repeats: of a point.
        refused: whether a point must not be asked for.
    """
    rows = lines(table, points)
    # Batched prompts and prefix hits are checks, and get no more than their first repeats.
    judged = [point for row in rows for point in row.points] if table != "mixed" else list(points.values())
    open_points = [p for p in judged if p.taken < max_repeats and p.values and not refused(p.point)]
    found = [Candidate(p.point, Reason.NOISE, p.half_width / max_error) for p in open_points]
    found = [candidate for candidate in found if candidate.gain > 1.0]
    widest = max((point.half_width / max_error for point in judged if point.values), default=0.0)
    short = widest > 1.0 and not found

    errors = [(row, left) for row in rows for left in left_out(row)]
    raw = [left.raw for _, left in errors]
    summary = TableError(mean=statistics.fmean(raw), worst=max(raw), points=len(raw)) if raw else None
    mean = statistics.fmean(raw) / max_error if raw else 0.0
    # Where single repeats alone scatter that much around good medians, no more points can bring the mean down: then
    # the medians' own error has to do.
    scattered = (
        bool(raw) and statistics.fmean(_scatter(row.points[x.index]) for row, x in errors) > _SCATTER * max_error
    )
    if scattered:
        mean = statistics.fmean(left.error for _, left in errors) / max_error
    wild = max((left.error / max_error for _, left in errors if not left.explained), default=0.0)
    # While the mean is too large every point above half of it is worth a look, otherwise only the wild ones.
    least = 0.5 if mean > 1.0 else WORST
    taken = {point.point for point in points.values()}
    for row, left in errors:
        if left.error <= least * max_error:
            continue
        more = _repeats(row, left, max_error, max_repeats) if left.explained else _split(domain, table, row, left)
        gain = left.error / max_error
        usable = [c for c in more if not refused(c) and domain.contains(c) and (left.explained or c not in taken)]
        if usable:
            why = Reason.NOISE if left.explained else _error_or_knee(row, left)
            found.append(Candidate(usable[0], why, gain))
        short = short or (left.explained and not usable)

    between, fresh = _between_rows(domain, rows, max_error)
    found += [c for c in fresh if not refused(c.point)]
    severity = max(mean, wild / WORST, between, widest)
    ordered = sorted(found, key=lambda c: (-c.gain, c.point.at))
    return State(summary, severity, tuple(ordered), short or scattered)


def _scatter(point: Measured) -> float:
    """Mean relative distance of repeats from their median."""
    return statistics.fmean(abs(value - point.median) for value in point.values) / point.median


def _line(points: Sequence[Measured], axis: int) -> Line:
    ordered = sorted(points, key=lambda point: point.point.at[axis])
    return Line(tuple(point.point.at[axis] for point in ordered), tuple(ordered))


def _repeats(row: Line, left: LeftOut, max_error: float, max_repeats: int) -> list[Point]:
    """The least known of the three points that a deviation depends on, worst first."""
    near = [row.points[i] for i in (left.index, left.index - 1, left.index + 1)]
    # Below a fifth of what is aimed at a median is known well enough whatever is made of it.
    near = [p for p in near if p.taken < max_repeats and p.half_width > 0.2 * max_error]
    return [point.point for point in sorted(near, key=lambda p: -p.half_width)]


def _split(domain: Domain, table: TableName, row: Line, left: LeftOut) -> list[Point]:
    """Middles of the two intervals beside a point, the wider (on the axis of values) first."""
    i = left.index
    beside = sorted(((i, i + 1), (i - 1, i)), key=lambda ends: row.x[ends[0]] - row.x[ends[1]])
    middles = (_middle(domain, table, row.points[low].point, row.points[high].point) for low, high in beside)
    return [middle for middle in middles if middle is not None]


def _middle(domain: Domain, table: TableName, low: Point, high: Point) -> Point | None:
    """The point halfway in ratio; None where the interval is too narrow to be split."""
    if table == "decode":
        context = int(low.at[1] / low.at[0])
        batch = _between(low.at[0], high.at[0], _GRAPH_STEP)
        return None if batch is None else decode_point(batch, context)
    tokens = _between(low.at[0], high.at[0], domain.block_size)
    return None if tokens is None else Point(table, (float(tokens), *low.at[1:]))


def _between(low: float, high: float, step: int) -> int | None:
    middle = round(math.sqrt(low * high))
    rounded = round(middle / step) * step
    for value in (rounded, middle):
        if value >= _FINEST * low and high >= _FINEST * value and low < value < high:
            return value
    return None


def _error_or_knee(row: Line, left: LeftOut) -> Reason:
    narrow = row.x[left.index + 1] <= _KNEE_WITHIN * row.x[left.index - 1]
    return Reason.KNEE if narrow else Reason.ERROR


def _between_rows(domain: Domain, rows: Sequence[Line], max_error: float) -> tuple[float, list[Candidate]]:
    """Worst error between decode rows relative to what is aimed at, and the row that would mend it."""
    worst, found = 0.0, []
    for shorter, row, longer in zip(rows, rows[1:], rows[2:], strict=False):
        error = left_out_line(row, shorter, longer)
        if error is None:
            continue
        gain = error / _ROW_GAP / max_error
        worst = max(worst, gain)
        if gain <= 1.0:
            continue
        ends = [context_of(line) for line in (shorter, row, longer)]
        for low, high in sorted(pairwise(ends), key=lambda ends: ends[0] / ends[1]):
            context = round(math.sqrt(low * high) / domain.block_size) * domain.block_size
            batch = domain.largest_batch(context) if context >= domain.block_size else 0
            if batch >= 1 and context >= _FINEST_ROWS * low and high >= _FINEST_ROWS * context:
                found.append(Candidate(decode_point(batch, context), Reason.ROW, gain))
                break
    return worst, found
