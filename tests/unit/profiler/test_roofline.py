"""Speed of light by hand, on a shape small enough to count."""

import numpy as np
import pytest

from profiler.hardware import GPUS, Gpu, find_gpu
from profiler.roofline import Roofline, kv_bytes_per_token, layer_params, weight_bytes
from profiler.schema import ModelShape

# attention 4 * 2 * (2*2 + 2*1) = 48, MLP 3 * 4 * 8 = 96: 144 a layer, 288 in two; head 10 * 4 = 40.
TINY = ModelShape(
    hidden_size=4, layers=2, heads=2, kv_heads=1, head_dim=2, intermediate_size=8, vocab_size=10,
    weight_bytes_per_param=2.0, kv_bytes_per_element=2.0,
)  # fmt: skip
GPU = Gpu("toy", {"bf16": 1e6}, 1e6, 1.0, ())
ROOF = Roofline(TINY, GPU, 1e6)


def test_counts_of_parameters_and_bytes() -> None:
    assert layer_params(TINY) == 288
    assert weight_bytes(TINY) == (288 + 80) * 2
    assert kv_bytes_per_token(TINY) == 2 * 2 * 1 * 2 * 2


def test_prefill_by_hand() -> None:
    # weights: (288 + 40) * 2 bytes at 1e6 bytes/s = 0.656 ms; pairs: 2 * 2 * 2 * 2 * n^2 FLOP at 1e6/s.
    assert ROOF.prefill_ms(1) == pytest.approx(0.656 + 0.016)
    # 2 * 288 * 10 = 5760 FLOP = 5.76 ms > weights; pairs 16 * 100 = 1.6 ms.
    assert ROOF.prefill_ms(10) == pytest.approx(5.76 + 1.6)


def test_decode_by_hand() -> None:
    assert ROOF.decode_ms(1, 100) == pytest.approx(0.656 + 16 * 100 / 1e6 * 1e3)
    assert ROOF.decode_ms(5, 0) == pytest.approx(2 * 328 * 5 / 1e6 * 1e3)


def test_tp_shares_layers_and_dp_shares_requests() -> None:
    two = Roofline(TINY, GPU, 1e6, tp=2, dp=1)
    assert two.prefill_ms(10) == pytest.approx(3.68)
    # one KV head cannot be split over two ranks
    assert two.kv_ms_per_token == ROOF.kv_ms_per_token
    assert Roofline(TINY, GPU, 1e6, dp=2).decode_ms(10, 200) == pytest.approx(ROOF.decode_ms(5, 100))


def test_never_falls() -> None:
    n = np.linspace(0, 1000, 500)
    assert (np.diff(ROOF.prefill_ms(n)) >= 0).all()
    assert (np.diff(ROOF.decode_ms(n, 7)) >= 0).all()
    assert (np.diff(ROOF.decode_ms(7, n)) >= 0).all()


@pytest.mark.parametrize(
    ("name", "short"),
    [
        ("NVIDIA H100 80GB HBM3", "h100-sxm"), ("h200_sxm", "h200-sxm"), ("NVIDIA H200", "h200-sxm"),
        ("NVIDIA A100-SXM4-80GB", "a100-80gb"), ("NVIDIA L40S", "l40s"), ("NVIDIA B200", "b200"),
    ],
)  # fmt: skip
def test_gpus_by_the_drivers_name(name: str, short: str) -> None:
    found = find_gpu(name)
    assert found is not None
    assert found.name == short


def test_other_gpus_are_not_taken_for_known_ones() -> None:
    assert find_gpu("NVIDIA H100 PCIe") is None
    assert find_gpu("NVIDIA A100-SXM4-40GB") is None
    assert len({gpu.name for gpu in GPUS}) == 5


def test_a_gpu_without_fp8_computes_in_bf16() -> None:
    a100 = find_gpu("a100-80gb")
    assert a100 is not None
    assert a100.peak_for("fp8") == a100.peak_for("bfloat16") == 312e12


