"""What a pool of workers sustains: one question, two estimators (a closed form here, the simulator beside it)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

from planner.core.demand import Demand
from planner.core.types import Role, Sla


@dataclass(frozen=True, slots=True)
class Prediction:
    """What a number of workers per role would achieve under a demand.

    Attributes:
        attainment: share of requests within both limits.
        ttft_attainment, itl_attainment: share within one of them.
        utilisation: busy share of a worker, by role; 1 and more means that the queue grows without end.
        itl_ms: mean time between tokens.
        ttft_ms: mean time to the first token.
    """

    attainment: float
    ttft_attainment: float
    itl_attainment: float
    utilisation: Mapping[Role, float]
    itl_ms: float
    ttft_ms: float


class Evaluator(Protocol):
    """Answers for one demand and one SLA; remembers what its answers share."""

    def predict(self, workers: Mapping[Role, int]) -> Prediction:
        """What these workers achieve."""

    def ceiling(self) -> Prediction:
        """What no number of workers exceeds: each request alone on an idle worker."""

    def at_rate(self, rate_rps: float) -> Evaluator:
        """The same question at another rate."""

    def nearest(self) -> Sla:
        """The SLA closest to the asked one that some number of workers can meet."""


class CapacityModel(Protocol):
    """Estimates attainment. `predict` must not fall with more workers nor rise with more load."""

    @property
    def name(self) -> str:
        """A short name for records."""

    @property
    def roles(self) -> tuple[Role, ...]:
        """The roles of the graph: (prefill, decode) or (aggregated,)."""

    def evaluator(self, demand: Demand, sla: Sla) -> Evaluator:
        """An evaluator for one demand and one SLA."""

    def slowed(self, factors: Mapping[Role, float]) -> CapacityModel:
        """The model of engines whose iterations take so many times as long, by role; 1 where none is given."""


class UncertainRate:
    """An evaluator for a rate that is only known as a distribution: attainment expected over equally likely rates.

    Requests count, not moments: a rate weighs by the requests that it brings. A prediction that moves one way with
    workers and SLA at every rate does so in the mean.

    Args:
        evaluator: of any rate.
        rates_rps: equally likely rates, at least one.
    """

    def __init__(self, evaluator: Evaluator, rates_rps: Sequence[float]) -> None:
        distinct = sorted(set(rates_rps))
        self._evaluators = [evaluator.at_rate(rate) for rate in distinct]
        total = sum(rates_rps)
        # At no load at all every rate is 0 and counts the same.
        self._weights = [rates_rps.count(r) * r / total if total > 0 else 1.0 / len(distinct) for r in distinct]

    def predict(self, workers: Mapping[Role, int]) -> Prediction:
        """The expected prediction."""
        parts = [evaluator.predict(workers) for evaluator in self._evaluators]

        def mean(values: Sequence[float]) -> float:
            return sum(w * v for w, v in zip(self._weights, values, strict=True) if w > 0)

        return Prediction(
            attainment=mean([p.attainment for p in parts]),
            ttft_attainment=mean([p.ttft_attainment for p in parts]),
            itl_attainment=mean([p.itl_attainment for p in parts]),
            utilisation={role: mean([p.utilisation[role] for p in parts]) for role in parts[0].utilisation},
            itl_ms=mean([p.itl_ms for p in parts]),
            ttft_ms=mean([p.ttft_ms for p in parts]),
        )

    def ceiling(self) -> Prediction:
        """What no number of workers exceeds; it does not depend on the rate."""
        return self._evaluators[0].ceiling()

    def at_rate(self, rate_rps: float) -> Evaluator:
        """The same question at one certain rate."""
        return self._evaluators[0].at_rate(rate_rps)

    def nearest(self) -> Sla:
        """The closest SLA that can be met; it does not depend on the rate."""
        return self._evaluators[0].nearest()
