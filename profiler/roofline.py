"""Speed of light of prefill and decode: the least time that arithmetic and memory allow.

After Williams, Waterman and Patterson, "Roofline" (CACM 52(4), 2009), for a decoder-only transformer with gated MLPs.
With P the weights of all layers, L layers, h heads of size d and TP ranks:

    prefill(n)      = max(2 P n / peak, weight bytes / bandwidth) + 2 L h d n^2 / peak
    decode(b, kv)   = max(2 (P + head) b / peak, weight bytes / bandwidth) + kv bytes * kv / bandwidth

In a mixture of experts a token is computed by its active weights only, and a step of b tokens reads the experts that
any of them goes to (`profiler.models.params.touched_experts`). In multi-head latent attention decode attends in the
latent space (DeepSeek-AI 2024, arXiv 2405.04434, section 2.1.2): every head reads the same few bytes, so its arithmetic
may take longer than its reading.

Both grow with each argument, never fall. Nothing real reaches them: they give the shape beyond what was
measured, and a floor, never a prediction by themselves.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import ArrayLike, NDArray

from profiler.hardware import Gpu, find_gpu
from profiler.models.params import (
    active_routed_params,
    embedding_bytes,
    expert_params,
    head_params,
    is_latent,
    kv_bytes_per_token,
    kv_ranks,
    layer_params,
    moe_layers,
    qk_dim,
    split_params,
    touched_experts,
    v_dim,
    weight_bytes,
    weight_bytes_per_gpu,
)
from profiler.schema import ModelShape, ProfileMeta

__all__ = ["Roofline", "kv_bytes_per_token", "layer_params", "weight_bytes"]


@dataclass(frozen=True)
class Roofline:
    """Speed of light of one worker.

    Attributes:
        shape: the model.
        gpu: one of its GPUs.
        peak: FLOP/s of one GPU in the model's number format.
        tp: GPUs that share each layer.
        dp: ranks that share the requests; each holds all weights but its share of routed experts.
    """

    shape: ModelShape
    gpu: Gpu
    peak: float
    tp: int = 1
    dp: int = 1

    @classmethod
    def of(cls, meta: ProfileMeta) -> Roofline | None:
        """The roofline of a profile's worker; None when the shape or the GPU is not known."""
        gpu = find_gpu(meta.gpu.name)
        if meta.model.shape is None or gpu is None:
            return None
        return cls(meta.model.shape, gpu, gpu.peak_for(meta.model.dtype), meta.tp, meta.dp)

    @cached_property
    def _always(self) -> float:
        """Weights of the layers that every token goes through."""
        return sum(split_params(self.shape))

    @cached_property
    def _always_ms(self) -> float:
        """Milliseconds to read the weights that every step touches: the layers without routed experts, and the head."""
        head = head_params(self.shape) * embedding_bytes(self.shape)
        touched = self._always * self.shape.weight_bytes_per_param + head
        return 1e3 * touched / self.tp / self.gpu.bandwidth

    @property
    def weights_ms(self) -> float:
        """Milliseconds to read the weights that a step of one token touches (layers and output head) once."""
        return float(self._weights_ms(1.0))

    def _weights_ms(self, tokens: ArrayLike) -> NDArray[np.float64]:
        experts = touched_experts(self.shape, tokens) * moe_layers(self.shape) * expert_params(self.shape)
        read = 1e3 * experts * self.shape.weight_bytes_per_param / (self.tp * self.dp) / self.gpu.bandwidth
        total: NDArray[np.float64] = self._always_ms + read
        return total

    @property
    def kv_ms_per_token(self) -> float:
        """Milliseconds to read keys and values of one token; KV heads are copied where TP exceeds them."""
        shape = self.shape
        split = kv_ranks(shape, self.tp) * self.dp
        read = 1e3 * kv_bytes_per_token(shape) / split / self.gpu.bandwidth
        if not is_latent(shape):
            return read
        latent = (shape.kv_lora_rank or 0) * 2 + (shape.qk_rope_head_dim or 0)  # scores, then values, in the latent
        compute = 2e3 * shape.layers * shape.heads * latent / (self.tp * self.dp) / self.peak
        return max(read, compute)

    def prefill_ms(self, isl: ArrayLike) -> NDArray[np.float64]:
        """Least milliseconds for one prompt of `isl` tokens (any shape; below 0 counts as 0)."""
        n = np.maximum(np.asarray(isl, dtype=np.float64), 0.0)
        # One DP rank computes the prompt; its experts lie on all of them.
        params = self._always / self.tp + active_routed_params(self.shape) / (self.tp * self.dp)
        linear = 2e3 * params * n / self.peak
        # Causal: token i attends to i tokens, so n^2/2 pairs; 2 FLOP a pair and element (scores, then values).
        pairs = 1e3 * self.shape.layers * self.shape.heads * (qk_dim(self.shape) + v_dim(self.shape)) * n * n
        return np.maximum(linear, self._weights_ms(n)) + pairs / self.tp / self.peak

    def step_ms(self, batch: ArrayLike) -> NDArray[np.float64]:
        """The part of a decode step that context does not change: weights or arithmetic, the longer."""
        b = np.maximum(np.asarray(batch, dtype=np.float64), 0.0)
        params = self._always + active_routed_params(self.shape) + head_params(self.shape)
        compute = 2e3 * params * b / (self.tp * self.dp) / self.peak
        return np.maximum(compute, self._weights_ms(b))

    def decode_ms(self, batch: ArrayLike, kv_tokens: ArrayLike) -> NDArray[np.float64]:
        """Least milliseconds of one decode step; `batch` and `kv_tokens` of the whole worker, broadcast."""
        kv = np.maximum(np.asarray(kv_tokens, dtype=np.float64), 0.0)
        result: NDArray[np.float64] = self.step_ms(batch) + self.kv_ms_per_token * kv
        return result

    def kv_capacity_that_fits(self, utilization: float = 0.9) -> float:
        """Tokens of KV cache that fit beside the weights of one worker (all DP ranks), activations left out.

        Args:
            utilization: share of the memory that the engine may take (vLLM's `gpu_memory_utilization`; 0.9 was its
                default for long, `profiler.models.memory` has today's).
        """
        held = weight_bytes_per_gpu(self.shape, self.tp, self.dp)
        per_gpu = self.gpu.memory_gib * 2**30 * utilization - held
        per_token = kv_bytes_per_token(self.shape) / kv_ranks(self.shape, self.tp)
        return max(per_gpu, 0.0) / per_token * self.dp
