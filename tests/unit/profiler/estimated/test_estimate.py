"""`profiler estimate` on recorded answers of the package: figures, what is said of them, and what is refused."""

import json
import shlex
import sys
from pathlib import Path

import numpy as np
import pytest
import typer
from typer.testing import CliRunner

from planner.service.load import load_config
from planner.service.model import load_model
from profiler import show
from profiler.cli.estimate import estimate
from profiler.errors import DependencyError, InputError, PlimsollError
from profiler.estimated.grid import grid
from profiler.estimated.plan import Worker, plan
from profiler.estimated.query import ask
from profiler.models.catalog import find_model
from profiler.tables import find_profiles, load_profile
from tests.unit.profiler.estimated.record import FIXTURE, recorded_plan, without_config

RECORDED = json.loads(FIXTURE.read_text())


def interpreter(folder: Path, answer: str, code: int = 0) -> Path:
    """What answers instead of a Python that has the package."""
    reply, program = folder / "reply.json", folder / "python"
    reply.write_text(answer)
    program.write_text(
        f"#!/bin/sh\ncat > {shlex.quote(str(folder))}/asked.json\ncat {shlex.quote(str(reply))}\nexit {code}\n"
    )
    program.chmod(0o755)
    return program


def call(*arguments: str) -> str:
    app = typer.Typer()
    app.command()(estimate)
    result = CliRunner().invoke(app, arguments)
    if isinstance(result.exception, PlimsollError):
        raise result.exception
    assert result.exit_code == 0, result.output
    return result.stdout


def estimated(tmp_path: Path, python: Path, *more: str) -> str:
    folder = str(tmp_path / "out")
    return call(
        "--model", "llama-3.1-8b", "--gpu", "h100-sxm", "--to", folder, "--aiconfigurator", str(python), *more
    )  # fmt: skip


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folder of the recorded worker's profiles, made once."""
    folder = tmp_path_factory.mktemp("estimate")
    printed = estimated(folder, interpreter(folder, json.dumps(RECORDED["answer"])))
    assert [Path(line).name for line in printed.splitlines()] == [
        "prefill-tp1-dp1",
        "decode-tp1-dp1",
        "aggregated-tp1-dp1",
    ]
    return folder


def test_recording_is_of_the_points_that_are_asked_today() -> None:
    assert without_config(recorded_plan().request) == RECORDED["request"]
    assert "aiconfigurator-core 0.12" in RECORDED["source"]
    assert RECORDED["licence"] == "Apache-2.0"


def test_three_profiles_that_say_what_they_are(made: Path) -> None:
    profiles = [load_profile(path) for path in find_profiles(made / "out")]
    assert {profile.meta.role for profile in profiles} == {"prefill", "decode", "aggregated"}
    for profile in profiles:
        meta = profile.meta
        assert meta.source.form == "estimated"
        assert meta.source.licence == "Apache-2.0"
        assert "0.12.0" in meta.source.text
        assert "an estimate, not a measurement" in meta.warnings[0]
        assert "42.6 % of TTFT and 4.9 % of ITL" in meta.warnings[0]
        assert meta.engine.version == "0.24.0"
        assert (meta.date, meta.startup_s, meta.cost) == (None, None, None)
        assert meta.kv_capacity_check is not None
        assert "not read from an engine" in meta.kv_capacity_check
        assert profile.roofline is not None
    sent = json.loads((made / "asked.json").read_text())
    assert sent["config"]["architectures"] == ["LlamaForCausalLM"]


def test_figures_are_the_package_s(made: Path) -> None:
    """What its own command line printed for the same worker, to its rounding."""
    profile = load_profile(made / "out" / "aggregated-tp1-dp1")
    assert profile.prefill is not None
    assert profile.decode is not None
    assert profile.mixed is not None
    ttft = profile.prefill.ttft_ms([128, 512, 1024, 2048, 4096, 8192])
    assert np.allclose(ttft, [7.6, 12.0, 22.1, 43.5, 90.1, 199.7], atol=0.05)
    batch = np.array([1, 8, 32, 64, 128, 256])
    itl = profile.decode.itl_ms(batch, 1024 * batch)
    # The surface never falls with the batch, and some of the package's times do.
    assert np.allclose(itl, [6.18, 6.60, 8.32, 10.35, 12.83, 19.55], rtol=0.012)
    # A prompt beside decode steps takes longer than either alone, and less than both one after the other.
    both = float(profile.mixed.iteration_ms(1024, 16, 16 * 2048))
    alone = float(profile.prefill.ttft_ms(1024)), float(profile.decode.itl_ms(16, 16 * 2048))
    assert max(alone) < both < sum(alone)


