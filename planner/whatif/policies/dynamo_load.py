"""Dynamo 1.6's load scaling: one worker up or down every five seconds, from what each engine reports of itself.

From `core/load_scaling.py` of ai-dynamo 1.6.1. Kept as it is there: it goes up only when *every* engine's estimate is
above the SLA, by one worker whatever the overload; estimates are of one request that comes now, on the model's means;
and it goes down as soon as the queues of this very moment would bear it, without a window.

A decision is the workers wanted, or None for "no change" as well as for "cannot tell".
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from planner.core.types import Role
from planner.whatif.policies.dynamo_engine import EngineModel, Load

Target = Literal["throughput", "latency"]


@dataclass(frozen=True, slots=True)
class Workers:
    """A pool: workers that serve, workers that start, and the least that may be asked for."""

    ready: int
    pending: int
    least: int

    @property
    def without_one(self) -> float:
        """By how much each load grows when one worker goes and the others share its own."""
        return self.ready / (self.ready - 1) if self.ready > 1 else 1.0

    @property
    def can_shrink(self) -> bool:
        """Whether there is one to do without, be it one that starts."""
        return self.ready > 1 or self.pending > 0


@dataclass(frozen=True, slots=True)
class Limit:
    """A latency of the SLA, and the share of it that a smaller pool may take (`load_scaling_down_sensitivity`)."""

    sla_ms: float
    sensitivity: float


def step(estimates: Sequence[float], limit: Limit, workers: Workers, *, shrink: bool) -> int | None:
    """One up when all estimates are above the SLA; else one down when the checks allow it."""
    if not estimates:
        return None
    if all(estimate > limit.sla_ms for estimate in estimates):
        return workers.ready + 1
    return max(workers.ready - 1, workers.least) if shrink else None


def decide_prefill(
    model: EngineModel, loads: Sequence[Load], workers: Workers, limit: Limit, hit_rate: float
) -> int | None:
    """By the TTFT of a request that comes now: the queue's time and its own."""
    if not model.ready or workers.ready == 0:
        return None
    estimates, shrink = [], workers.can_shrink
    for load in loads:
        now = model.ttft_ms(load, hit_rate)
        if now is not None:
            estimates.append(now)
        if shrink:
            # A request's own prefill is no shorter on more workers, so only its wait has to stay within the rest.
            own = model.ttft_ms(load, hit_rate, queue_scale=0.0)
            then = model.ttft_ms(load, hit_rate, queue_scale=workers.without_one)
            shrink = _wait_fits(own, then, limit)
    return step(estimates, limit, workers, shrink=shrink)


def decide_decode(model: EngineModel, loads: Sequence[Load], workers: Workers, limit: Limit) -> int | None:
    """By the ITL when what waits decodes, too; fewer workers must hold everyone's KV."""
    if not model.ready or workers.ready == 0:
        return None
    estimates, shrink = [], workers.can_shrink
    for load in loads:
        now = model.itl_ms(load)
        if now is not None:
            estimates.append(now)
        if shrink:
            held = load.scheduled.decode_kv + load.queued.decode_kv
            then = model.itl_ms(load, decode_scale=workers.without_one)
            shrink = _kv_fits(held, then, model, workers, limit)
    return step(estimates, limit, workers, shrink=shrink)


def decide_aggregated(
    model: EngineModel, loads: Sequence[Load], workers: Workers, ttft: Limit, itl: Limit, hit_rate: float
) -> tuple[int, bool] | None:
    """Up when TTFT or ITL says so, down when both do.

    Returns:
        The workers wanted, and whether starting ones may be given up for it; None when it cannot tell.
    """
    if not model.ready or workers.ready == 0:
        return None
    prompts, prompts_refused = _aggregated_ttft(model, loads, workers, ttft, hit_rate)
    decodes, decodes_refused = _aggregated_itl(model, loads, workers, itl)
    ready = workers.ready
    settled = not prompts_refused and not decodes_refused
    spare = settled and prompts is not None and decodes is not None and max(prompts, decodes) <= ready
    if prompts is not None and prompts > ready:
        return prompts, spare
    if decodes is not None and decodes > ready:
        return decodes, spare
    # Without an opinion on prompts, that on decodes is enough.
    if decodes is not None and decodes < ready and (prompts is None or prompts < ready):
        return max(decodes, decodes if prompts is None else prompts), spare
    return ready, spare


