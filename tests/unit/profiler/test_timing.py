"""From measured tables to iteration times: what was measured comes back, and nothing falls where physics rises."""

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from profiler.tables import Profile, load_profile
from profiler.timing import (
    DEFAULT_MAX_NUM_BATCHED_TOKENS,
    DEFAULT_MAX_NUM_SEQS,
    EngineTiming,
    engine_timing,
    transfer_timing,
)
from tests.engines import engine

H200 = Path(__file__).parents[3] / "profiling_results" / "llama-3.1-8b-instruct-fp8" / "h200-sxm" / "vllm-unknown"


@pytest.fixture(scope="module")
def prefill() -> Profile:
    return load_profile(H200 / "prefill-tp1-dp1")


@pytest.fixture(scope="module")
def decode() -> Profile:
    return load_profile(H200 / "decode-tp1-dp1")


@pytest.fixture(scope="module")
def both(prefill: Profile, decode: Profile) -> EngineTiming:
    return engine_timing(prefill, decode, limits_of=decode)


def test_measured_prompts_come_back(both: EngineTiming, prefill: Profile) -> None:
    """Up to the distance to the next node of 32 tokens: 0.4 % at a kink of the curve, which is below its noise."""
    isl, ttft = prefill.samples["prefill"]["isl"], prefill.samples["prefill"]["ttft_ms"]
    np.testing.assert_allclose(both.prompt_ms(isl), ttft, rtol=0.004)
    assert prefill.prefill is not None
    # On the nodes themselves the split is exact, but for a stretch where the linear part alone would fall.
    nodes = np.arange(128, 16_372, 32)
    np.testing.assert_allclose(both.prompt_ms(nodes), prefill.prefill.ttft_ms(nodes), rtol=3e-5)


def test_measured_decode_steps_come_back(both: EngineTiming, decode: Profile) -> None:
    """Exactly at the KV nodes; between two of them, 3,706 tokens apart, to 2.5 % where the measured rows have kinks."""
    surface = decode.decode
    assert surface is not None
    measured = surface.points[:, 0] <= both.max_num_seqs
    batch, kv = surface.points[measured].T
    np.testing.assert_allclose(both.iteration_ms(batch, kv), surface.knots_ms[measured], rtol=0.025)
    median = np.median(np.abs(both.iteration_ms(batch, kv) / surface.knots_ms[measured] - 1))
    assert median < 0.002
    batches, nodes = np.meshgrid([1, 2, 50, 777, 1024], np.arange(256) * both.kv_step_tokens)
    np.testing.assert_allclose(both.iteration_ms(batches, nodes), surface.itl_ms(batches, nodes), rtol=1e-9)


def test_monotone(both: EngineTiming) -> None:
    lengths = np.arange(1, 131_072, 37)
    assert (np.diff(both.prompt_ms(lengths)) >= 0).all()
    assert (np.diff(both.linear_ms(lengths)) >= 0).all()
    # A longer prefix hit never costs time.
    assert (np.diff(both.prompt_ms(8000, np.arange(0, 8000, 50))) <= 1e-9).all()
    grid = both.iteration_ms(np.arange(1, 1025, 7)[:, None], np.linspace(0, both.kv_capacity_tokens, 400)[None, :])
    assert (np.diff(grid, axis=0) >= -1e-12).all()
    assert (np.diff(grid, axis=1) >= -1e-12).all()
    assert both.attention_ms_per_token2 >= 0


def test_limits_come_from_the_profile_or_from_vllms_defaults(both: EngineTiming, decode: Profile) -> None:
    assert both.kv_capacity_tokens == decode.meta.kv_capacity_tokens == 945_029
    assert both.max_num_seqs == DEFAULT_MAX_NUM_SEQS
    assert both.max_num_batched_tokens == DEFAULT_MAX_NUM_BATCHED_TOKENS
    assert both.block_size == 16
    assert both.gpus == 1
    assert both.floor_ms == pytest.approx(float(both.iteration_ms(1, 0)))


def test_a_missing_half_costs_nothing(prefill: Profile, decode: Profile) -> None:
    only_decode = engine_timing(None, decode, limits_of=decode)
    assert float(only_decode.prompt_ms(1000)) == 0.0
    only_prefill = engine_timing(prefill, None, limits_of=prefill)
    assert float(only_prefill.iteration_ms(8, 1000)) == 0.0
    assert float(only_prefill.prompt_ms(1000)) > 0


def test_prompts_by_hand() -> None:
    timing = engine(attention=1e-5)
    assert float(timing.prompt_ms(1000)) == pytest.approx(10 + 10 + 10)
    assert float(timing.prompt_ms(1000, 600)) == pytest.approx(10 + 4 + 1e-5 * (1000**2 - 600**2))
    assert timing.prompt_ms([100, 200]).shape == (2,)


@settings(deadline=None)
@given(st.floats(0, 64), st.floats(0, 160_000))
def test_decode_steps_by_hand(batch: float, kv: float) -> None:
    assert float(engine().iteration_ms(batch, kv)) == pytest.approx(5 + 0.1 * batch + 0.001 * kv, rel=1e-9)


def test_decode_steps_are_held_at_the_ends_of_the_table() -> None:
    timing = engine()
    assert float(timing.iteration_ms(1000, 1e9)) == pytest.approx(5 + 6.4 + 160)
    assert float(timing.iteration_ms(-3, -5)) == pytest.approx(5.0)


def test_a_hand_off_that_was_not_measured_says_so(prefill: Profile, decode: Profile) -> None:
    timing = transfer_timing([prefill, decode])
    assert timing.source.startswith("assumed")
    # 131,072 bytes of KV a token at 50 GB/s, and a millisecond.
    assert float(timing.at(1000)) == pytest.approx(1.0 + 1000 * 131_072 / 50e6, rel=1e-6)
    assert float(timing.at(0)) == 1.0
    unknown = transfer_timing([])
    assert float(unknown.at(123_456)) == 1.0
    assert "not known" in unknown.source
