"""What the last tick saw and did, whole and unchanging, for the API and the metrics."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from planner.connectors.base import LeaseState
from planner.core.record import DecisionRecord
from planner.core.settings import PlannerSettings
from planner.core.state import PlannerState


@dataclass(frozen=True, slots=True)
class Snapshot:
    """After one tick.

    Attributes:
        wall_s: when it began, unix time.
        settings: that held.
        record: of the tick; None when deciding failed.
        state: after the tick.
        lease: None when it could not be read.
        lead_time_measured: whether the lead time is a measured one.
        forecast_error: signed, relative: what was forecast for this tick's interval against what came; None unknown.
        notices: of the connector, for people.
    """

    wall_s: float
    settings: PlannerSettings
    record: DecisionRecord | None
    state: PlannerState
    lease: LeaseState | None
    lead_time_measured: bool
    forecast_error: float | None
    notices: tuple[str, ...] = ()

    @property
    def outcome(self) -> Mapping[str, str]:
        """What the connector did."""
        return self.record.outcome if self.record is not None else {}
