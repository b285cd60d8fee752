"""The report of a run: everything measured is drawn, everything skipped is said, nothing from outside is trusted."""

from __future__ import annotations

import datetime as dt
import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import typer
from typer.testing import CliRunner

from profiler.cli.report import report as command
from profiler.errors import InputError
from profiler.report import figures, read_subject
from profiler.report.page import page
from profiler.report.points import points, predicted_mixed, predicted_prompts, timing_of
from profiler.schema import Cost, Engine, GpuInfo, Limits, ModelInfo, ProfileMeta, Role, Source, Validation
from profiler.tables import Profile, find_profiles, save_profile

Make = Callable[..., Profile]
ROOT = Path(__file__).parents[4]


def _repeated(table: dict[str, np.ndarray], value: str, repeats: int = 3, noise: float = 0.01) -> dict[str, np.ndarray]:
    rng = np.random.default_rng(3)
    count = len(table[value])
    rows = {name: np.tile(column, repeats) for name, column in table.items()}
    rows[value] = rows[value] * (1 + noise * rng.standard_normal(count * repeats))
    rows["repeat"] = np.repeat(np.arange(repeats, dtype=float), count)
    return rows


def _prompt_ms(isl: np.ndarray, batch: np.ndarray, hit: np.ndarray) -> np.ndarray:
    return 8 + 0.02 * batch * (isl - hit) + 1e-7 * batch * (isl**2 - hit**2)


def _tables(role: Role) -> dict[str, dict[str, np.ndarray]]:
    tables = {}
    if role != "decode":
        isl = np.array([128.0, 256, 512, 1024, 2048, 4096, 8192, 512, 512, 2048, 2048, 4096])
        batch = np.array([1.0, 1, 1, 1, 1, 1, 1, 4, 16, 2, 1, 1])
        hit = np.array([0.0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1024, 3072])
        columns = {"isl": isl, "batch": batch, "prefix_hit_tokens": hit, "ttft_ms": _prompt_ms(isl, batch, hit)}
        tables["prefill"] = _repeated(columns, "ttft_ms")
    if role != "prefill":
        batch, context = np.repeat([1.0, 8, 32, 128], 4), np.tile([512.0, 1024, 2048, 4096], 4)
        itl = 5 + 0.02 * batch + 1e-5 * batch * context
        rows = _repeated({"batch": batch, "kv_tokens": batch * context, "context_tokens": context, "itl_ms": itl},
                         "itl_ms")  # fmt: skip
        tables["decode"] = rows | {"suspect": np.zeros(len(rows["batch"]))}
    if role == "aggregated":
        fill, beside = np.repeat([512.0, 2048.0], 3), np.tile([8.0, 32, 128], 2)
        step = 0.02 * beside + 1e-5 * beside * 1024
        tables["mixed"] = _repeated(
            {"prefill_tokens": fill, "batch": beside, "kv_tokens": beside * 1024,
             "iteration_ms": 8 + 0.02 * fill + 1e-7 * fill**2 + step}, "iteration_ms"
        )  # fmt: skip
    if role == "decode":
        tokens = np.array([256.0, 1024, 4096, 8192])
        tables["transfer"] = _repeated({"tokens": tokens, "transfer_ms": 1.5 + 0.002 * tokens}, "transfer_ms")
    return tables


@pytest.fixture
def make(tmp_path: Path) -> Make:
    def build(role: Role, tp: int = 1, **changes: object) -> Profile:
        meta = ProfileMeta(
            schema_version=1,
            model=ModelInfo(name="org/<b>toy</b>", dtype="bfloat16"),
            gpu=GpuInfo(name="h100-sxm", count_per_worker=tp),
            driver="570.1",
            engine=Engine(name="vllm", version="0.11.0", arguments=("serve", "toy", "--max-num-seqs", "128")),
            role=role,
            tp=tp,
            dp=1,
            kv_capacity_tokens=600_000,
            kv_capacity_check="0.98 of what memory holds",
            limits=Limits(max_num_seqs=128, max_num_batched_tokens=8192, block_size=16, max_model_len=16_384),
            startup_s=(41.0, 43.5),
            date=dt.date(2026, 11, 22),
            source=Source(text="made up", licence="Apache-2.0"),
            cost=Cost(startup_gpu_minutes=1.4 * tp, measuring_gpu_minutes=5.2 * tp),
            warnings=("a <script>alert(1)</script> warning",),
        ).model_copy(update=changes)
        return save_profile(tmp_path / "to" / f"{role}-tp{tp}-dp1", meta, _tables(role))  # type: ignore[arg-type]

    return build


