"""The error budget: an SLA of 95 % over a window lets 5 % of its requests miss; what was not used may be spent.

Whole workers make most plans better than the target asks. Without a memory that surplus is lost and the attainment of a
window ends well above its target, at the price of workers that no one asked for. With it, the target of the next plan
sinks by the surplus, spread over the coming minutes, and rises by a deficit.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from pydantic import BaseModel, ConfigDict, Field


class ErrorBudgetSettings(BaseModel):
    """How the error budget is kept and spent."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    window_s: float = Field(default=3600.0, gt=0)
    """Span over which the SLA's attainment is promised, s; older requests fade out with this time constant."""

    spend_s: float = Field(default=600.0, gt=0)
    """A surplus or a deficit is spread over so many seconds of the load at hand."""

    max_spend: float = Field(default=0.06, ge=0, lt=1)
    """The target of a single plan sinks by no more than this: a surplus is no licence for an outage. 0: never."""

    max_repay: float = Field(default=0.0, ge=0, lt=1)
    """It rises by no more than this: the last percent costs more workers than a deficit is worth, so not at all."""

    reserve: float = Field(default=0.005, ge=0, lt=1)
    """Attainment kept above the target, for what the model did not foresee."""


@dataclass(frozen=True, slots=True)
class ErrorBudget:
    """Requests offered and attaining, faded by age."""

    offered: float = 0.0
    attained: float = 0.0


def account(
    settings: ErrorBudgetSettings, budget: ErrorBudget, offered: float, attainment: float | None, interval_s: float
) -> ErrorBudget:
    """Take one interval in; an unknown attainment leaves the ledger as it is but for its age."""
    fade = math.exp(-interval_s / settings.window_s)
    if attainment is None:
        return ErrorBudget(round(budget.offered * fade, 6), round(budget.attained * fade, 6))
    return ErrorBudget(
        round(budget.offered * fade + offered, 6), round(budget.attained * fade + offered * attainment, 6)
    )


def next_target(settings: ErrorBudgetSettings, budget: ErrorBudget, target: float, rate_rps: float) -> float:
    """The attainment that the next plan needs for the window to end at its target.

    Surplus = attained - (target + reserve) * offered, in requests; spread over `spend_s` of the present rate it lowers
    the target by surplus / (rate * spend_s).

    Args:
        settings: bounds of the change.
        budget: the window so far.
        target: share of requests that the SLA wants.
        rate_rps: the present load; 0 leaves the target as it is. The forecast must not be used here, or more load
            would be met with a higher target.
    """
    if budget.offered <= 0 or rate_rps <= 0:
        return target
    surplus = budget.attained - (target + settings.reserve) * budget.offered
    change = -surplus / (rate_rps * settings.spend_s)
    return min(max(target + change, target - settings.max_spend), target + settings.max_repay, 0.5 * (1.0 + target))