def test_prompts_beyond_one_iteration_are_the_sum_of_their_pieces(made: Path) -> None:
    rows = load_profile(made / "out" / "prefill-tp1-dp1").samples["prefill"]
    times = dict(zip(map(tuple, RECORDED["request"]["prefill"]), RECORDED["answer"]["prefill"], strict=True))
    found = dict(zip(rows["isl"], rows["ttft_ms"], strict=True))
    assert found[16384.0] == pytest.approx(times[8192, 0] + times[8192, 8192])
    assert found[12288.0] == pytest.approx(times[8192, 0] + times[4096, 8192])


def test_the_warning_reaches_show_and_the_planner(made: Path, tmp_path: Path) -> None:
    folder = made / "out" / "aggregated-tp1-dp1"
    summary = show.summarise(load_profile(folder))
    assert any("not a measurement" in warning for warning in summary["profile"]["warnings"])
    config = tmp_path / "planner.yaml"
    config.write_text(
        "graph: chat\nmodel: m\nconnector: {kind: local, local: {control_url: 'http://127.0.0.1:7070'}}\n"
        f"metrics: {{source: scrape, gateway: smg}}\nprofiles: [{folder}]\nsla: {{ttft_ms: 500, itl_ms: 30}}\n"
        "budget: {max_gpus: 4}\npools: {w: {role: aggregated, min_workers: 1}}\n"
    )
    model = load_model(load_config(config), config)
    assert any("not a measurement" in warning for warning in model.warnings)


def test_data_parallel_tables_are_of_the_whole_worker(tmp_path: Path) -> None:
    config = find_model("qwen3-30b-a3b")
    worker = Worker(config=config, name=config.name, gpu="h200-sxm", tp=2, dp=2, expert_parallel=True,
                    max_num_seqs=32, max_model_len=4096)  # fmt: skip
    made = plan(worker)
    assert (made.request.moe_tp, made.request.moe_ep) == (1, 4)
    points = {kind: getattr(made.request, kind) for kind in ("prefill", "decode", "mixed")}
    answer = {kind: [1.0 + sum(point) / 1e5 for point in held] for kind, held in points.items()}
    answer |= {"package": "1", "version": "0.24.0", "current": "0.24.0"}
    answer["sources"] = {"prefill": {"silicon": 1.0}, "decode": {"silicon": 3.0, "mixed": 1.0}}
    fake = interpreter(tmp_path, json.dumps(answer))
    to = str(tmp_path / "out")
    call(
        "--model", "qwen3-30b-a3b", "--gpu", "h200-sxm", "--to", to, "--tp", "2", "--dp", "2", "--expert-parallel",
        "--max-num-seqs", "32", "--max-model-len", "4096",
        "--aiconfigurator", str(fake),
    )  # fmt: skip
    profile = load_profile(tmp_path / "out" / "decode-tp2-dp2-ep")
    rows = profile.samples["decode"]
    assert list(rows["batch"] / 2) == [batch for batch, _ in made.request.decode]
    assert np.array_equal(rows["kv_tokens"], rows["batch"] * rows["context_tokens"])
    assert profile.meta.gpu.count_per_worker == 4
    assert profile.meta.limits.max_num_seqs == 2 * made.max_num_seqs
    assert profile.meta.kv_capacity_tokens == 2 * made.kv_tokens_per_rank
    assert "--enable-expert-parallel" in (profile.meta.engine.arguments or ())
    assert "decode 75% and 25% in part" in profile.meta.source.text


