"""`decide`: from state, observation and time to a decision. The pod, a replay and the tests run this very code.

Levels, best first: *model* sizes for the forecast; *reactive* (no demand is known, but queues are) only adds to
saturated pools; *hold* keeps what is asked for; *last good* repeats the last plan because not even the supply is known.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TypeVar

from planner.core.budget import fit_budget, gpus_of
from planner.core.capacity import CapacityModel, UncertainRate
from planner.core.demand import Demand, Lengths, merge_samples
from planner.core.error_budget import account, next_target
from planner.core.forecast import Forecast, predict, update
from planner.core.residual import corrected
from planner.core.settings import PlannerSettings
from planner.core.sizing import Sizing, size
from planner.core.stabilise import Memory, remember, stabilise
from planner.core.state import Decision, DemandUsed, PlannerState
from planner.core.surge import surge_rps
from planner.core.types import Known, LengthSample, Level, Observation, Plan, Pool, PoolState, Role, Unknown

T = TypeVar("T")

#: Equally likely rates that stand for the forecast's distribution: enough to see its tail, few enough to be quick.
STRATA = 5

#: Weight of the newest interval in the running index of dispersion: about two minutes of 10 s ticks.
DISPERSION_WEIGHT = 0.1


def usable(reading: Known[T] | Unknown, stale_after_s: float) -> Known[T] | Unknown:
    """The reading, or Unknown where its value is stale or not a number."""
    if isinstance(reading, Unknown):
        return reading
    if not reading.age_s <= stale_after_s:  # an age that is not a number is no better than a great one
        return Unknown(f"stale: {reading.age_s:.0f} s old, {stale_after_s:.0f} s allowed", reading.age_s)
    if isinstance(reading.value, float | int) and not math.isfinite(reading.value):
        return Unknown(f"not a number: {reading.value}", reading.age_s)
    if isinstance(reading.value, float | int) and reading.value < 0:
        return Unknown(f"negative: {reading.value}", reading.age_s)
    return reading


@dataclass(frozen=True, eq=False)
class Planner:
    """The decider of one graph: settings and capacity model, both constant."""

    settings: PlannerSettings
    capacity: CapacityModel

    def decide(self, state: PlannerState, observation: Observation, now_s: float) -> tuple[Decision, PlannerState]:
        """One tick.

        Args:
            state: what the last tick left; `PlannerState()` at first.
            observation: what was seen since then.
            now_s: seconds since any fixed time; must not go back.
        """
        settings = self.settings
        arrivals = usable(observation.arrivals, settings.stale_after_s)
        if not 0 < observation.interval_s < math.inf:
            arrivals = Unknown(f"an interval of {observation.interval_s} s has no rate")
        rate = arrivals.value / observation.interval_s if isinstance(arrivals, Known) else None
        state = self._learn(state, observation, rate, now_s)
        pools = usable(observation.pools, settings.stale_after_s)
        if isinstance(pools, Unknown):
            return self._last_good(state, pools, now_s), state
        missing = sorted(set(settings.pools_by_name) - set(pools.value))
        if missing:
            unknown = Unknown(f"pools not found: {', '.join(missing)}")
            return self._last_good(state, unknown, now_s), state
        supply = {name: pools.value[name] for name in settings.pools_by_name}
        current = {name: pool.desired for name, pool in supply.items()}
        state = self._corrected(state, observation, supply, rate)
        if isinstance(arrivals, Unknown):
            return self._without_demand(state, supply, current, f"arrivals unknown: {arrivals.reason}", now_s)
        if state.lengths is None:
            if arrivals.value == 0 and state.forecast.bins_known >= self._steps():
                return self._idle(state, current, observation.gaps, now_s)
            return self._without_demand(state, supply, current, "no request has completed yet", now_s)
        forecast = self._forecast(state)
        if isinstance(forecast, Unknown):
            return self._without_demand(state, supply, current, f"no forecast: {forecast.reason}", now_s)
        return self._with_model(state, supply, current, forecast, observation.gaps, now_s)

    # -- learning --------------------------------------------------------------------------------------------------

    def _learn(self, state: PlannerState, observation: Observation, rate: float | None, now_s: float) -> PlannerState:
        """Take the observation into the state; what is unknown leaves its part as it was."""
        settings = self.settings
        forecast = update(settings.forecast, state.forecast, rate, settings.interval_s, now_s)
        state = replace(state, forecast=forecast)
        dispersion = usable(observation.dispersion, settings.stale_after_s)
        if isinstance(dispersion, Known):
            seen = max(1.0, dispersion.value)
            before = state.dispersion
            new = seen if before is None else before + DISPERSION_WEIGHT * (seen - before)
            state = replace(state, dispersion=round(new, 6))
        attainment = usable(observation.attainment, settings.stale_after_s)
        if rate is not None:
            share = attainment.value if isinstance(attainment, Known) else None
            offered = rate * observation.interval_s
            budget = account(settings.error_budget, state.error_budget, offered, share, observation.interval_s)
            state = replace(state, error_budget=budget)
        lengths = usable(observation.lengths, settings.stale_after_s)
        if isinstance(lengths, Known) and len(lengths.value) > 0:
            newest = _thin(lengths.value, settings.sample_per_tick)
            merged = newest if state.lengths is None else merge_samples(state.lengths, newest, settings.sample_size)
            state = replace(state, lengths=merged, lengths_at_s=now_s)
        return state

    def _corrected(
        self, state: PlannerState, observation: Observation, supply: Mapping[str, PoolState], rate: float | None
    ) -> PlannerState:
        """What the latencies of an interval say about the profile, if the same workers served all through it."""
        settings = self.settings
        before, ready = state.ready, {name: pool.ready for name, pool in supply.items()}
        state = replace(state, ready=ready)
        steady = ready == before and min(ready.values()) > 0 and all(pool.terminating == 0 for pool in supply.values())
        if not steady or state.lengths is None or rate is None:
            return state
        if rate * observation.interval_s < settings.residual.min_requests:
            return state
        seen_ms = {}
        for role in self.capacity.roles:
            reading = observation.mean_ttft_ms if role is Role.PREFILL else observation.mean_itl_ms
            latency = usable(reading, settings.stale_after_s)
            if isinstance(latency, Known):
                seen_ms[role] = latency.value
        if not seen_ms:
            return state
        demand = Demand(rate, state.dispersion or 1.0, Lengths.of(state.lengths))
        workers = {role: ready[self._pool_of(role).name] for role in self.capacity.roles}
        predicted = self._model(state).evaluator(demand, settings.sla).predict(workers)
        found = corrected(settings.residual, state.residuals, predicted, seen_ms, observation.interval_s)
        return replace(state, residuals=found)

    def _model(self, state: PlannerState) -> CapacityModel:
        """The capacity model with what live latencies have taught; by the percent, so that it changes seldom."""
        factors = {role: round(factor, 2) for role, factor in state.residuals.items()}
        return self.capacity.slowed(factors) if any(factor != 1.0 for factor in factors.values()) else self.capacity

    def _steps(self) -> int:
        """Bins that the forecast must cover: lead time and the intervals that follow it."""
        settings = self.settings
        return max(1, math.ceil(settings.lead_time_s / settings.interval_s + settings.horizon_intervals))

    def _levels(self) -> tuple[float, ...]:
        """Middles of equal strata of the forecast's worst 2 (1 - confidence) share; all of it at 0.5."""
        share = 2.0 * (1.0 - self.settings.confidence)
        return tuple(round(1.0 - share * (1.0 - (k + 0.5) / STRATA), 6) for k in range(STRATA))

    def _forecast(self, state: PlannerState) -> Forecast | Unknown:
        levels = tuple(sorted({0.5, *self._levels()}))
        return predict(self.settings.forecast, state.forecast, self._steps(), levels, state.dispersion or 1.0)

    # -- the model -------------------------------------------------------------------------------------------------

    def _with_model(
        self,
        state: PlannerState,
        supply: Mapping[str, PoolState],
        current: Plan,
        forecast: Forecast,
        gaps: Sequence[str],
        now_s: float,
    ) -> tuple[Decision, PlannerState]:
        settings = self.settings
        demand, rates, used = self._demand(state, supply, forecast)
        target = self._target(state)
        by_role = {role: self._pool_of(role) for role in self.capacity.roles}
        sizing = size(
            UncertainRate(self._model(state).evaluator(demand, settings.sla), rates),
            by_role,
            settings.sla,
            settings.max_gpus,
            {role: current[pool.name] for role, pool in by_role.items()},
            target=target,
            tolerance=settings.attainment_tolerance,
        )
        wanted = {by_role[role].name: count for role, count in sizing.chosen.workers.items()}
        reasons, clamps = self._sizing_reasons(sizing), list[str]()
        for role, pool in by_role.items():
            # Only of this graph's roles: a checkpoint may be of a time when it had others.
            factor = state.residuals.get(role)
            if factor is not None and factor >= settings.residual.stale_from:
                reasons.append(f"{pool.name}:profile_stale")
                clamps.append(f"{pool.name}: {factor:.2f} times as slow as its profile")
        if used.surge_rps > 0:
            reasons.append("surge")

        stale = now_s - (state.lengths_at_s or 0.0) > settings.lengths_stale_after_s
        plan, memory = self._stabilised(state, wanted, current, reasons, clamps, now_s=now_s)
        for name in plan:
            if stale and plan[name] < current[name]:
                plan[name] = current[name]
                reasons.append(f"{name}:lengths_stale")
                clamps.append(f"{name}: not lowered, lengths are {now_s - (state.lengths_at_s or 0.0):.0f} s old")
        plan = dict(self._bounded(plan, wanted, reasons, clamps))
        plan = self._held(plan, current, gaps, reasons, clamps)
        memory = self._remembered(memory, plan, current, now_s)
        reasons.extend(_moves(plan, current))
        decision = Decision(
            at_s=now_s,
            level=Level.MODEL,
            plan=plan,
            current=current,
            wanted=wanted,
            reasons=tuple(reasons),
            limit=sizing.limit,
            sla_reachable=sizing.reachable,
            nearest=sizing.nearest,
            target=target,
            predicted_attainment=sizing.chosen.attainment,
            forecast=forecast,
            demand=used,
            candidates=sizing.candidates,
            chosen=sizing.chosen,
            runner_up=sizing.runner_up,
            why_not_runner_up=sizing.why_not_runner_up,
            clamps=tuple(clamps),
        )
        return decision, replace(state, memory=memory, last_good=plan)

    def _target(self, state: PlannerState) -> float:
        """The SLA's attainment, moved by what is left of its error budget over the last window."""
        settings = self.settings
        offered = state.error_budget.offered
        # The mean load of the window, so that the target does not depend on the load that is sized for.
        mean_rps = offered / settings.error_budget.window_s
        return round(next_target(settings.error_budget, state.error_budget, settings.sla.attainment, mean_rps), 6)

    def _demand(
        self, state: PlannerState, supply: Mapping[str, PoolState], forecast: Forecast
    ) -> tuple[Demand, list[float], DemandUsed]:
        """The load to size for: the worst step of each of the forecast's quantiles, a surge, and what waits already."""
        settings = self.settings
        if state.lengths is None:
            raise AssertionError("the caller has checked that lengths are known")
        lengths = Lengths.of(state.lengths)
        backlog = 0.0
        for pool in supply.values():
            waiting = usable(pool.waiting_requests, settings.stale_after_s)
            if isinstance(waiting, Known):
                backlog = max(backlog, waiting.value)
        # What waits is worked off by the workers asked for now, over the time that they take to come and one tick.
        backlog_rps = backlog / (settings.lead_time_s + settings.interval_s)
        peaks = {level: max(rates) for level, rates in zip(forecast.levels, forecast.rates_rps, strict=True)}
        dispersion = state.dispersion or 1.0
        # From the middle of the newest interval to when a worker serves that is asked for now.
        ahead_s = settings.interval_s / 2.0 + settings.lead_time_s
        surge = surge_rps(settings.surge, state.forecast.rates_rps, settings.interval_s, dispersion, ahead_s)
        rates = [max(peaks[level], surge) + backlog_rps for level in self._levels()]
        rate = sum(rates) / len(rates)
        used = DemandUsed(
            rate_rps=rate,
            median_rps=peaks[0.5],
            backlog_rps=backlog_rps,
            dispersion=dispersion,
            mean_isl=float(lengths.isl.mean()),
            mean_osl=float(lengths.osl.mean()),
            mean_hit=float(lengths.hit.mean()),
            sample=len(lengths.isl),
            surge_rps=surge,
        )
        return Demand(rate, dispersion, lengths), rates, used

    def _sizing_reasons(self, sizing: Sizing) -> list[str]:
        reasons = [f"sized_for_{sizing.limit}"]
        if not sizing.reachable:
            reasons.append("sla_unreachable")
        elif not sizing.reached:
            reasons.append("sla_not_reached_within_limits")
        return reasons

    def _stabilised(
        self,
        state: PlannerState,
        wanted: Plan,
        current: Plan,
        reasons: list[str],
        clamps: list[str],
        *,
        now_s: float,
    ) -> tuple[dict[str, int], dict[str, Memory]]:
        """What the rules of scale-ups and scale-downs make of what is wanted; none holds a pool below its minimum."""
        behaviour, plan, memory = self.settings.behaviour, {}, {}
        for name, count in wanted.items():
            result = stabilise(behaviour, state.memory.get(name, Memory()), current[name], count, now_s)
            plan[name], memory[name] = result.workers, result.memory
            for rule in result.rules:
                reasons.append(f"{name}:{rule}")
                clamps.append(f"{name}: {count} wanted, {result.workers} by {rule.replace('_', ' ')}")
            least = min(count, self.settings.pools_by_name[name].min_workers)
            if plan[name] < least:
                reasons.append(f"{name}:min_workers")
                clamps.append(f"{name}: {plan[name]} after stabilisation, {least} is the minimum")
                plan[name] = least
        return plan, memory

    def _remembered(self, memory: Mapping[str, Memory], plan: Plan, current: Plan, now_s: float) -> dict[str, Memory]:
        """The memory with the changes that the plan makes in the end."""
        behaviour = self.settings.behaviour
        return {name: remember(behaviour, memory[name], plan[name] - current[name], now_s) for name in memory}

    def _bounded(self, plan: Plan, floor: Plan, reasons: list[str], clamps: list[str]) -> Plan:
        """Within every pool's maximum and within the budget; stabilisation may have held a pool above either."""
        pools = self.settings.pools_by_name
        capped = {name: min(count, pools[name].max_workers) for name, count in plan.items()}
        fitted = fit_budget(capped, floor, pools, self.settings.max_gpus)
        for name in plan:
            if fitted.plan[name] < plan[name]:
                reasons.append(f"{name}:budget")
                clamps.append(f"{name}: {plan[name]} after stabilisation, {fitted.plan[name]} by budget or maximum")
        if not fitted.feasible:
            reasons.append("budget_below_minimum")
        return fitted.plan

    def _held(
        self, plan: Plan, current: Plan, gaps: Sequence[str], reasons: list[str], clamps: list[str]
    ) -> dict[str, int]:
        """With gaps in the metrics, no pool below what is asked for now: what was not seen may be what is busy.

        Pools that grow then grow only as far as the budget goes beside those that are held.
        """
        if not gaps:
            return dict(plan)
        pools, held = self.settings.pools_by_name, dict(plan)
        for name, count in plan.items():
            if count < current[name]:
                held[name] = current[name]
                reasons.append(f"{name}:metrics_incomplete")
                clamps.append(f"{name}: not lowered to {count}, {'; '.join(gaps)}")
        fitted = fit_budget(held, current, pools, self.settings.max_gpus)
        kept = {name: max(current[name], count) for name, count in fitted.plan.items()}
        for name, count in kept.items():
            if count < held[name]:
                reasons.append(f"{name}:budget")
                clamps.append(f"{name}: {held[name]} wanted, {count} by budget beside pools that are not lowered")
        if gpus_of(kept, pools) > self.settings.max_gpus:
            reasons.append("over_budget_kept")
        return kept

    def _pool_of(self, role: Role) -> Pool:
        return next(pool for pool in self.settings.pools if pool.role is role)

    # -- without the model -----------------------------------------------------------------------------------------

    def _idle(
        self, state: PlannerState, current: Plan, gaps: Sequence[str], now_s: float
    ) -> tuple[Decision, PlannerState]:
        """No request has come for a whole horizon and none ever completed: real zero traffic, down to the minimum."""
        wanted = {pool.name: pool.min_workers for pool in self.settings.pools}
        reasons, clamps = ["no_traffic"], list[str]()
        plan, memory = self._stabilised(state, wanted, current, reasons, clamps, now_s=now_s)
        plan = dict(self._bounded(plan, wanted, reasons, clamps))
        plan = self._held(plan, current, gaps, reasons, clamps)
        memory = self._remembered(memory, plan, current, now_s)
        decision = Decision(
            at_s=now_s,
            level=Level.MODEL,
            plan=plan,
            current=current,
            wanted=wanted,
            reasons=(*reasons, *_moves(plan, current)),
            limit="min_workers",
            clamps=tuple(clamps),
        )
        return decision, replace(state, memory=memory, last_good=plan)

    def _without_demand(
        self, state: PlannerState, supply: Mapping[str, PoolState], current: Plan, why: str, now_s: float
    ) -> tuple[Decision, PlannerState]:
        """No demand to size for: add to pools that are measurably saturated or below their minimum, lower none."""
        settings = self.settings
        grown, saturated = dict(current), []
        measured = False
        for name, pool in supply.items():
            waiting = usable(pool.waiting_requests, settings.stale_after_s)
            usage = usable(pool.kv_usage, settings.stale_after_s)
            measured = measured or isinstance(waiting, Known) or isinstance(usage, Known)
            long = isinstance(waiting, Known) and waiting.value > settings.reactive_queue * max(pool.ready, 1)
            full = isinstance(usage, Known) and usage.value > settings.reactive_kv_usage
            # Starting workers are supply that comes: the queue shrinks when they do, not when more are asked for.
            if (long or full) and pool.starting == 0 and pool.ready >= pool.desired:
                grown[name] = current[name] + max(1, math.ceil(settings.reactive_growth * current[name]))
                saturated.append(name)
        reasons = [f"{name}:saturated" for name in saturated]
        clamps: list[str] = []
        for name, bounds in settings.pools_by_name.items():
            if grown[name] < bounds.min_workers:
                grown[name] = bounds.min_workers
                reasons.append(f"{name}:min_workers")
        # Never below what is there, maximum or budget or not: without demand nothing justifies it.
        most = {name: max(current[name], bounds.max_workers) for name, bounds in settings.pools_by_name.items()}
        capped = {name: min(count, most[name]) for name, count in grown.items()}
        fitted = fit_budget(capped, current, settings.pools_by_name, settings.max_gpus)
        plan = {name: max(current[name], count) for name, count in fitted.plan.items()}
        for name, count in plan.items():
            if count < grown[name]:
                reasons.append(f"{name}:budget")
                clamps.append(f"{name}: {grown[name]} wanted, {count} by budget or maximum")
        if gpus_of(plan, settings.pools_by_name) > settings.max_gpus:
            reasons.append("over_budget_kept")
        level = Level.REACTIVE if measured else Level.HOLD
        decision = Decision(
            at_s=now_s,
            level=level,
            plan=plan,
            current=current,
            wanted={},
            reasons=(*reasons, why, *_moves(plan, current)),
            limit="unknown_demand",
            forecast=Unknown(why),
            clamps=tuple(clamps),
        )
        return decision, replace(state, last_good=plan)

    def _last_good(self, state: PlannerState, unknown: Unknown, now_s: float) -> Decision:
        """Not even the supply is known: ask again for what was last asked for, or for nothing."""
        why = f"supply unknown: {unknown.reason}"
        plan = dict(state.last_good) if state.last_good is not None else {}
        return Decision(now_s, Level.LAST_GOOD, plan, {}, {}, (why,), "unknown_supply", forecast=Unknown(why))


def _thin(sample: LengthSample, keep: int) -> LengthSample:
    """Up to `keep` requests of a sample, evenly spaced: no randomness, so that a replay takes the same ones."""
    n = len(sample)
    if n <= keep:
        return sample
    places = [i * n // keep for i in range(keep)]
    return LengthSample(
        isl=tuple(sample.isl[i] for i in places),
        osl=tuple(sample.osl[i] for i in places),
        prefix_hit_tokens=tuple(sample.prefix_hit_tokens[i] for i in places),
    )


def _moves(plan: Plan, current: Plan) -> list[str]:
    """What the plan changes, pool by pool."""
    moves = []
    for name, count in plan.items():
        if count > current[name]:
            moves.append(f"{name}:scale_up")
        elif count < current[name]:
            moves.append(f"{name}:scale_down")
    return moves or ["no_change"]
