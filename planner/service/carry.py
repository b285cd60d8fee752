"""The state across time that no tick saw: a restart, a machine asleep, a clock set back."""

from __future__ import annotations

from dataclasses import replace

from planner.core.budget import gpus_of
from planner.core.error_budget import account
from planner.core.settings import PlannerSettings
from planner.core.stabilise import Memory
from planner.core.state import PlannerState

#: Intervals between ticks beyond which there is a hole. One tick left out is none: the next observation covers both
#: intervals, and a tick that always takes longer than one (a slow metrics server) must not forget at every tick what
#: the last one recommended: no pool would ever be lowered.
MISSED = 2.5

#: Arrivals are averaged over no more than this many intervals: the mean of a night says nothing about the morning.
MOST_INTERVALS = 4.0

#: The last plan may be asked for again without knowing the supply for so long; then others may have changed it.
LAST_GOOD_S = 900.0


def span_s(state: PlannerState, settings: PlannerSettings, now_s: float) -> float:
    """Seconds that the next observation covers: those since the last tick, within reason."""
    last = state.forecast.at_s
    if last is None or not now_s > last:
        return settings.interval_s
    return min(now_s - last, MOST_INTERVALS * settings.interval_s)


def carried(state: PlannerState, settings: PlannerSettings, now_s: float) -> PlannerState:
    """The state as the next tick may use it.

    The forecast counts missed bins as unknown and lengths know their age by themselves. The rest is done here:
    recommendations with a hole in them are forgotten, so that the present counts stand for what was not seen; the
    error budget fades; an old plan, or one that the settings no longer allow, is not repeated; and nothing lies in the
    future.

    Args:
        state: after the last tick, whenever that was.
        settings: of the next tick.
        now_s: of the next tick, planner seconds.
    """
    last = state.forecast.at_s
    if last is None:
        return state
    state = _known_pools(state, settings)
    if now_s < last:
        return _set_back(state, settings, now_s)
    gap = now_s - last
    if gap <= MISSED * settings.interval_s:
        return state
    memory = {name: replace(kept, recommended=()) for name, kept in state.memory.items()}
    unseen = max(0.0, gap - span_s(state, settings, now_s))
    budget = account(settings.error_budget, state.error_budget, 0.0, None, unseen)
    last_good = state.last_good if gap <= LAST_GOOD_S else None
    return replace(state, memory=memory, error_budget=budget, last_good=last_good)


def _known_pools(state: PlannerState, settings: PlannerSettings) -> PlannerState:
    """Without what is about pools, bounds or a budget that are no more."""
    pools, plan = settings.pools_by_name, state.last_good
    allowed = plan is not None and (
        set(plan) == set(pools)
        and all(count <= pools[name].max_workers for name, count in plan.items())
        and gpus_of(plan, pools) <= settings.max_gpus
    )
    memory = {name: kept for name, kept in state.memory.items() if name in pools}
    return replace(state, memory=memory, last_good=plan if allowed else None)


def _set_back(state: PlannerState, settings: PlannerSettings, now_s: float) -> PlannerState:
    """After the clock was set back: the last bin ended one interval ago, and what was later never was."""
    memory = {
        name: Memory(recommended=(), changed=tuple(entry for entry in kept.changed if entry[0] <= now_s))
        for name, kept in state.memory.items()
    }
    lengths_at = state.lengths_at_s
    return replace(
        state,
        forecast=replace(state.forecast, at_s=now_s - settings.interval_s),
        memory=memory,
        lengths_at_s=None if lengths_at is None else min(lengths_at, now_s),
    )
