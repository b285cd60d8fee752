"""NVIDIA Dynamo 1.6's planner, as a peer in replays: throughput scaling, load scaling, and both.

* `throughput`: every 180 s, the forecast rate over the rate that one engine bears within the SLA, rounded up: at 100 %
  of it, with means for lengths and without a queue. This is what the release does with an SLA and no further settings.
* `load`: every 5 s, one worker up or down, from what each engine reports.
* `hybrid`: load scaling above the floor that throughput scaling sets.
* `thresholds`: load scaling on queue and KV alone, whatever the SLA. What the release does without any settings.

The decisions are those of ai-dynamo 1.6.1 on Kubernetes. docs/reference/policies-dynamo.md says what is kept of its
faults, what a replay cannot show it, and what was checked against the release itself.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Literal, cast, get_args

from planner.core.types import Known, Observation, Plan, Role
from planner.whatif.policies.base import Policy, Setting
from planner.whatif.policies.dynamo_actuate import Reductions, Supply, supply_of
from planner.whatif.policies.dynamo_engine import EngineModel, Load
from planner.whatif.policies.dynamo_load import Limit, Target
from planner.whatif.policies.dynamo_passes import Lengths, bootstrapped, limits_of, load_of
from planner.whatif.policies.dynamo_sizing import Counts, Sizing, Wanted
from planner.whatif.policies.dynamo_traffic import PREDICTORS, Forecaster, Meter
from planner.whatif.policies.options import positive, split_options, unknown
from planner.whatif.simulator.simulation import WorkerLoad
from profiler.errors import InputError

Mode = Literal["throughput", "load", "hybrid", "thresholds"]


@dataclass(frozen=True, slots=True)
class Options:
    """Settings of the peer under its own names where they differ, with its defaults.

    Attributes:
        mode: what scales.
        predictor: name in `PREDICTORS` (`load_predictor`).
        throughput_s, load_s: `throughput_adjustment_interval_seconds`, `load_adjustment_interval_seconds`.
        sensitivity: `load_scaling_down_sensitivity`, percent.
        most_change: `max_throughput_scaling_replicas`.
        target: `optimization_target` of the mode `thresholds`.
    """

    mode: Mode = "throughput"
    predictor: str = "arima"
    throughput_s: float = 180.0
    load_s: float = 5.0
    sensitivity: float = 80.0
    most_change: int = 8
    target: Target = "throughput"


class Dynamo(Policy):
    """The planner of ai-dynamo 1.6.

    Args:
        setting: of the replay.
        options: of the planner.

    Raises:
        InputError: a profile lacks what the model of the engines begins with, or the intervals do not fit together.
    """

    watches = True

    def __init__(self, setting: Setting, options: Options) -> None:
        every = options.throughput_s / options.load_s
        if options.mode in ("throughput", "hybrid") and (every < 2 or every != round(every)):
            raise InputError(
                f"dynamo: interval_s={options.throughput_s:g} is no multiple of load_interval_s={options.load_s:g}",
                expected="a throughput interval of twice the load interval or more, and a multiple of it",
                field="--policy",
            )
        self.interval_s = options.load_s
        self._options, self._every = options, round(every)
        self._setting = setting
        self._pools = tuple(setting.pools.values())
        self._roles = tuple(setting.pools)
        if options.mode == "thresholds":
            self._models = {
                role: EngineModel(role, limits_of(setting.engines.of(role), setting.profiles[role]))
                for role in self._roles
            }
        else:
            self._models = {role: bootstrapped(role, setting) for role in self._roles}
        share = options.sensitivity / 100.0
        ttft, itl = Limit(setting.sla.ttft_ms, share), Limit(setting.sla.itl_ms, share)
        self.sizing = Sizing(
            self._models, self._pools, ttft, itl, setting.settings.max_gpus, options.most_change, options.target
        )
        if options.mode == "hybrid":
            self.sizing.floor = (1,) * len(self._pools)
        self._forecast = Forecaster(options.predictor)
        self._meter = Meter()
        self._reductions = Reductions(options.load_s)
        self._workers: Mapping[str, Sequence[WorkerLoad]] = {}
        self._seen = Lengths()
        self._hit_rate = 0.0
        self._ticks = 0
        self._plan: Plan = dict(setting.start)

    def watch(self, workers: Mapping[str, Sequence[WorkerLoad]]) -> None:
        """See every ready worker."""
        self._workers = workers

    def decide(self, observation: Observation, now_s: float) -> Plan:
        """Both pools; the last plan where there is no decision, or none that could be carried out."""
        self._ticks += 1
        seen = self._meter.add(observation)
        self._seen = seen if seen.known else self._seen
        if not isinstance(observation.pools, Known):
            return self._plan
        states = observation.pools.value
        supply = supply_of(self._pools, states)
        loads = self._read(observation, supply)
        wanted, fresh = self._propose(loads, supply)
        self._carry_out(wanted, supply, now_s, fresh=fresh)
        return self._plan

    def _read(self, observation: Observation, supply: Supply) -> dict[Role, list[Load]]:
        """What every engine reports; it tunes the models."""
        arrivals = float(observation.arrivals.value) if isinstance(observation.arrivals, Known) else 0.0
        loads: dict[Role, list[Load]] = {}
        for role, pool, workers in zip(self._roles, self._pools, supply.workers, strict=True):
            timing = self._setting.engines.of(role)
            share = arrivals / observation.interval_s / max(1, workers.ready)
            loads[role] = [load_of(w, role, timing, self._seen, share) for w in self._workers.get(pool.name, ())]
            for load in loads[role]:
                self._models[role].tune(load.scheduled, load.time_ms)
        return loads

    def _propose(self, loads: Mapping[Role, Sequence[Load]], supply: Supply) -> tuple[Wanted, bool]:
        """The workers wanted of each pool, None for no change; and whether anything was looked at anew."""
        mode = self._options.mode
        nothing = (None,) * len(self._pools)
        due = mode in ("throughput", "hybrid") and self._ticks % self._every == 0
        sized = self._size(supply) if due else None
        if mode == "throughput":
            return (self.sizing.by_throughput(sized, supply) if due else nothing), due
        if due:
            self.sizing.set_floor(sized, supply)
        if mode == "load" and self._seen.known:
            self._hit_rate = self._seen.hit_rate
        if supply.draining:
            return nothing, True
        if mode == "thresholds":
            return self.sizing.by_thresholds(loads, supply), True
        return self.sizing.by_load(loads, supply, self._hit_rate), True

    def _size(self, supply: Supply) -> Counts | None:
        traffic = self._meter.take()
        self._forecast.add(traffic)
        if traffic.lengths.known:
            self._hit_rate = traffic.lengths.hit_rate
        requests, shape = self._forecast.next(self._hit_rate)
        return self.sizing.size(requests / traffic.span_s, shape, supply)

    def _carry_out(self, wanted: Wanted, supply: Supply, now_s: float, *, fresh: bool) -> None:
        if supply.draining:
            return
        if supply.starting:
            confirmed = self._reductions.confirm(wanted, supply, now_s) if fresh else None
            if confirmed is not None:
                self._ask(confirmed)
            return
        self._reductions.forget()
        counts = tuple(ready if count is None else count for count, ready in zip(wanted, supply.ready, strict=True))
        if counts != supply.ready:
            self._ask(self.sizing.clamp(counts))

    def _ask(self, counts: Counts) -> None:
        # The peer knows no maximum per pool; the replay's own bounds hold all the same.
        self._plan = {pool.name: min(count, pool.max_workers) for pool, count in zip(self._pools, counts, strict=True)}


def parse(options: str, setting: Setting) -> Dynamo:
    """The policy of `dynamo:OPTIONS`.

    Args:
        options: comma-separated: `throughput`, `load`, `hybrid` or `thresholds`; `arima`, `constant` or `kalman`;
            `interval_s`, `load_interval_s`, `sensitivity` and `max_change` with a number; `latency` for the lower
            ones of the thresholds; may be empty.
        setting: of the replay.

    Raises:
        InputError: an option is unknown or its value wrong, or the policy does not apply.
    """
    chosen = Options()
    for key, value in split_options(options):
        if value is None and key in get_args(Mode):
            chosen = replace(chosen, mode=cast("Mode", key))
        elif value is None and key in PREDICTORS:
            chosen = replace(chosen, predictor=key)
        elif value is None and key == "latency":
            chosen = replace(chosen, target="latency")
        elif key == "interval_s":
            chosen = replace(chosen, throughput_s=positive("dynamo", key, value))
        elif key == "load_interval_s":
            chosen = replace(chosen, load_s=positive("dynamo", key, value))
        elif key == "sensitivity":
            chosen = replace(chosen, sensitivity=positive("dynamo", key, value))
        elif key == "max_change":
            chosen = replace(chosen, most_change=max(1, int(positive("dynamo", key, value))))
        else:
            raise unknown("dynamo", key, value, EXPECTED)
    if chosen.target == "latency" and chosen.mode != "thresholds":
        raise InputError(f"dynamo: latency with {chosen.mode}", expected="thresholds,latency", field="--policy")
    return Dynamo(setting, chosen)


EXPECTED = (
    "throughput, load, hybrid or thresholds; arima, constant or kalman; interval_s, load_interval_s, sensitivity or "
    "max_change with a number; latency"
)