def write_run(to: Path, profiles: list[Profile], **changes: object) -> Path:
    """A run's folder beside its profiles, as `profiler run` writes it."""
    folder = to / ".run-toy-h100"
    folder.mkdir()
    layouts = [
        {
            "name": "tp1",
            "outcome": "done",
            "gpus": 1,
            "profiles": [str(profile.path.relative_to(to)) for profile in profiles],
            "startup_s": {"aggregated": [41.0, 43.5]},
            "measuring_s": {"aggregated": 312.0},
            "gpu_minutes": 6.6,
            "tables": {"aggregated": {"prefill": {"points": 12, "samples": 36}, "decode": {"samples": 48}}},
            "reasons": {"aggregated": {"prefill": {"grid": 30, "noise": 6}}},
            "lost": [
                {"engine": "aggregated", "table": "decode", "at": [128, 9e5], "reason": "requests were preempted"}
            ],
            "clocks": {"sm_clock_mhz": {"min": 1755.0, "median": 1980.0, "max": 1980.0}, "slowed_readings": 2},
        },
        {"name": "tp2", "outcome": "failed", "reason": "out of memory", "log": ["CUDA <error>"], "gpu_minutes": 0.9},
        {"name": "tp16", "outcome": "skipped", "reason": "32 heads do not divide by 16 … needs 16 GPUs, 8 are there"},
    ]
    data = {
        "format": 1,
        "settings": {"model": "org/toy", "max_error": 0.05, "gpu_price_per_hour": 3.0, "config": None},
        "machine": {"gpu": "h100-sxm", "gpus": 8, "driver": "570.1"},
        "model": {"name": "org/toy"},
        "code": "abc",
        "started": "2026-11-22T20:00:00Z",
        "ended": "2026-11-22T20:10:00Z",
        "layouts": layouts,
    }
    (folder / "run.json").write_text(json.dumps(data | changes))
    return folder


def _validation(name: str, off: float) -> Validation:
    measured = {"ttft_p50": 40.0, "ttft_p90": 90.0, "ttft_p99": 200.0, "itl_p50": 8.0, "itl_p90": 12.0}
    simulated = {key: value * (1 + off) for key, value in measured.items()}
    return Validation(
        run=name, mode="aggregated", requests=1200, rate_rps=8, measured_ms=measured, simulated_ms=simulated
    )


def test_a_run_is_told_whole(make: Make, tmp_path: Path) -> None:
    checks = (_validation("poisson-low", 0.04), _validation("poisson-high", -0.15))
    profiles = [make("prefill"), make("decode"), make("aggregated", validation=checks)]
    html = page(read_subject(write_run(tmp_path / "to", profiles)))
    text = re.sub(r"<script.*?</script>|<style.*?</style>|<[^>]+>", " ", html, flags=re.DOTALL)
    for said in (
        "1 of 2 layouts measured, 1 skipped",
        "out of memory",
        "needs 16 GPUs, 8 are there",
        "CUDA &lt;error&gt;",
        "7.5",  # GPU-minutes of both
        "cost 0.38",
        "SM clock (MHz) min 1,755",
        "requests were preempted",
        "poisson-high",
        "✗ -15.0 %",
        "✓ -15.0 %",  # TTFT p99 may be further off
        "✓ +4.0 %",
        "41.0 s, 43.5 s",
        "--max-error 0.05",
    ):
        assert re.sub(r"\s+", " ", said) in re.sub(r"\s+", " ", text.replace("\xa0", " ")), said
    assert "<b>toy</b>" not in html
    assert "<script>alert" not in html
    assert "--config" not in html  # what was not asked for
    # Prefill, batched and hits, decode, mixed, hand-off, three of them with their accuracy; shared tables once.
    assert [f'id="chart-{i}"' in html for i in range(9)] == [True] * 8 + [False]
    assert html.count("Plotly.newPlot(") >= 8
    assert "http://" not in re.sub(r"<script.*?</script>", "", html, flags=re.DOTALL)


def test_profiles_alone_are_enough() -> None:
    html = page(read_subject(ROOT / "profiling_results" / "llama-3.1-8b-instruct-fp8"))
    assert "1 layout measured" in html
    assert "No run was held against the simulator" in html


def test_costs_that_roles_share_count_once(make: Make, tmp_path: Path) -> None:
    make("prefill")
    make("aggregated")
    make("decode", 2)
    subject = read_subject(tmp_path / "to")
    assert [layout.name for layout in subject.layouts] == ["TP1", "TP2"]
    assert [layout.gpu_minutes for layout in subject.layouts] == [(1.4, 5.2), (2.8, 10.4)]
    assert [name for name, _ in subject.layouts[0].tables] == ["prefill", "decode", "mixed"]


