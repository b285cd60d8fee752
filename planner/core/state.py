"""What one tick leaves for the next, and what a decision says."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from planner.core.error_budget import ErrorBudget
from planner.core.forecast import Forecast, ForecastState
from planner.core.sizing import Candidate
from planner.core.stabilise import Memory
from planner.core.types import LengthSample, Level, Plan, Role, Sla, Unknown


@dataclass(frozen=True, slots=True)
class PlannerState:
    """Everything that the next decision depends on beside its observation; survives JSON unchanged.

    `residuals` are the factors on the profile's times that live latencies have taught, `ready` the workers that served
    at the last tick, `backlog` what waited then in words, empty where it was no more than is worked off at once.
    """

    forecast: ForecastState = field(default_factory=ForecastState.empty)
    lengths: LengthSample | None = None
    lengths_at_s: float | None = None
    dispersion: float | None = None
    error_budget: ErrorBudget = field(default_factory=ErrorBudget)
    memory: Mapping[str, Memory] = field(default_factory=dict)
    last_good: Plan | None = None
    residuals: Mapping[Role, float] = field(default_factory=dict)
    ready: Plan = field(default_factory=dict)
    backlog: str = ""


@dataclass(frozen=True, slots=True)
class DemandUsed:
    """The demand that a plan was sized for; `surge_rps` is the rate that a surge leads to, 0 without one."""

    rate_rps: float
    median_rps: float
    dispersion: float
    mean_isl: float
    mean_osl: float
    mean_hit: float
    sample: int
    surge_rps: float = 0.0


@dataclass(frozen=True, slots=True)
class Decision:
    """One tick's outcome.

    Attributes:
        at_s: when.
        level: how much of the planner worked.
        plan: workers asked for, by pool; empty when nothing may be asked for.
        current: workers asked for before, by pool; empty when unknown.
        wanted: workers that sizing asked for, before stabilisation; empty without sizing.
        reasons: machine-readable, in the order in which they applied.
        limit: the binding constraint of the sizing.
        sla_reachable: False when no number of workers meets the SLA; `nearest` is then the closest that some meet.
        target: attainment that the plan was sized for: the SLA's, moved by its error budget; None without sizing.
        predicted_attainment: of the plan's sizing at the sized-for demand; None without sizing.
        forecast: quantiles, or why there are none.
        demand: what was sized for; None without sizing.
        candidates: plans considered, cheapest first.
        chosen, runner_up: of the sizing; `why_not_runner_up` says why the latter lost.
        clamps: what changed the sized plan, in words.
    """

    at_s: float
    level: Level
    plan: Plan
    current: Plan
    wanted: Plan
    reasons: tuple[str, ...]
    limit: str
    sla_reachable: bool = True
    nearest: Sla | None = None
    target: float | None = None
    predicted_attainment: float | None = None
    forecast: Forecast | Unknown = field(default_factory=lambda: Unknown("not made"))
    demand: DemandUsed | None = None
    candidates: tuple[Candidate, ...] = ()
    chosen: Candidate | None = None
    runner_up: Candidate | None = None
    why_not_runner_up: str = ""
    clamps: tuple[str, ...] = ()
