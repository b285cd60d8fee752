"""llm-d's Workload Variant Autoscaler with its second analyser (V2): supply and demand in tokens of KV cache.

The rules are those of `internal/engines/analyzers/saturation_v2` and `applyUniversalThreshold` (llm-d-incubation/
workload-variant-autoscaler; the default analyser since v0.9):

* A worker's capacity is the lesser of k1 = 80 % of its KV cache and k2, what its compute sustains (`wva_capacity`).
  A pool's is the median of its workers' times their number.
* A worker's demand is the tokens in its cache plus those that its queue will need: prompts on a prefill worker, prompts
  and answers on others. Requests held at the gateway count likewise, less their prefix hits.
* Required = demand / 0.85 - supply, starting workers included, gives ceil(required / capacity) workers more.
* Spare = supply - demand / 0.70, ready workers alone, gives floor(spare / capacity) fewer; only when no role of the
  graph needs more.

There is no block while workers start: they count as supply. The HPA behind it is the same as V1's. Prefill and decode
are roles with supply and demand of their own, as in the source; what a prefill pod generates is its one token.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import median_high, median_low

from planner.core.types import Role
from planner.whatif.policies.base import Setting
from planner.whatif.policies.wva_capacity import Capacity, EngineLimits
from planner.whatif.policies.wva_loop import LoopOptions, Variant, WvaPolicy, below_one, parse_options
from planner.whatif.policies.wva_metrics import MeanLengths, Replica

#: Mean lengths while no request has completed: the source then knows of no tokens in a queue.
_NO_LENGTHS = MeanLengths(0.0, 0.0, 0.0)


@dataclass(frozen=True, slots=True)
class Thresholds:
    """`kvCacheThreshold`, `queueLengthThreshold`, `scaleUpThreshold` and `scaleDownBoundary`."""

    kv: float = 0.80
    queue: float = 5.0
    up: float = 0.85
    down: float = 0.70


@dataclass(frozen=True, slots=True)
class Balance:
    """A pool in tokens.

    Attributes:
        capacity: of one worker.
        ready: workers that are ready.
        pending: workers that are not.
        demand: of the pool.
    """

    capacity: float
    ready: int
    pending: int
    demand: float

    def missing(self, up: float) -> int:
        """Workers more, so that demand is at most the share `up` of what is there and what comes."""
        if self.capacity <= 0.0:
            return 0
        required = self.demand / up - (self.ready + self.pending) * self.capacity
        return math.ceil(required / self.capacity) if required > 0.0 else 0

    def superfluous(self, down: float) -> int:
        """Workers that may go while demand stays at most the share `down` of the ready rest."""
        if self.capacity <= 0.0:
            return 0
        spare = self.ready * self.capacity - self.demand / down
        return math.floor(spare / self.capacity) if spare > 0.0 else 0


def lengths_of(role: Role, lengths: MeanLengths | None) -> MeanLengths:
    """Mean lengths as the engines of a role count them: a prefill pod generates one token of each request."""
    if lengths is None:
        return _NO_LENGTHS
    return MeanLengths(lengths.isl, 1.0, lengths.hit_rate) if role is Role.PREFILL else lengths


def replica_demand(replica: Replica, role: Role, lengths: MeanLengths) -> int:
    """Tokens in a worker's cache and those that its queue will need."""
    each = lengths.isl if role is Role.PREFILL else lengths.isl + lengths.osl
    return replica.tokens_in_use + int(replica.waiting * each)


def gateway_demand(queued: int, role: Role, lengths: MeanLengths) -> float:
    """Tokens that requests at the gateway will need in a role."""
    prompts = queued * lengths.isl * (1.0 - lengths.hit_rate)
    return prompts if role is Role.PREFILL else prompts + queued * lengths.osl


class WvaV2(WvaPolicy):
    """WVA V2.

    Args:
        setting: of the replay; limits of the engines come from its profiles, vLLM's defaults where they say nothing.
        options: of the loop and the HPA.
        limits: the analyser's thresholds.
    """

    def __init__(self, setting: Setting, options: LoopOptions | None = None, limits: Thresholds | None = None) -> None:
        super().__init__(setting, options or LoopOptions())
        self._limits = limits = limits or Thresholds()
        self._capacity = {
            role: Capacity(EngineLimits.of(setting.profiles[role].meta.limits), limits.kv, limits.queue)
            for role in setting.pools
        }

    def analyse(self, variants: Sequence[Variant], lengths: MeanLengths | None) -> dict[str, int]:
        """All pools at once: none shrinks while another must grow."""
        balances = {variant.pool.name: self._balance(variant, lengths) for variant in variants}
        missing = {name: balance.missing(self._limits.up) for name, balance in balances.items()}
        if any(missing.values()):
            return {v.pool.name: v.current + missing[v.pool.name] for v in variants}
        # The last replica stays, whatever the bounds say.
        return {
            v.pool.name: max(min(1, v.current), v.current - balances[v.pool.name].superfluous(self._limits.down))
            for v in variants
        }

    def _balance(self, variant: Variant, lengths: MeanLengths | None) -> Balance:
        role = variant.pool.role
        means = lengths_of(role, lengths)
        capacity = self._capacity[role]
        each = [capacity.of(replica, means) for replica in variant.replicas]
        return Balance(
            # Without a ready worker the last one's capacity stands; of an even number the source takes the mean of the
            # middle two.
            capacity=(median_low(each) + median_high(each)) // 2 if each else capacity.last,
            ready=len(variant.replicas),
            pending=variant.pending,
            demand=sum(replica_demand(replica, role, means) for replica in variant.replicas)
            + gateway_demand(variant.queued, role, means),
        )


def parse(options: str, setting: Setting) -> WvaV2:
    """The policy of `wva-v2:OPTIONS`.

    Args:
        options: comma-separated: those of `wva_loop.parse_options` and `kv`, `queue`, `up`, `down`; may be empty.
        setting: of the replay.

    Raises:
        InputError: an option is unknown or its value wrong.
    """
    default = Thresholds()
    defaults = {key: float(getattr(default, key)) for key in ("kv", "queue", "up", "down")}
    loop, thresholds = parse_options("wva-v2", options, defaults)
    below_one("wva-v2", thresholds, "kv", "up", "down")
    return WvaV2(setting, loop, Thresholds(**thresholds))
