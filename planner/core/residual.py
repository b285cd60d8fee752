"""Live latencies correct the model: by how much each role is slower, or faster, than its profile says.

Nothing is known of why: another driver, a hot GPU, a neighbour, a profile of other arguments. The factor is applied to
every iteration time of the role, so that queues follow from it as they would from a slower engine; the mean latencies
that it then predicts for the load and the workers of an interval are compared with those that were seen. What is left
moves the factor, slowly and within bounds: integral control, which rests only where prediction and observation agree to
within a deadband.
"""

from __future__ import annotations

import math
from collections.abc import Mapping

from pydantic import BaseModel, ConfigDict, Field

from planner.core.capacity import Prediction
from planner.core.types import Role


class ResidualSettings(BaseModel):
    """How far and how fast live latencies correct the profile."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    time_constant_s: float = Field(default=120.0, gt=0)
    """Time in which a factor moves by what is left of the error, s: eight intervals of 15 s even out their noise."""

    deadband: float = Field(default=0.05, ge=0, lt=1)
    """An error of this share is none: the closed form's means are about as far from the simulator's."""

    least: float = Field(default=0.9, gt=0, le=1)
    """Least factor: a profile that looks too slow is believed nearly as it is, for an idle fleet proves little. 1:
    never faster than the profile."""

    most: float = Field(default=1.6, ge=1)
    """Greatest factor: beyond it something else is broken, which more workers do not mend. 1: no correction."""

    stale_from: float = Field(default=1.15, ge=1)
    """Factor from which the profile is said to be stale."""

    min_requests: int = Field(default=20, ge=1)
    """Requests of an interval below which its means say little."""

    most_utilisation: float = Field(default=0.85, gt=0, le=1)
    """Predicted utilisation above which means are queues of chance, of which nothing is learnt."""


#: An interval's error counts up to this factor, either way: one outage is not the engine's speed.
LARGEST_ERROR = 1.35


def corrected(
    settings: ResidualSettings,
    factors: Mapping[Role, float],
    predicted: Prediction,
    seen_ms: Mapping[Role, float],
    interval_s: float,
) -> dict[Role, float]:
    """The factors after one interval.

    For each role with a latency that was seen: log f += dt / T * e, where e is log(seen / predicted) less the deadband,
    at most log(LARGEST_ERROR) either way.

    Args:
        settings: bounds and speed.
        factors: by role before; 1 where missing.
        predicted: with these factors, for the interval's load and workers.
        seen_ms: mean latency by role: TTFT for prefill, ITL for decode and aggregated; roles without one stay.
        interval_s: of the observation.
    """
    result = dict(factors)
    gain = min(1.0, interval_s / settings.time_constant_s)
    band, bound = math.log1p(settings.deadband), math.log(LARGEST_ERROR)
    for role, seen in seen_ms.items():
        expected = predicted.ttft_ms if role is Role.PREFILL else predicted.itl_ms
        if not (0.0 < expected < math.inf and seen > 0.0 and predicted.utilisation[role] <= settings.most_utilisation):
            continue
        error = math.log(seen / expected)
        error = math.copysign(max(0.0, abs(error) - band), error)
        moved = math.log(factors.get(role, 1.0)) + gain * max(-bound, min(bound, error))
        result[role] = round(min(max(math.exp(moved), settings.least), settings.most), 4)
    return result
