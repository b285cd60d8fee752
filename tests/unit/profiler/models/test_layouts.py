"""Layouts: what divides, what fits, and why the rest does not."""

from typing import Any

import pytest

from profiler.errors import InputError
from profiler.hardware import find_gpu
from profiler.models.catalog import config_dict, find_model
from profiler.models.config import ModelConfig, parse_config
from profiler.models.layouts import Layout, candidates
from profiler.models.memory import GIB, check_kv_capacity, fit, kv_capacity_estimate

H100, H200 = find_gpu("h100-sxm"), find_gpu("h200-sxm")
assert H100 is not None
assert H200 is not None
LLAMA = find_model("llama-3.1-8b")


def changed(name: str, **fields: Any) -> ModelConfig:
    return parse_config({**config_dict(name), **fields}, "x")


def why(config: ModelConfig, gpus: int, **options: Any) -> dict[str, str | None]:
    return {layout.name: layout.rejected for layout in candidates(config, "h100-sxm", gpus, **options)}


def test_capacity_as_vllm_reported_it() -> None:
    # vLLM 0.26, Llama-3.1-8B in bfloat16, TP 1, defaults.
    assert kv_capacity_estimate(LLAMA, H100, Layout(1)) == pytest.approx(462_831, rel=0.005)
    assert kv_capacity_estimate(LLAMA, H200, Layout(1)) == pytest.approx(919_601, rel=0.005)


def test_memory_of_one_gpu_adds_up() -> None:
    memory = fit(LLAMA, H100, Layout(2), utilization=0.5)
    assert memory.budget_bytes == 79.6 * GIB / 2
    assert memory.weights_bytes == pytest.approx(8.03e9, rel=0.001)
    left = memory.budget_bytes - memory.weights_bytes - memory.reserve_bytes
    assert 0 <= left - memory.kv_tokens_per_rank * 64 * 1024 < 16 * 64 * 1024
    assert memory.kv_tokens_per_rank % 16 == 0
    assert fit(LLAMA, H100, Layout(2), 0.5, 16384).reserve_bytes > memory.reserve_bytes


def test_dp_has_a_cache_for_each_rank() -> None:
    config = find_model("deepseek-v2-lite")
    two = Layout(1, 2)
    assert kv_capacity_estimate(config, H100, two) == 2 * fit(config, H100, two).kv_tokens_per_rank
    # The latent is copied by TP: only the weights' room is won.
    assert kv_capacity_estimate(config, H100, Layout(2)) < 1.5 * kv_capacity_estimate(config, H100, Layout(1))


def test_a_dense_model_has_tp_alone() -> None:
    names = [layout.name for layout in candidates(LLAMA, "h100-sxm", 6)]
    assert names == ["tp1", "tp2", "tp4"]


def test_a_mixture_has_dp_and_ep() -> None:
    found = candidates(find_model("qwen3-30b-a3b"), "h200-sxm", 4)
    assert [layout.name for layout in found] == [
        "tp1", "tp2", "tp2-ep", "tp1-dp2", "tp1-dp2-ep",
        "tp4", "tp4-ep", "tp2-dp2", "tp2-dp2-ep", "tp1-dp4", "tp1-dp4-ep",
    ]  # fmt: skip
    assert all(layout.rejected is None for layout in found)
    assert max(layout.gpus for layout in found) == 4
    assert found[4].arguments == (
        "--tensor-parallel-size", "1", "--data-parallel-size", "2", "--enable-expert-parallel",
    )  # fmt: skip
    assert Layout(2).arguments == ("--tensor-parallel-size", "2")


def test_what_does_not_fit_says_the_numbers() -> None:
    reasons = why(find_model("llama-3.1-70b"), 4)
    assert reasons["tp1"] is not None
    assert "weights 131.4 GiB" in reasons["tp1"]
    assert "73.2 GiB (0.92 of 79.6)" in reasons["tp1"]
    assert "one request of 131,072 needs 174" in reasons["tp1"]
    assert reasons["tp2"] is not None
    assert "max-model-len of at most 36,288" in reasons["tp2"]
    assert reasons["tp4"] is None
    assert why(find_model("llama-3.1-70b"), 2, max_model_len=36_288)["tp2"] is None
    assert why(find_model("llama-3.1-70b"), 2, max_model_len=36_289)["tp2"] is not None


