"""What can be measured on an engine: its limits as bounds of each table's coordinates."""

from __future__ import annotations

from dataclasses import dataclass, fields

from profiler.measure.base import Point
from profiler.schema import TableName

#: Share of the KV cache that a point may fill; a fuller one preempts requests, which is another measurement.
FILL = 0.9
#: Tokens of a sequence kept free for what a decode sample generates, and for a prompt's answer.
ROOM_TO_DECODE, ROOM_TO_ANSWER = 64, 8


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
        room = min(self.max_model_len, self.kv_capacity_tokens) - ROOM_TO_DECODE
        return min(room, self.held) // self.block_size * self.block_size

    @property
    def held(self) -> int:
        """KV tokens that the requests of a point may hold together."""
        return int(FILL * self.kv_capacity_tokens)

    def largest_batch(self, context: int) -> int:
        """Most requests of `context` tokens that decode together."""
        return min(self.max_num_seqs, self.held // context)

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
        if not (batch >= 1 and self._whole_blocks(kv / batch) and kv / batch <= self.longest_context):
            return False
        if point.table == "decode":
            return batch <= self.max_num_seqs and kv <= self.held
        tokens = point.at[0]
        fits = 1 <= tokens <= self.longest and tokens + batch <= self.max_num_batched_tokens
        return fits and batch + 1 <= self.max_num_seqs and kv + tokens <= self.held

    def _whole_blocks(self, context: float) -> bool:
        return context >= self.block_size and context % self.block_size == 0
