"""What a replay achieved, gathered in fixed memory."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from planner.core.types import Sla
from planner.whatif.simulator.simulation import Finished
from planner.whatif.transition import Course

if TYPE_CHECKING:
    from planner.whatif.replay import Tick

#: Latency histogram: bins grow by 0.5 %, from 10 microseconds to about 3 hours; a percentile is off by 0.25 % at most.
_GROWTH = 1.005
_SMALLEST_MS = 0.01
_BINS = 4200

#: Values are counted so many at a time: a tick of a second brings a few dozen, and counting takes a pass over all bins.
_AT_ONCE = 16_384

#: Width of the buckets of the timeline, s.
BUCKET_S = 10.0


class Histogram:
    """Mean exactly, percentiles to within a quarter of a percent, in fixed memory."""

    def __init__(self) -> None:
        self._counts = np.zeros(_BINS, dtype=np.int64)
        self._uncounted: list[NDArray[np.float64]] = []
        self._sum = 0.0
        self.count = self._counted = 0

    def add(self, values_ms: NDArray[np.float64]) -> None:
        """Take values in, ms, shape (n,)."""
        if len(values_ms) == 0:
            return
        self._uncounted.append(values_ms)
        self._sum += float(values_ms.sum())
        self.count += len(values_ms)
        if self.count - self._counted >= _AT_ONCE:
            self._count()

    def _count(self) -> None:
        if not self._uncounted:
            return
        values_ms = np.concatenate(self._uncounted)
        place = np.log(np.maximum(values_ms, _SMALLEST_MS) / _SMALLEST_MS) / np.log(_GROWTH)
        self._counts += np.bincount(np.minimum(place.astype(np.int64), _BINS - 1), minlength=_BINS)
        self._uncounted.clear()
        self._counted = self.count

    def summary(self) -> dict[str, float | None]:
        """mean, p50, p90 and p99 in ms; None for each while there is nothing."""
        if self.count == 0:
            return dict.fromkeys(("mean", "p50", "p90", "p99"))
        self._count()
        reached = np.cumsum(self._counts)

        def percentile(share: float) -> float:
            place = int(np.searchsorted(reached, share * self.count))
            return float(_SMALLEST_MS * _GROWTH ** (place + 0.5))

        return {
            "mean": self._sum / self.count,
            "p50": percentile(0.5),
            "p90": percentile(0.9),
            "p99": percentile(0.99),
        }


@dataclass(frozen=True)
class Timeline:
    """Requests by the bucket of their arrival, `BUCKET_S` wide; shapes (n,). NaN latency where none completed.

    `ttft_p95_ms` and `itl_p95_ms` are of the requests that completed.
    """

    start_s: NDArray[np.float64]
    completed: NDArray[np.int64]
    attained: NDArray[np.int64]
    ttft_p95_ms: NDArray[np.float64]
    itl_p95_ms: NDArray[np.float64]


@dataclass(frozen=True)
class Outcome:
    """What one policy achieved and cost.

    Attributes:
        policy: its name.
        requests: offered. Those that did not complete count as not attaining.
        span_s: from time 0 to the last arrival; GPU-hours count this window.
        wall_s: of the replay, decisions included.
        layout_change: what came of the change of a layout; None where none was asked for.
    """

    policy: str
    requests: int
    completed: int
    failed: int
    unfinished: int
    preempted: int
    attained: int
    attainment: float
    ttft_attainment: float
    itl_attainment: float
    ttft_ms: Mapping[str, float | None]
    itl_ms: Mapping[str, float | None]
    span_s: float
    gpu_hours: float
    peak_gpus: int
    scale_ups: int
    scale_downs: int
    wall_s: float
    timeline: Timeline
    ticks: tuple[Tick, ...]
    layout_change: Course | None = None

    @property
    def simulated_requests_per_s(self) -> float:
        """Speed of the replay."""
        return self.requests / self.wall_s if self.wall_s > 0 else 0.0

    def as_json(self) -> dict[str, Any]:
        """The object of `--output json`."""
        return {
            "policy": self.policy,
            "requests": self.requests,
            "completed": self.completed,
            "failed": self.failed,
            "unfinished": self.unfinished,
            "preempted": self.preempted,
            "attainment": self.attainment,
            "ttft_attainment": self.ttft_attainment,
            "itl_attainment": self.itl_attainment,
            "ttft_ms": dict(self.ttft_ms),
            "itl_ms": dict(self.itl_ms),
            "goodput_rps": self.attained / self.span_s if self.span_s > 0 else 0.0,
            "gpu_hours": self.gpu_hours,
            "peak_gpus": self.peak_gpus,
            "scale_ups": self.scale_ups,
            "scale_downs": self.scale_downs,
            "wall_s": self.wall_s,
            "simulated_requests_per_s": self.simulated_requests_per_s,
            **({"layout_change": self.layout_change.as_json()} if self.layout_change is not None else {}),
        }


#: Coarse latency bins of the timeline: 3 % wide, from 0.1 ms to about 20 minutes.
_LINE_GROWTH, _LINE_SMALLEST, _LINE_BINS = 1.03, 0.1, 560


class _Line:
    """95th percentile by bucket of arrival."""

    def __init__(self) -> None:
        self._counts = np.zeros((0, _LINE_BINS), dtype=np.int32)
        self._uncounted: list[tuple[NDArray[np.int64], NDArray[np.float64]]] = []
        self._waiting = 0

    def add(self, bucket: NDArray[np.int64], values_ms: NDArray[np.float64]) -> None:
        if len(bucket) == 0:
            return
        self._uncounted.append((bucket, values_ms))
        self._waiting += len(bucket)
        if self._waiting >= _AT_ONCE:
            self._count()

    def _count(self) -> None:
        if not self._uncounted:
            return
        bucket, values_ms = (np.concatenate(parts) for parts in zip(*self._uncounted, strict=True))
        self._uncounted.clear()
        self._waiting = 0
        need = int(bucket.max()) + 1
        if need > len(self._counts):
            # An eighth at a time: these rows are the only thing that grows with the trace's span.
            more = np.zeros((need + need // 8 + 64 - len(self._counts), _LINE_BINS), dtype=np.int32)
            self._counts = np.concatenate([self._counts, more])
        place = np.log(np.maximum(values_ms, _LINE_SMALLEST) / _LINE_SMALLEST) / np.log(_LINE_GROWTH)
        first = int(bucket.min())
        cell = (bucket - first) * _LINE_BINS + np.minimum(place.astype(np.int64), _LINE_BINS - 1)
        counts = np.bincount(cell, minlength=(need - first) * _LINE_BINS)
        self._counts[first:need] += counts.reshape(-1, _LINE_BINS).astype(np.int32)

    def p95(self, buckets: int) -> NDArray[np.float64]:
        self._count()
        values = np.full(buckets, np.nan)
        for row, counts in enumerate(self._counts[:buckets]):
            reached = np.cumsum(counts)
            if reached[-1] > 0:
                place = int(np.argmax(reached >= 0.95 * reached[-1]))
                values[row] = _LINE_SMALLEST * _LINE_GROWTH ** (place + 0.5)
        return values


class Tally:
    """Gathers finished requests; memory grows with the span in buckets, not with the requests."""

    def __init__(self, sla: Sla) -> None:
        self._sla = sla
        self._ttft, self._itl = Histogram(), Histogram()
        self._ttft_line, self._itl_line = _Line(), _Line()
        self._within = np.zeros(3, dtype=np.int64)  # both, TTFT, ITL
        self._buckets = np.zeros((0, 2), dtype=np.int64)  # completed, attained

    def add(self, batch: Finished) -> None:
        """Take finished requests in."""
        within_ttft = batch.ttft_ms <= self._sla.ttft_ms
        decoded = ~np.isnan(batch.itl_ms)
        within_itl = ~decoded | (batch.itl_ms <= self._sla.itl_ms)
        both = within_ttft & within_itl
        self._within += np.array([both.sum(), within_ttft.sum(), within_itl.sum()])
        self._ttft.add(batch.ttft_ms)
        self._itl.add(batch.itl_ms[decoded])
        bucket = (batch.arrival_ms / (1000.0 * BUCKET_S)).astype(np.int64)
        need = int(bucket.max()) + 1
        if need > len(self._buckets):
            more = np.zeros((max(need, 2 * len(self._buckets)) - len(self._buckets), 2), dtype=np.int64)
            self._buckets = np.concatenate([self._buckets, more])
        self._buckets[:, 0] += np.bincount(bucket, minlength=len(self._buckets))
        self._buckets[:, 1] += np.bincount(bucket[both], minlength=len(self._buckets))
        self._ttft_line.add(bucket, batch.ttft_ms)
        self._itl_line.add(bucket[decoded], batch.itl_ms[decoded])

    def outcome(
        self,
        *,
        policy: str,
        offered: int,
        failed: int,
        preempted: int,
        span_s: float,
        gpu_hours: float,
        peak_gpus: int,
        scale_ups: int,
        scale_downs: int,
        wall_s: float,
        ticks: tuple[Tick, ...],
        layout_change: Course | None = None,
    ) -> Outcome:
        """The sum of all that was taken in; shares are of the offered requests."""
        buckets = int(span_s / BUCKET_S) + 1
        lines = np.zeros((buckets, 2), dtype=np.int64)
        have = min(buckets, len(self._buckets))
        lines[:have] = self._buckets[:have]
        completed = self._ttft.count
        shares = self._within / max(offered, 1)
        return Outcome(
            policy=policy,
            requests=offered,
            completed=completed,
            failed=failed,
            unfinished=offered - completed - failed,
            preempted=preempted,
            attained=int(self._within[0]),
            attainment=float(shares[0]),
            ttft_attainment=float(shares[1]),
            itl_attainment=float(shares[2]),
            ttft_ms=self._ttft.summary(),
            itl_ms=self._itl.summary(),
            span_s=span_s,
            gpu_hours=gpu_hours,
            peak_gpus=peak_gpus,
            scale_ups=scale_ups,
            scale_downs=scale_downs,
            wall_s=wall_s,
            timeline=Timeline(
                start_s=np.arange(buckets, dtype=np.float64) * BUCKET_S,
                completed=lines[:, 0],
                attained=lines[:, 1],
                ttft_p95_ms=self._ttft_line.p95(buckets),
                itl_p95_ms=self._itl_line.p95(buckets),
            ),
            ticks=ticks,
            layout_change=layout_change,
        )
