"""What to measure for a model: sizes of its products on one rank, grids coarse first, a budget of time."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import TypeVar

from profiler.errors import InputError
from profiler.kernels.layout import heads_of_rank
from profiler.kernels.micro import Gemm
from profiler.schema import ModelShape

T = TypeVar("T")

TOKENS = tuple(2**i for i in range(14))  # 1 … 8192
LENGTHS = tuple(2**i for i in range(7, 15))  # 128 … 16384
BATCHES = (1, 8, 32, 64, 128, 256)
CONTEXTS = (128, 512, 2048, 8192, 32768)
REDUCE_BYTES = (*(2**i for i in range(13, 28, 3)), 2**28)  # 8 KiB … 256 MiB


@dataclass(frozen=True, slots=True)
class RankShape:
    """One tensor-parallel rank of a model: its heads, and n and k of the products of a layer."""

    heads: int
    kv_heads: int
    head_dim: int
    products: dict[Gemm, tuple[int, int]]


def rank_shape(shape: ModelShape, tp: int) -> RankShape:
    """What one of `tp` ranks computes: columns of qkv, gate_up and lm_head are split, rows of o and down.

    Raises:
        InputError: heads, KV heads or the MLP cannot be split so; or layers are mixtures of experts or have latent
            attention, whose products are others.
    """
    for name in ("experts", "kv_lora_rank"):
        if getattr(shape, name, None):
            problem = f"is {getattr(shape, name)}: its products are not those of a dense layer"
            raise InputError(problem, expected="a dense model with grouped query attention", field=name)
    for name, size in (("heads", shape.heads), ("intermediate_size", shape.intermediate_size)):
        if size % tp:
            raise InputError(f"{tp} does not divide {name} {size}", expected="a TP size that does", field="tp")
    heads, kv_heads = shape.heads // tp, len(heads_of_rank(shape.kv_heads, tp, 0))
    hidden, inner = shape.hidden_size, shape.intermediate_size // tp
    return RankShape(
        heads,
        kv_heads,
        shape.head_dim,
        {
            "qkv": ((heads + 2 * kv_heads) * shape.head_dim, hidden),
            "o": (hidden, heads * shape.head_dim),
            "gate_up": (2 * inner, hidden),
            "down": (hidden, inner),
            # vLLM pads the vocabulary to a multiple of 64 before it is split.
            "lm_head": (math.ceil(shape.vocab_size / 64) * 64 // tp, hidden),
        },
    )


def coarse_first(values: Sequence[T]) -> list[T]:
    """The ends, then the middle, then the middles between: cut anywhere, what is left covers the range."""
    order = [0, len(values) - 1] if len(values) > 1 else list(range(len(values)))
    gaps = [(0, len(values) - 1)]
    while gaps:
        low, high = gaps.pop(0)
        if high - low > 1:
            middle = (low + high) // 2
            order.append(middle)
            gaps += [(low, middle), (middle, high)]
    return [values[i] for i in order]


def decode_points(
    kv_bytes_per_token: float, memory_bytes: float, batches: Sequence[int] = BATCHES, contexts: Sequence[int] = CONTEXTS
) -> list[tuple[int, int]]:
    """(batch, context) whose keys and values of one layer fit in `memory_bytes`, the corners of the grid first."""
    grid = [(b, c) for b in coarse_first(batches) for c in coarse_first(contexts)]
    fits = [(b, c) for b, c in grid if b * c * kv_bytes_per_token <= memory_bytes]
    # Corners in both directions come first: sort by the later of the two ranks.
    rank_b = {b: i for i, b in enumerate(coarse_first(batches))}
    rank_c = {c: i for i, c in enumerate(coarse_first(contexts))}
    return sorted(fits, key=lambda p: (max(rank_b[p[0]], rank_c[p[1]]), rank_b[p[0]], rank_c[p[1]]))


@dataclass(slots=True)
class Budget:
    """Seconds that may be spent, and what was left out when they were.

    Attributes:
        seconds: allowed.
        clock: seconds that only grow.
        skipped: what `allows` refused, and what else was left out.
    """

    seconds: float
    clock: Callable[[], float] = time.monotonic
    skipped: list[str] = field(default_factory=list)
    _start: float = field(init=False)

    def __post_init__(self) -> None:
        self._start = self.clock()

    @property
    def spent(self) -> float:
        """Seconds since the start."""
        return self.clock() - self._start

    @property
    def left(self) -> float:
        """Seconds that remain; not below 0."""
        return max(0.0, self.seconds - self.spent)

    def part(self, share: float) -> float:
        """The second at which a part ends that may take this share of what is left now."""
        return self.spent + share * self.left

    def allows(self, what: str, until: float | None = None) -> bool:
        """Whether there is time for it; what is refused is noted.

        Args:
            what: it is, for the note.
            until: end of its part (`part`); None is the end of all.
        """
        if self.spent < (self.seconds if until is None else until):
            return True
        self.skipped.append(f"{what}: its share of {self.seconds:g} s was spent")
        return False
