"""`Observer`: from raw samples to what the planner decides on. What cannot be trusted is Unknown and says why.

Two clocks: samples carry wall-clock time; the planner's seconds are these times `speed_up`, which is 1 except with
simulated engines that run faster than time. Such engines export durations in simulated seconds already, a gateway does
not.

An observer remembers what it needs to count every request once, and nothing about decisions: where each instance's
window ended, the last increments of the arrivals, and which addresses belonged to the graph lately, so that requests
of a worker that has just gone still count and a connector that fails for a tick does not blind it.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import pairwise

from planner.connectors.base import Supply, WorkerLoad
from planner.core.types import Known, LengthSample, Observation, Pool, PoolState, Role, Sla, Unknown
from planner.observe.base import Series, Source, SourceError
from planner.observe.dialects.base import EngineDialect, GatewayDialect, Selector
from planner.observe.dispersion import Dispersion, Increment
from planner.observe.latency import Seen, answered, attainment, in_ms, pooled, pooled_latency, ttft
from planner.observe.lengths import sample_lengths
from planner.observe.load import Loads, by_worker, measure, unmeasured
from planner.observe.series import UP, Instance, by_instance
from planner.observe.windows import Windows

NO_SUPPLY = "the supply could not be read"

#: Stands beside the roles of workers, and for the pool that a gateway is not in.
GATEWAY, GATEWAY_POOL = "gateway", ""


@dataclass
class _Members:
    """Addresses of the graph, with the pool and when each was last part of it."""

    pool_of: dict[str, str] = field(default_factory=dict)
    last_s: dict[str, float] = field(default_factory=dict)

    def update(self, supply: Supply, wall_s: float) -> None:
        pools = {worker.address: worker.pool for worker in supply.workers}
        pools.update(dict.fromkeys(supply.gateways, GATEWAY_POOL))
        self.pool_of.update(pools)
        self.last_s.update(dict.fromkeys(pools, wall_s))

    def expire(self, before_s: float) -> list[str]:
        gone = [address for address, last in self.last_s.items() if last < before_s]
        for address in gone:
            del self.pool_of[address], self.last_s[address]
        return gone


@dataclass(frozen=True)
class _Reading:
    """One tick's instances that have a window, and all that answered."""

    instances: Mapping[str, Instance]
    ages_s: Mapping[str, float]
    seen: Mapping[str, Seen]


