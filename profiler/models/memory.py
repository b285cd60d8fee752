"""What fits in a GPU's memory: weights, what a step needs in between, and the KV cache in the rest.

As vLLM divides it: of the memory that the driver shows it takes `gpu_memory_utilization`, loads the weights, runs the
largest step once, and gives what is left to the KV cache. The first and the last follow from sizes; the step in between
is estimated, and calibrated on two measurements.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

from profiler.errors import InputError
from profiler.hardware import Gpu
from profiler.models.config import ModelConfig
from profiler.models.params import kv_bytes_per_token, kv_ranks, moe_layers, weight_bytes_per_gpu
from profiler.schema import ModelShape

GIB = 2**30

#: vLLM's default for `gpu_memory_utilization` (vllm/config/cache.py).
DEFAULT_UTILIZATION = 0.92

#: vLLM's default for `max_num_batched_tokens` of its API server on GPUs of 70 GiB and more: the largest step.
DEFAULT_BATCHED_TOKENS = 8192

#: vLLM's default block on GPUs; a capacity is a whole number of them.
BLOCK_TOKENS = 16

#: What the engine holds on each GPU beside weights, KV cache and the largest step's activations: CUDA context, graphs,
#: libraries' workspaces, and the part of the memory that nvidia-smi counts and CUDA does not give (0.5 GiB on an H100).
#: Set so that Llama-3.1-8B in bfloat16 with TP 1, all defaults, comes out between what vLLM 0.26 reported: 462,831
#: tokens of KV cache on an H100 80GB (1.00 GiB beside the activations) and 919,601 on an H200 (1.17 GiB).
FIXED_RESERVE_GIB = 1.08

#: An engine's capacity outside these shares of the estimate is a contradiction: another model, number format, GPU or
#: setting than was said. Within them lie settings that are not known here, such as graph sizes or a GPU that is shared.
LEAST_OF_ESTIMATE = 0.7
MOST_OF_ESTIMATE = 1.3


class Ranks(Protocol):
    """How a worker's GPUs divide a model."""

    @property
    def tp(self) -> int:
        """GPUs that share each layer."""

    @property
    def dp(self) -> int:
        """Ranks that share the requests."""


@dataclass(frozen=True, slots=True)
class Fit:
    """Memory of one GPU of a worker.

    Attributes:
        budget_bytes: that the engine may take.
        weights_bytes: of the weights that it holds.
        reserve_bytes: activations of the largest step and what else the engine holds.
        kv_tokens_per_rank: tokens of KV cache of one data-parallel rank; one request has to fit in it. Whole blocks.
    """

    budget_bytes: float
    weights_bytes: float
    reserve_bytes: float
    kv_tokens_per_rank: int


def activation_bytes(shape: ModelShape, tp: int, tokens: int = DEFAULT_BATCHED_TOKENS) -> float:
    """Largest live activations of a step of `tokens` tokens, in 16 bits: hidden states and one MLP.

    The residual stream and its copy, and of a gated MLP both halves and their product; of experts the same for every
    token and expert that it goes to, and each expert's output.
    """
    dense = 3 * shape.intermediate_size / tp if shape.layers > moe_layers(shape) else 0.0
    routed = (shape.experts_per_token or 0) * (3 * (shape.moe_intermediate_size or 0) / tp + shape.hidden_size)
    return 2.0 * tokens * (2 * shape.hidden_size + max(dense, routed))


def fit(
    config: ModelConfig,
    gpu: Gpu,
    ranks: Ranks,
    utilization: float = DEFAULT_UTILIZATION,
    max_num_batched_tokens: int = DEFAULT_BATCHED_TOKENS,
) -> Fit:
    """Divide one GPU's memory.

    Args:
        config: the model.
        gpu: each GPU of the worker.
        ranks: TP and DP.
        utilization: vLLM's `gpu_memory_utilization`.
        max_num_batched_tokens: the largest step of one rank.

    Raises:
        InputError: `utilization` is not a share.
    """
    if not 0 < utilization <= 1:
        raise InputError(f"is {utilization:g}", expected="above 0, at most 1", field="gpu-memory-utilization")
    budget = gpu.memory_gib * GIB * utilization
    weights = weight_bytes_per_gpu(config.shape, ranks.tp, ranks.dp)
    reserve = FIXED_RESERVE_GIB * GIB + activation_bytes(config.shape, ranks.tp, max_num_batched_tokens)
    left = max(budget - weights - reserve, 0.0)
    blocks = int(left / kv_bytes_per_gpu(config.shape, ranks) / BLOCK_TOKENS)
    return Fit(budget, weights, reserve, blocks * BLOCK_TOKENS)


def kv_bytes_per_gpu(shape: ModelShape, ranks: Ranks) -> float:
    """Bytes that one token's keys and values take on each GPU of its rank."""
    return kv_bytes_per_token(shape) / kv_ranks(shape, ranks.tp)


def kv_capacity_estimate(config: ModelConfig, gpu: Gpu, layout: Ranks, utilization: float = DEFAULT_UTILIZATION) -> int:
    """Tokens of KV cache of a worker, all its data-parallel ranks together; 0 where the weights do not fit."""
    return fit(config, gpu, layout, utilization).kv_tokens_per_rank * layout.dp


def check_kv_capacity(reported: int, estimate: int) -> str:
    """Compare an engine's capacity with the memory arithmetic.

    Args:
        reported: tokens that the engine says it holds.
        estimate: tokens of `kv_capacity_estimate`.

    Returns:
        How they compare, in words, for a profile's `kv_capacity_check`.

    Raises:
        InputError: they contradict each other.
    """
    bounds = f"{LEAST_OF_ESTIMATE * estimate:,.0f} to {MOST_OF_ESTIMATE * estimate:,.0f} tokens"
    if not LEAST_OF_ESTIMATE * estimate <= reported <= MOST_OF_ESTIMATE * estimate:
        problem = f"the engine reports {reported:,} tokens, memory arithmetic gives about {estimate:,}"
        right = f"{bounds}, or another model, number format, GPU, layout or memory share than was said"
        raise InputError(problem, expected=right, field="kv_capacity_tokens")
    return f"{reported / estimate:.3f} of the {estimate:,} tokens that memory arithmetic gives (accepted: {bounds})"