@pytest.mark.parametrize(
    ("config", "layout", "reason"),
    [
        (changed("llama-3.1-8b", num_attention_heads=20), "tp8", "20 attention heads do not divide by TP 8"),
        (changed("llama-3.1-8b", num_key_value_heads=6), "tp4", "6 KV heads neither divide by TP 4"),
        (changed("llama-3.1-8b", intermediate_size=14338), "tp4", "intermediate size 14,338 does not divide by 4"),
        (changed("qwen3-30b-a3b", num_experts=124), "tp8-ep", "124 experts do not divide by the 8 GPUs of TP 8 x DP 1"),
        (changed("qwen3-30b-a3b", moe_intermediate_size=772), "tp2-dp4", "experts' intermediate size 772 does not"),
        (
            changed("qwen3-30b-a3b", quantization_config={"quant_method": "fp8", "weight_block_size": [128, 128]}),
            "tp4",
            "experts' intermediate size 768 over 4 is 192, not a multiple of the quantisation block 128",
        ),
        (changed("deepseek-v2-lite", n_shared_experts=3, moe_intermediate_size=1404), "tp8", "shared experts' inter"),
    ],
)
def test_what_does_not_divide(config: ModelConfig, layout: str, reason: str) -> None:
    found = why(config, 8)[layout]
    assert found is not None
    assert reason in found


def test_what_divides_after_all() -> None:
    # More ranks than KV heads: each head is copied. Whole experts are not sliced, so their blocks do not matter.
    assert why(LLAMA, 32, max_model_len=1000)["tp16"] is None
    blocks = {"quant_method": "fp8", "weight_block_size": [128, 128]}
    reasons = why(changed("qwen3-30b-a3b", quantization_config=blocks), 4)
    assert reasons["tp4-ep"] is None
    assert reasons["tp2"] is None
    # The latent has no KV heads to split.
    assert why(changed("deepseek-v2-lite", num_key_value_heads=6), 4)["tp4"] is None


def test_an_unknown_gpu_is_not_computed_and_says_so() -> None:
    (one, two) = candidates(find_model("llama-3.1-70b"), "NVIDIA X1", 2)
    assert one.rejected is None
    assert one.fit is None
    assert one.kv_tokens is None
    assert two.note == "memory not checked: GPU 'NVIDIA X1' is not known"
    assert candidates(changed("llama-3.1-8b", num_attention_heads=33), "NVIDIA X1", 2)[1].rejected is not None


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"gpus": 0}, "field gpus: is 0"),
        ({"max_model_len": 131_073}, r"field max-model-len: is 131,073; expected 1 to the model's 131,072"),
        ({"max_model_len": 0}, "field max-model-len: is 0"),
        ({"utilization": 1.5}, "field gpu-memory-utilization: is 1.5"),
        ({"utilization": float("nan")}, "field gpu-memory-utilization: is nan"),
        ({"max_num_batched_tokens": 0}, "field max-num-batched-tokens: is 0"),
    ],
)
def test_numbers_out_of_range(options: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=message):
        candidates(LLAMA, "h100-sxm", **{"gpus": 1, **options})


def test_a_capacity_that_contradicts_is_refused() -> None:
    assert check_kv_capacity(462_831, 462_128).startswith("1.002 of the 462,128 tokens that memory arithmetic gives")
    for reported in (700, 1300):
        assert "accepted: 700 to 1,300 tokens" in check_kv_capacity(reported, 1000)
    for reported in (699, 1301):
        message = f"kv_capacity_tokens: the engine reports {reported:,} tokens, memory arithmetic gives about 1,000"
        with pytest.raises(InputError, match=message):
            check_kv_capacity(reported, 1000)
