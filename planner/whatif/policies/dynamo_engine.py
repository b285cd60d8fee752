"""What Dynamo 1.6 asks of its model of an engine: how long a queue takes, the next ITL, and how many requests it bears.

From `core/perf_model/engine_query.py` and `ais_adapter.py` of ai-dynamo 1.6.1. Kept as it is there: an engine bears the
rate at which it is never idle (no queue, no percentile, no headroom); a batch of prompts is looked up as one prompt of
their total length; where no batch meets the SLA, the fastest one counts all the same.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

from planner.core.types import Role
from planner.whatif.policies.dynamo_regression import MOST_SAMPLES, Pass, Stores

#: Batches that a search for the capacity looks at; the largest discount for cached prefixes.
MOST_CANDIDATES = 128
MOST_HIT_RATE = 0.95


@dataclass(frozen=True, slots=True)
class Limits:
    """An engine's own limits, in tokens and requests."""

    batched_tokens: int
    seqs: int
    kv_tokens: int
    context_tokens: int


@dataclass(frozen=True, slots=True)
class Shape:
    """The request that capacity is asked for: prompt and output tokens, and the share of the prompt that is cached."""

    isl: float
    osl: float
    hit_rate: float = 0.0

    @property
    def computed(self) -> int:
        """Prompt tokens to compute."""
        return max(1, math.ceil(math.ceil(self.isl) * (1.0 - discount(self.hit_rate))))

    @property
    def context(self) -> int:
        """Mean KV tokens while it decodes."""
        return max(1, math.ceil(self.isl) + self.outputs // 2)

    @property
    def outputs(self) -> int:
        """Tokens to generate, at least one."""
        return max(1, math.ceil(self.osl))


@dataclass(frozen=True, slots=True)
class Capacity:
    """What one engine bears: requests per second, latencies at that rate, and whether these are within the SLA.

    A latency that the role does not have is 0.
    """

    rps: float
    ttft_ms: float
    itl_ms: float
    eligible: bool


@dataclass(frozen=True, slots=True)
class Load:
    """One engine's last forward pass and what waits in its queue.

    Attributes:
        scheduled: the pass.
        time_ms: it took; 0 when the engine was idle.
        queued: the same of what waits: prompts to compute, and requests whose KV waits for room to decode.
    """

    scheduled: Pass
    time_ms: float = 0.0
    queued: Pass = field(default_factory=Pass)


class _Average:
    """Mean of the last values; zeros before the first other one count for nothing."""

    def __init__(self) -> None:
        self._values: deque[float] = deque(maxlen=MOST_SAMPLES)

    def add(self, value: float) -> None:
        if value > 0.0 or self._values:
            self._values.append(value)

    @property
    def value(self) -> float:
        return sum(self._values) / len(self._values) if self._values else 0.0


def discount(hit_rate: float) -> float:
    """The share of prompts that is taken as cached: 0 when it is unknown, never more than 0.95."""
    return min(MOST_HIT_RATE, max(0.0, hit_rate)) if math.isfinite(hit_rate) else 0.0


class EngineModel:
    """The model of one role's engines, tuned by every pass that is seen of any of them.

    Args:
        role: of the engines.
        limits: of the engines.
    """

    def __init__(self, role: Role, limits: Limits) -> None:
        self.role, self.limits = role, limits
        self.regression = Stores()
        self._isl, self._context = _Average(), _Average()
        self._prompts, self._prompt_tokens = _Average(), _Average()

    @property
    def ready(self) -> bool:
        """Whether it can estimate."""
        return self.regression.ready

    @property
    def next_isl(self) -> float:
        """Prompt tokens of a request to come: mean over passes, those without a prompt included as zeros."""
        return self._isl.value

    @property
    def next_context(self) -> float:
        """KV tokens of a request to come that decodes: mean over passes."""
        return self._context.value

    def tune(self, held: Pass, time_ms: float) -> None:
        """Take in a forward pass."""
        self._isl.add(held.prompt_tokens / held.prompts if held.prompts else 0.0)
        if held.decodes:
            self._context.add(held.decode_kv / held.decodes)
        self._prompts.add(float(held.prompts))
        self._prompt_tokens.add(float(held.prompt_tokens))
        self.regression.add(held, time_ms)

    # -- latencies of the next request -----------------------------------------------------------------------------

    def ttft_ms(
        self,
        load: Load,
        hit_rate: float,
        *,
        queue_scale: float = 1.0,
        decode_scale: float = 1.0,
        with_queued_decode: bool = False,
    ) -> float | None:
        """TTFT of a request that comes now: to drain the queue, and to prefill it.

        Args:
            load: of the engine.
            hit_rate: share of prompts that is cached; of queue and request alike.
            queue_scale: the queue is taken as so many times as long.
            decode_scale: as many decodes.
            with_queued_decode: whether decodes that wait run beside the prompts, too.
        """
        queued = load.queued
        tokens, prompts = queued.prompt_tokens * queue_scale, queued.prompts * queue_scale
        if self.next_isl > 0.0:
            tokens, prompts = tokens + self.next_isl, prompts + 1.0
        total, prompts = math.ceil(tokens * (1.0 - discount(hit_rate))), math.ceil(prompts)
        decodes, kv = float(load.scheduled.decodes), float(load.scheduled.decode_kv)
        if with_queued_decode:
            decodes, kv = decodes + queued.decodes, kv + queued.decode_kv
        if self.role is not Role.AGGREGATED:
            decodes = kv = 0.0

        def iteration(chunk: int) -> Pass:
            return Pass(max(1, prompts), chunk, math.ceil(decodes * decode_scale), math.ceil(kv * decode_scale))

        return self._chunks_ms(total, iteration)

    def itl_ms(self, load: Load, *, decode_scale: float = 1.0, with_queued_prompts: bool = False) -> float | None:
        """ITL once a request more decodes, and what waits to decode, too.

        Args:
            load: of the engine.
            decode_scale: as many decodes, before the request that comes.
            with_queued_prompts: whether prompts that wait count as decodes to come.
        """
        queued = load.queued
        decodes, kv = float(load.scheduled.decodes + queued.decodes), float(load.scheduled.decode_kv + queued.decode_kv)
        if with_queued_prompts:
            decodes, kv = decodes + queued.prompts, kv + queued.prompt_tokens
        decodes, kv = decodes * decode_scale, kv * decode_scale
        if self.next_context > 0.0:
            decodes, kv = decodes + 1.0, kv + self.next_context
        prompts = tokens = 0
        if self.role is Role.AGGREGATED:
            # Not what this very pass held of prompts, but what passes hold on average.
            tokens = math.ceil(self._prompt_tokens.value)
            prompts = max(math.ceil(self._prompts.value), int(tokens > 0))
        return self.regression.time_ms(Pass(prompts, tokens, math.ceil(decodes), math.ceil(kv)))

    def _chunks_ms(self, tokens: int, iteration: Callable[[int], Pass]) -> float | None:
        """Time of as many full passes as the tokens fill, and of the rest."""
        full, rest = divmod(tokens, self.limits.batched_tokens)
        total = 0.0
        for times, chunk in ((full, self.limits.batched_tokens), (1, rest)):
            if times > 0 and chunk > 0:
                time_ms = self.regression.time_ms(iteration(chunk))
                if time_ms is None:
                    return None
                total += times * time_ms
        return total

    # -- capacity --------------------------------------------------------------------------------------------------

    def capacity(self, shape: Shape, ttft_sla_ms: float, itl_sla_ms: float) -> Capacity | None:
        """The most requests per second of this shape that the SLA allows; the most of all where it allows none.

        None without a fit, or for a shape without tokens.
        """
        if not self.ready or shape.isl <= 0.0 or (self.role is not Role.PREFILL and shape.osl <= 0.0):
            return None
        candidates = {Role.PREFILL: self._prefill, Role.DECODE: self._decode, Role.AGGREGATED: self._mixed}[self.role]
        best: Capacity | None = None
        for rps, ttft_ms, itl_ms in candidates(shape):
            found = Capacity(rps, ttft_ms, itl_ms, ttft_ms <= ttft_sla_ms and itl_ms <= itl_sla_ms)
            if best is None or (found.eligible, found.rps) > (best.eligible, best.rps):
                best = found
        return best

    def _prefill(self, shape: Shape) -> Iterator[tuple[float, float, float]]:
        most = self.limits.batched_tokens // shape.computed
        for batch in batches(max(1, min(self.limits.seqs, most))):
            ttft_ms = self._chunks_ms(shape.computed * batch, lambda chunk: Pass(1, chunk))
            if ttft_ms:
                yield batch / ttft_ms * 1000.0, ttft_ms, 0.0

    def _decode(self, shape: Shape) -> Iterator[tuple[float, float, float]]:
        for batch in batches(min(self.limits.seqs, self.limits.kv_tokens // shape.context)):
            itl_ms = self.regression.time_ms(Pass(0, 0, batch, batch * shape.context))
            if itl_ms:
                yield batch / (shape.outputs * itl_ms) * 1000.0, 0.0, itl_ms

    def _mixed(self, shape: Shape) -> Iterator[tuple[float, float, float]]:
        most = min(self.limits.seqs, self.limits.kv_tokens // shape.context, self.limits.batched_tokens - 1)
        for batch in batches(most):
            # In the steady state as many prompts come in as answers go out, and both share the pass.
            tokens = math.ceil(batch * shape.computed / shape.outputs)
            if tokens > self.limits.batched_tokens - batch:
                continue
            kv = batch * shape.context
            itl_ms = self.regression.time_ms(Pass(1, tokens, batch, kv))

            def iteration(chunk: int, batch: int = batch, kv: int = kv) -> Pass:
                return Pass(1, chunk, batch, kv)

            ttft_ms = self._chunks_ms(tokens + shape.computed, iteration)
            if itl_ms and ttft_ms:
                yield batch / (shape.outputs * itl_ms) * 1000.0, ttft_ms, itl_ms


def batches(most: int) -> list[int]:
    """Batch sizes from 1 to `most`, thinned out evenly to 128."""
    if most <= MOST_CANDIDATES:
        return list(range(1, most + 1))
    return [1 + k * (most - 1) // (MOST_CANDIDATES - 1) for k in range(MOST_CANDIDATES)]
