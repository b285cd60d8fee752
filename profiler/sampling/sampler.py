"""Which point to measure next, and when to stop: a function of the samples taken so far.

Three stages. Every point of the coarse grids once, tables in turn, so that a budget that ends early leaves whole
tables; then every point up to the least number of repeats; then tables that are not at their target, in turns by how
far each is, get the sample that promises most: a repeat where a median is not known well enough, a point in the
middle of an interval where leave-one-out is off by more than noise explains, or a new row of decode points. From the
second stage on, lone prompts are taken again a few times over the whole run. Nothing is remembered between calls, so a
run that was killed goes on where it was.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from profiler.measure.base import Point, Sample
from profiler.roofline import Roofline
from profiler.sampling.domain import Domain
from profiler.sampling.grid import Group, groups, row
from profiler.sampling.noise import Measured, measured
from profiler.sampling.refine import State, assess
from profiler.sampling.words import Reason, Verdict
from profiler.schema import TableError, TableName

#: Contexts that fill this share of the KV cache take longer to compute than to measure.
_COSTLY_SHARE = 0.25
#: A point that failed this often is not asked for again.
_FAILURES = 2
#: A table this many times worse than its target gets no more turns for being worse still: it may be hopeless.
_FARTHEST = 4.0
#: Share of points that tables of 5 % error got beyond their grids on synthetic engines; a first guess of time left.
_ADDED = 0.2
#: Repeats of a lone prompt are so many seconds of measuring apart, up to so many, where one takes at most so long.
_APART_S, _PASSES, _CHEAP_S = 6.0, 5, 1.0
#: Going on at the context that the KV cache holds is worth this share of the gain to be had elsewhere.
_STAY = 0.5


@dataclass(frozen=True, slots=True)
class Target:
    """When a table is good enough.

    Attributes:
        max_error: mean relative leave-one-out error, and half-width of the 90 % interval of each median. No interior
            point may be off by more than three times that, unless noise explains it.
        min_repeats: of every point.
        max_repeats: of a point.
        seconds: of measuring, all tables together; exceeded by less than one sample. None has no end.

    Raises:
        ValueError: a number is out of range.
    """

    max_error: float = 0.05
    min_repeats: int = 2
    max_repeats: int = 7
    seconds: float | None = None

    def __post_init__(self) -> None:
        if not 0 < self.max_error < 1:
            raise ValueError(f"max_error is {self.max_error}, not between 0 and 1")
        if not 1 <= self.min_repeats <= self.max_repeats:
            raise ValueError(f"repeats from {self.min_repeats} to {self.max_repeats}: not 1 <= least <= most")
        if self.seconds is not None and not self.seconds > 0:
            raise ValueError(f"seconds is {self.seconds}, not positive")


@dataclass(frozen=True, slots=True)
class Choice:
    """A point to measure, and why."""

    point: Point
    why: Reason


@dataclass(frozen=True, slots=True)
class TableProgress:
    """How a table stands.

    Attributes:
        points: measured ones.
        samples: of them, repeats included.
        error: leave-one-out error over the inner points; None where it is not defined.
        verdict: done or not, and why.
        seconds_left: estimate of what it still needs; None while nothing was timed.
    """

    points: int
    samples: int
    error: TableError | None
    verdict: Verdict
    seconds_left: float | None


@dataclass(frozen=True, slots=True)
class Progress:
    """How all tables stand.

    Attributes:
        tables: each one.
        spent_s: seconds of all samples.
        seconds_left: estimate of what is still needed, within the budget; None while nothing was timed.
        last: why the last sample was taken; None where there is none or it was not asked for from here.
    """

    tables: Mapping[TableName, TableProgress]
    spent_s: float
    seconds_left: float | None
    last: Reason | None

    @property
    def done(self) -> bool:
        """Whether every table is."""
        return all(table.verdict.done for table in self.tables.values())


@dataclass(frozen=True, slots=True)
class _Table:
    """A table at one moment: what its grid still misses, and else how good it is."""

    name: TableName
    points: Mapping[Point, Measured]
    plan: Sequence[Group]
    #: None while points miss their first repeats.
    state: State | None
    failed: bool

    def missing(self, repeats: int) -> list[Group]:
        """Of each group the points with fewer repeats."""
        return [[(p, why) for p, why in group if self.taken(p) < repeats] for group in self.plan]

    def taken(self, point: Point) -> int:
        return self.points[point].taken if point in self.points else 0


class Sampling:
    """Chooses points.

    Args:
        domain: what can be measured.
        target: when to stop.
        roofline: places the knees where arithmetic takes over; None when the model or the GPU is not known.
    """

    def __init__(self, domain: Domain, target: Target, roofline: Roofline | None = None) -> None:
        self._domain, self._target, self._roofline = domain, target, roofline
        self._grids = {table: groups(domain, table, roofline) for table in domain.tables}

    def next(self, samples: Sequence[Sample], failed: Mapping[Point, int] | None = None) -> Point | None:
        """The point to measure next; None when every table is done or the budget is spent.

        Args:
            samples: taken so far, in that order.
            failed: how often a point could not be measured. Twice is enough, and then nothing beyond it in all its
                coordinates is asked for either, unless something beyond it was measured.

        Raises:
            ValueError: a sample's value is not positive and finite.
        """
        choice = self.choose(samples, failed)
        return None if choice is None else choice.point

    def choose(self, samples: Sequence[Sample], failed: Mapping[Point, int] | None = None) -> Choice | None:
        """Like `next`, with the reason."""
        if self._spent_out(samples):
            return None
        again = self._while_it_is_cached(samples, failed or {})
        if again is not None:
            return again
        tables = self._tables(samples, failed or {})
        choice = _in_turn(tables, 1) or self._spread_over_time(samples, failed or {})
        if choice is not None:
            return choice
        recent = _just_taken(samples)
        choice = self._repeats(tables, frozenset(filter(_is_lone, recent)))
        if choice is not None:
            return choice
        able = [(self._turn(t), i, t.state) for i, t in enumerate(tables) if t.state and t.state.candidates]
        if not able:
            return self._repeats(tables, frozenset())  # nothing else is left to measure in the meantime
        held = next((_context(sample.point) for sample in reversed(samples) if sample.point.table == "decode"), None)
        return _best(min(able, key=lambda entry: entry[:2])[2], held, recent)

    def _repeats(self, tables: Sequence[_Table], resting: frozenset[Point]) -> Choice | None:
        """The next of the least number of repeats, of a point that does not rest."""
        every = range(2, self._target.min_repeats + 1)
        return next((found for n in every if (found := _in_turn(tables, n, resting)) is not None), None)

    def _while_it_is_cached(self, samples: Sequence[Sample], failed: Mapping[Point, int]) -> Choice | None:
        """The last point once more where bringing its contexts into the KV cache is most of its cost."""
        if not samples or samples[-1].point.table not in {"decode", "mixed"}:
            return None
        point = samples[-1].point
        taken = sum(sample.point == point for sample in samples)
        large = point.at[-1] >= _COSTLY_SHARE * self._domain.kv_capacity_tokens
        if large and not failed.get(point) and taken < self._target.min_repeats and self._domain.prefix_caching:
            return Choice(point, Reason.REPEAT)
        return None

    def _spread_over_time(self, samples: Sequence[Sample], failed: Mapping[Point, int]) -> Choice | None:
        """Lone prompts once more, all of them, when some time has passed since the last ones.

        What a processor takes to launch a prompt's kernels differs by half for seconds at a time: repeats that follow
        each other agree, and all are wrong.
        """
        if "prefill" not in self._domain.tables:
            return None
        last: dict[Point, int] = {}
        walls: dict[Point, list[float]] = {}
        for place, sample in enumerate(samples):
            if _is_lone(sample.point):
                last[sample.point] = place
                walls.setdefault(sample.point, []).append(sample.wall_s)
        recent = _just_taken(samples)
        goes_on = bool(last) and max(last.values()) == len(samples) - 1
        if not goes_on and any(point in recent for point in last):
            return None
        most = min(_PASSES, self._target.max_repeats)
        due = [
            point
            for point, taken in walls.items()
            if len(taken) < most and max(taken) <= _CHEAP_S and point not in recent and not failed.get(point)
        ]
        if not due:
            return None
        return Choice(min(due, key=lambda point: (len(walls[point]), point.at)), Reason.REPEAT)

    def progress(self, samples: Sequence[Sample], failed: Mapping[Point, int] | None = None) -> Progress:
        """How all tables stand after these samples; arguments and errors as in `next`."""
        tables = self._tables(samples, failed or {})
        spent, out = _seconds(samples), self._spent_out(samples)
        found = {t.name: self._table_progress(t, samples, out) for t in tables}
        known = [p.seconds_left for p in found.values() if p.seconds_left is not None]
        left = math.fsum(known) if known else None
        if left is not None and self._target.seconds is not None:
            left = min(left, max(self._target.seconds - spent, 0.0))
        before = self.choose(samples[:-1], failed) if samples else None
        last = before.why if before is not None and before.point == samples[-1].point else None
        return Progress(found, spent, left, last)

    def _turn(self, table: _Table) -> float:
        """When a table's turn is: samples beyond the first ones go to tables in proportion to how far each is."""
        severity = table.state.severity if table.state else 1.0
        first = sum(map(len, self._grids[table.name])) * self._target.min_repeats
        beyond = sum(point.taken for point in table.points.values()) - first
        return (max(beyond, 0) + 1) / min(max(severity, 1.0), _FARTHEST)

    def _spent_out(self, samples: Sequence[Sample]) -> bool:
        return self._target.seconds is not None and _seconds(samples) >= self._target.seconds

    def _tables(self, samples: Sequence[Sample], failed: Mapping[Point, int]) -> list[_Table]:
        by_table = measured(samples)
        return [self._table(name, by_table.get(name, {}), failed) for name in self._domain.tables]

    def _table(self, name: TableName, points: Mapping[Point, Measured], failed: Mapping[Point, int]) -> _Table:
        walls = [point for point, count in failed.items() if point.table == name and count >= _FAILURES]
        # A point that failed although a larger one was measured is bad luck and not the engine's end.
        ends = [wall for wall in walls if not any(_beyond(p.at, wall.at) for p in points)]

        def refused(point: Point) -> bool:
            if not self._domain.contains(point):
                return True
            return point in walls or (point not in points and any(_beyond(point.at, end.at) for end in ends))

        plan = [[entry for entry in group if not refused(entry[0])] for group in self._plan(name, points)]
        table = _Table(name, points, plan, None, bool(walls))
        if any(table.missing(self._target.min_repeats)):
            return table
        state = assess(self._domain, name, points, self._target.max_error, self._target.max_repeats, refused)
        return _Table(name, points, plan, state, bool(walls))

    def _plan(self, name: TableName, points: Mapping[Point, Measured]) -> list[Group]:
        """The grid with the points that were added: each gets its first repeats, each new context its whole row."""
        if name != "decode":
            known = {point for group in self._grids[name] for point, _ in group}
            added = [(point, Reason.REPEAT) for point in points if point not in known]
            return [*self._grids[name], added] if added else list(self._grids[name])
        rows = {_context(group[0][0]): dict(group) for group in self._grids[name]}
        for point in points:
            context = _context(point)
            if context not in rows and context == int(context):
                rows[context] = {p: Reason.ROW for p, _ in row(self._domain, int(context), self._roofline)}
            rows.setdefault(context, {}).setdefault(point, Reason.REPEAT)
        return [sorted(rows[c].items(), key=lambda entry: -entry[0].at[0]) for c in sorted(rows)]

    def _table_progress(self, table: _Table, samples: Sequence[Sample], out: bool) -> TableProgress:
        taken = sum(point.taken for point in table.points.values())
        verdict = _verdict(table, self._target.max_error)
        if out and not verdict.done:
            verdict = Verdict.BUDGET
        own = [sample.wall_s for sample in samples if sample.point.table == table.name]
        times = own or [sample.wall_s for sample in samples]
        seconds = None
        if verdict.done:
            seconds = 0.0
        elif times:
            seconds = math.fsum(times) / len(times) * self._samples_left(table)
        error = table.state.error if table.state else None
        return TableProgress(len(table.points), taken, error, verdict, seconds)

    def _samples_left(self, table: _Table) -> float:
        """Samples that a table still needs: what its grid misses, then by how errors shrink.

        The error of linear interpolation shrinks with the square of the number of points, the interval of a median
        with the root of the number of repeats.
        """
        least = self._target.min_repeats
        missing = sum(least - min(table.taken(p), least) for group in table.plan for p, _ in group)
        if table.state is None:
            more = 0.0 if table.name == "mixed" else _ADDED * sum(map(len, table.plan)) * least
            return missing + more
        left = 0.0
        for point in {c.point for c in table.state.candidates if c.why is Reason.NOISE}:
            known = table.points[point]
            needed = math.ceil(len(known.values) * (known.half_width / self._target.max_error) ** 2)
            left += max(min(needed, self._target.max_repeats) - known.taken, 1)
        if any(c.why is not Reason.NOISE for c in table.state.candidates):
            inner = table.state.error.points if table.state.error else len(table.points)
            left += max(inner * (math.sqrt(table.state.severity) - 1), 1) * least
        return left


