"""Iteration times put together from the parts of a layer; no torch.

    prefill(n)   = layers * (products(n) + attention(n) + small(n) + 2 reduce(n)) + head(1)
    decode(b, c) = layers * (products(b) + attention(b, c) + small(b) + 2 reduce(b)) + head(b)

`products` are qkv, o, gate_up and down on one rank; `small` are norms, rotation, activation and the write to the cache,
which read and write memory and no more, each of them at least a kernel; `reduce` is the all-reduce after o and after
down. A prompt longer than what an engine takes in one step is computed in chunks.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray

from profiler.errors import InputError
from profiler.kernels.micro import Gemm, Micro, line_through
from profiler.kernels.plan import RankShape, rank_shape

#: Tokens that an engine computes in one step, vLLM's default on GPUs of 80 GB and more.
CHUNK_TOKENS = 8192
#: Kernels of a layer that are neither a product nor attention: two norms, rotation, cache write, activation.
SMALL_KERNELS = 5
#: Up to so many bytes vLLM reduces between GPUs of one host by a kernel of its own, which waits for the other ranks and
#: reads their memory (`CustomAllreduce`); NCCL takes several times as long for as little. Its wait is what a step of
#: Llama-3.1-8B on two H200 took beyond its other kernels (3.46 ms, 64 all-reduces); on more ranks it is a guess.
OWN_REDUCE_BYTES, OWN_REDUCE_MS = 8 << 20, 0.005
_LAYER: tuple[Gemm, ...] = ("qkv", "o", "gate_up", "down")


class Parts:
    """Times of a rank's kernels, put together from micro-benchmarks.

    Args:
        micro: measured; its model and TP size count.

    Raises:
        InputError: a product, attention or all-reduce was not measured at all; or the model is not a dense one.
    """

    def __init__(self, micro: Micro) -> None:
        self._micro, self._shape = micro, micro.shape
        self._rank: RankShape = rank_shape(micro.shape, micro.tp)
        for name, (n, k) in self._rank.products.items():
            points = [p for p in micro.gemm if p.name == name]
            if not points:
                raise InputError(f"product {name} was not measured", expected="one or more sizes", field="gemm")
            if any((p.n, p.k) != (n, k) for p in points):
                wrong = next((p.n, p.k) for p in points if (p.n, p.k) != (n, k))
                raise InputError(
                    f"product {name} has n, k {wrong}", expected=f"{(n, k)} at TP {micro.tp}", field="gemm"
                )
        for field in ("prefill", "decode"):
            if not getattr(micro, field):
                raise InputError("attention was not measured", expected="one or more sizes", field=field)
        if micro.tp > 1 and not any(p.ranks == micro.tp for p in micro.all_reduce):
            problem = f"not measured between {micro.tp} ranks"
            raise InputError(problem, expected=f"a run with --tp {micro.tp}", field="all_reduce")

    def products_ms(self, tokens: ArrayLike) -> NDArray[np.float64]:
        """The four products of one layer."""
        return np.asarray(sum(self.product_ms(name, tokens) for name in _LAYER))

    def product_ms(self, name: Gemm, tokens: ArrayLike) -> NDArray[np.float64]:
        """One product of `tokens` rows."""
        points = sorted((p.m, p.time.median_ms) for p in self._micro.gemm if p.name == name)
        return line_through(tokens, *zip(*points, strict=True))

    def small_ms(self, tokens: ArrayLike) -> NDArray[np.float64]:
        """The other kernels of one layer: bytes that they move over the memory's bandwidth, or as many launches.

        A norm reads and writes residual and activations (4 hidden sizes, twice), the activation reads two halves and
        writes one, rotation and cache write read and write queries, keys and values.
        """
        rank, shape = self._rank, self._shape
        inner = shape.intermediate_size // self._micro.tp
        qkv = (rank.heads + 2 * rank.kv_heads) * rank.head_dim
        elements = 2 * 4 * shape.hidden_size + 3 * inner + 2 * qkv
        moved = np.asarray(tokens, dtype=np.float64) * elements * 2  # activations in 16 bits
        return np.asarray(np.maximum(moved / self._micro.memory_gb_per_s / 1e6, SMALL_KERNELS * self._micro.launch_ms))

    def reduce_ms(self, tokens: ArrayLike) -> NDArray[np.float64]:
        """One all-reduce of `tokens` activations in 16 bits; 0 on one rank."""
        where = np.asarray(tokens, dtype=np.float64)
        if self._micro.tp == 1:
            return np.zeros_like(where)
        points = sorted((p.bytes, p.time.median_ms) for p in self._micro.all_reduce if p.ranks == self._micro.tp)
        size = where * self._shape.hidden_size * 2
        nccl = line_through(size, *zip(*points, strict=True))
        largest, longest = points[-1]
        own = OWN_REDUCE_MS + size * longest / largest
        return np.asarray(np.where(size <= OWN_REDUCE_BYTES, np.minimum(nccl, own), nccl))

    def prefill_attention_ms(self, tokens: ArrayLike) -> NDArray[np.float64]:
        """Causal attention of one layer; beyond the longest measured prompt it grows with the square."""
        points = sorted((p.tokens, p.time.median_ms) for p in self._micro.prefill)
        lengths, times = (np.array(column, dtype=np.float64) for column in zip(*points, strict=True))
        where = np.asarray(tokens, dtype=np.float64)
        beyond = np.maximum(where / lengths[-1], 1.0)
        # Per token, attention is nearly a straight line in the length; between points that is what is interpolated.
        per_token = np.interp(where, lengths, times / lengths) * beyond
        return np.asarray(np.maximum(per_token * where, times[0] * (where < lengths[0])))

    def layer_ms(self, tokens: ArrayLike) -> NDArray[np.float64]:
        """One layer without attention."""
        return np.asarray(self.products_ms(tokens) + self.small_ms(tokens) + 2 * self.reduce_ms(tokens))

    def prefill_ms(self, tokens: ArrayLike) -> NDArray[np.float64]:
        """All kernels of a lone prompt, in chunks of at most `CHUNK_TOKENS`."""
        where = np.asarray(tokens, dtype=np.float64)
        whole = np.floor(where / CHUNK_TOKENS)
        rest = where - whole * CHUNK_TOKENS
        linear = whole * self.layer_ms(CHUNK_TOKENS) + np.where(rest > 0, self.layer_ms(rest), 0.0)
        return np.asarray(
            self._shape.layers * (linear + self.prefill_attention_ms(where)) + self.product_ms("lm_head", 1)
        )

    def decode_attention_ms(self, batch: ArrayLike, context: ArrayLike) -> NDArray[np.float64]:
        """Decode attention of one layer: along the context at each measured batch, then between batches."""
        batches = sorted({p.batch for p in self._micro.decode})
        b, c = np.broadcast_arrays(np.asarray(batch, dtype=np.float64), np.asarray(context, dtype=np.float64))
        along = []
        for one in batches:
            points = sorted((p.context, p.time.median_ms) for p in self._micro.decode if p.batch == one)
            along.append(line_through(c, *zip(*points, strict=True)))
        stacked = np.array(along).reshape(len(batches), -1)
        times = [line_through(at, batches, column) for at, column in zip(b.ravel(), stacked.T, strict=True)]
        # The proxy reads 16-bit keys and values; an 8-bit cache is half the bytes.
        element = min(2.0, self._shape.kv_bytes_per_element) / 2.0
        return np.array(times, dtype=np.float64).reshape(b.shape) * element

    def decode_ms(self, batch: ArrayLike, context: ArrayLike) -> NDArray[np.float64]:
        """All kernels of a decode step of `batch` requests that hold `context` tokens each (broadcast)."""
        layer = self.layer_ms(batch) + self.decode_attention_ms(batch, context)
        return np.asarray(self._shape.layers * layer + self.product_ms("lm_head", batch))
