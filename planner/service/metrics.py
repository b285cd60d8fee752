"""The planner's own metrics. What is not known is absent, never 0; labels have few values, whatever happens."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from prometheus_client import CollectorRegistry, Counter, Histogram, ProcessCollector, generate_latest
from prometheus_client.core import GaugeMetricFamily
from prometheus_client.registry import Collector

from planner.core.budget import gpus_of
from planner.core.forecast import Forecast
from planner.core.readings import usable
from planner.core.types import Known, Level, Unknown
from planner.service.config import ServiceConfig
from planner.service.faults import Faults, Stage
from planner.service.journal import Journal
from planner.service.model import Model
from planner.service.snapshot import Snapshot

#: Seconds: a tick takes some 20 ms and two calls over the network, and a hung server's time limit is 5 s.
BUCKETS_S = (0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0)

_GAUGES = {
    "observed_requests_per_second": "Requests offered to the gateway, over the last interval.",
    "predicted_requests_per_second": "Rate that the plan was sized for: the forecast, and a surge.",
    "predicted_median_requests_per_second": "Median of the forecast over the lead time, its worst bin.",
    "forecast_error_ratio": "(forecast - observed) / observed, of the forecast that was made one lead time ago.",
    "ttft_seconds": "Observed TTFT at the SLA's percentile.",
    "itl_seconds": "Observed ITL at the SLA's percentile.",
    "attainment_ratio": "Share of the interval's requests within the SLA, observed.",
    "attainment_predicted_ratio": "Share that the plan's sizing is predicted to attain.",
    "attainment_target_ratio": "Share that the plan was sized for: the SLA's, moved by its error budget.",
    "attainment_sla_ratio": "Share that the SLA promises.",
    "error_budget_burn_ratio": "Misses over the SLA's window against those that it allows; above 1 it is broken.",
    "sla_reachable": "1 when some number of workers meets the SLA, 0 when none does.",
    "gpus_planned": "GPUs of the plan.",
    "gpus_held": "GPUs of all workers, starting and terminating ones included.",
    "gpus_budget": "GPUs that the graph may hold.",
    "lead_time_seconds": "From asking for a worker to its readiness, planner seconds.",
    "lead_time_measured": "1 when the lead time is a measured one, 0 when it is the configured one.",
    "lease_held": "1 when this planner acts on the graph, 0 when another one does.",
    "journal_working": "1 when records reach the disk, 0 when they wait in memory.",
    "journal_pending_records": "Records that wait in memory.",
    "journal_lost_records": "Records that waited too long and are gone.",
    "notices": "What the graph's connector reports for people: rivals, workers in trouble, a change that is stuck.",
    "last_tick_timestamp_seconds": "When the last tick began, unix time.",
}


def reason_code(reason: str, pools: Iterable[str]) -> tuple[str, str]:
    """(code, pool) of a decision's reason: no numbers and no free text, so that there are few of them.

    `prefill:scale_up` gives ("scale_up", "prefill"); `arrivals unknown: 61 s old` gives ("arrivals_unknown", "").
    """
    head, _, rest = reason.partition(":")
    pool, text = (head, rest) if head in set(pools) else ("", head)
    return re.sub(r"[^a-z]+", "_", text.lower()).strip("_")[:40] or "other", pool


class Metrics(Collector):
    """Counts, and shows the last snapshot.

    Args:
        config: names the graph and its model.
        model: settings and the profiles' errors.
    """

    def __init__(self, config: ServiceConfig, model: Model) -> None:
        self._names = ("graph", "model")
        self._values = (config.graph, config.model)
        self._profile_errors = model.errors
        self._snapshot: Snapshot | None = None
        self._journal: tuple[bool, int, int] = (True, 0, 0)
        self.registry = CollectorRegistry()

        self._ticks = self._counter("ticks", "Ticks made.")
        self._missed = self._counter("ticks_missed", "Ticks left out because one took too long.")
        self._hurried = self._counter("ticks_hurried", "Ticks that came early because of a surge.")
        self._failures = self._counter("failures", "Failures by stage of a tick.", "stage")
        self._actuation = self._counter("actuation_failures", "Plans that could not be carried out.")
        self._reasons = self._counter("decision_reasons", "Reasons of decisions.", "reason", "pool")
        self._duration = Histogram(
            "sla_planner_tick_duration_seconds",
            "Wall time of a tick.",
            self._names,
            buckets=BUCKETS_S,
            registry=self.registry,
        )
        for counted in (self._ticks, self._missed, self._hurried, self._actuation, self._duration):
            # From 0 on, so that the first increase shows.
            counted.labels(*self._values)
        for stage in Stage:
            self._failures.labels(*self._values, stage.value)
        ProcessCollector(registry=self.registry)
        self.registry.register(self)

    def _counter(self, name: str, text: str, *labels: str) -> Counter:
        return Counter(f"sla_planner_{name}", text, (*self._names, *labels), registry=self.registry)

    def text(self) -> bytes:
        """Prometheus' text format."""
        return generate_latest(self.registry)

    # -- counting --------------------------------------------------------------------------------------------------

    def count_tick(self, duration_s: float) -> None:
        """A tick has ended."""
        self._ticks.labels(*self._values).inc()
        self._duration.labels(*self._values).observe(duration_s)

    def count_hurried(self) -> None:
        """One tick that comes early."""
        self._hurried.labels(*self._values).inc()

    def count_missed(self) -> None:
        """A tick was left out."""
        self._missed.labels(*self._values).inc()

    def count_failure(self, stage: Stage) -> None:
        """A stage has failed."""
        self._failures.labels(*self._values, stage.value).inc()
        if stage is Stage.APPLY:
            self._actuation.labels(*self._values).inc()

    def take(self, snapshot: Snapshot, faults: Faults, journal: Journal) -> None:
        """A tick's results."""
        self._journal = (faults.active(Stage.JOURNAL) is None, journal.pending, journal.lost)
        self._snapshot = snapshot
        if snapshot.record is not None:
            pools = snapshot.settings.pools_by_name
            for reason in snapshot.record.decision.reasons:
                self._reasons.labels(*self._values, *reason_code(reason, pools)).inc()

    # -- showing ---------------------------------------------------------------------------------------------------

    def collect(self) -> Iterator[GaugeMetricFamily]:
        """The gauges of the last snapshot."""
        yield self._family(
            "profile_error_ratio", "Mean leave-one-out error of a profile's table.", ("table",),
            {(table,): error for table, error in self._profile_errors.items()},
        )  # fmt: skip
        snapshot = self._snapshot
        if snapshot is None:
            return
        values = _values(snapshot)
        working, pending, lost = self._journal
        values |= {"journal_working": float(working), "journal_pending_records": pending, "journal_lost_records": lost}
        for name, text in _GAUGES.items():
            value = values.get(name)
            if value is not None:
                yield self._family(name, text, (), {(): value})
        pools, levels = _by_pool(snapshot), _levels(snapshot)
        text = "Workers by pool and state (starting: also unschedulable and failing ones); `planned` by the plan."
        yield self._family("workers", text, ("pool", "state"), pools)
        yield self._family(
            "profile_residual_ratio", "How many times as slow as its profile a pool's workers are.", ("pool",),
            _residuals(snapshot),
        )  # fmt: skip
        yield self._family("level", "1 for the level that made the last decision.", ("level",), levels)

    def _family(
        self, name: str, text: str, labels: tuple[str, ...], values: Mapping[tuple[str, ...], float]
    ) -> GaugeMetricFamily:
        family = GaugeMetricFamily(f"sla_planner_{name}", text, labels=(*self._names, *labels))
        for own, value in values.items():
            family.add_metric([*self._values, *own], value)
        return family


