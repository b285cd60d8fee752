"""What a pool of workers sustains: one question, two estimators (a closed form here, the simulator beside it)."""

from __future__ import annotations

from collections.abc import Mapping
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
