"""What a prefill table with the engine's own clock says, and when an engine schedules ahead."""

from pathlib import Path

import numpy as np
import pytest

from profiler.csvfile import Samples
from profiler.curve import PrefillCurve
from profiler.engine_side import agreeing, convex_below, engine_curve, front_end
from profiler.job.saving import async_scheduling
from profiler.schema import Engine, GpuInfo, Limits, ModelInfo, ProfileMeta, Source
from profiler.tables import Profile, save_profile
from profiler.timing import engine_timing

ISL = np.array([100.0, 400.0, 1000.0, 2000.0, 4000.0, 8000.0])
ALPHA = 1e-6


def _server(new: np.ndarray, hit: np.ndarray) -> np.ndarray:
    return 10.0 + 0.02 * new + ALPHA * ((hit + new) ** 2 - hit**2)


def _prefill(front: tuple[float, float] = (5.0, 0.001)) -> dict[str, np.ndarray]:
    isl = np.repeat([*ISL, 3000.0], 2)
    hit = np.repeat([*np.zeros(len(ISL)), 2400.0], 2)
    server = _server(isl - hit, hit)
    return {
        "isl": isl,
        "ttft_ms": server + front[0] + front[1] * isl,
        "repeat": np.tile([0.0, 1.0], len(isl) // 2),
        "batch": np.ones(len(isl)),
        "prefix_hit_tokens": hit,
        "server_ms": server,
    }


def _profile(path: Path, prefill: Samples, mixed: Samples | None, limits: Limits) -> Profile:
    batch, kv = (grid.ravel() for grid in np.meshgrid([1.0, 8.0, 64.0], [1000.0, 20_000.0, 100_000.0]))
    decode = {"batch": batch, "kv_tokens": kv, "context_tokens": kv / batch, "itl_ms": 6.0 + 0.01 * batch + 1e-5 * kv}
    meta = ProfileMeta(
        schema_version=1,
        model=ModelInfo(name="m", dtype="bfloat16"),
        gpu=GpuInfo(name="g", count_per_worker=1),
        engine=Engine(name="vllm"),
        role="aggregated",
        tp=1,
        dp=1,
        kv_capacity_tokens=200_000,
        limits=limits,
        source=Source(text="made by hand", licence="none"),
    )
    tables = {"prefill": prefill, "decode": decode} | ({} if mixed is None else {"mixed": mixed})
    return save_profile(path / "p", meta, tables)


def test_the_front_end_is_what_a_client_sees_beyond_the_engine() -> None:
    rows = _prefill()
    rows["ttft_ms"] = rows["ttft_ms"].copy()
    rows["ttft_ms"][3] += 400.0  # one late request changes nothing
    assert front_end(rows) == pytest.approx((5.0, 0.001), abs=1e-9)


def test_the_front_end_is_never_below_nothing() -> None:
    assert front_end(_prefill((-2.0, -0.0001))) == (0.0, 0.0)


def test_hits_are_points_of_the_curve_unless_their_repeats_disagree() -> None:
    rows = _prefill()
    curve = engine_curve(rows, PrefillCurve)
    assert 600.0 in curve.tokens
    assert float(curve.ms(600.0)) == pytest.approx(_server(np.array(600.0), np.array(0.0)), rel=0.03)
    rows["server_ms"] = rows["server_ms"].copy()
    rows["server_ms"][-1] *= 1.5
    assert 600.0 not in engine_curve(rows, PrefillCurve).tokens


def test_points_whose_repeats_agree() -> None:
    at = np.array([[1.0], [1.0], [2.0], [2.0]])
    points, medians = agreeing(at, np.array([10.0, 12.0, 10.0, 13.0]))
    assert points.tolist() == [[1.0]]
    assert medians.tolist() == [11.0]


def test_the_largest_convex_function_below() -> None:
    values = np.array([3.0, 3.0, 9.0, 6.0, 9.0, 12.0])
    below = convex_below(values)
    assert below == pytest.approx([3.0, 3.0, 4.5, 6.0, 9.0, 12.0])


PER_REQUEST = 0.05


def _beside(tokens: np.ndarray, saved: float) -> np.ndarray:
    """What prompts add to an iteration of decodes, without the part of each decode."""
    return _server(tokens, np.zeros_like(tokens)) - saved


def _decode(batch: np.ndarray, kv: np.ndarray) -> np.ndarray:
    return 6.0 + 0.01 * batch + 1e-5 * kv


def _mixed(saved: float) -> dict[str, np.ndarray]:
    at = [(n, b) for n in (512.0, 2048.0, 4096.0) for b in (8.0, 64.0)]
    tokens, batch = np.repeat(np.array(at), 2, axis=0).T
    kv = np.full(len(tokens), 20_000.0)
    value = _beside(tokens, saved) + PER_REQUEST * batch + _decode(batch, kv)
    value[-2:] *= np.array([0.7, 1.3])  # its repeats disagree, and their mean counts
    repeat = np.tile([0.0, 1.0], len(at))
    return {"prefill_tokens": tokens, "batch": batch, "kv_tokens": kv, "iteration_ms": value, "repeat": repeat}


def test_timing_is_the_engines_with_the_front_end_apart(tmp_path: Path) -> None:
    profile = _profile(tmp_path, _prefill(), _mixed(4.0), Limits(async_scheduling=True))
    timing = engine_timing(profile, profile, limits_of=profile)
    assert timing.ahead
    assert (timing.front_ms, timing.front_ms_per_token) == pytest.approx((5.0, 0.001))
    assert timing.prompt_ms(2000.0) == pytest.approx(_server(np.array(2000.0), np.array(0.0)), rel=0.02)
    assert profile.prefill is not None
    assert profile.prefill.ttft_ms(2000.0) == pytest.approx(_server(np.array(2000.0), np.array(0.0)) + 7.0)


@pytest.mark.parametrize("saved", [0.0, 4.0])
@pytest.mark.parametrize("ahead", [True, False])
def test_iterations_of_prompts_and_decodes_are_as_they_were_measured(
    tmp_path: Path, saved: float, *, ahead: bool
) -> None:
    profile = _profile(tmp_path, _prefill(), _mixed(saved), Limits(async_scheduling=ahead))
    timing = engine_timing(profile, profile, limits_of=profile)
    assert timing.mixed_ms_per_request == pytest.approx(PER_REQUEST, rel=0.02)
    # Nothing is left to find out of the iteration before: the measured ones followed decodes, too.
    assert not timing.exposed
    tokens, batch = np.array([512.0, 2048.0, 4096.0, 2048.0]), np.array([8.0, 8.0, 64.0, 64.0])
    kv = np.full(4, 20_000.0)
    decode = timing.iteration_ms(batch, kv)
    for last_ms in (0.1, 50.0):
        prompts = timing.linear_behind_ms(tokens, last_ms) + timing.attention_ms_per_token2 * tokens**2
        expected = _beside(tokens, saved) + PER_REQUEST * batch + _decode(batch, kv)
        assert timing.mixed_ms(prompts, decode, batch) == pytest.approx(expected, rel=0.01)


def test_without_mixed_iterations_those_apart_share_the_floor(tmp_path: Path) -> None:
    profile = _profile(tmp_path, _prefill(), None, Limits(async_scheduling=True))
    timing = engine_timing(profile, profile, limits_of=profile)
    assert (timing.mixed_ms_per_request, timing.shared_ms, timing.exposed) == (0.0, timing.floor_ms, True)


def test_without_the_engines_clock_all_is_as_it_was(tmp_path: Path) -> None:
    prefill = {name: column for name, column in _prefill().items() if name != "server_ms"}
    profile = _profile(tmp_path, prefill, _mixed(4.0), Limits())
    timing = engine_timing(profile, profile, limits_of=profile)
    assert profile.prefill_engine is profile.prefill
    assert (timing.front_ms, timing.front_ms_per_token, timing.ahead) == (0.0, 0.0, False)
    assert (timing.shared_ms, timing.mixed_ms_per_request, timing.exposed) == (timing.floor_ms, 0.0, False)
    assert (timing.behind_ms == timing.prefill_ms).all()


@pytest.mark.parametrize(
    ("version", "argv", "expected"),
    [
        ("0.26.0", (), True),
        ("0.14.0+cu129", None, True),
        ("0.13.2", (), False),
        ("0.26.0", ("--no-async-scheduling",), False),
        ("0.11.0", ("--async-scheduling",), True),
        ("0.26.0", ("--distributed-executor-backend=ray",), False),
        ("0.26.0", ("--speculative-config", "{}"), None),
        ("0.26.0", ("--kv-transfer-config", '{"kv_connector": "NixlConnector"}'), True),
        ("0.32.0+simulated", None, None),
        (None, None, None),
    ],
)
def test_who_schedules_ahead(version: str | None, argv: tuple[str, ...] | None, expected: bool | None) -> None:
    assert async_scheduling(version, argv) is expected
