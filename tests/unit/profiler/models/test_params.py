"""Weights, active weights and KV bytes against what publishers and papers state, and by hand."""

import numpy as np
import pytest

from profiler.models.catalog import MODELS, find_model
from profiler.models.params import (
    active_params,
    head_params,
    kv_bytes_per_token,
    kv_ranks,
    layer_params,
    total_params,
    touched_experts,
    weight_bytes,
    weight_bytes_per_gpu,
)

# Billions of weights as the publishers' model cards say.
PUBLISHED = {
    "llama-3.1-8b": 8.03, "llama-3.1-70b": 70.6, "qwen3-8b": 8.19, "qwen3-32b": 32.8, "qwen3-30b-a3b": 30.5,
    "mistral-7b-v0.3": 7.25, "deepseek-v2-lite": 15.7,
}  # fmt: skip


@pytest.mark.parametrize("name", PUBLISHED)
def test_total_as_published(name: str) -> None:
    assert total_params(find_model(name).shape) / 1e9 == pytest.approx(PUBLISHED[name], rel=0.002)


def test_every_model_has_a_published_size() -> None:
    assert len(PUBLISHED) == len(MODELS)


def test_active_weights_as_published() -> None:
    qwen = find_model("qwen3-30b-a3b").shape
    assert active_params(qwen) / 1e9 == pytest.approx(3.3, rel=0.02)
    lite = find_model("deepseek-v2-lite").shape
    # DeepSeek's 2.4B leave the input embedding out.
    assert (active_params(lite) - head_params(lite)) / 1e9 == pytest.approx(2.4, rel=0.025)
    dense = find_model("llama-3.1-8b").shape
    assert active_params(dense) == total_params(dense)


def test_kv_of_a_token() -> None:
    assert kv_bytes_per_token(find_model("llama-3.1-8b").shape) == 128 * 1024
    assert kv_bytes_per_token(find_model("llama-3.1-70b").shape) == 320 * 1024
    # 27 layers of a latent of 512 and a rotary key of 64, for all heads together.
    assert kv_bytes_per_token(find_model("deepseek-v2-lite").shape) == 27 * 576 * 2


def test_tied_embeddings_count_once() -> None:
    shape = find_model("qwen3-8b").shape
    tied = shape.model_copy(update={"tied_embeddings": True})
    assert total_params(shape) - total_params(tied) == 151936 * 4096
    assert layer_params(shape) == layer_params(tied)


def test_quantised_layers_keep_wide_embeddings() -> None:
    shape = find_model("llama-3.1-8b", dtype="fp8").shape
    assert weight_bytes(shape) == layer_params(shape) + 2 * 2 * 128256 * 4096
    assert kv_bytes_per_token(shape) == 128 * 1024


def test_tp_splits_and_copies() -> None:
    shape = find_model("llama-3.1-8b").shape
    assert weight_bytes_per_gpu(shape) == weight_bytes(shape)
    assert weight_bytes_per_gpu(shape, tp=8) * 8 == pytest.approx(weight_bytes(shape))
    # 16 ranks, 8 KV heads: K and V projections (2 * 4096 * 1024 * 32 weights of 2 bytes) are there twice.
    assert weight_bytes_per_gpu(shape, tp=16) * 16 - weight_bytes(shape) == pytest.approx(2 * 4096 * 1024 * 32 * 2)
    assert [kv_ranks(shape, tp) for tp in (1, 8, 16)] == [1, 8, 8]


def test_experts_lie_on_all_ranks_and_the_rest_on_each_dp_rank() -> None:
    shape = find_model("qwen3-30b-a3b").shape
    routed = 48 * 128 * 3 * 2048 * 768 * 2
    assert weight_bytes_per_gpu(shape, tp=1, dp=4) == weight_bytes(shape) - routed * 3 / 4
    router = 48 * 2048 * 128 * 2
    assert weight_bytes_per_gpu(shape, tp=4) * 4 == pytest.approx(weight_bytes(shape) + 3 * router)


def test_latent_is_copied_to_every_rank() -> None:
    shape = find_model("deepseek-v2-lite").shape
    assert [kv_ranks(shape, tp) for tp in (1, 2, 8)] == [1, 1, 1]
    copied = 27 * 2048 * (512 + 64) + 26 * 2048 * 64  # down-projections and routers
    assert weight_bytes_per_gpu(shape, tp=2) * 2 - weight_bytes(shape) == pytest.approx(copied * 2)


def test_experts_touched_by_a_step() -> None:
    shape = find_model("qwen3-30b-a3b").shape
    touched = touched_experts(shape, [0, 1, 2, 1e6])
    assert touched == pytest.approx([0, 8, 8 + 8 * (1 - 8 / 128), 128])
    assert (np.diff(touched_experts(shape, np.arange(500))) >= 0).all()
    assert (touched_experts(find_model("qwen3-8b").shape, [1, 100]) == 0).all()
