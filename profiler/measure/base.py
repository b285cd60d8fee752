"""What a measurement is: a point of a table, a sample of it, and who takes it."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np

from profiler.csvfile import COLUMNS, KEYS, Samples
from profiler.errors import DependencyError
from profiler.schema import TableName


@dataclass(frozen=True, slots=True)
class Point:
    """A place in a table.

    Attributes:
        table: it belongs to.
        at: coordinates in the order of `profiler.csvfile.KEYS[table]`: prefill (isl, batch, prefix_hit_tokens), decode
            (batch, kv_tokens), mixed (prefill_tokens, batch, kv_tokens), transfer (tokens).
    """

    table: TableName
    at: tuple[float, ...]


@dataclass(frozen=True, slots=True)
class Sample:
    """One measurement of a point.

    Attributes:
        point: where.
        values: every column of the table that was measured, the coordinates among them, `repeat` left out.
        wall_s: seconds that taking it took.
    """

    point: Point
    values: Mapping[str, float]
    wall_s: float


@dataclass(frozen=True, slots=True)
class Facts:
    """What an engine under test says about itself, and what it was started with; None is unknown.

    Attributes:
        url: base address, without `/v1`.
        model: name that it serves.
        version: of the engine.
        kv_capacity_tokens: KV cache of all its data-parallel ranks.
        block_size: tokens of a KV block.
        prefix_caching: whether equal beginnings are computed once.
        max_model_len, max_num_seqs, max_num_batched_tokens: its limits; the latter two for all ranks together.
        dp: data-parallel ranks behind the address.
        max_cudagraph_tokens: tokens up to which an iteration of one rank replays CUDA graphs.
    """

    url: str
    model: str
    version: str | None
    kv_capacity_tokens: int | None
    block_size: int | None
    prefix_caching: bool
    max_model_len: int | None
    max_num_seqs: int | None
    max_num_batched_tokens: int | None
    dp: int = 1
    max_cudagraph_tokens: int | None = None


class SampleError(DependencyError):
    """A sample could not be taken: requests were lost, or the engine did something other than was asked."""


class Meter(Protocol):
    """Takes samples from an engine, or from a pair of them."""

    async def measure(self, point: Point) -> Sample:
        """Take one sample.

        Raises:
            SampleError: it could not be taken; the engine may have died, which whoever started it knows.
            ValueError: the point lies beyond what the engine can hold.
        """
        ...


def rows_of(samples: Sequence[Sample]) -> dict[TableName, Samples]:
    """Samples as tables: columns as arrays, rows sorted by point, repeats numbered from 0 in the order taken."""
    grouped: dict[TableName, dict[tuple[float, ...], list[Sample]]] = defaultdict(lambda: defaultdict(list))
    for sample in samples:
        grouped[sample.point.table][sample.point.at].append(sample)
    tables: dict[TableName, Samples] = {}
    for table, points in grouped.items():
        rows: list[dict[str, float]] = []
        for at in sorted(points):
            for repeat, sample in enumerate(points[at]):
                rows.append({**sample.values, **dict(zip(KEYS[table], at, strict=True)), "repeat": float(repeat)})
        tables[table] = {
            column.name: np.array([row.get(column.name, column.default) for row in rows]) for column in COLUMNS[table]
        }
    return tables
