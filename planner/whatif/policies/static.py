"""Fixed counts: what a fleet without an autoscaler does."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping

from planner.core.types import Observation, Plan, Pool, Role
from planner.whatif.policies.base import Policy, Setting
from planner.whatif.policies.hindsight import counts_for_mean, counts_for_peak
from profiler.errors import InputError

_DISAGGREGATED = re.compile(r"(\d{1,4})p(\d{1,4})d")
_AGGREGATED = re.compile(r"(\d{1,4})a")


class Static(Policy):
    """The same workers from the first second to the last."""

    interval_s = 60.0
    observes = False

    def __init__(self, plan: Plan) -> None:
        self._plan = dict(plan)

    def start(self) -> Plan:
        """Its workers are there at time 0: nobody starts a fixed fleet under load."""
        return self._plan

    def decide(self, observation: Observation, now_s: float) -> Plan:  # noqa: ARG002 - that it ignores both is the point
        """Always the same."""
        return self._plan


#: Counts chosen with knowledge of the whole trace.
IN_HINDSIGHT: Mapping[str, Callable[[Setting], Plan]] = {"mean": counts_for_mean, "peak": counts_for_peak}


def parse(options: str, setting: Setting) -> Static:
    """`static:3p4d` or `static:2a`; `static:mean` or `static:peak` for an oracle's choice.

    The last two are the cheapest counts that the capacity model needs for the trace's mean rate, and for the minute
    that needs most GPUs: what one would have bought knowing the load, and no autoscaler.

    Raises:
        InputError: not a layout, one of another kind of graph, or one beyond the budget.
    """
    if options in IN_HINDSIGHT:
        return Static(IN_HINDSIGHT[options](setting))
    plan = parse_layout(options, setting.pools, "--policy")
    gpus = sum(plan[pool.name] * pool.gpus_per_worker for pool in setting.pools.values())
    if gpus > setting.settings.max_gpus:
        limit = f"at most {setting.settings.max_gpus} GPUs (--max-gpus)"
        raise InputError(f"static:{options} takes {gpus} GPUs", expected=limit, field="--policy")
    return Static(plan)


def parse_layout(text: str, pools: Mapping[Role, Pool], field: str) -> Plan:
    """`3p4d` or `2a` as workers by pool name.

    Raises:
        InputError: not a layout, or one of another kind of graph; names `field`.
    """
    aggregated = Role.AGGREGATED in pools
    match = (_AGGREGATED if aggregated else _DISAGGREGATED).fullmatch(text)
    if match is None:
        right = "a count of aggregated workers such as 2a" if aggregated else "prefill and decode workers such as 3p4d"
        raise InputError(f"{text!r} is not a layout of this graph", expected=right, field=field)
    return {pool.name: int(count) for pool, count in zip(pools.values(), match.groups(), strict=True)}


def counts_of(plan: Plan, pools: Mapping[Role, Pool]) -> tuple[int, ...]:
    """The counts of a plan in the order of the graph's roles."""
    return tuple(plan[pool.name] for pool in pools.values())