class Observer:
    """Reads one graph's metrics, tick by tick."""

    def __init__(
        self,
        source: Source,
        engine: EngineDialect,
        gateway: GatewayDialect,
        sla: Sla,
        pools: Sequence[Pool],
        *,
        speed_up: float = 1.0,
        stale_after_s: float = 60.0,
    ) -> None:
        """Set up.

        Args:
            source: where samples come from.
            engine: how the engines name their metrics.
            gateway: how the gateway names its own.
            sla: its percentile and its limits are what latencies are read for.
            pools: the graph's, for their roles.
            speed_up: planner's seconds per second of the wall clock.
            stale_after_s: samples older than so many of the planner's seconds are unknown.
        """
        self._source = source
        self._engine = engine
        self._gateway = gateway
        self._sla = sla
        self._role_of = {pool.name: pool.role for pool in pools}
        self._speed_up = speed_up
        self._stale_after_s = stale_after_s
        self._names = tuple(dict.fromkeys((UP, *engine.names(), *gateway.names())))
        self._signs = (*(counter.name for counter in gateway.arrivals), *gateway.signs)
        self._members = _Members()
        self._windows = Windows()
        self._dispersion = Dispersion()
        self._supply: Supply | None = None
        self._carried = 0.0
        self._reach_s = 0.0
        #: What each worker did at the last observation, by name; without those that could not be seen.
        self.worker_loads: Mapping[str, WorkerLoad] = {}

    def observe(
        self, supply: Supply | None, interval_s: float, now_s: float, supply_reason: str = NO_SUPPLY
    ) -> Observation:
        """What was seen since the last tick.

        Args:
            supply: as the connector reads it; None if it could not.
            interval_s: since the last tick, planner's seconds.
            now_s: planner's time: unix time times `speed_up`.
            supply_reason: why there is no supply, for people.
        """
        wall_s, span_s = now_s / self._speed_up, (2 * interval_s + self._stale_after_s) / self._speed_up
        self._reach_s = span_s
        if supply is not None:
            self._supply = supply
            self._members.update(supply, wall_s)
        if self._supply is None:
            return _nothing(interval_s, supply_reason, Unknown(supply_reason))
        self.worker_loads = {}
        # While the connector fails, the graph is what it was.
        gone = self._members.expire(wall_s - span_s) if supply is not None else []
        self._windows.forget(gone)
        self._dispersion.forget(gone)
        try:
            series = self._source.read(self._names, self._supply, span_s, wall_s)
        except SourceError as error:
            pools = _pools(unmeasured(supply, str(error)) if supply is not None else None, supply_reason)
            return _nothing(interval_s, str(error), pools)
        reading = self._sorted(series, interval_s, wall_s, wall_s - span_s)
        return self._observation(reading, supply, self._supply, interval_s, supply_reason)

    def glance(self, now_s: float) -> Observation:
        """What has arrived since the last observation, all else Unknown. The next observation counts it as ever.

        Its interval is what the gateways' scrapes cover, in the planner's seconds.

        Args:
            now_s: planner's time.
        """
        wall_s, supply = now_s / self._speed_up, self._supply
        if supply is None or not supply.gateways:
            return _nothing(0.0, "no gateway is known", Unknown(NO_SUPPLY))
        try:
            # All names, as ever: a source that scrapes keeps only what it was last asked for.
            series = self._source.read(self._names, supply, self._reach_s, wall_s)
        except SourceError as error:
            return _nothing(0.0, str(error), Unknown(NO_SUPPLY))
        wanted = set(supply.gateways)
        found = by_instance(series, wanted.__contains__, started="", from_s=wall_s - self._reach_s)
        windows = {address: self._windows.since(one) for address, one in found.items()}
        selector, rate, span_s = self._arrivals_counter(list(found.values())), 0.0, math.inf
        for address in supply.gateways:
            window = windows.get(address)
            increase = found[address].increase(selector, window) if window is not None else None
            if window is None or increase is None or found[address].flaws:
                return _nothing(0.0, f"gateway {address} tells of no arrivals since", Unknown(NO_SUPPLY))
            rate, span_s = rate + increase / window.span_s, min(span_s, window.span_s)
        blank = _nothing(span_s * self._speed_up, "not looked at between ticks", Unknown(NO_SUPPLY))
        return replace(blank, arrivals=Known(round(rate * span_s)))

    def close(self) -> None:
        """Close the source."""
        self._source.close()

    def _sorted(self, series: Sequence[Series], interval_s: float, wall_s: float, from_s: float) -> _Reading:
        members = self._members.pool_of
        instances = by_instance(series, members.__contains__, started=self._engine.started, from_s=from_s)
        answering = {address: one for address, one in instances.items() if one.scrapes_s}
        ages = {address: max(0.0, wall_s - one.newest_s) * self._speed_up for address, one in answering.items()}
        seen = {}
        for address, one in answering.items():
            window = self._windows.advance(one, interval_s / self._speed_up)
            if window is not None:
                seen[address] = Seen(one, window, ages[address])
        return _Reading(answering, ages, seen)

    def _observation(
        self, reading: _Reading, supply: Supply | None, members: Supply, interval_s: float, supply_reason: str
    ) -> Observation:
        arrivals = self._arrivals(reading, members.gateways, interval_s)
        addresses = {*members.gateways, *(worker.address for worker in members.workers)}
        by_role = self._by_role(reading.seen)
        gateways = _current(by_role.pop(GATEWAY), addresses)
        workers = {role: _current(seen, addresses) for role, seen in by_role.items()}
        # Each request passes a decode worker once; a prefill worker sees it with an answer of one token.
        last = workers.get("decode" if "decode" in workers else "aggregated", [])
        where = "decode worker" if "decode" in workers else "aggregated worker"
        ttfts = ttft(self._engine, self._gateway, gateways, workers, self._speed_up)
        itls = pooled_latency(self._engine.request_itl, last, where)
        token_itls = pooled_latency(self._engine.token_itl, last, where)
        loads: Loads | None = None
        if supply is not None:
            seen = (supply, self._engine, reading.instances, reading.ages_s, self._stale_after_s)
            loads, self.worker_loads = measure(*seen), by_worker(*seen)
        return Observation(
            interval_s=interval_s,
            arrivals=arrivals,
            dispersion=self._index(arrivals),
            lengths=self._lengths(workers, last, where),
            pools=_pools(loads.pools if loads is not None else None, supply_reason),
            ttft_ms=in_ms(ttfts, lambda latencies: float(latencies.quantile(self._sla.attainment))),
            itl_ms=in_ms(itls, lambda latencies: float(latencies.quantile(self._sla.attainment))),
            attainment=attainment(ttfts, itls, answered(self._gateway, gateways), self._sla),
            mean_ttft_ms=in_ms(ttfts, lambda latencies: latencies.mean),
            mean_itl_ms=in_ms(token_itls, lambda latencies: latencies.mean),
            gaps=loads.gaps if loads is not None else (),
        )

    def _by_role(self, seen: Mapping[str, Seen]) -> dict[str, list[Seen]]:
        """Instances by role, stale ones left out; a role of the graph without any is there and empty."""
        roles: dict[str, list[Seen]] = {GATEWAY: [], **{role.value: [] for role in self._role_of.values()}}
        for address, one in seen.items():
            pool = self._members.pool_of[address]
            role = GATEWAY if pool == GATEWAY_POOL else self._role_of.get(pool)
            if role is not None and one.age_s <= self._stale_after_s:
                roles[role].append(one)
        return roles

    # -- arrivals --------------------------------------------------------------------------------------------------

    def _arrivals(self, reading: _Reading, gateways: Sequence[str], interval_s: float) -> Known[int] | Unknown:
        """Offered requests: every gateway's increase over the span that its window covers, scaled to the interval."""
        if not gateways:
            return Unknown("the graph names no gateway")
        for address in gateways:
            age = reading.ages_s.get(address)
            if age is None:
                return Unknown(f"gateway {address} not in the metrics")
            if age > self._stale_after_s:
                return Unknown(
                    f"gateway {address} was last read {age:.0f} s ago, {self._stale_after_s:.0f} s allowed", age
                )
            if address not in reading.seen:
                return Unknown(f"gateway {address} was read only once so far", age)
        # A gateway that has gone counts until its end, once.
        counted = {
            address: one
            for address, one in reading.seen.items()
            if address in gateways or (self._members.pool_of[address] == GATEWAY_POOL and one.window.fresh)
        }
        selector = self._arrivals_counter([one.instance for one in counted.values()])
        rate = 0.0
        for address, one in counted.items():
            increase = one.instance.increase(selector, one.window)
            # A gateway exports its counter from the first request on; another program never does.
            if increase is None and not any(one.instance.series.get(name) for name in self._signs):
                return Unknown(f"gateway {address} exports no {selector.name}", one.age_s)
            rate += (increase or 0.0) / one.window.span_s
            if one.window.fresh:
                self._dispersion.add(address, _increments(one, selector))
        age = max(reading.ages_s[address] for address in gateways)
        flaws = [flaw for one in counted.values() for flaw in one.instance.flaws if flaw.startswith(selector.name)]
        if flaws:
            return Unknown(flaws[0], age)
        # Counts are whole; what rounding leaves is carried to the next tick, so that none is lost in the long run.
        exact = rate * interval_s / self._speed_up + self._carried
        count = max(0, round(exact))
        self._carried = exact - count
        return Known(count, age)

    def _arrivals_counter(self, gateways: Sequence[Instance]) -> Selector:
        for selector in self._gateway.arrivals:
            if any(one.exports(selector) for one in gateways):
                return selector
        return self._gateway.arrivals[0]

    def _index(self, arrivals: Known[int] | Unknown) -> Known[float] | Unknown:
        if isinstance(arrivals, Unknown):
            return arrivals
        return self._dispersion.index(arrivals.age_s)

    # -- lengths ---------------------------------------------------------------------------------------------------

    def _lengths(
        self, workers: Mapping[str, Sequence[Seen]], last: Sequence[Seen], where: str
    ) -> Known[LengthSample] | Unknown:
        fresh = [one for one in last if one.window.fresh]
        if last and not fresh:
            return Unknown("nothing was scraped since the last tick", max(one.age_s for one in last))
        isl, osl = pooled(self._engine.isl, fresh, where), pooled(self._engine.osl, fresh, where)
        if isinstance(isl, Unknown):
            return isl
        if isinstance(osl, Unknown):
            return osl
        prefills = workers.get(Role.PREFILL.value) if Role.PREFILL.value in workers else last
        return Known(sample_lengths(isl.value, osl.value, self._hit_share(prefills or ())), max(isl.age_s, osl.age_s))

    def _hit_share(self, prefills: Sequence[Seen]) -> float:
        """Prompt tokens found in a cache over those looked up; 0, all computed, where no look-up is exported."""
        queries = sum(_increase(one, self._engine.prefix_queries) for one in prefills)
        hits = sum(_increase(one, name) for one in prefills for name in self._engine.prefix_hits)
        return min(1.0, hits / queries) if queries > 0 else 0.0


