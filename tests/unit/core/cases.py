"""What the tests of the core share: a capacity table made by hand, graphs, observations."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path

from planner.core.capacity import Evaluator, Prediction
from planner.core.closed_form import ClosedForm
from planner.core.decide import Planner
from planner.core.demand import Demand, Lengths
from planner.core.settings import PlannerSettings
from planner.core.stabilise import Behaviour, Direction
from planner.core.state import Decision, PlannerState
from planner.core.types import Known, LengthSample, Observation, Pool, PoolState, Role, Sla, Unknown
from profiler.tables import load_profile
from profiler.timing import engine_timing, transfer_timing
from tests.engines import engine, transfer

PREFILL, DECODE, AGGREGATED = Role.PREFILL, Role.DECODE, Role.AGGREGATED

GONE = Unknown("the exporter is down")

SLA = Sla(ttft_ms=500.0, itl_ms=50.0, attainment=0.95)

H200 = Path(__file__).parents[3] / "profiling_results" / "llama-3.1-8b-instruct-fp8" / "h200-sxm" / "vllm-unknown"

#: attainment, TTFT attainment, ITL attainment, utilisation of the busiest role.
Row = tuple[float, float, float, float]


@dataclass(frozen=True)
class Table(Evaluator):
    """Attainments as a function of the counts, in the order of the roles."""

    of: Callable[..., float | Row]
    roles: tuple[Role, ...] = (PREFILL, DECODE)
    best: float | Row = 1.0
    near: Sla = SLA

    def _prediction(self, row: float | Row) -> Prediction:
        both, ttft, itl, use = row if isinstance(row, tuple) else (row, row, row, 0.5)
        return Prediction(both, ttft, itl, dict.fromkeys(self.roles, use), 10.0, 100.0)

    def predict(self, workers: Mapping[Role, int]) -> Prediction:
        return self._prediction(self.of(*(workers[role] for role in self.roles)))

    def ceiling(self) -> Prediction:
        return self._prediction(self.best)

    def at_rate(self, rate_rps: float) -> Table:  # noqa: ARG002 - part of the interface
        return self

    def nearest(self) -> Sla:
        return self.near


def pair(*, most: int = 8, least: int = 1, prefill_gpus: int = 1, decode_gpus: int = 1) -> dict[Role, Pool]:
    """A prefill and a decode pool."""
    return {
        PREFILL: Pool("prefill", PREFILL, prefill_gpus, least, most),
        DECODE: Pool("decode", DECODE, decode_gpus, least, most),
    }


def single(*, most: int = 8, least: int = 1, gpus: int = 1) -> dict[Role, Pool]:
    """An aggregated pool."""
    return {AGGREGATED: Pool("agg", AGGREGATED, gpus, least, most)}


@cache
def h200() -> ClosedForm:
    """Prefill and decode from the shipped profile."""
    prefill, decode = (load_profile(H200 / f"{role}-tp1-dp1") for role in ("prefill", "decode"))
    engines = {
        PREFILL: engine_timing(prefill, None, limits_of=prefill),
        DECODE: engine_timing(prefill, decode, limits_of=decode),
    }
    return ClosedForm(engines, transfer_timing([prefill, decode]))


@cache
def h200_aggregated() -> ClosedForm:
    """Aggregated workers from the shipped profile."""
    return ClosedForm({AGGREGATED: h200().engines[DECODE]}, h200().transfer)


def by_hand(**changes: float) -> ClosedForm:
    """Prefill and decode on `engine()`: 10 ms + 0.01 ms/token; 5 ms + 0.1 ms/request + 0.001 ms/KV token."""
    made = engine(**changes)  # type: ignore[arg-type]
    return ClosedForm({PREFILL: made, DECODE: made}, transfer())


def sample(isl: int = 1000, osl: int = 100, hit: int = 0, n: int = 1) -> LengthSample:
    """n equal requests."""
    return LengthSample((isl,) * n, (osl,) * n, (hit,) * n)


def demand(rate_rps: float, lengths: LengthSample | None = None, dispersion: float = 1.0) -> Demand:
    """A Poisson load of equal requests unless told otherwise."""
    return Demand(rate_rps, dispersion, Lengths.of(lengths or sample()))


def planner(
    model: ClosedForm | None = None, pools: Mapping[Role, Pool] | None = None, *, max_gpus: int = 64, **fields: object
) -> Planner:
    """A planner on the shipped profile; what the tests count on is said here, not left to the defaults."""
    pools = pools or pair(most=32)
    values = {
        "sla": SLA,
        "pools": tuple(pools.values()),
        "max_gpus": max_gpus,
        "lead_time_s": 30.0,
        "horizon_intervals": 1.0,
        "interval_s": 10.0,
        "attainment_tolerance": 0.02,
        "behaviour": Behaviour(up=Direction(), down=Direction(window_s=60.0)),
        **fields,
    }
    return Planner(PlannerSettings.model_validate(values), model or h200())


def pools(prefill: int = 1, decode: int = 1, **both: object) -> dict[str, PoolState]:
    """Two pools, all of whose workers are ready."""
    made = {"prefill": PoolState(prefill, prefill), "decode": PoolState(decode, decode)}
    return {name: replace(state, **both) for name, state in made.items()}  # type: ignore[arg-type]


def seen(
    arrivals: int | Known[int] | Unknown = 0,
    supply: Mapping[str, PoolState] | Unknown | None = None,
    *,
    lengths: LengthSample | Unknown | None = None,
    interval_s: float = 10.0,
    **fields: object,
) -> Observation:
    """An observation of one interval."""
    supply = pools() if supply is None else supply
    lengths = sample(n=8) if lengths is None else lengths
    return Observation(
        interval_s=interval_s,
        arrivals=Known(arrivals) if isinstance(arrivals, int) else arrivals,
        dispersion=Known(1.0),
        lengths=lengths if isinstance(lengths, Unknown) else Known(lengths),
        pools=supply if isinstance(supply, Unknown) else Known(supply),
        **fields,  # type: ignore[arg-type]
    )


def run(
    made: Planner, observations: list[Observation], state: PlannerState | None = None, start_s: float = 1000.0
) -> tuple[list[Decision], PlannerState]:
    """Ticks one interval apart, whose supply is what the observations say."""
    state, decisions = state or PlannerState(), []
    for k, observation in enumerate(observations):
        decision, state = made.decide(state, observation, start_s + k * made.settings.interval_s)
        decisions.append(decision)
    return decisions, state


def settle(
    made: Planner, arrivals: int, ticks: int = 8, supply: Mapping[str, PoolState] | None = None, **fields: object
) -> tuple[Decision, PlannerState, dict[str, PoolState], float]:
    """Ticks of one load with each plan carried out at once: the last decision, state, supply and time."""
    state, now = PlannerState(), 1000.0
    supply = dict(supply or pools())
    for _ in range(ticks):
        now += made.settings.interval_s
        decision, state = made.decide(state, seen(arrivals, supply, **fields), now)  # type: ignore[arg-type]
        supply = {name: PoolState(count, count) for name, count in decision.plan.items()}
    return decision, state, supply, now
