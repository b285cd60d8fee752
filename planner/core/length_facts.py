"""What follows from engines and lengths alone, whatever the rate: it is computed once for all rates of a decision."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from planner.core.demand import Lengths
from planner.core.queueing import average_of_process
from planner.core.types import Role
from profiler.timing import EngineTiming, TransferTiming

Array = NDArray[np.float64]

#: Prompts in a batch near the loads that matter; only the slope of the table between one and that many is used.
TYPICAL_BATCH = 4.0


@dataclass(frozen=True, eq=False)
class LengthFacts:
    """Times of a sample's requests. Arrays by length sample, shape (n,).

    Attributes:
        engines: timing by role: prefill and decode, or aggregated.
        transfer: hand-off between prefill and decode.
        lengths: the sample.
    """

    engines: Mapping[Role, EngineTiming]
    transfer: TransferTiming
    lengths: Lengths

    @property
    def fill_engine(self) -> EngineTiming:
        """The engine that runs prompts."""
        return self.engines[Role.AGGREGATED] if Role.AGGREGATED in self.engines else self.engines[Role.PREFILL]

    @property
    def step_engine(self) -> EngineTiming:
        """The engine that decodes."""
        return self.engines[Role.AGGREGATED] if Role.AGGREGATED in self.engines else self.engines[Role.DECODE]

    @cached_property
    def prompt_ms(self) -> Array:
        """Prefill time alone, ms."""
        return self.fill_engine.prompt_ms(self.lengths.isl, self.lengths.hit)

    def behind_ms(self, last_ms: float) -> Array:
        """Prefill time right behind an iteration of `last_ms`, ms."""
        lengths = self.lengths
        attention = self.fill_engine.attention_ms_per_token2 * (lengths.isl**2 - lengths.hit**2)
        return self.fill_engine.linear_behind_ms(lengths.isl - lengths.hit, last_ms) + attention

    @cached_property
    def front_ms(self) -> Array:
        """TTFT outside the engines' loops, ms."""
        return self.fill_engine.front_end_ms(self.lengths.isl)

    @cached_property
    def transfer_ms(self) -> Array:
        """Hand-off time, ms."""
        return self.transfer.at(self.lengths.isl)

    @cached_property
    def post_ms(self) -> Array:
        """By how much a hand-off makes an iteration of its decode worker longer, ms."""
        return self.transfer.post_at(self.lengths.isl)

    @cached_property
    def alone(self) -> tuple[Array, Array]:
        """TTFT and ITL on idle workers, ms; a single output token has no ITL, which is 0 here."""
        step = self.step_engine.iteration_ms(1.0, self.lengths.isl + 0.5 * self.lengths.osl)
        prompt = self.prompt_ms + self.front_ms
        ttft = prompt if Role.AGGREGATED in self.engines else prompt + self.transfer_ms + step
        return ttft, np.where(self.lengths.osl > 1, step, 0.0)

    @cached_property
    def context(self) -> tuple[float, float]:
        """Mean and variance of the KV tokens of a running request: samples weigh by the time that they run."""
        kv = self.lengths.isl + 0.5 * self.lengths.osl
        mean = float(np.average(kv, weights=self.lengths.osl))
        return mean, float(np.average((kv - mean) ** 2, weights=self.lengths.osl))

    @cached_property
    def batching(self) -> tuple[float, Array]:
        """What a batch of prompts costs beside them, ms, and what each sample adds to it, ms.

        A secant of L over the tokens that iterations hold, from one mean prompt to `TYPICAL_BATCH` of them: the table
        is concave there, and a chord through the origin would charge every prompt the price of the first one. Prompts
        longer than the token budget run in chunks, from about half a budget to one more.
        """
        engine, lengths = self.fill_engine, self.lengths
        # Prompts of aggregated workers run beside decodes, most often right behind an iteration without a prompt.
        behind = Role.AGGREGATED in self.engines
        new = lengths.isl - lengths.hit
        budget = float(engine.max_num_batched_tokens)
        short = max(1.0, min(float(new.mean()), 0.5 * budget))
        long = min(TYPICAL_BATCH * short, short + budget)
        ends = np.array([short, long])
        first, last = engine.linear_behind_ms(ends, engine.floor_ms) if behind else engine.linear_ms(ends)
        per_token = float(last - first) / (long - short)
        attention = engine.attention_ms_per_token2 * (lengths.isl**2 - lengths.hit**2)
        fixed, each = float(first) - per_token * short, per_token * new + attention
        if behind and not np.array_equal(engine.behind_ms, engine.prefill_ms):
            # What prompts add by themselves, beyond what an iteration shares, is right for one prompt on average.
            added = np.maximum(engine.linear_behind_ms(new, engine.floor_ms) - engine.shared_ms, 0.0) + attention
            if fixed < engine.shared_ms:  # convex: a batch takes no less than the sum
                return engine.shared_ms, added
            return engine.shared_ms + max(0.0, float(added.mean() - each.mean())), each
        return max(0.0, fixed), each

    @cached_property
    def added(self) -> tuple[float, float]:
        """Mean and variance of what a prompt adds to its batch, ms and ms^2."""
        marginal = self.batching[1]
        return float(marginal.mean()), float(marginal.var())

    @cached_property
    def mean_post_ms(self) -> float:
        """Mean of `post_ms`."""
        return float(self.post_ms.mean())

    @cached_property
    def mean_osl(self) -> float:
        """Mean output, tokens."""
        return float(self.lengths.osl.mean())

    @cached_property
    def running(self) -> tuple[Array, Array]:
        """Running batches from 1 to the most that fit, and the iteration time of each at the mean context, ms."""
        engine, context = self.step_engine, self.context[0]
        most = max(1.0, min(float(engine.max_num_seqs), engine.kv_capacity_tokens / max(context, 1.0)))
        batches = np.linspace(1.0, most, 256)
        return batches, np.maximum.accumulate(engine.iteration_ms(batches, batches * context))

    @cached_property
    def averaging(self) -> Array:
        """Share of the batch's variance that is left in a request's mean, by how long it runs."""
        return average_of_process(self.lengths.osl / self.mean_osl)