def _levels(snapshot: Snapshot) -> dict[tuple[str, ...], float]:
    if snapshot.record is None:
        return {}
    return {(level.value,): float(level is snapshot.record.decision.level) for level in Level}


def _residuals(snapshot: Snapshot) -> dict[tuple[str, ...], float]:
    """1 for pools of which live latencies have taught nothing yet."""
    known = snapshot.state.residuals
    return {(pool.name,): known.get(pool.role, 1.0) for pool in snapshot.settings.pools}


def _by_pool(snapshot: Snapshot) -> dict[tuple[str, ...], float]:
    if snapshot.record is None:
        return {}
    found: dict[tuple[str, ...], float] = {}
    seen = snapshot.record.observation.pools
    for name, pool in (seen.value if isinstance(seen, Known) else {}).items():
        for state in ("desired", "ready", "starting", "terminating", "unschedulable", "failing"):
            found[name, state] = float(getattr(pool, state))
    for name, count in snapshot.record.decision.plan.items():
        found[name, "planned"] = float(count)
    return found


def _values(snapshot: Snapshot) -> dict[str, float | None]:
    settings, budget = snapshot.settings, snapshot.state.error_budget
    allowed = (1.0 - settings.sla.attainment) * budget.offered
    values: dict[str, float | None] = {
        "attainment_sla_ratio": settings.sla.attainment,
        "error_budget_burn_ratio": (budget.offered - budget.attained) / allowed if allowed > 0 else None,
        "gpus_budget": settings.max_gpus,
        "lead_time_seconds": settings.lead_time_s,
        "lead_time_measured": float(snapshot.lead_time_measured),
        "lease_held": None if snapshot.lease is None else float(snapshot.lease.held),
        "last_tick_timestamp_seconds": snapshot.wall_s,
        "forecast_error_ratio": snapshot.forecast_error,
        "notices": len(snapshot.notices),
    }
    if snapshot.record is None:
        return values
    decision, observation, pools = snapshot.record.decision, snapshot.record.observation, settings.pools_by_name

    def known(reading: Known[Any] | Unknown, scale: float = 1.0) -> float | None:
        fresh = usable(reading, settings.stale_after_s)
        return fresh.value * scale if isinstance(fresh, Known) else None

    held = None
    if isinstance(observation.pools, Known) and set(pools) <= set(observation.pools.value):
        supply = {name: observation.pools.value[name] for name in pools}
        # What is asked for and not there yet counts: it holds its GPUs from the asking on.
        held = gpus_of({n: max(p.desired, p.ready + p.starting) + p.terminating for n, p in supply.items()}, pools)
    forecast = decision.forecast
    median = None
    if isinstance(forecast, Forecast) and 0.5 in forecast.levels:
        median = max(forecast.rates_rps[forecast.levels.index(0.5)])
    interval_s = observation.interval_s
    return values | {
        "observed_requests_per_second": known(observation.arrivals, 1.0 / interval_s) if interval_s > 0 else None,
        "predicted_requests_per_second": None if decision.demand is None else decision.demand.rate_rps,
        "predicted_median_requests_per_second": median,
        "ttft_seconds": known(observation.ttft_ms, 0.001),
        "itl_seconds": known(observation.itl_ms, 0.001),
        "attainment_ratio": known(observation.attainment),
        "attainment_predicted_ratio": decision.predicted_attainment,
        "attainment_target_ratio": decision.target,
        "sla_reachable": float(decision.sla_reachable) if decision.demand is not None else None,
        "gpus_planned": gpus_of(decision.plan, pools) if decision.plan else None,
        "gpus_held": held,
    }