def _current(seen: Sequence[Seen], addresses: Collection[str]) -> list[Seen]:
    """Those that tell what completed since the last tick, also of instances that have gone since.

    Where nothing was scraped since then, what members of the graph told last time.
    """
    fresh = [one for one in seen if one.window.fresh]
    return fresh or [one for one in seen if one.instance.address in addresses]


def _increase(seen: Seen, name: str) -> float:
    return seen.instance.increase(Selector(name), seen.window) or 0.0


def _increments(seen: Seen, selector: Selector) -> list[Increment]:
    """What a gateway counted between any two neighbouring scrapes of its window."""
    window, counters = seen.window, seen.instance.counter(selector)
    times = [at for at in seen.instance.points_s if window.start_s <= at <= window.end_s]
    totals = [sum(counter.at(at) for counter in counters) for at in times]
    return [
        Increment(start, end, high - low)
        for (start, end), (low, high) in zip(pairwise(times), pairwise(totals), strict=True)
    ]


def _pools(pools: Mapping[str, PoolState] | None, reason: str) -> Known[Mapping[str, PoolState]] | Unknown:
    return Unknown(reason) if pools is None else Known(pools)


def _nothing(interval_s: float, reason: str, pools: Known[Mapping[str, PoolState]] | Unknown) -> Observation:
    """Everything but the supply unknown for one reason."""
    unknown = Unknown(reason)
    return Observation(interval_s, unknown, unknown, unknown, pools, unknown, unknown, unknown, unknown, unknown)