def test_a_run_without_profiles_or_fields_is_still_a_page(tmp_path: Path) -> None:
    (tmp_path / "to").mkdir()
    folder = write_run(tmp_path / "to", [], layouts=[{"name": "tp1"}, "nonsense"], ended="", settings=None)
    html = page(read_subject(folder))
    assert "The run has not ended" in html
    assert "0 of 1 layout measured" in html


@pytest.mark.parametrize("content", ["{", "[1]", '{"a": NaN}'])
def test_a_wrong_record_names_its_file(tmp_path: Path, content: str) -> None:
    (tmp_path / "run.json").write_text(content)
    with pytest.raises(InputError, match=r"run\.json"):
        read_subject(tmp_path)


def test_points_take_repeats_together_and_leave_suspects_out() -> None:
    rows = {
        "isl": np.array([100.0, 100, 100, 200]),
        "ttft_ms": np.array([5.0, 9, 6, 20]),
        "suspect": np.array([0.0, 0, 0, 1]),
    }
    found = points(rows, ("isl", "batch"), "ttft_ms")
    assert found.at.tolist() == [[100, 1]]
    assert (found.median.tolist(), found.low.tolist(), found.high.tolist()) == ([6.0], [5.0], [9.0])
    assert found.repeats.tolist() == [3]


def test_error_bars_span_the_repeats(make: Make) -> None:
    profile = make("prefill")
    (trace,) = [trace for trace in figures.lone_prompts(profile).data if trace.name == "measured"]
    rows = profile.samples["prefill"]
    mine = rows["ttft_ms"][(rows["isl"] == 128)]
    assert trace.x[0] == 128
    assert trace.y[0] + trace.error_y.array[0] == pytest.approx(mine.max())
    assert trace.y[0] - trace.error_y.arrayminus[0] == pytest.approx(mine.min())


def test_predictions_are_the_engine_model_s(make: Make) -> None:
    timing = timing_of(make("aggregated"))
    isl, batch, hit = np.array([512.0, 2048, 4096]), np.array([4.0, 1, 16]), np.array([0.0, 1024, 0])
    predicted = predicted_prompts(timing, isl, batch, hit)
    assert predicted[:2] == pytest.approx(_prompt_ms(isl, batch, hit)[:2], rel=0.05)
    # 65,536 tokens in eight full iterations, each of which pays what an iteration costs.
    full = 8 * float(timing.linear_ms(8192.0)) + timing.attention_ms_per_token2 * 16 * 4096.0**2
    assert predicted[2] == pytest.approx(full)
    beside = predicted_mixed(timing, np.array([2048.0, 0.0]), np.array([32.0, 32.0]), np.array([32_768.0, 32_768.0]))
    step = float(timing.iteration_ms(32.0, 32_768.0))
    assert beside[0] == pytest.approx(float(timing.prompt_ms(2048.0)) + step - timing.floor_ms)
    assert beside[1] == pytest.approx(step)


def test_the_command_writes_one_file(make: Make, tmp_path: Path) -> None:
    make("aggregated")
    app = typer.Typer()
    app.command()(command)
    to = tmp_path / "report.html"
    result = CliRunner().invoke(app, [str(tmp_path / "to"), "--to", str(to)])
    assert result.exit_code == 0, result.output
    assert to.read_text().startswith("<!doctype html>")
    nowhere = CliRunner().invoke(app, [str(tmp_path / "to"), "--to", str(tmp_path / "no" / "r.html")])
    assert isinstance(nowhere.exception, InputError)
    assert "--to" in str(nowhere.exception)


def test_hand_offs_from_different_tp_are_drawn_apart(make: Make, tmp_path: Path) -> None:
    profile = make("decode")
    rows = dict(profile.samples["transfer"])
    far = rows | {"transfer_ms": 3.0 * rows["transfer_ms"]}
    both = {name: np.concatenate([values, far[name]]) for name, values in rows.items()}
    both["prefill_tp"] = np.repeat([1.0, 2.0], len(rows["tokens"]))
    two = save_profile(tmp_path / "two", profile.meta, {**profile.samples, "transfer": both})
    drawn: dict[str, Any] = {trace.name: trace for trace in figures.transfer(two).data}
    assert set(drawn) == {"from TP1", "measured from TP1", "from TP2", "measured from TP2"}
    assert np.allclose(drawn["measured from TP2"].y, 3.0 * np.asarray(drawn["measured from TP1"].y))


SHIPPED = [
    folder
    for folder in find_profiles(ROOT / "profiling_results")
    if folder.name.startswith("aggregated") or (folder / "transfer.csv").is_file()
]


@pytest.mark.parametrize("folder", SHIPPED, ids=lambda path: "-".join(path.parts[-4:]))
def test_profiles_that_are_shipped_can_be_drawn(folder: Path) -> None:
    assert "</html>" in page(read_subject(folder))
