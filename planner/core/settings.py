"""What can be set about decisions; each field says its unit, and why its default is what it is."""

from __future__ import annotations

from pydantic import BaseModel, ConfigDict, Field

from planner.core.backlog import BacklogSettings
from planner.core.error_budget import ErrorBudgetSettings
from planner.core.forecast import ForecastSettings
from planner.core.residual import ResidualSettings
from planner.core.stabilise import Behaviour
from planner.core.surge import SurgeSettings
from planner.core.types import Pool, Sla


class Tuning(BaseModel):
    """What holds for any graph: how fast, how cautious, how smooth."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    interval_s: float = Field(default=15.0, gt=0)
    """Seconds between ticks, and the forecast's bin: half a start-up time or less, and long enough for counts to be
    more
    than noise. The HPA's sync period, too."""

    glances: int = Field(default=2, ge=0, le=2)
    """Looks at the arrivals between two ticks, evenly spaced. A surge among them has the next tick come at once, and
    the ticks after it an interval apart from there. 0: every tick in its turn."""

    confidence: float = Field(default=0.5, ge=0.5, lt=1)
    """How much of the forecast's lower side is left out: the plan meets the target over the worst 2 (1 - confidence)
    share.

    0.5 is the expectation over all of the forecast, whose error budget then absorbs what turns out worse; 0.9 plans for
    its worst fifth.
    """

    horizon_intervals: float = Field(default=1.0, ge=0)
    """Intervals beyond the lead time that a plan must hold, until the next one can take effect."""

    attainment_tolerance: float = Field(default=0.01, ge=0, lt=1)
    """What is asked for stays while its predicted attainment misses the target by less than this.

    A worker that a moment's noise asks for costs its start-up and the scale-down's wait before it is gone again.
    """

    error_budget: ErrorBudgetSettings = ErrorBudgetSettings()
    """How the SLA's attainment over its window steers the target of a single plan."""

    behaviour: Behaviour = Behaviour()
    """Windows, tolerance and rate policies of scale-ups and scale-downs."""

    forecast: ForecastSettings = ForecastSettings()
    """History, candidates and weights of the forecast."""

    surge: SurgeSettings = SurgeSettings()
    """When a rise is taken at its word before the forecasters have learnt it, and how far."""

    backlog: BacklogSettings = BacklogSettings()
    """When so much waits that no pool is lowered."""

    residual: ResidualSettings = ResidualSettings()
    """How live latencies correct the profile."""

    sample_size: int = Field(default=1024, ge=16)
    """Completed requests kept as the sample of the joint length distribution; 1024 puts its mean within 3 %."""

    sample_per_tick: int = Field(default=128, ge=1)
    """Of these, taken from one tick: the sample then spans at least eight ticks and one burst cannot fill it."""

    stale_after_s: float = Field(default=60.0, gt=0)
    """A measurement older than this is unknown. Two scrapes of 30 s may fail before one counts as gone."""

    lengths_stale_after_s: float = Field(default=3600.0, gt=0)
    """Lengths drift slowly; after an hour without a completed request they no longer justify a scale-down."""

    reactive_queue: float = Field(default=4.0, gt=0)
    """Without a forecast: waiting requests per ready worker above which a pool grows."""

    reactive_kv_usage: float = Field(default=0.9, gt=0, le=1)
    """Without a forecast: KV usage above which a pool grows."""

    reactive_growth: float = Field(default=0.25, gt=0, le=1)
    """Without a forecast: share of the present workers by which a saturated pool grows, at least one."""


class PlannerSettings(Tuning):
    """Settings of `decide` for one graph."""

    sla: Sla
    """Limits on TTFT and ITL in ms, and the share of requests that must keep both."""

    pools: tuple[Pool, ...]
    """The pools that are scaled, one per role: prefill and decode, or aggregated."""

    max_gpus: int = Field(ge=1)
    """GPUs that the graph may hold at any moment, starting and terminating workers included."""

    lead_time_s: float = Field(default=30.0, ge=0)
    """Seconds from asking for a worker to its first token served. Measured where possible; p90, not the mean."""

    @property
    def pools_by_name(self) -> dict[str, Pool]:
        """The pools by name."""
        return {pool.name: pool for pool in self.pools}
