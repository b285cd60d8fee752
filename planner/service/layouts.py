"""The slower loop: which layouts there are, whether another one pays, and the change to it."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import replace

from planner.connectors.base import Supply
from planner.core.demand import Demand, Lengths
from planner.core.forecast import Forecast, predict
from planner.core.layout_change import LayoutReview, LayoutSettings, pieces, review
from planner.core.settings import PlannerSettings
from planner.core.state import PlannerState
from planner.core.types import Plan
from planner.service.logs import log
from planner.service.model import Model

_STAGE = {"stage": "layouts"}


def followed(model: Model, layouts: Mapping[str, tuple[int, int]]) -> Model:
    """The model of the layouts that the graph has; the present one where that is not measured, or not known.

    Args:
        model: the present one.
        layouts: of the graph's pools, by pool.
    """
    wanted = {**model.layouts, **{pool: layout for pool, layout in layouts.items() if pool in model.layouts}}
    found = next((one for one in model.siblings if one.layouts == wanted), model)
    return replace(found, siblings=model.siblings)


def carried_over(state: PlannerState, before: Model, after: Model) -> PlannerState:
    """The state under another model: what counted or timed workers of another layout is forgotten."""
    changed = {pool for pool, layout in after.layouts.items() if before.layouts.get(pool) != layout}
    memory = {pool: kept for pool, kept in state.memory.items() if pool not in changed}
    roles = {pool.role for pool in after.option.pools if pool.name in changed}
    residuals = {role: factor for role, factor in state.residuals.items() if role not in roles}
    return replace(state, memory=memory, residuals=residuals, ready={}, last_good=None)


def going_on(supply: Supply | None) -> Plan:
    """With what a change that is under way is carried on where there is no plan: what is asked for now.

    Of the other pools nothing is changed by that; of the changing one, what the change promised is kept.

    Args:
        supply: of the tick, whether or not it could be planned with; None where it could not be read.

    Returns:
        Workers by pool; empty where nothing changes.
    """
    if supply is None or not supply.layout_change.under_way:
        return {}
    return {name: pool.desired for name, pool in supply.pools.items()}


class LayoutReviews:
    """Compares layouts at their own pace.

    Args:
        settings: of the comparison; times in planner seconds.
        speed_up: planner seconds per second of wall time.
    """

    def __init__(self, settings: LayoutSettings, speed_up: float) -> None:
        self._settings, self._speed_up = settings, speed_up
        self._last_s = -math.inf
        self._said = ""

    def due(
        self, model: Model, settings: PlannerSettings, state: PlannerState, supply: Supply | None, now_s: float
    ) -> bool:
        """Whether to compare now: none was made for a while, nothing changes, and enough has been seen of the load.

        Args:
            model: of the present layouts.
            settings: that hold now.
            state: after the tick.
            supply: of the tick; None where it could not be read.
            now_s: planner seconds.
        """
        how = self._settings
        if not how.enabled or len(model.siblings) < 2 or supply is None or state.lengths is None:
            return False
        if now_s - self._last_s < how.every_s or supply.layout_change.under_way:
            return False
        ended_s = supply.layout_change.ended_s
        if ended_s is not None and now_s - ended_s * self._speed_up < how.between_s:
            return False
        if state.forecast.bins_known * settings.interval_s < how.every_s:
            return False
        # Layouts that no profile describes cannot be compared with any.
        return all(layout == model.layouts.get(pool, layout) for pool, layout in supply.layouts.items())

    def review(
        self, model: Model, settings: PlannerSettings, state: PlannerState, supply: Supply, now_s: float
    ) -> LayoutReview | None:
        """A comparison; None where the load cannot be foreseen.

        Args:
            model: of the present layouts.
            settings: that hold now.
            state: after the tick, with lengths.
            supply: of the tick.
            now_s: planner seconds.
        """
        how = self._settings
        if state.lengths is None:
            raise AssertionError("checked by `due`")
        self._last_s = now_s
        steps = max(1, math.ceil(how.horizon_s / settings.interval_s))
        expected = predict(settings.forecast, state.forecast, steps, (0.5,), state.dispersion or 1.0)
        if not isinstance(expected, Forecast):
            return None
        found = review(
            how,
            model.option,
            [one.option for one in model.siblings],
            Demand(0.0, state.dispersion or 1.0, Lengths.of(state.lengths)),
            pieces(expected.rates_rps[0]),
            settings.sla,
            target=settings.sla.attainment,
            tolerance=settings.attainment_tolerance,
            max_gpus=settings.max_gpus,
            serving={name: pool.ready for name, pool in supply.pools.items()},
            lead_time_s=settings.lead_time_s,
            rolling=supply.rolling,
        )
        if found.why != self._said:
            log.info("layouts: %s", found.why, extra=_STAGE)
            self._said = found.why
        return found