# Two layers, the first dense; 4 experts of size 3 (3 * 4 * 3 = 36 weights), 2 a token, one shared of the same size.
# Always: attention 48 * 2, dense MLP 96, shared 36, router 16 = 244; routed 144, of which a token uses 72.
MOE = TINY.model_copy(
    update={
        "experts": 4,
        "experts_per_token": 2,
        "moe_intermediate_size": 3,
        "shared_expert_size": 3,
        "dense_layers": 1,
    }
)


def test_a_mixture_reads_the_experts_that_are_touched_and_computes_the_active_ones() -> None:
    assert layer_params(MOE) == 244 + 144
    roof = Roofline(MOE, GPU, 1e6)
    assert roof.weights_ms == pytest.approx((244 + 40 + 72) * 2 / 1e3)
    # A step of 2 tokens touches 4 * (1 - 1/4) = 3 experts, of 36 weights.
    assert Roofline(MOE, GPU, 1e9).step_ms(2) == pytest.approx((244 + 40 + 108) * 2 / 1e3)
    assert roof.step_ms(1000) == pytest.approx(2 * (244 + 72 + 40) * 1000 / 1e3)
    pairs = 2 * 2 * 2 * 2 * 100**2 / 1e3
    assert roof.prefill_ms(100) == pytest.approx(2 * (244 + 72) * 100 / 1e3 + pairs)
    assert (np.diff(roof.step_ms(np.linspace(0, 50, 200))) >= 0).all()


def test_dp_ranks_share_the_experts_only() -> None:
    two = Roofline(MOE, GPU, 1e9, dp=2)
    assert two.step_ms(2) == pytest.approx((244 + 40 + 108 / 2) * 2 / 1e3)
    assert two.kv_ms_per_token == Roofline(MOE, GPU, 1e9).kv_ms_per_token / 2
    assert two.kv_capacity_that_fits() > 2 * Roofline(MOE, GPU, 1e9).kv_capacity_that_fits()


# Heads of 3 + 1 for queries and keys and 2 for values; a latent of 5: 6 numbers a token and layer.
MLA = TINY.model_copy(update={"kv_lora_rank": 5, "qk_nope_head_dim": 3, "qk_rope_head_dim": 1, "v_head_dim": 2})


def test_latent_attention_by_hand() -> None:
    # queries 4 * 2 * 4, down 4 * 6, up 5 * 2 * (3 + 2), out 2 * 2 * 4, MLP 96: 218 a layer.
    assert layer_params(MLA) == 2 * 218
    compressed = MLA.model_copy(update={"q_lora_rank": 3})
    assert layer_params(compressed) == 2 * (218 - 32 + 4 * 3 + 3 * 2 * 4)
    assert kv_bytes_per_token(MLA) == 2 * 6 * 2
    roof = Roofline(MLA, GPU, 1e9)
    assert roof.kv_ms_per_token == pytest.approx(24 / 1e3)
    # Every TP rank reads the whole latent.
    assert Roofline(MLA, GPU, 1e9, tp=2).kv_ms_per_token == roof.kv_ms_per_token
    # n^2/2 pairs, 2 FLOP for each of 4 + 2 elements, 2 heads, 2 layers; over a weight reading that takes longer.
    slow = Roofline(MLA, GPU, 1e6)
    assert slow.prefill_ms(100) == pytest.approx((2 * 436 * 100 + 100**2 * 6 * 2 * 2) / 1e3)


def test_attention_in_the_latent_may_take_longer_to_compute_than_to_read() -> None:
    # 2 layers, 2 heads, 2 FLOP for each of 6 + 5 elements at 1e6/s, against 24 bytes at 1e6/s.
    assert Roofline(MLA, GPU, 1e6).kv_ms_per_token == pytest.approx(2 * 2 * 2 * 11 / 1e3)
