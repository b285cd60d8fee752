"""The decision record: one JSON line per tick that explains the tick and, replayed, gives the same plan bit for bit."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cache
from typing import Any, Literal

from pydantic import TypeAdapter, ValidationError

from planner.core.capacity import CapacityModel
from planner.core.decide import Planner
from planner.core.forecast import Forecast
from planner.core.layout_change import LayoutReview
from planner.core.settings import PlannerSettings
from planner.core.state import Decision, PlannerState
from planner.core.types import Observation
from profiler.errors import InputError

#: Beyond these a record is damaged rather than large.
MOST_WORKERS, MOST_INTERVALS_AHEAD = 1_000_000, 100_000


@dataclass(frozen=True, slots=True)
class ProfileRef:
    """A profile that the capacity model was built from: its folder and the hash of its files."""

    path: str
    fingerprint: str


@dataclass(frozen=True, slots=True)
class DecisionRecord:
    """One tick, self-contained.

    Attributes:
        time: wall-clock time in ISO 8601, or the replay's own seconds.
        graph: which graph.
        capacity: name of the capacity model.
        profiles: what it was built from.
        settings: the planner's, in full.
        state: before the tick.
        observation: of the tick.
        decision: of the tick.
        outcome: what the connector did, by pool; empty in a replay's record.
        settings_hash: short hash of the settings, to find changes in a journal.
        layouts: comparison of layouts, at ticks that made one.
    """

    time: str
    graph: str
    capacity: str
    profiles: tuple[ProfileRef, ...]
    settings: PlannerSettings
    state: PlannerState
    observation: Observation
    decision: Decision
    outcome: Mapping[str, str] = field(default_factory=dict)
    settings_hash: str = ""
    layouts: LayoutReview | None = None
    version: Literal[1] = 1


@cache
def _adapter() -> TypeAdapter[DecisionRecord]:
    return TypeAdapter(DecisionRecord)


def hash_settings(settings: PlannerSettings) -> str:
    """Twelve hexadecimal digits that change with any setting."""
    return hashlib.sha256(settings.model_dump_json().encode()).hexdigest()[:12]


def to_line(record: DecisionRecord) -> str:
    """The record as one line of JSON, without the line's end. Floats are written so that they read back unchanged."""
    return json.dumps(_adapter().dump_python(record, mode="json"), separators=(",", ":"), allow_nan=True)


def from_line(line: str, *, source: str, number: int) -> DecisionRecord:
    """Read a record back.

    Raises:
        InputError: not a record; names the line and the first field that is wrong.
    """
    try:
        data: Any = json.loads(line)
    except (ValueError, RecursionError) as error:
        raise InputError(f"is not JSON: {error}", expected="a decision record", source=source, line=number) from None
    try:
        record = _adapter().validate_python(data)
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(str(part) for part in first["loc"]) or None
        raise InputError(first["msg"], expected="a decision record", source=source, line=number, field=where) from None
    flaw = _flaw(record)
    if flaw is not None:
        raise InputError(flaw[1], expected="a decision record", source=source, line=number, field=flaw[0])
    return record


def _flaw(record: DecisionRecord) -> tuple[str, str] | None:
    """A field, and what is wrong with it beside the others; bounds on sizes keep a replay's work in bounds."""
    settings, forecast = record.settings, record.decision.forecast
    roles = sorted(pool.role.value for pool in settings.pools)
    if roles not in (["decode", "prefill"], ["aggregated"]):
        return "settings.pools", f"is for {', '.join(roles) or 'no role'}, not prefill and decode, nor aggregated"
    for index, pool in enumerate(settings.pools):
        if pool.gpus_per_worker < 1 or not 0 <= pool.min_workers <= pool.max_workers <= MOST_WORKERS:
            bounds = f"{pool.min_workers} to {pool.max_workers} workers of {pool.gpus_per_worker} GPUs"
            return f"settings.pools.{index}", f"cannot be {bounds}"
    if not settings.lead_time_s / settings.interval_s + settings.horizon_intervals <= MOST_INTERVALS_AHEAD:
        return "settings.lead_time_s", f"is {settings.lead_time_s:g} at ticks of {settings.interval_s:g} s"
    if isinstance(forecast, Forecast):
        bins = {len(rates) for rates in forecast.rates_rps}
        if len(forecast.levels) != len(forecast.rates_rps) or len(bins) != 1 or 0 in bins:
            return "decision.forecast.rates_rps", "is not one row of rates for each level"
    return None


def decide_again(record: DecisionRecord, capacity: CapacityModel) -> Decision:
    """The decision that the record's state, observation and settings lead to now."""
    planner = Planner(record.settings, capacity)
    return planner.decide(record.state, record.observation, record.decision.at_s)[0]
