"""Tokens that one worker sustains, as WVA's second analyser estimates them: k1 by memory, k2 by compute.

k2 comes from the first of these that is known (`computeK2` in `saturation_v2/analyzer.go`):

1. seen: with 5 or more requests waiting, the tokens in the cache are what the engine can hold;
2. remembered: the mean of the last 10 such sightings, kept apart by answers below 100, below 500 and of more tokens;
3. derived: N (I + O/2) of N = min(B O / (I + O), S) requests, B and S the engine's `max_num_batched_tokens` and
   `max_num_seqs`, I and O mean lengths;
4. k1.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass
from typing import Literal

from planner.whatif.policies.wva_metrics import MeanLengths, Replica
from profiler.schema import Limits

#: Sightings that the mean looks back on.
SIGHTINGS = 10

#: Bounds of the buckets of answers, tokens.
SHORT_TOKENS, MEDIUM_TOKENS = 100.0, 500.0

Bucket = Literal["short", "medium", "long"]


@dataclass(frozen=True, slots=True)
class EngineLimits:
    """Limits of the engine, by default those that the source takes for vLLM's own."""

    max_batched_tokens: int = 8192
    max_seqs: int = 256

    @classmethod
    def of(cls, limits: Limits) -> EngineLimits:
        """A profile's limits, the defaults where it says nothing."""
        return cls(limits.max_num_batched_tokens or cls().max_batched_tokens, limits.max_num_seqs or cls().max_seqs)


def bucket_of(osl: float) -> Bucket:
    """The bucket of mean answers."""
    if osl < SHORT_TOKENS:
        return "short"
    return "medium" if osl < MEDIUM_TOKENS else "long"


def derived_k2(limits: EngineLimits, lengths: MeanLengths) -> int:
    """Tokens of a steady batch: B O / (I + O) requests a step can admit and finish, at most S; 0 without answers."""
    if lengths.osl <= 0.0:
        return 0
    requests = min(limits.max_batched_tokens * lengths.osl / (lengths.isl + lengths.osl), limits.max_seqs)
    return int(requests * (lengths.isl + lengths.osl / 2.0))


class Capacity:
    """Capacity of the workers of one pool, with what it remembers of them.

    Args:
        limits: of the engine.
        kv: share of the cache that k1 counts.
        queue: waiting requests from which on the tokens in the cache count as a sighting of k2.
    """

    def __init__(self, limits: EngineLimits, kv: float, queue: float) -> None:
        self._limits = limits
        self._kv = kv
        self._queue = int(queue)
        self._seen: dict[Bucket, deque[int]] = {}
        #: The last figure of any worker, for a pool without ready ones; 0 before there was one.
        self.last = 0

    def of(self, replica: Replica, lengths: MeanLengths) -> int:
        """min(k1, k2) of a worker, tokens; remembers what it sees."""
        k1 = int(replica.capacity_tokens * self._kv)
        self.last = min(k1, self._k2(replica, lengths) or k1)
        return self.last

    def _k2(self, replica: Replica, lengths: MeanLengths) -> int:
        bucket = bucket_of(lengths.osl)
        if replica.waiting >= self._queue and replica.tokens_in_use > 0:
            self._seen.setdefault(bucket, deque(maxlen=SIGHTINGS)).append(replica.tokens_in_use)
            return replica.tokens_in_use
        seen = self._seen.get(bucket)
        return int(sum(seen) / len(seen)) if seen else derived_k2(self._limits, lengths)
