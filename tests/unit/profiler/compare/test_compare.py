"""Drift between profiles: what is found, what noise explains, what cannot be compared."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from pathlib import Path

import numpy as np
import pytest
import typer
from typer.testing import CliRunner

from profiler.cli.compare import compare as command
from profiler.compare import compare, pair
from profiler.errors import InputError
from profiler.schema import Engine, GpuInfo, Limits, ModelInfo, ProfileMeta, Source
from profiler.tables import Profile, load_profile, save_profile

ISL = (128, 256, 512, 1024, 2048, 4096, 8192, 16_384)
BATCHES, CONTEXTS = (1, 8, 32, 128), (512, 2048, 8192)

Make = Callable[..., Profile]


def _meta(role: str, tp: int, version: str, capacity: int) -> ProfileMeta:
    return ProfileMeta(
        schema_version=1,
        model=ModelInfo(name="toy", dtype="bfloat16"),
        gpu=GpuInfo(name="toy-gpu", count_per_worker=tp),
        engine=Engine(name="vllm", version=version, arguments=("--max-num-seqs", "256")),
        role=role,  # type: ignore[arg-type]
        tp=tp,
        dp=1,
        kv_capacity_tokens=capacity,
        limits=Limits(max_num_seqs=256),
        source=Source(text="made up", licence="Apache-2.0"),
    )


def _rows(
    keys: Mapping[str, np.ndarray], name: str, values: np.ndarray, repeats: int, noise: float, seed: int
) -> dict[str, np.ndarray]:
    rng = np.random.default_rng(seed)
    count = len(values)
    rows = {key: np.tile(column, repeats).astype(float) for key, column in keys.items()}
    rows[name] = np.tile(values, repeats) * (1 + noise * rng.standard_normal(count * repeats))
    rows["repeat"] = np.repeat(np.arange(repeats, dtype=float), count)
    return rows


@pytest.fixture
def make(tmp_path: Path) -> Make:
    def build(
        where: str,
        *,
        tp: int = 1,
        slower: float = 1.0,
        slower_long: float = 1.0,
        slower_decode: float = 1.0,
        isl: tuple[int, ...] = ISL,
        repeats: int = 3,
        noise: float = 0.005,
        version: str = "0.11.0",
        capacity: int = 500_000,
        mixed: bool = True,
        seed: int = 1,
    ) -> Profile:
        lengths = np.array(isl, dtype=float)
        ttft = (8 + 0.02 * lengths + 1e-7 * lengths**2) * slower * np.where(lengths > 4096, slower_long, 1.0)
        batch = np.repeat(np.array(BATCHES, dtype=float), len(CONTEXTS))
        context = np.tile(np.array(CONTEXTS, dtype=float), len(BATCHES))
        itl = (5 + 0.02 * batch + 1e-5 * batch * context) * slower * slower_decode
        tables = {
            "prefill": _rows({"isl": lengths}, "ttft_ms", ttft, repeats, noise, seed),
            "decode": _rows(
                {"batch": batch, "kv_tokens": batch * context, "context_tokens": context},
                "itl_ms", itl, repeats, noise, seed + 1,
            ),
        }  # fmt: skip
        tables["decode"]["suspect"] = np.zeros(len(tables["decode"]["batch"]))
        if mixed:
            fill, beside = np.array([512.0, 512.0, 2048.0]), np.array([8.0, 64.0, 64.0])
            tables["mixed"] = _rows(
                {"prefill_tokens": fill, "batch": beside, "kv_tokens": beside * 1024},
                "iteration_ms", (10 + 0.02 * fill) * slower, repeats, noise, seed + 2,
            )  # fmt: skip
        return save_profile(tmp_path / where, _meta("aggregated", tp, version, capacity), tables)

    return build


def test_the_same_engine_measured_twice_has_not_drifted(make: Make) -> None:
    found = compare(make("a", seed=1), make("b", seed=9))
    assert found.differences == ()
    assert {region.table for region in found.regions} == {"prefill", "decode", "mixed"}
    assert found.beyond(0.02) == ()
    assert all(region.explained is not None and region.explained < 0.03 for region in found.regions)


def test_a_drift_is_found_in_its_region_with_its_size(make: Make) -> None:
    found = compare(make("a"), make("b", slower_long=1.2, seed=9))
    worst = found.worst
    assert worst is not None
    assert (worst.table, worst.name) == ("prefill", "ISL 4,096 to 16,384")
    assert worst.drift == pytest.approx(0.2, abs=0.02)
    assert [region.name for region in found.beyond(0.05)] == [worst.name]


def test_what_repeats_scatter_by_is_not_significant(make: Make) -> None:
    noisy = {"noise": 0.15, "repeats": 2, "mixed": False}
    found = compare(make("a", **noisy), make("b", slower=1.08, seed=9, **noisy))
    assert found.regions
    assert found.beyond(0.05) == ()
    quiet = compare(make("c"), make("d", slower=1.08, seed=9))
    assert len(quiet.beyond(0.05)) == len(quiet.regions)


def test_a_single_sample_is_held_to_the_leave_one_out_error(make: Make) -> None:
    a = make("a", repeats=1, noise=0.0)
    found = compare(a, make("b", repeats=1, noise=0.0, slower=1.02))
    prefill = next(region for region in found.regions if region.table == "prefill")
    curve = a.prefill
    assert curve is not None
    assert prefill.explained is not None
    assert prefill.explained > 0
    # Nothing says how far the same mixed point may differ.
    assert [region.explained for region in found.regions if region.table == "mixed"] == [None, None, None]
    assert not any(region.significant for region in found.regions if region.table == "mixed")


def test_only_what_both_cover_is_compared(make: Make) -> None:
    found = compare(make("a", isl=ISL[:6]), make("b", isl=(192, 384, 768, 1536, 3072, 6144), mixed=False))
    prefill = [region for region in found.regions if region.table == "prefill"]
    # 128 lies below what B measured, 6144 above what A did.
    assert sum(region.points for region in prefill) == 10
    assert any(line == "prefill: 2 of 12 points, which only one of the two covers" for line in found.left_out)
    assert any(line == "mixed: only A measured it" for line in found.left_out)


def test_differences_name_what_changed(make: Make) -> None:
    found = compare(make("a"), make("b", version="0.12.0", capacity=400_000))
    assert {d.field: (d.a, d.b) for d in found.differences} == {
        "engine version": ("0.11.0", "0.12.0"),
        "kv_capacity_tokens": (500_000, 400_000),
    }


def test_folders_are_paired_by_layout(make: Make) -> None:
    a = [make("x/agg-tp1"), make("x/agg-tp2", tp=2)]
    b = [make("y/agg-tp2", tp=2), make("y/agg-tp4", tp=4)]
    pairs, alone = pair(a, b)
    assert [(one.path.name, other.path.parent.name) for one, other in pairs] == [("agg-tp2", "y")]
    assert len(alone) == 2
    with pytest.raises(InputError, match="one profile of a layout"):
        pair([*a, make("z/agg-tp1")], b)
    with pytest.raises(InputError, match="no profile of a layout"):
        pair(a, [b[1], make("y/agg-tp8", tp=8)])


def test_the_command_says_it_and_its_exit_code_counts(make: Make, tmp_path: Path) -> None:
    make("a")
    make("b", slower_decode=1.3, seed=9, version="0.12.0")
    app = typer.Typer()
    app.command()(command)
    runner = CliRunner()
    said = runner.invoke(app, [str(tmp_path / "a"), str(tmp_path / "b")])
    assert said.exit_code == 1
    assert "engine version: 0.11.0 → 0.12.0" in said.stdout
    assert "largest significant drift: decode" in said.stdout
    machine = runner.invoke(app, [str(tmp_path / "a"), str(tmp_path / "b"), "--output", "json", "--tolerance", "0.5"])
    assert machine.exit_code == 0
    (one,) = json.loads(machine.stdout)["pairs"]
    assert one["worst"]["table"] == "decode"
    assert one["worst"]["drift"] == pytest.approx(0.3, abs=0.03)
    assert not one["worst"]["beyond_tolerance"]


def test_the_profile_in_the_repository_has_not_drifted_from_itself() -> None:
    path = Path(__file__).parents[4] / "profiling_results/llama-3.1-8b-instruct-fp8/h200-sxm/vllm-unknown"
    for role in ("prefill-tp1-dp1", "decode-tp1-dp1"):
        profile = load_profile(path / role)
        found = compare(profile, profile)
        assert found.regions
        assert all(region.drift == 0 and not region.significant for region in found.regions)
