"""`decide`: from state, observation and time to a decision. The pod, a replay and the tests run this very code.

Levels, best first: *model* sizes for the forecast; *reactive* (no demand is known, but queues are) only adds to
saturated pools; *hold* keeps what is asked for; *last good* repeats the last plan because not even the supply is known.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from planner.core.backlog import is_backlog
from planner.core.budget import fit_budget, gpus_of
from planner.core.capacity import CapacityModel, Evaluator, UncertainRate
from planner.core.demand import Demand, Lengths, merge_samples
from planner.core.error_budget import account, next_target
from planner.core.forecast import Forecast, broken_off, predict, update
from planner.core.reactive import growth, saturated
from planner.core.readings import usable
from planner.core.residual import corrected
from planner.core.settings import PlannerSettings
from planner.core.shaping import Shaping, moves
from planner.core.sizing import Sizing, size
from planner.core.state import Decision, DemandUsed, PlannerState
from planner.core.surge import has_surged, is_early_surge, surge_rps
from planner.core.types import Known, LengthSample, Level, Observation, Plan, Pool, PoolState, Role, Unknown

#: Equally likely rates that stand for the forecast's distribution: enough to see its tail, few enough to be quick.
STRATA = 5

#: Weight of the newest interval in the running index of dispersion: about two minutes of 10 s ticks.
DISPERSION_WEIGHT = 0.1


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
        settings, before = self.settings, state.forecast
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
        decision, state = self._with_model(state, supply, current, forecast, observation.gaps, now_s)
        if decision.demand is not None and decision.demand.surge_rps > 0:
            # Only after the decision: within it, more load must not be met with a narrower forecast.
            state = replace(state, forecast=broken_off(state.forecast, before))
        return decision, state

    def hurries(self, state: PlannerState, observation: Observation) -> bool:
        """Whether the next tick should come at once: what has arrived since the last one is a surge.

        Args:
            state: what the last tick left.
            observation: of the time since then; only its arrivals count.
        """
        arrivals = usable(observation.arrivals, self.settings.stale_after_s)
        if isinstance(arrivals, Unknown) or not 0 < observation.interval_s < math.inf:
            return False
        rates, bin_s, dispersion = state.forecast.rates_rps, self.settings.interval_s, state.dispersion or 1.0
        surge = self.settings.surge
        return is_early_surge(surge, rates, bin_s, arrivals.value, observation.interval_s, dispersion)

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
        demand, rates, used = self._demand(state, forecast)
        target = self._target(state)
        evaluator = self._model(state).evaluator(demand, settings.sla)
        by_role = {role: self._pool_of(role) for role in self.capacity.roles}
        sizing = self._sized(evaluator, rates, current, target)
        wanted = lasting = {by_role[role].name: count for role, count in sizing.chosen.workers.items()}
        shaping = Shaping(settings, current, wanted, self._sizing_reasons(sizing))
        for role, pool in by_role.items():
            # Only of this graph's roles: a checkpoint may be of a time when it had others.
            factor = state.residuals.get(role)
            if factor is not None and factor >= settings.residual.stale_from:
                shaping.say(f"{pool.name}:profile_stale", f"{pool.name}: {factor:.2f} times as slow as its profile")
        if used.surge_rps > 0:
            shaping.reasons.append("surge")
            # No crowd is known to grow as far as it may: beyond what has come, workers are not kept when it does not.
            come = self._calm(state, forecast)
            workers = self._sized(evaluator, come, current, target).chosen.workers
            lasting = {by_role[role].name: count for role, count in workers.items()}

        shaping.stabilise(state.memory, now_s, lasting)
        backlog = ", ".join(self._backlogs(evaluator, supply, _newest(state)))
        # What has waited is still decoded when nothing waits any more.
        if backlog or state.backlog:
            shaping.keep("backlog", backlog or f"an interval ago {state.backlog}")
        age_s = now_s - (state.lengths_at_s or 0.0)
        if age_s > settings.lengths_stale_after_s:
            shaping.keep("lengths_stale", f"lengths are {age_s:.0f} s old")
        shaping.bound()
        shaping.keep_for_gaps(gaps)
        plan = shaping.plan
        decision = Decision(
            at_s=now_s,
            level=Level.MODEL,
            plan=plan,
            current=current,
            wanted=wanted,
            reasons=(*shaping.reasons, *moves(plan, current)),
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
            clamps=tuple(shaping.clamps),
        )
        return decision, replace(state, memory=shaping.remembered(now_s), last_good=plan, backlog=backlog)

    def _target(self, state: PlannerState) -> float:
        """The SLA's attainment, moved by what is left of its error budget over the last window."""
        settings = self.settings
        offered = state.error_budget.offered
        # The mean load of the window, so that the target does not depend on the load that is sized for.
        mean_rps = offered / settings.error_budget.window_s
        return round(next_target(settings.error_budget, state.error_budget, settings.sla.attainment, mean_rps), 6)

    def _sized(self, evaluator: Evaluator, rates: Sequence[float], current: Plan, target: float) -> Sizing:
        """The cheapest plan that meets the target over equally likely rates."""
        settings = self.settings
        by_role = {role: self._pool_of(role) for role in self.capacity.roles}
        return size(
            UncertainRate(evaluator, rates),
            by_role,
            settings.sla,
            settings.max_gpus,
            {role: current[pool.name] for role, pool in by_role.items()},
            target=target,
            tolerance=settings.attainment_tolerance,
        )

    def _backlogs(self, evaluator: Evaluator, supply: Mapping[str, PoolState], rate_rps: float) -> list[str]:
        """In which pools more waits than the ready workers work off at once, in words."""
        settings, found = self.settings, []
        # Of one worker under this load; the work of several is shared.
        busy = evaluator.at_rate(rate_rps).predict(dict.fromkeys(self.capacity.roles, 1)).utilisation
        for role in self.capacity.roles:
            pool = self._pool_of(role)
            waiting = usable(supply[pool.name].waiting_requests, settings.stale_after_s)
            if not isinstance(waiting, Known):
                continue
            capacity = supply[pool.name].ready * rate_rps / busy[role] if busy[role] > 0 else math.inf
            if is_backlog(settings.backlog, waiting.value, rate_rps, capacity):
                found.append(f"{waiting.value:.0f} waiting for {pool.name}")
        return found

    def _calm(self, state: PlannerState, forecast: Forecast) -> list[float]:
        """What to size for if a surge goes no further, requests/s: each quantile of the forecast, at its worst step.

        In and right after a surge at least what came last, for until then the forecasters lag behind.
        """
        settings = self.settings
        peaks = {level: max(rates) for level, rates in zip(forecast.levels, forecast.rates_rps, strict=True)}
        rates, dispersion = state.forecast.rates_rps, state.dispersion or 1.0
        least = _newest(state) if has_surged(settings.surge, rates, settings.interval_s, dispersion) else 0.0
        return [max(peaks[level], least) for level in self._levels()]

    def _demand(self, state: PlannerState, forecast: Forecast) -> tuple[Demand, list[float], DemandUsed]:
        """The load to size for: the worst step of each of the forecast's quantiles, and a surge."""
        settings = self.settings
        if state.lengths is None:
            raise AssertionError("the caller has checked that lengths are known")
        lengths = Lengths.of(state.lengths)
        dispersion = state.dispersion or 1.0
        # From the middle of the newest interval to when a worker serves that is asked for now.
        ahead_s = settings.interval_s / 2.0 + settings.lead_time_s
        surge = surge_rps(settings.surge, state.forecast.rates_rps, settings.interval_s, dispersion, ahead_s)
        rates = [max(peak, surge) for peak in self._calm(state, forecast)]
        rate = sum(rates) / len(rates)
        used = DemandUsed(
            rate_rps=rate,
            median_rps=max(forecast.rates_rps[forecast.levels.index(0.5)]),
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

    def _pool_of(self, role: Role) -> Pool:
        return next(pool for pool in self.settings.pools if pool.role is role)

    # -- without the model -----------------------------------------------------------------------------------------

    def _idle(
        self, state: PlannerState, current: Plan, gaps: Sequence[str], now_s: float
    ) -> tuple[Decision, PlannerState]:
        """No request has come for a whole horizon and none ever completed: real zero traffic, down to the minimum."""
        wanted = {pool.name: pool.min_workers for pool in self.settings.pools}
        shaping = Shaping(self.settings, current, wanted, ["no_traffic"])
        shaping.stabilise(state.memory, now_s)
        shaping.bound()
        shaping.keep_for_gaps(gaps)
        plan = shaping.plan
        decision = Decision(
            at_s=now_s,
            level=Level.MODEL,
            plan=plan,
            current=current,
            wanted=wanted,
            reasons=(*shaping.reasons, *moves(plan, current)),
            limit="min_workers",
            clamps=tuple(shaping.clamps),
        )
        return decision, replace(state, memory=shaping.remembered(now_s), last_good=plan, backlog="")

    def _without_demand(
        self, state: PlannerState, supply: Mapping[str, PoolState], current: Plan, why: str, now_s: float
    ) -> tuple[Decision, PlannerState]:
        """No demand to size for: add to pools that are measurably saturated or below their minimum, lower none."""
        settings = self.settings
        full, measured = saturated(settings, supply)
        grown = {name: count + (growth(settings, count) if name in full else 0) for name, count in current.items()}
        reasons = [f"{name}:saturated" for name in full]
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
            reasons=(*reasons, why, *moves(plan, current)),
            limit="unknown_demand",
            forecast=Unknown(why),
            clamps=tuple(clamps),
        )
        return decision, replace(state, last_good=plan, backlog="")

    def _last_good(self, state: PlannerState, unknown: Unknown, now_s: float) -> Decision:
        """Not even the supply is known: ask again for what was last asked for, or for nothing."""
        why = f"supply unknown: {unknown.reason}"
        plan = dict(state.last_good) if state.last_good is not None else {}
        return Decision(now_s, Level.LAST_GOOD, plan, {}, {}, (why,), "unknown_supply", forecast=Unknown(why))


def _newest(state: PlannerState) -> float:
    """Rate of the newest interval, requests/s; 0 where it is unknown."""
    rates = state.forecast.rates_rps
    return (rates[-1] if rates else None) or 0.0


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
