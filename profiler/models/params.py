"""How many weights a model has, how many of them a step touches, and what a token's keys and values take.

Grouped query attention: Ainslie et al. 2023 (arXiv 2305.13245). Gated MLP, three matrices: Shazeer 2020 (2002.05202).
Mixture of experts with shared experts: Dai et al. 2024 (2401.06066). Multi-head latent attention: DeepSeek-AI 2024
(2405.04434, section 2.1): a token leaves kv_lora_rank + qk_rope_head_dim numbers in the cache, for all heads together.
Norms, biases and the routers' corrections are left out: below 0.01 % of all weights.

Which ranks hold what follows vLLM: TP splits heads, MLPs and the vocabulary, copies KV heads where there are fewer than
ranks, and copies latent attention's down-projections and the router; experts are split over all TP x DP ranks, whether
by slices (no expert parallelism) or whole (with it).
"""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray

from profiler.schema import ModelShape


def is_latent(shape: ModelShape) -> bool:
    """Whether attention is multi-head latent attention."""
    return shape.kv_lora_rank is not None


def moe_layers(shape: ModelShape) -> int:
    """Layers that have experts."""
    return 0 if shape.experts is None else shape.layers - shape.dense_layers


def expert_params(shape: ModelShape) -> int:
    """Weights of one routed expert of one layer; 0 in a dense model."""
    return 3 * shape.hidden_size * (shape.moe_intermediate_size or 0)


def routed_params(shape: ModelShape) -> int:
    """Weights of all routed experts of all layers."""
    return moe_layers(shape) * (shape.experts or 0) * expert_params(shape)


def active_routed_params(shape: ModelShape) -> int:
    """Weights of the routed experts that one token goes through, over all layers."""
    return moe_layers(shape) * (shape.experts_per_token or 0) * expert_params(shape)


def qk_dim(shape: ModelShape) -> int:
    """Size of one head's queries and keys."""
    if is_latent(shape):
        return (shape.qk_nope_head_dim or 0) + (shape.qk_rope_head_dim or 0)
    return shape.head_dim


def v_dim(shape: ModelShape) -> int:
    """Size of one head's values."""
    return shape.v_head_dim or shape.head_dim


def split_params(shape: ModelShape, tp: int = 1) -> tuple[float, float]:
    """Weights of all layers but the routed experts, on one of `tp` ranks.

    Returns:
        Those that ranks share, and those that every rank has a copy of. A KV head that several ranks copy, since there
        are fewer of them than ranks, is among the first: each rank then has one whole head.
    """
    h = shape.hidden_size
    dense = shape.layers - moe_layers(shape)
    mlp = 3 * h * (dense * shape.intermediate_size + moe_layers(shape) * (shape.shared_expert_size or 0))
    router = moe_layers(shape) * h * (shape.experts or 0)
    if not is_latent(shape):
        own = h * shape.head_dim * (2 * shape.heads / tp + 2 * shape.kv_heads / min(tp, shape.kv_heads))
        return shape.layers * own + mlp / tp, router
    latent, rope = shape.kv_lora_rank or 0, shape.qk_rope_head_dim or 0
    query = (shape.q_lora_rank or h) * shape.heads * qk_dim(shape)
    up = latent * shape.heads * ((shape.qk_nope_head_dim or 0) + v_dim(shape))
    out = shape.heads * v_dim(shape) * h
    down = h * (latent + rope + (shape.q_lora_rank or 0))
    return (shape.layers * (query + up + out) + mlp) / tp, router + shape.layers * down


def layer_params(shape: ModelShape) -> int:
    """Weights of all layers, all experts included."""
    return round(sum(split_params(shape))) + routed_params(shape)


def active_layer_params(shape: ModelShape) -> int:
    """Weights of all layers that one token goes through; all of them in a dense model."""
    return round(sum(split_params(shape))) + active_routed_params(shape)


def embedding_params(shape: ModelShape) -> int:
    """Weights of the input embedding, and of the output head where it is another matrix."""
    return (1 if shape.tied_embeddings else 2) * head_params(shape)


def head_params(shape: ModelShape) -> int:
    """Weights of the output head, tied or not."""
    return shape.vocab_size * shape.hidden_size


def total_params(shape: ModelShape) -> int:
    """Weights of the whole model, as its publisher counts them."""
    return layer_params(shape) + embedding_params(shape)


def active_params(shape: ModelShape) -> int:
    """Weights that one token goes through, embeddings included, as publishers count a mixture's active ones."""
    return active_layer_params(shape) + embedding_params(shape)


def embedding_bytes(shape: ModelShape) -> float:
    """Bytes of one weight of the embeddings."""
    return shape.embedding_bytes_per_param or shape.weight_bytes_per_param


def weight_bytes(shape: ModelShape) -> float:
    """Bytes of all weights, input and output embeddings included, each counted once."""
    return layer_params(shape) * shape.weight_bytes_per_param + embedding_params(shape) * embedding_bytes(shape)


def weight_bytes_per_gpu(shape: ModelShape, tp: int = 1, dp: int = 1) -> float:
    """Bytes of weights that one GPU of a worker holds, copies among ranks included."""
    own, copied = split_params(shape, tp)
    layers = own + copied + routed_params(shape) / (tp * dp)
    return layers * shape.weight_bytes_per_param + embedding_params(shape) / tp * embedding_bytes(shape)


def touched_experts(shape: ModelShape, tokens: ArrayLike) -> NDArray[np.float64]:
    """Experts of a layer that at least one of `tokens` tokens goes to, expected: E (1 - (1 - k/E)^n).

    Each token picks k of E experts; that they are picked evenly and independently of other tokens is the assumption.
    Real routing is more concentrated, so that fewer are touched.

    Args:
        shape: the model; dense models touch 0.
        tokens: of one step (any shape).
    """
    n = np.asarray(tokens, dtype=np.float64)
    if shape.experts is None or shape.experts_per_token is None:
        return np.zeros_like(n)
    missed = 1 - shape.experts_per_token / shape.experts
    touched: NDArray[np.float64] = shape.experts * (1 - np.power(missed, n))
    return touched


def kv_bytes_per_token(shape: ModelShape) -> float:
    """Bytes of keys and values of one token over all layers; a copy on several TP ranks counts once."""
    if is_latent(shape):
        per_layer = (shape.kv_lora_rank or 0) + (shape.qk_rope_head_dim or 0)
    else:
        per_layer = 2 * shape.kv_heads * shape.head_dim
    return shape.layers * per_layer * shape.kv_bytes_per_element


def kv_ranks(shape: ModelShape, tp: int) -> int:
    """TP ranks that share a token's keys and values; further ranks hold copies, and of a latent all do."""
    return 1 if is_latent(shape) else min(tp, shape.kv_heads)