def test_grid_keeps_the_limits() -> None:
    config = find_model("llama-3.1-8b")
    worker = Worker(config=config, name="m", gpu="h100-sxm", max_num_seqs=48, max_num_batched_tokens=512,
                    max_model_len=3000, longest_isl=2500)  # fmt: skip
    made = plan(worker)
    assert made.grid.isl[-1] == 2500
    assert max(new for new, _ in made.request.prefill) == 512
    assert max(batch for batch, _ in made.grid.decode) == 48
    assert max(context for _, context in made.grid.decode) == 3000
    assert all(batch * context <= made.kv_tokens_per_rank for batch, context in made.grid.decode)
    # Powers of two are full tiles of the matrix kernels; what lies between them is not as cheap.
    assert {257, 384, 513} < set(grid(longest_isl=4096, longest_context=4096, max_num_seqs=1024,
                                      max_num_batched_tokens=8192, kv=10**6).isl)  # fmt: skip
    assert all(0 < new <= 512 - batch for new, batch, _ in made.grid.mixed)


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("--model", "nope", "--gpu", "h100-sxm"), "no shipped config for 'nope'"),
        (("--gpu", "h100-sxm"), "--model NAME, or --config FILE"),
        (("--model", "llama-3.1-8b", "--gpu", "tpu"), "expected one of h100-sxm, h200-sxm"),
        (("--model", "llama-3.1-8b", "--gpu", "h100-sxm", "--tp", "3"), "expected powers of two.*tp1, tp2"),
        (("--model", "llama-3.1-70b", "--gpu", "h100-sxm"), "cannot serve .* on h100-sxm: weights 131"),
        (("--model", "llama-3.1-8b", "--gpu", "h100-sxm", "--dtype", "float32"), "field --dtype: is float32"),
        (("--model", "llama-3.1-8b", "--gpu", "h100-sxm", "--longest-isl", "200000"), "expected 1 to 131,072"),
        (
            ("--model", "llama-3.1-8b", "--gpu", "h100-sxm", "--max-num-seqs", "9", "--max-num-batched-tokens", "8"),
            "--max-num-seqs: is 9; expected at most 8",
        ),
    ],
)
def test_refused_before_the_package_is_asked(tmp_path: Path, arguments: tuple[str, ...], words: str) -> None:
    with pytest.raises(InputError, match=words):
        call(*arguments, "--to", str(tmp_path / "out"), "--aiconfigurator", "/does/not/exist")
    assert not (tmp_path / "out").exists()


def test_profiles_that_are_there_stay(made: Path) -> None:
    python, before = made / "python", find_profiles(made / "out")
    (made / "asked.json").unlink()
    with pytest.raises(InputError, match=r"exists; expected a new folder, or --overwrite"):
        estimated(made, python)
    assert not (made / "asked.json").exists()
    data = json.loads(estimated(made, python, "--overwrite", "--output", "json"))
    assert [one["profile"]["source"]["form"] for one in data["profiles"]] == ["estimated"] * 3
    assert find_profiles(made / "out") == before


def test_what_the_package_has_not_is_named(tmp_path: Path) -> None:
    text = json.dumps({"refused": "has no vllm 9 for h100_sxm", "field": "version", "known": ["0.24.0", "0.27.0"]})
    with pytest.raises(InputError, match=r"--engine-version: aiconfigurator has no vllm 9.*one of 0\.24\.0, 0\.27\.0"):
        ask(recorded_plan().request, interpreter(tmp_path, text))


@pytest.mark.parametrize(
    ("answer", "code", "words"),
    [
        ("", 1, "failed with exit code 1: it says nothing"),
        ("warming up", 0, "cannot be read"),
        ("[]", 0, "cannot be read"),
        (json.dumps(RECORDED["answer"] | {"decode": [1.0]}), 0, "every decode point"),
        (json.dumps(RECORDED["answer"] | {"mixed": [0.0] * len(RECORDED["answer"]["mixed"])}), 0, "every mixed point"),
    ],
)
def test_a_package_that_fails(tmp_path: Path, answer: str, code: int, words: str) -> None:
    with pytest.raises(DependencyError, match=words):
        ask(recorded_plan().request, interpreter(tmp_path, answer, code))


def test_interpreter_that_is_none(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"--aiconfigurator: .*gone cannot be run"):
        ask(recorded_plan().request, tmp_path / "gone")


def test_without_the_package_the_extra_is_named(tmp_path: Path) -> None:
    """The real worker under this interpreter, which sees no installed packages."""
    bare = tmp_path / "bare"
    bare.write_text(f'#!/bin/sh\nexec {shlex.quote(sys.executable)} -S "$@"\n')
    bare.chmod(0o755)
    with pytest.raises(DependencyError, match=r"has no aiconfigurator-core .*pip install 'plimsoll\[estimate\]'"):
        ask(recorded_plan().request, bare)
