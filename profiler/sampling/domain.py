"""What can be measured on an engine: its limits as bounds of each table's coordinates."""

from __future__ import annotations

from dataclasses import dataclass, fields

from profiler.measure.base import Point
from profiler.schema import TableName

#: Share of the KV cache that a point may fill; a fuller one preempts requests, which is another measurement.
FILL = 0.9
#: Tokens kept free in each sequence: for what a decode sample generates, for what decodes while the prompts of a mixed
#: sample come, and for a prompt's answer.
ROOM_TO_DECODE, ROOM_TO_MIX, ROOM_TO_ANSWER = 64, 512, 16


@dataclass(frozen=True, slots=True, kw_only=True)
class Domain:
    """What can be measured on one engine.

    Attributes:
        tables: those to measure, in the order in which ties between them are broken.
        shortest_isl: shortest prompt worth measuring, tokens.
        longest_isl: the user's own bound; None where the engine's alone holds.
        max_model_len, max_num_seqs, max_num_batched_tokens: the engine's limits, all its ranks together.
        kv_capacity_tokens: its KV cache.
        block_size: tokens of a KV block.
        prefix_caching: whether prefix hits can be measured.
        most_held_tokens: KV tokens that a point may hold, where filling more takes too long; beyond it an iteration
            grows with what it reads. None for what the cache allows.
        max_cudagraph_tokens: tokens up to which an iteration replays CUDA graphs: TTFT steps up behind it. None where
            that is not known, or there are none.

    Raises:
        ValueError: a limit is not positive.
    """

    tables: tuple[TableName, ...]
    max_model_len: int
    kv_capacity_tokens: int
    max_num_seqs: int
    max_num_batched_tokens: int
    block_size: int
    prefix_caching: bool
    shortest_isl: int = 32
    longest_isl: int | None = None
    most_held_tokens: int | None = None
    max_cudagraph_tokens: int | None = None

    def __post_init__(self) -> None:
        for field in fields(self):
            value = getattr(self, field.name)
            if type(value) is int and value < 1:
                raise ValueError(f"{field.name} is {value}, not positive")

    @property
    def longest(self) -> int:
        """Longest prompt that can be measured, tokens; below `shortest_isl` where none can."""
        bounds = [self.max_model_len - ROOM_TO_ANSWER, self.kv_capacity_tokens - ROOM_TO_ANSWER]
        return min(bounds if self.longest_isl is None else [*bounds, self.longest_isl])

    @property
    def longest_context(self) -> int:
        """Longest context of a decoding request, a whole number of blocks; below one block where none fits."""
        return self._longest_with(ROOM_TO_DECODE)

    @property
    def longest_mixed_context(self) -> int:
        """The same for a mixed sample, during which requests grow further."""
        return self._longest_with(ROOM_TO_MIX)

    @property
    def held(self) -> int:
        """KV tokens that the requests of a point may hold together."""
        bounds = [int(FILL * self.kv_capacity_tokens)]
        return min(bounds if self.most_held_tokens is None else [*bounds, self.most_held_tokens])

    def largest_batch(self, context: int) -> int:
        """Most requests of `context` tokens that decode together."""
        # Short contexts outgrow the share that is left free.
        return min(self.max_num_seqs, self.held // context, self.kv_capacity_tokens // (context + ROOM_TO_DECODE))

    def largest_mixed_batch(self, context: int) -> int:
        """Most requests of `context` tokens that decode beside a prompt, the prompt's own tokens left out."""
        together = min(self.max_num_seqs, self.kv_capacity_tokens // (context + ROOM_TO_MIX))
        return min(together - 1, self.max_num_batched_tokens - 1, self.held // context)

    def contains(self, point: Point) -> bool:
        """Whether the engine can hold a point."""
        if point.table == "prefill":
            isl, batch, hit = point.at
            if not (1 <= isl <= self.longest and 1 <= batch <= self.max_num_seqs and 0 <= hit < isl):
                return False
            if hit and not (self.prefix_caching and hit % self.block_size == 0):
                return False
            return batch == 1 or batch * isl <= self.held
        if point.table == "transfer":
            return 1 <= point.at[0] <= self.longest
        batch, kv = point.at[-2:]
        if not (batch >= 1 and kv >= batch * self.block_size and kv % (batch * self.block_size) == 0):
            return False
        context = int(kv / batch)
        if point.table == "decode":
            return context <= self.longest_context and batch <= self.largest_batch(context)
        tokens = point.at[0]
        if not (1 <= tokens <= self.longest and tokens + batch <= self.max_num_batched_tokens):
            return False
        fits = context <= self.longest_mixed_context and batch <= self.largest_mixed_batch(context)
        return fits and kv + batch * ROOM_TO_MIX + tokens <= self.kv_capacity_tokens

    def _longest_with(self, room: int) -> int:
        free = min(self.max_model_len, self.kv_capacity_tokens) - room
        return max(min(free, self.held), 0) // self.block_size * self.block_size
