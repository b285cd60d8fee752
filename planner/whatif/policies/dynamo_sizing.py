"""How many workers Dynamo 1.6 wants: its throughput and load decisions for one pool or a pair, floors and ceiling."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import cast

from planner.core.types import Pool, Role
from planner.whatif.policies.dynamo_actuate import Supply
from planner.whatif.policies.dynamo_budget import (
    Ceiling,
    clamp_pair,
    clamp_single,
    fit_throughput,
    guard_pair,
    guard_single,
)
from planner.whatif.policies.dynamo_engine import EngineModel, Load, Shape
from planner.whatif.policies.dynamo_load import (
    Limit,
    Target,
    decide_aggregated,
    decide_by_thresholds,
    decide_decode,
    decide_prefill,
)

Counts = tuple[int, ...]
#: By pool; None for no change.
Wanted = tuple[int | None, ...]


class Sizing:
    """The decisions for an aggregated pool, or for prefill and decode.

    Args:
        models: by role.
        pools: in the order of the roles; their minimum plays the part of `min_endpoint`.
        ttft, itl: the SLA.
        max_gpus: `max_gpu_budget`.
        most_change: workers of a pool by which one throughput decision may differ from those that are ready.
        target: of the thresholds.
    """

    def __init__(
        self,
        models: Mapping[Role, EngineModel],
        pools: tuple[Pool, ...],
        ttft: Limit,
        itl: Limit,
        max_gpus: int,
        most_change: int,
        target: Target,
    ) -> None:
        self._models, self._pools = models, pools
        self._ttft, self._itl = ttft, itl
        self._max_gpus, self._most_change, self._target = max_gpus, most_change, target
        #: Of throughput scaling, where load scaling works above one.
        self.floor: Counts | None = None

    @property
    def _aggregated(self) -> bool:
        return Role.AGGREGATED in self._models

    # -- throughput ------------------------------------------------------------------------------------------------

    def size(self, rps: float, shape: Shape, supply: Supply) -> Counts | None:
        """Rate over capacity, rounded up, within the largest change and above the least, before the ceiling.

        None where one engine's capacity cannot be told, be it of one pool only.
        """
        counts: list[int] = []
        for role, workers in zip(self._models, supply.workers, strict=True):
            capacity = self._models[role].capacity(shape, self._ttft.sla_ms, self._itl.sla_ms)
            if capacity is None or capacity.rps <= 0.0:
                return None
            wanted = max(math.ceil(rps / capacity.rps), workers.least)
            counts.append(min(max(wanted, workers.ready - self._most_change), workers.ready + self._most_change))
        return self._at_least(tuple(counts))

    def by_throughput(self, sized: Counts | None, supply: Supply) -> Wanted:
        """What was sized, under the ceiling; without it, the ready workers and at least the least of each pool."""
        if supply.starting:
            # Only reductions are carried out now, and these need no room.
            if sized is None or (self._aggregated and sized[0] > supply.ready[0]):
                return (None,) * len(self._pools)
            return self._guarded(sized, supply) if self._aggregated else sized
        return self._guarded(self._fit(self._at_least(sized or supply.ready), supply), supply)

    def set_floor(self, sized: Counts | None, supply: Supply) -> None:
        """From now on, load scaling stays at or above what was sized; without it, at or above what is ready."""
        self.floor = self._fit(self._at_least(sized or supply.ready), supply)

    # -- load ------------------------------------------------------------------------------------------------------

    def by_load(self, loads: Mapping[Role, Sequence[Load]], supply: Supply, hit_rate: float) -> Wanted:
        """One up, one down or no change of each pool, by latencies of the next request."""
        if self._aggregated:
            (workers,), model = supply.workers, self._models[Role.AGGREGATED]
            decided = decide_aggregated(model, loads[Role.AGGREGATED], workers, self._ttft, self._itl, hit_rate)
            if decided is None:
                return (None,)
            return self._lone(decided[0], supply, spare=decided[1])
        prefill, decode = supply.workers
        return self._both(
            (
                decide_prefill(self._models[Role.PREFILL], loads[Role.PREFILL], prefill, self._ttft, hit_rate),
                decide_decode(self._models[Role.DECODE], loads[Role.DECODE], decode, self._itl),
            ),
            supply,
        )

    def by_thresholds(self, loads: Mapping[Role, Sequence[Load]], supply: Supply) -> Wanted:
        """The same by fixed thresholds on queues and KV."""
        decided = tuple(
            decide_by_thresholds(role, self._models[role], loads[role], workers, self._target)
            for role, workers in zip(self._models, supply.workers, strict=True)
        )
        if not self._aggregated:
            return self._both(decided, supply)
        return (None,) if decided[0] is None else self._lone(decided[0], supply, spare=True)

    def _lone(self, count: int, supply: Supply, *, spare: bool) -> Wanted:
        workers = supply.workers[0]
        if supply.starting and count > workers.ready:
            return (None,)
        count = max(self._at_least((count,))[0], self.floor[0] if self.floor else 0)
        count = self._guarded((count,), supply)[0]
        if count == workers.ready and not (spare and workers.pending):
            return (None,)
        return (count,)

    def _both(self, decided: Wanted, supply: Supply) -> Wanted:
        if supply.starting:
            # More is not asked for while workers start, and a pool without a decision keeps those that do.
            floor = self.floor or (0, 0)
            return tuple(
                None if count is None or count > workers.ready else max(count, workers.least, least)
                for count, workers, least in zip(decided, supply.workers, floor, strict=True)
            )
        counts = tuple(r if count is None else count for count, r in zip(decided, supply.ready, strict=True))
        floored = counts if self.floor is None else tuple(map(max, counts, self.floor))
        final = self._at_least(floored)
        return self._guarded(self._fit(final, supply) if floored != counts else final, supply)

    # -- bounds ----------------------------------------------------------------------------------------------------

    @property
    def _ceiling(self) -> Ceiling:
        return Ceiling(
            _pair(tuple(pool.gpus_per_worker for pool in self._pools)),
            _pair(tuple(pool.min_workers for pool in self._pools)),
            self._max_gpus,
        )

    def _at_least(self, counts: Counts) -> Counts:
        return tuple(max(count, pool.min_workers) for count, pool in zip(counts, self._pools, strict=True))

    def _fit(self, counts: Counts, supply: Supply) -> Counts:
        """The ceiling fit that keeps the direction."""
        if self._aggregated:
            return self._guarded(counts, supply)
        return fit_throughput(_pair(supply.ready), _pair(counts), self._ceiling)

    def _guarded(self, counts: Counts, supply: Supply) -> Counts:
        if not self._aggregated:
            return guard_pair(_pair(supply.ready), _pair(counts), self._ceiling)
        pool = self._pools[0]
        return (guard_single(supply.ready[0], counts[0], pool.gpus_per_worker, pool.min_workers, self._max_gpus),)

    def clamp(self, counts: Counts) -> Counts:
        """The last clamp, which every decision passes."""
        counts = self._at_least(counts)
        if self._aggregated:
            pool = self._pools[0]
            return (clamp_single(counts[0], pool.gpus_per_worker, pool.min_workers, self._max_gpus),)
        return clamp_pair(_pair(counts), self._ceiling)


def _pair(counts: Counts) -> tuple[int, int]:
    return cast("tuple[int, int]", counts)