def _in_turn(tables: Sequence[_Table], repeats: int, resting: frozenset[Point] = frozenset()) -> Choice | None:
    """The next point with fewer repeats: of the group that was begun, else of the table that is least far."""
    behind = []
    for i, table in enumerate(tables):
        missing = [[entry for entry in group if entry[0] not in resting] for group in table.missing(repeats)]
        for group, rest in zip(table.plan, missing, strict=True):
            if 0 < len(rest) < len(group):
                return _choice(rest[0], table, repeats)
        if table.name == "decode" and repeats % 2 == 0:
            missing.reverse()  # back from the context that the KV cache still holds
        first = next((rest for rest in missing if rest), None)
        if first is not None:
            total = sum(len(group) for group in table.plan)
            behind.append((1 - sum(map(len, missing)) / total, i, first[0], table))
    if not behind:
        return None
    _, _, entry, table = min(behind, key=lambda entry: entry[:2])
    return _choice(entry, table, repeats)


def _choice(entry: tuple[Point, Reason], table: _Table, repeats: int) -> Choice:
    return Choice(entry[0], entry[1] if repeats == 1 or not table.taken(entry[0]) else Reason.REPEAT)


def _just_taken(samples: Sequence[Sample]) -> frozenset[Point]:
    """Points of the last seconds."""
    recent, seconds = set(), 0.0
    for sample in reversed(samples):
        if seconds >= _APART_S:
            break
        recent.add(sample.point)
        seconds += sample.wall_s
    return frozenset(recent)


