"""llm-d's Workload Variant Autoscaler with its first analyser (V1): saturation by thresholds, one worker at a time.

The rules are those of `internal/saturation/analyzer.go` and of docs/saturation-analyzer.md (llm-d-incubation/
workload-variant-autoscaler, the default analyser up to v0.8), thresholds those of its shipped ConfigMap:

* A worker is saturated at 80 % of its KV cache or 5 waiting requests (peaks of the last minute).
* One worker more when the others' mean distance to these is below 10 % or 3 requests, or when there are no others.
* One worker less when the load of the N that are not saturated, laid on N - 1, still leaves those distances; N >= 2.
* Nothing while a pool is in transition: the last wish not yet carried out, or workers without metrics.

The HPA behind it (`wva_hpa`) belongs to the picture: a wish to shrink stands for its whole down-window, and blocks a
rise as long. Where a replay differs: the source pools the variants of a model, prefill and decode alike, into one
average and gives the one worker to the cheapest variant, to the first by name among equals. Here every pool has its
own average, which is to the peer's advantage.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from planner.whatif.policies.base import Setting
from planner.whatif.policies.wva_loop import LoopOptions, Variant, WvaPolicy, below_one, parse_options
from planner.whatif.policies.wva_metrics import MeanLengths, Replica

#: `MinNonSaturatedReplicasForScaleDown`.
FEWEST_TO_SHRINK = 2


@dataclass(frozen=True, slots=True)
class Thresholds:
    """`kvCacheThreshold`, `queueLengthThreshold`, `kvSpareTrigger` and `queueSpareTrigger`."""

    kv: float = 0.80
    queue: float = 5.0
    kv_spare: float = 0.10
    queue_spare: float = 3.0


@dataclass(frozen=True, slots=True)
class Saturation:
    """What an analysis of a pool says: whether it needs a worker more, and whether one less were safe."""

    grow: bool
    may_shrink: bool


def analyse_saturation(replicas: Sequence[Replica], limits: Thresholds) -> Saturation:
    """The analysis of one pool's ready workers; without any it says nothing."""
    if not replicas:
        return Saturation(grow=False, may_shrink=False)
    free = [r for r in replicas if r.kv_usage < limits.kv and r.waiting < limits.queue]
    n = len(free)
    kv = sum(r.kv_usage for r in free) / n if n else limits.kv
    queue = sum(r.waiting for r in free) / n if n else limits.queue
    grow = limits.kv - kv < limits.kv_spare or limits.queue - queue < limits.queue_spare
    if n < FEWEST_TO_SHRINK:
        return Saturation(grow, may_shrink=False)
    more = n / (n - 1)
    safe = limits.kv - kv * more >= limits.kv_spare and limits.queue - queue * more >= limits.queue_spare
    return Saturation(grow, safe)


def saturation_target(variant: Variant, limits: Thresholds) -> int:
    """Workers wanted of one pool: at most one more or less than it has; the last wish while it is in transition."""
    if variant.desired is not None and variant.desired != variant.current:
        return variant.desired
    if len(variant.replicas) != variant.current:
        return variant.current
    found = analyse_saturation(variant.replicas, limits)
    if found.grow:
        return variant.current + 1
    return variant.current - 1 if found.may_shrink else variant.current


class Wva(WvaPolicy):
    """WVA V1.

    Args:
        setting: of the replay.
        options: of the loop and the HPA.
        limits: the analyser's thresholds.
    """

    def __init__(self, setting: Setting, options: LoopOptions | None = None, limits: Thresholds | None = None) -> None:
        super().__init__(setting, options or LoopOptions())
        self._limits = limits or Thresholds()

    def analyse(self, variants: Sequence[Variant], lengths: MeanLengths | None) -> dict[str, int]:  # noqa: ARG002 - V1 knows no lengths
        """Every pool by itself."""
        return {variant.pool.name: saturation_target(variant, self._limits) for variant in variants}


def parse(options: str, setting: Setting) -> Wva:
    """The policy of `wva:OPTIONS`.

    Args:
        options: comma-separated: those of `wva_loop.parse_options` and `kv`, `queue`, `kv_spare`, `queue_spare`; may be
            empty.
        setting: of the replay.

    Raises:
        InputError: an option is unknown or its value wrong.
    """
    default = Thresholds()
    defaults = {key: float(getattr(default, key)) for key in ("kv", "queue", "kv_spare", "queue_spare")}
    loop, thresholds = parse_options("wva", options, defaults)
    below_one("wva", thresholds, "kv", "kv_spare")
    return Wva(setting, loop, Thresholds(**thresholds))