def _aggregated_ttft(
    model: EngineModel, loads: Sequence[Load], workers: Workers, limit: Limit, hit_rate: float
) -> tuple[int | None, bool]:
    estimates, shrink, refused = [], workers.can_shrink, False
    more = workers.without_one
    for load in loads:
        now = model.ttft_ms(load, hit_rate)
        if now is not None:
            estimates.append(now)
        if shrink:
            own, then = (
                model.ttft_ms(load, hit_rate, queue_scale=queue, decode_scale=more, with_queued_decode=True)
                for queue in (0.0, more)
            )
            shrink = _wait_fits(own, then, limit)
            refused = refused or (not shrink and own is not None and then is not None)
    return _or_as_now(step(estimates, limit, workers, shrink=shrink), workers, refused=refused)


def _aggregated_itl(
    model: EngineModel, loads: Sequence[Load], workers: Workers, limit: Limit
) -> tuple[int | None, bool]:
    estimates, shrink, refused = [], workers.can_shrink, False
    for load in loads:
        now = model.itl_ms(load)
        if now is not None:
            estimates.append(now)
        if shrink:
            held = load.scheduled.decode_kv + load.queued.decode_kv + load.queued.prompt_tokens
            then = model.itl_ms(load, decode_scale=workers.without_one, with_queued_prompts=True)
            shrink = _kv_fits(held, then, model, workers, limit)
            refused = refused or (not shrink and then is not None)
    return _or_as_now(step(estimates, limit, workers, shrink=shrink), workers, refused=refused)


def _or_as_now(decided: int | None, workers: Workers, *, refused: bool) -> tuple[int | None, bool]:
    """A check that refuses is an opinion, "as many as now", where there is no other; and whether it was the reason."""
    return (workers.ready, True) if decided is None and refused else (decided, False)


def _wait_fits(own_ms: float | None, then_ms: float | None, limit: Limit) -> bool:
    if own_ms is None or then_ms is None:
        return False
    room_ms = (limit.sla_ms - own_ms) * limit.sensitivity
    return room_ms > 0.0 and then_ms - own_ms < room_ms


def _kv_fits(held: int, then_ms: float | None, model: EngineModel, workers: Workers, limit: Limit) -> bool:
    if int(held * workers.without_one) >= model.limits.kv_tokens:
        return False
    return then_ms is not None and then_ms < limit.sla_ms * limit.sensitivity


# -- without an SLA: fixed thresholds, the release's default --------------------------------------------------------

#: (up, down) by target: queued prompt tokens over the longest context; KV held and wanted over KV capacity.
QUEUE_THRESHOLDS: dict[Target, tuple[float, float]] = {"throughput": (1.0, 0.1), "latency": (0.1, 0.0)}
KV_THRESHOLDS: dict[Target, tuple[float, float]] = {"throughput": (1.0, 0.6), "latency": (0.4, 0.1)}


def decide_by_thresholds(
    role: Role, model: EngineModel, loads: Sequence[Load], workers: Workers, target: Target
) -> int | None:
    """One up when any engine is above the upper threshold, one down when all are below the lower one."""
    if workers.ready == 0 or not loads:
        return None
    if role is Role.PREFILL:
        up, down = QUEUE_THRESHOLDS[target]
        values = [load.queued.prompt_tokens / model.limits.context_tokens for load in loads]
        above = any(value >= up for value in values)
        below = all(value <= down if target == "latency" else value < down for value in values)
    else:
        up, down = KV_THRESHOLDS[target]
        values = [_kv(role, load) / model.limits.kv_tokens for load in loads]
        above, below = any(value > up for value in values), all(value < down for value in values)
    if above:
        return workers.ready + 1
    if not (below and workers.can_shrink):
        return None
    fewer = max(workers.ready - 1, workers.least)
    # Not when the others would be above the upper threshold at once.
    if 0 < fewer < workers.ready and max(values) * workers.ready / fewer >= up:
        return workers.ready
    return fewer


def _kv(role: Role, load: Load) -> int:
    held = load.scheduled.decode_kv + load.queued.decode_kv
    return held + load.queued.prompt_tokens if role is Role.AGGREGATED else held
