"""One tick after another: read, observe, decide, lease, apply, record, remember. What fails in one part stays there."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Mapping, Sequence
from typing import Protocol

import numpy as np

from planner.connectors.base import Connector, ConnectorError, LeaseState, NotHolderError, Supply
from planner.core.decide import Planner
from planner.core.record import DecisionRecord, hash_settings, to_line
from planner.core.settings import PlannerSettings
from planner.core.state import Decision, PlannerState
from planner.core.types import Known, Observation, Unknown
from planner.service.carry import carried, span_s
from planner.service.checkpoint import Checkpoint, load, save
from planner.service.clock import Clock
from planner.service.config import ServiceConfig
from planner.service.faults import Faults, Stage
from planner.service.forecast_error import ForecastErrors
from planner.service.history import History
from planner.service.journal import Journal
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


class Observing(Protocol):
    """What the loop needs of an observer."""

    def observe(self, supply: Supply | None, interval_s: float, now_s: float, supply_reason: str = ...) -> Observation:
        """What was seen over the last interval; times in planner seconds. `supply_reason`: why there is no supply."""

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
    """

    def __init__(
        self, config: ServiceConfig, model: Model, connector: Connector, observer: Observing, clock: Clock
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
        restored = load(service.checkpoint, config.graph, config.speed_up)
        if restored is not None:
            self._state, self._lead_time_s = restored.state, restored.lead_time_s
        self._settle(self._settings())

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

    def _tick(self) -> None:
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
            outcome=self._act(decision),
            settings_hash=self._settings_hash,
        )
        self._record(record)
        with self.faults.stage(Stage.CHECKPOINT):
            save(
                self.config.service.checkpoint,
                Checkpoint(self.config.graph, self.config.speed_up, self._lead_time_s, self._state),
            )
        self._publish(wall_s, record, self._forecast_error(record))

    def _read(self) -> Supply | None:
        with self.faults.stage(Stage.READ):
            supply = self._connector.read()
            wrong = supply.contradiction(self._planner.settings.pools_by_name)
            if wrong is not None:
                raise ConnectorError(wrong)
            return supply
        return None

    def _measure_lead_time(self, startup_s: Sequence[float]) -> None:
        """Measured starts are wall seconds; the lead time is in planner seconds, as all settings are."""
        measured = [s for s in startup_s if 0 <= s <= LONGEST_START_S]
        if len(measured) < ENOUGH_STARTS:
            return
        # A tenth of a second is below what any plan notices, and keeps the settings' hash from changing for it.
        lead_time_s = round(float(np.quantile(measured, LEAD_TIME_QUANTILE)) * self.clock.speed_up, 1)
        lead_time_s = min(lead_time_s, LONGEST_START_S)
        if lead_time_s != self._lead_time_s:
            text = "lead time is %.1f s, p90 of %d measured starts"
            log.info(text, lead_time_s, len(measured), extra={"stage": Stage.READ})
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

    def _act(self, decision: Decision) -> Mapping[str, str]:
        """Carry the plan out, if there is one and this planner may; what came of it, by pool or as a whole."""
        if not decision.plan:
            return {}
        if self._lease is None:
            return {"*": f"not applied: the lease is unknown: {self._why(Stage.LEASE)}"}
        if not self._lease.held:
            return {"*": f"standby: lease held by {self._lease.holder or 'no one'}"}
        refused = ""
        with self.faults.stage(Stage.APPLY):
            try:
                return dict(self._connector.apply(decision.plan, self.config.service.identity))
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
        self.snapshot = Snapshot(wall_s, settings, record, self._state, self._lease, measured, forecast_error)
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
