"""Attention of one layer on one rank: causal prefill, and decode as a proxy for how fast keys and values are read.

Both go through `scaled_dot_product_attention`, decode also through two batched products; each point is taken in every
way that runs here and keeps the fastest, by name. Engines have kernels of their own over paged blocks. Prefill is close
to theirs (cuDNN's is built for the same tensor cores); decode is a proxy, bound by reading the cache as theirs is.
"""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import nullcontext
from functools import partial

import torch
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.nn.functional import scaled_dot_product_attention

from profiler.errors import DependencyError
from profiler.kernels.clock import Call, Clock
from profiler.kernels.micro import DecodePoint, PrefillPoint, Timed
from profiler.kernels.plan import RankShape

_BACKENDS = {
    "flash": SDPBackend.FLASH_ATTENTION,
    "cudnn": SDPBackend.CUDNN_ATTENTION,
    "efficient": SDPBackend.EFFICIENT_ATTENTION,
}


class Attention:
    """Attention at one rank's heads.

    Args:
        clock: times the calls.
        rank: heads of the rank.
        dtype: of queries, keys and values; a cache in 8 bits is read at half the bytes, which the estimate scales for.
    """

    def __init__(self, clock: Clock, rank: RankShape, dtype: torch.dtype) -> None:
        self._clock, self._rank, self._dtype = clock, rank, dtype
        self._refused: set[tuple[str, str]] = set()

    def prefill(self, tokens: int) -> PrefillPoint:
        """Causal attention of one prompt of `tokens`."""
        rank = self._rank
        query = self._random(1, rank.heads, tokens)
        key, value = self._random(1, rank.kv_heads, tokens), self._random(1, rank.kv_heads, tokens)

        def call() -> object:
            return scaled_dot_product_attention(query, key, value, is_causal=True, enable_gqa=True)

        backend, time = self._fastest({"flash": [call], "cudnn": [call]}, f"prefill {tokens}")
        return PrefillPoint(tokens=tokens, backend=backend, time=time)

    def decode(self, batch: int, context: int) -> DecodePoint:
        """One new token each of `batch` requests that hold `context` tokens.

        The queries of one KV head's group go in as rows of one head: without a mask that is the same function, and it
        reads keys and values once for the whole group, as engines do.
        """
        rank = self._rank
        group = rank.heads // rank.kv_heads
        size = 2 * batch * context * rank.kv_heads * rank.head_dim * self._dtype.itemsize
        fused: list[Call] = []
        plain: list[Call] = []
        for _ in range(self._clock.copies(size, most=16)):
            query = self._random(batch, rank.kv_heads, group)
            key, value = (self._random(batch, rank.kv_heads, context) for _ in range(2))
            fused.append(partial(scaled_dot_product_attention, query, key, value))
            plain.append(partial(products, query, key, value))
        what = f"decode {batch} x {context}"
        backend, time = self._fastest({"flash": fused, "efficient": fused, "products": plain}, what)
        return DecodePoint(batch=batch, context=context, backend=backend, time=time)

    def _random(self, batch: int, heads: int, tokens: int) -> torch.Tensor:
        shape = (batch, heads, tokens, self._rank.head_dim)
        return torch.randn(shape, device=self._clock.device, dtype=self._dtype)

    def _fastest(self, ways: Mapping[str, list[Call]], what: str) -> tuple[str, Timed]:
        if not self._clock.on_gpu:
            timed = {name: self._clock.measure(ways[name], what) for name in ("flash", "products") if name in ways}
            name = min(timed, key=lambda one: timed[one].median_ms)
            return "cpu" if name == "flash" else name, timed[name]
        kind = what.partition(" ")[0]
        taken: list[tuple[str, Timed]] = []
        for name, calls in ways.items():
            if (kind, name) in self._refused:
                continue
            try:
                with sdpa_kernel(_BACKENDS[name]) if name in _BACKENDS else nullcontext():
                    taken.append((name, self._clock.measure(calls, f"{what} {name}")))
            except RuntimeError as error:  # also out of memory: this backend has no kernel for these sizes
                if isinstance(error, torch.cuda.OutOfMemoryError):
                    raise
                torch.cuda.synchronize(self._clock.device)
                self._refused.add((kind, name))
                self._clock.notes.append(f"{what}: no {name} ({str(error).splitlines()[0][:120]})")
        if not taken:
            raise DependencyError(f"{what}: no backend of scaled_dot_product_attention runs here")
        return min(taken, key=lambda pair: pair[1].median_ms)


def products(query: torch.Tensor, key: torch.Tensor, value: torch.Tensor) -> torch.Tensor:
    """Attention without a mask as two batched products: with few queries these read keys and values at memory's pace.

    Torch's own "math" backend widens to 32 bits first, which no engine does.
    """
    scores = torch.matmul(query, key.transpose(-2, -1)) * query.shape[-1] ** -0.5
    return torch.matmul(torch.softmax(scores, dim=-1), value)
