"""What llm-d's Workload Variant Autoscaler reads from Prometheus: peaks of a minute and mean lengths of five.

Its queries are `max_over_time(vllm:kv_cache_usage_perc[1m])` and the same of `vllm:num_requests_waiting`, per pod, and
means of prompt and generation tokens over `rate(...[5m])` of completed requests. Scrapes are the policy's ticks.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from planner.core.types import LengthSample
from planner.whatif.simulator.simulation import WorkerLoad

#: Ranges of the two kinds of query, s.
PEAK_WINDOW_S, LENGTHS_WINDOW_S = 60.0, 300.0


@dataclass(frozen=True, slots=True)
class Replica:
    """One ready worker by its peaks.

    Attributes:
        waiting: the longest queue of the last minute.
        kv_usage: the highest share of its KV cache in use in the last minute.
        capacity_tokens: of its KV cache.
    """

    waiting: int
    kv_usage: float
    capacity_tokens: int

    @property
    def tokens_in_use(self) -> int:
        """Tokens in its KV cache at the peak."""
        return int(self.kv_usage * self.capacity_tokens)


class Peaks:
    """Peaks of every ready worker; one that is ready no more is forgotten at once."""

    def __init__(self) -> None:
        self._scrapes: dict[tuple[str, int], deque[tuple[float, WorkerLoad]]] = {}

    def add(self, workers: Mapping[str, Sequence[WorkerLoad]], now_s: float) -> None:
        """Scrape every ready worker, by pool name."""
        kept = {}
        for name, loads in workers.items():
            for load in loads:
                scrapes = self._scrapes.get((name, load.number), deque())
                scrapes.append((now_s, load))
                while now_s - scrapes[0][0] >= PEAK_WINDOW_S:
                    scrapes.popleft()
                kept[name, load.number] = scrapes
        self._scrapes = kept

    def of(self, pool: str) -> list[Replica]:
        """The ready workers of a pool, oldest number first."""
        return [
            Replica(
                waiting=max(load.waiting for _, load in scrapes),
                kv_usage=max(load.kv_usage for _, load in scrapes),
                capacity_tokens=scrapes[-1][1].kv_capacity_tokens,
            )
            for (name, _), scrapes in self._scrapes.items()
            if name == pool
        ]


@dataclass(frozen=True, slots=True)
class MeanLengths:
    """Mean tokens of a prompt and of an answer, and the share of prompt tokens that hit the prefix cache."""

    isl: float
    osl: float
    hit_rate: float


class Lengths:
    """Means over the requests that completed within five minutes, as far as a policy is shown them."""

    def __init__(self) -> None:
        self._sums: deque[tuple[float, int, int, int, int]] = deque()

    def add(self, lengths: LengthSample, now_s: float) -> None:
        """Count a tick's completed requests."""
        self._sums.append(
            (now_s, len(lengths), sum(lengths.isl), sum(lengths.osl), sum(lengths.prefix_hit_tokens)),
        )

    def means(self, now_s: float) -> MeanLengths | None:
        """The means; None while no request has completed."""
        while self._sums and now_s - self._sums[0][0] >= LENGTHS_WINDOW_S:
            self._sums.popleft()
        requests = sum(row[1] for row in self._sums)
        if requests == 0:
            return None
        isl, osl, hit = (sum(row[place] for row in self._sums) for place in (2, 3, 4))
        return MeanLengths(isl / requests, osl / requests, hit / isl if isl else 0.0)