def _best(state: State, held: float | None, recent: frozenset[Point]) -> Choice:
    """The candidate with the largest gain; a decode point of the context that the KV cache holds is preferred.

    A point that was just measured is left alone for a while, but a decode point, whose context is cached.
    """
    rested = (c for c in state.candidates if c.point.table == "decode" or c.point not in recent)
    best = next(rested, state.candidates[0])
    if held is not None and best.point.table == "decode":
        near = (c for c in state.candidates if c.gain >= _STAY * best.gain and _context(c.point) == held)
        best = next(near, best)
    return Choice(best.point, best.why)


def _verdict(table: _Table, max_error: float) -> Verdict:
    if not any(table.plan):
        return Verdict.FAILED if table.failed else Verdict.IMPOSSIBLE
    if table.state is None or table.state.candidates:
        return Verdict.MEASURING
    error = table.state.error
    if error is None and table.name != "mixed" and table.state.severity <= 1.0:
        return Verdict.FEW
    if table.state.severity <= 1.0 and not (table.state.noisy and error is not None and error.mean > max_error):
        return Verdict.TARGET
    return Verdict.NOISE if table.state.noisy else Verdict.RESOLUTION


def _beyond(at: tuple[float, ...], wall: tuple[float, ...]) -> bool:
    return all(a >= b for a, b in zip(at, wall, strict=True))


def _is_lone(point: Point) -> bool:
    return point.table == "prefill" and point.at[1:] == (1.0, 0.0)


def _context(point: Point) -> float:
    return point.at[1] / point.at[0]


def _seconds(samples: Sequence[Sample]) -> float:
    return math.fsum(sample.wall_s for sample in samples)
