"""One tick after another: read, observe, decide, lease, apply, record, remember. What fails in one part stays there."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Protocol

import numpy as np

from planner.connectors.base import Connector, ConnectorError, LeaseState, NotHolderError, Supply, WorkerLoad
from planner.core.decide import Planner
from planner.core.forecast import SHORTEST_BIN
from planner.core.layout_change import LayoutReview
from planner.core.record import DecisionRecord, hash_settings, to_line
from planner.core.settings import PlannerSettings
from planner.core.state import Decision, PlannerState
from planner.core.types import Known, Observation, Plan, Unknown
from planner.service.carry import carried, span_s
from planner.service.checkpoint import Checkpoint, FileKeeper, Keeper, load, save
from planner.service.clock import Clock
from planner.service.config import ServiceConfig
from planner.service.faults import Faults, Stage
from planner.service.forecast_error import ForecastErrors
from planner.service.history import History
from planner.service.journal import Journal
from planner.service.layouts import LayoutReviews, carried_over, followed, going_on
from planner.service.logs import log
from planner.service.metrics import Metrics
from planner.service.model import Model
from planner.service.snapshot import Snapshot
from planner.service.summary import record_id

#: Starts to measure before their p90 replaces the configured lead time.
ENOUGH_STARTS = 3

#: Share of such starts that are quicker.
LEAD_TIME_QUANTILE = 0.9

#: A start of more than a day is a mistake of a clock.
LONGEST_START_S = 86_400.0

#: Times in a row that deciding may fail before the state, which must then be what it fails on, is given up.
MOST_DECIDE_FAILURES = 3


#: Share of an interval after which the next tick is due anyway: glances leave it its turn.
LATEST_GLANCE = 0.9


class Observing(Protocol):
    """What the loop needs of an observer."""

    def observe(self, supply: Supply | None, interval_s: float, now_s: float, supply_reason: str = ...) -> Observation:
        """What was seen over the last interval; times in planner seconds. `supply_reason`: why there is no supply."""

    def glance(self, now_s: float) -> Observation:
        """What has arrived since the last observation, which the next one counts as ever."""

    @property
    def worker_loads(self) -> Mapping[str, WorkerLoad]:
        """What each worker did at the last observation, by name; without those that could not be seen."""

    def close(self) -> None:
        """End threads and connections."""


class Loop:
    """The long-running planner without its clockwork: someone calls `tick`, from one thread at a time.

    Args:
        config: of the service.
        model: what decides.
        connector: reads and changes the graph.
        observer: sees the load.
        clock: time.
        keeper: of the checkpoint; the configured file without it.
    """

    def __init__(
        self,
        config: ServiceConfig,
        model: Model,
        connector: Connector,
        observer: Observing,
        clock: Clock,
        keeper: Keeper | None = None,
    ) -> None:
        service = config.service
        self.config = config
        self.model = model
        self.clock = clock
        self.metrics = Metrics(config, model)
        self.faults = Faults(clock.wall, self.metrics.count_failure)
        kept = min(int(service.history_hours * 3600 / config.wall_interval_s) + 1, 20_000)
        self.history = History(service.history_hours * 3600.0, kept)
        self.journal = Journal(
            service.journal,
            max_bytes=int(service.journal_max_mib * 2**20),
            keep=service.journal_keep,
            index=2 * kept,
        )
        self.started_wall_s = clock.wall()
        self.tick_began_s = clock.steady()
        self.snapshot: Snapshot | None = None
        self._connector = connector
        self._observer = observer
        self._forecast_errors = ForecastErrors()
        self._lease: LeaseState | None = None
        self._acting: bool | None = None
        self._undecided = 0
        self._ticking = threading.Lock()
        self._state = PlannerState()
        self._lead_time_s: float | None = None
        self._keeper = keeper or FileKeeper(service.checkpoint)
        self._restored = False
        self._notices: tuple[str, ...] = ()
        #: As it was read in this tick, also where it contradicts the profiles; None where it could not be read.
        self._seen: Supply | None = None
        self._layouts = LayoutReviews(config.layouts, config.speed_up)
        self._settle(self._settings())
        self._restore()

    def _restore(self) -> None:
        """Take up what was learned before, once: at the start, or as soon as it can be read."""
        if self._restored:
            return
        with self.faults.stage(Stage.CHECKPOINT):
            kept = load(self._keeper, self.config.graph, self.config.speed_up)
            self._restored = True
            if kept is not None:
                self._state, self._lead_time_s = kept.state, kept.lead_time_s
                self._settle(self._settings())

    @property
    def checkpoint(self) -> str:
        """Where the checkpoint is kept, for people."""
        return self._keeper.where

    def _settle(self, settings: PlannerSettings) -> None:
        self._planner = Planner(settings, self.model.capacity)
        self._settings_hash = hash_settings(settings)

    def _settings(self) -> PlannerSettings:
        if self._lead_time_s is None:
            return self.model.settings
        return self.model.settings.model_copy(update={"lead_time_s": self._lead_time_s})

    # -- one tick --------------------------------------------------------------------------------------------------

    def tick(self) -> None:
        """One tick; raises nothing. A call while another one runs waits for it."""
        with self._ticking:
            self.tick_began_s, began = self.clock.steady(), time.perf_counter()
            with self.faults.stage(Stage.TICK):
                self._tick()
            self.metrics.count_tick(time.perf_counter() - began)

    def glance(self) -> bool:
        """Whether the next tick should come at once: a surge has begun since the last one. Raises nothing.

        Only the planner that acts looks; only where the last tick saw arrivals, for metrics that hang would have ticks
        wait; and not so soon or so late that a tick would be none or is due anyway.
        """
        with self._ticking:
            last, now_s = self._state.forecast.at_s, self.clock.planner_s(self.clock.wall())
            record = self.snapshot.record if self.snapshot is not None else None
            saw = record is not None and isinstance(record.observation.arrivals, Known)
            if last is None or not saw or self._lease is None or not self._lease.held:
                return False
            if not SHORTEST_BIN <= (now_s - last) / self._planner.settings.interval_s <= LATEST_GLANCE:
                return False
            with self.faults.stage(Stage.OBSERVE):
                if self._planner.hurries(self._state, self._observer.glance(now_s)):
                    log.info("a surge: the next tick comes at once", extra={"stage": Stage.OBSERVE})
                    self.metrics.count_hurried()
                    return True
            return False

    def _tick(self) -> None:
        self._restore()
        wall_s = self.clock.wall()
        now_s = self.clock.planner_s(wall_s)
        supply = self._read()
        if supply is not None:
            self._measure_lead_time(supply.startup_s)
        settings = self._planner.settings
        before = carried(self._state, settings, now_s)
        observation = self._observe(supply, span_s(self._state, settings, now_s), now_s)
        decided = self._decide(before, observation, now_s)
        self._renew_lease()
        if decided is None:
            self._act({})
            self._publish(wall_s, None, self._forecast_error(None))
            return
        decision, self._state = decided
        record = DecisionRecord(
            time=self.clock.iso(wall_s),
            graph=self.config.graph,
            capacity=self.model.capacity.name,
            profiles=self.model.profiles,
            settings=settings,
            state=before,
            observation=observation,
            decision=decision,
            outcome=self._act(decision.plan),
            settings_hash=self._settings_hash,
        )
        record = self._with_layouts(record, supply, now_s)
        self._record(record)
        self._save()
        self._publish(wall_s, record, self._forecast_error(record))

    def _save(self) -> None:
        """Keep what was learned; not over what could not be read yet, nor over what the acting planner keeps."""
        if not self._restored or (self._keeper.shared and not self._acting):
            return
        with self.faults.stage(Stage.CHECKPOINT):
            save(self._keeper, Checkpoint(self.config.graph, self.config.speed_up, self._lead_time_s, self._state))

    def _read(self) -> Supply | None:
        self._seen = None
        with self.faults.stage(Stage.READ):
            self._seen = supply = self._connector.read()
            self._follow(supply.layouts)
            wrong = supply.contradiction(self._planner.settings.pools_by_name)
            self._notice(supply.notices)
            if wrong is not None:
                raise ConnectorError(wrong)
            return supply
        return None

    def _follow(self, layouts: Mapping[str, tuple[int, int]]) -> None:
        """Go on with the model of the layouts that the graph has."""
        model = followed(self.model, layouts)
        if model.layouts == self.model.layouts:
            return
        log.info("layouts are %s from now on", model.option.name, extra={"stage": Stage.LAYOUTS})
        self._state = carried_over(self._state, self.model, model)
        self.model = model
        self._settle(self._settings())

    def _with_layouts(self, record: DecisionRecord, supply: Supply | None, now_s: float) -> DecisionRecord:
        """At its own, slower pace: whether another layout pays; and the beginning of the change to it."""
        settings = self._planner.settings
        due = self._layouts.due(self.model, settings, self._state, supply, now_s)
        if not self._acting or not due or supply is None:
            return record
        found: LayoutReview | None = None
        with self.faults.stage(Stage.LAYOUTS):
            found = self._layouts.review(self.model, settings, self._state, supply, now_s)
            if found is None or found.proposal is None:
                return replace(record, layouts=found)
            pool = found.proposal.pool
            done = self._connector.change_layout(found.proposal, self.config.service.identity)
            return replace(record, layouts=found, outcome={**record.outcome, f"layout of {pool}": done})
        return replace(record, layouts=found)

    def _notice(self, notices: tuple[str, ...]) -> None:
        """Log what is new of the connector's notices, and what is over."""
        for text in notices:
            if text not in self._notices:
                log.warning("%s", text, extra={"stage": Stage.READ})
        for text in self._notices:
            if text not in notices:
                log.info("over: %s", text, extra={"stage": Stage.READ})
        self._notices = notices

    def _measure_lead_time(self, startup_s: Mapping[str, Sequence[float]]) -> None:
        """The lead time of the slowest pool: a plan takes effect when its last worker serves.

        Measured starts are wall seconds; the lead time is in planner seconds, as all settings are.
        """
        pools = {name: [s for s in starts if 0 <= s <= LONGEST_START_S] for name, starts in startup_s.items()}
        p90 = {
            name: float(np.quantile(starts, LEAD_TIME_QUANTILE))
            for name, starts in pools.items()
            if len(starts) >= ENOUGH_STARTS
        }
        if not p90:
            return
        slowest = max(p90, key=lambda name: p90[name])
        # A tenth of a second is below what any plan notices, and keeps the settings' hash from changing for it.
        lead_time_s = round(p90[slowest] * self.clock.speed_up, 1)
        lead_time_s = min(lead_time_s, LONGEST_START_S)
        if lead_time_s != self._lead_time_s:
            text = "lead time is %.1f s, p90 of %d measured starts of %s"
            log.info(text, lead_time_s, len(pools[slowest]), slowest, extra={"stage": Stage.READ})
            self._lead_time_s = lead_time_s
            self._settle(self._settings())

    def _observe(self, supply: Supply | None, interval_s: float, now_s: float) -> Observation:
        no_supply = self._why(Stage.READ)
        with self.faults.stage(Stage.OBSERVE):
            return self._observer.observe(supply, interval_s, now_s, no_supply)
        unknown = Unknown(f"observing failed: {self._why(Stage.OBSERVE)}")
        pools = Known(supply.pools) if supply is not None else Unknown(no_supply)
        return Observation(interval_s, unknown, unknown, unknown, pools)

    def _decide(
        self, state: PlannerState, observation: Observation, now_s: float
    ) -> tuple[Decision, PlannerState] | None:
        with self.faults.stage(Stage.DECIDE):
            decided = self._planner.decide(state, observation, now_s)
            self._undecided = 0
            return decided
        self._undecided += 1
        if self._undecided >= MOST_DECIDE_FAILURES:
            log.error("the planner's memory is given up after %d failures", self._undecided, extra={"stage": "decide"})
            self._state, self._undecided = PlannerState(), 0
        return None

    def _renew_lease(self) -> None:
        """At every tick, plan or none: a standby must not take over because there was nothing to do."""
        self._lease = None
        with self.faults.stage(Stage.LEASE):
            service = self.config.service
            self._lease = self._connector.lease(service.identity, service.lease_s)
        now = self._lease
        if now is not None and now.held != self._acting:
            self._acting = now.held
            text = "this planner acts on the graph" if now.held else f"standing by: {now.holder} acts on the graph"
            log.info("%s", text, extra={"stage": Stage.LEASE})

    def _act(self, plan: Plan) -> Mapping[str, str]:
        """Carry the plan out, if this planner may; what came of it, by pool or as a whole.

        Without a plan only a layout change that is under way is carried on: half of one is no state to wait in, and
        what hinders the plan may be the change itself.
        """
        plan = plan or going_on(self._seen)
        if not plan:
            return {}
        if self._lease is None:
            return {"*": f"not applied: the lease is unknown: {self._why(Stage.LEASE)}"}
        if not self._lease.held:
            return {"*": f"standby: lease held by {self._lease.holder or 'no one'}"}
        refused = ""
        with self.faults.stage(Stage.APPLY):
            try:
                loads = self._observer.worker_loads
                return dict(self._connector.apply(plan, self.config.service.identity, loads))
            except NotHolderError as error:
                # Lost between the two calls: that is what leases are for, and no failure.
                refused = str(error)
        if refused:
            return {"*": f"standby: {refused}"}
        return {"*": f"failed: {self._why(Stage.APPLY)}"}

    def _why(self, stage: Stage) -> str:
        """What a stage fails with now; empty when it works."""
        fault = self.faults.active(stage)
        return fault.text if fault is not None else ""

    # -- records ---------------------------------------------------------------------------------------------------

    def _record(self, record: DecisionRecord) -> None:
        with self.faults.stage(Stage.JOURNAL):
            line = to_line(record)
            self.history.add(json.loads(line))
            self.journal.append(record_id(record.decision.at_s), line)

    def _forecast_error(self, record: DecisionRecord | None) -> float | None:
        return self._forecast_errors.take(record) if record is not None else None

    def _publish(self, wall_s: float, record: DecisionRecord | None, forecast_error: float | None) -> None:
        measured = self._lead_time_s is not None
        settings = self._planner.settings
        self.snapshot = Snapshot(
            wall_s, settings, record, self._state, self._lease, measured, forecast_error, self._notices
        )
        self.metrics.take(self.snapshot, self.faults, self.journal)

    def close(self) -> None:
        """Give the lease back and write what waits; raises nothing."""
        with self._ticking:
            if self._acting:
                with self.faults.stage(Stage.LEASE):
                    self._connector.release(self.config.service.identity)
            self._lease = self._acting = None
            with self.faults.stage(Stage.OBSERVE):
                self._observer.close()
            self.journal.close()
