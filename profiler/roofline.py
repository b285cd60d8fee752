"""Speed of light of prefill and decode: the least time that arithmetic and memory allow.

After Williams, Waterman and Patterson, "Roofline" (CACM 52(4), 2009), for a dense decoder-only transformer
with grouped query attention and a gated MLP. With P the weights of all layers, L layers, h heads of size d
and TP ranks:

    prefill(n)      = max(2 P n / peak, weight bytes / bandwidth) + 2 L h d n^2 / peak
    decode(b, kv)   = max(2 (P + head) b / peak, weight bytes / bandwidth) + kv bytes * kv / bandwidth

Both grow with each argument, never fall. Nothing real reaches them: they give the shape beyond what was
measured, and a floor, never a prediction by themselves.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from profiler.hardware import Gpu, find_gpu
from profiler.schema import ModelShape, ProfileMeta


def layer_params(shape: ModelShape) -> int:
    """Weights of all layers: attention projections and the three matrices of a gated MLP."""
    attention = shape.hidden_size * shape.head_dim * (2 * shape.heads + 2 * shape.kv_heads)
    return shape.layers * (attention + 3 * shape.hidden_size * shape.intermediate_size)


def weight_bytes(shape: ModelShape) -> float:
    """Bytes of all weights in memory, input and output embeddings included."""
    return (layer_params(shape) + 2 * shape.vocab_size * shape.hidden_size) * shape.weight_bytes_per_param


def kv_bytes_per_token(shape: ModelShape) -> float:
    """Bytes of keys and values of one token over all layers and all TP ranks."""
    return 2 * shape.layers * shape.kv_heads * shape.head_dim * shape.kv_bytes_per_element


@dataclass(frozen=True)
class Roofline:
    """Speed of light of one worker.

    Attributes:
        shape: the model.
        gpu: one of its GPUs.
        peak: FLOP/s of one GPU in the model's number format.
        tp: GPUs that share each layer.
        dp: ranks that share the requests; each holds all weights.
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

    @property
    def _head_params(self) -> int:
        return self.shape.vocab_size * self.shape.hidden_size

    @property
    def weights_ms(self) -> float:
        """Milliseconds to read the weights that one step touches (layers and output head) once."""
        touched = (layer_params(self.shape) + self._head_params) * self.shape.weight_bytes_per_param
        return 1e3 * touched / self.tp / self.gpu.bandwidth

    @property
    def kv_ms_per_token(self) -> float:
        """Milliseconds to read keys and values of one token; KV heads are copied where TP exceeds them."""
        split = min(self.tp, self.shape.kv_heads) * self.dp
        return 1e3 * kv_bytes_per_token(self.shape) / split / self.gpu.bandwidth

    def prefill_ms(self, isl: ArrayLike) -> NDArray[np.float64]:
        """Least milliseconds for one prompt of `isl` tokens (any shape; below 0 counts as 0)."""
        n = np.maximum(np.asarray(isl, dtype=np.float64), 0.0)
        linear = 2e3 * layer_params(self.shape) * n / self.tp / self.peak
        # Causal: token i attends to i tokens, so n^2/2 pairs; 4 d FLOP a pair (scores and values).
        pairs = 2e3 * self.shape.layers * self.shape.heads * self.shape.head_dim * n * n
        return np.maximum(linear, self.weights_ms) + pairs / self.tp / self.peak

    def step_ms(self, batch: ArrayLike) -> NDArray[np.float64]:
        """The part of a decode step that context does not change: weights or arithmetic, the longer."""
        b = np.maximum(np.asarray(batch, dtype=np.float64), 0.0) / self.dp
        compute = 2e3 * (layer_params(self.shape) + self._head_params) * b / self.tp / self.peak
        return np.maximum(compute, self.weights_ms)

    def decode_ms(self, batch: ArrayLike, kv_tokens: ArrayLike) -> NDArray[np.float64]:
        """Least milliseconds of one decode step; `batch` and `kv_tokens` of the whole worker, broadcast."""
        kv = np.maximum(np.asarray(kv_tokens, dtype=np.float64), 0.0)
        result: NDArray[np.float64] = self.step_ms(batch) + self.kv_ms_per_token * kv
        return result

    def kv_capacity_that_fits(self, utilization: float = 0.9) -> float:
        """Tokens of KV cache that fit beside the weights of one worker (all DP ranks), activations left out.

        Args:
            utilization: share of the memory that the engine may take (vLLM's `gpu_memory_utilization`, 0.9).
        """
        per_gpu = self.gpu.memory_gib * 2**30 * utilization - weight_bytes(self.shape) / self.tp
        per_token = kv_bytes_per_token(self.shape) / min(self.tp, self.shape.kv_heads)
        return max(per_gpu, 0.0) / per_token * self.dp
