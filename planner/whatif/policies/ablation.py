"""Our planner without one of its parts: what each part buys, seen in replays (`planner:without=NAME`).

A part is taken away where the planner is made: by settings at which it does nothing, by a reading that is withheld, or
by a capacity model that knows less. What decides is the same code in every variant. None of this is for a pod.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import ClassVar, Self

import numpy as np

from planner.core.capacity import CapacityModel, Evaluator, Prediction
from planner.core.demand import Demand, Lengths
from planner.core.types import Known, Observation, PoolState, Role, Sla, Unknown

Seen = Callable[[Observation], Observation]
Wrap = Callable[[CapacityModel], CapacityModel]

_WITHHELD = Unknown("withheld from this variant")


@dataclass(frozen=True)
class Part:
    """A part of the planner, by what takes it away.

    Attributes:
        settings: values by their path in the planner's settings.
        seen: what is left of an observation.
        model: what is left of the capacity model.
    """

    settings: Mapping[str, float] = field(default_factory=dict)
    seen: Seen | None = None
    model: Wrap | None = None


def _no_dispersion(observation: Observation) -> Observation:
    return replace(observation, dispersion=_WITHHELD)


def _pools(observation: Observation, change: Callable[[PoolState], PoolState]) -> Observation:
    pools = observation.pools
    if not isinstance(pools, Known):
        return observation
    return replace(observation, pools=Known({name: change(of) for name, of in pools.value.items()}, pools.age_s))


def _no_queues(observation: Observation) -> Observation:
    return _pools(observation, lambda pool: replace(pool, waiting_requests=_WITHHELD))


def _only_ready(observation: Observation) -> Observation:
    return _pools(observation, lambda pool: replace(pool, desired=pool.ready, starting=0))


@dataclass(frozen=True, eq=False)
class _ToldLess(ABC):
    """A capacity model that is not told everything."""

    of: CapacityModel

    #: What it is told instead.
    told: ClassVar[str]

    @property
    def name(self) -> str:
        """The model's, and what it is told."""
        return f"{self.of.name} of {self.told}"

    @property
    def roles(self) -> tuple[Role, ...]:
        """The model's."""
        return self.of.roles

    def slowed(self, factors: Mapping[Role, float]) -> Self:
        """The same of slower engines."""
        return type(self)(self.of.slowed(factors))

    @abstractmethod
    def evaluator(self, demand: Demand, sla: Sla) -> Evaluator:
        """The model's, for what is left of the demand."""


class MeanLengths(_ToldLess):
    """A capacity model that is told the mean of each length alone."""

    told = "mean lengths"

    def evaluator(self, demand: Demand, sla: Sla) -> Evaluator:
        """For one request of mean ISL, OSL and prefix hit."""
        lengths = demand.lengths
        mean = Lengths(*(np.array([column.mean()]) for column in (lengths.isl, lengths.osl, lengths.hit)))
        return self.of.evaluator(replace(demand, lengths=mean), sla)


class MeanRate(_ToldLess):
    """A capacity model that takes the mean of an uncertain rate for certain."""

    told = "the mean rate"

    def evaluator(self, demand: Demand, sla: Sla) -> Evaluator:
        """For the demand's own rate, whatever rates are asked for."""
        return _OneRate(self.of.evaluator(demand, sla))


@dataclass(frozen=True, eq=False)
class _OneRate:
    """An evaluator that knows no other rate."""

    of: Evaluator

    def predict(self, workers: Mapping[Role, int]) -> Prediction:
        return self.of.predict(workers)

    def ceiling(self) -> Prediction:
        return self.of.ceiling()

    def at_rate(self, rate_rps: float) -> Evaluator:  # noqa: ARG002 - that is the point
        return self

    def nearest(self) -> Sla:
        return self.of.nearest()


#: Beyond every count of outcomes and every jump.
_NEVER = 1e9

PARTS: Mapping[str, Part] = {
    # Sized for what comes while workers start: without it, as if they served at once.
    "lead-time": Part({"lead_time_s": 0.0}),
    # The last value alone, with the band of its own errors.
    "ensemble": Part({"forecast.min_outcomes": _NEVER}),
    # The mean of the forecast instead of its distribution.
    "band": Part(model=MeanRate),
    "surge": Part({"surge.deviations": _NEVER}),
    # Every tick in its turn.
    "glances": Part({"glances": 0}),
    # Arrivals are taken as Poisson's.
    "burst": Part(seen=_no_dispersion),
    "queue": Part(seen=_no_queues),
    "lengths": Part(model=MeanLengths),
    "residual": Part({"residual.least": 1.0, "residual.most": 1.0}),
    # Every plan is made for the SLA's attainment, whatever the last hour attained.
    "error-budget": Part({"error_budget.max_spend": 0.0, "error_budget.max_repay": 0.0}),
    "tolerance": Part({"attainment_tolerance": 0.0}),
    "down-window": Part({"behaviour.down.window_s": 0.0}),
    # Starting workers are not seen: what is asked for is what is ready.
    "starting": Part(seen=_only_ready),
}


@dataclass(frozen=True)
class Taken:
    """Several parts taken away at once."""

    names: tuple[str, ...] = ()

    @property
    def settings(self) -> dict[str, float]:
        """Values by path."""
        return {path: value for name in self.names for path, value in PARTS[name].settings.items()}

    def seen(self, observation: Observation) -> Observation:
        """What is left of an observation."""
        for name in self.names:
            seen = PARTS[name].seen
            observation = observation if seen is None else seen(observation)
        return observation

    def model(self, whole: CapacityModel) -> CapacityModel:
        """What is left of a capacity model."""
        for name in self.names:
            wrap = PARTS[name].model
            whole = whole if wrap is None else wrap(whole)
        return whole
