"""`profiler run --url` on the simulated engine: its known truth comes back, through a kill in the middle as well."""

from __future__ import annotations

import json
import signal
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from profiler.tables import Profile, load_profile
from tests.integration.profiler.runs import ROOT, Run, samples
from tests.integration.vllm_cpu.workers import Process, free_port

TRUTH = ROOT / "profiling_results" / "llama-3.1-8b-instruct-fp8" / "h200-sxm" / "vllm-unknown"
#: The engine runs so many times slower than its profile: HTTP's own milliseconds, which the truth does not know, then
#: count that much less.
SLOWER = 4.0
LAYOUT = Path("llama-3.1-8b-instruct-fp8/h200-sxm/vllm-0.32.0+simulated")


@pytest.fixture(scope="module")
def engine(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    port = free_port()
    command = [sys.executable, "-m", "worker_graph.simulated", "--profile", str(TRUTH), "--role", "aggregated",
               "--port", str(port), "--model", "sim", "--speed-up", str(1 / SLOWER), "--flush-ms", "1"]  # fmt: skip
    process = Process(command, tmp_path_factory.mktemp("engine") / "log", {"PYTHONPATH": str(ROOT)})
    process.wait_for(f"http://127.0.0.1:{port}/health", 60.0)
    yield f"http://127.0.0.1:{port}"
    process.stop()


def arguments(url: str, to: Path, *more: str) -> list[str]:
    return [
        "--url", url, "--model", "llama-3.1-8b", "--dtype", "fp8", "--gpu", "h200-sxm", "--to", str(to),
        "--max-num-seqs", "8", "--max-num-batched-tokens", "8192", "--max-model-len", "2048", "--longest-isl", "1900",
        "--max-gpu-minutes", "1.5", "--tables", "prefill,decode", *more,
    ]  # fmt: skip


def test_a_killed_run_goes_on_and_the_truth_comes_back(engine: str, tmp_path: Path) -> None:
    to = tmp_path / "out"
    first = Run(arguments(engine, to), tmp_path / "first.log")
    journal = first.until_samples(to, 12, 120.0)
    first.kill()
    before = samples(journal)

    second = Run(arguments(engine, to, "--resume"), tmp_path / "second.log")
    assert second.wait(240.0) == 0, second.log.read_text()
    after = samples(journal)
    assert after[: len(before)] == before
    assert len(after) > len(before)

    profile = load_profile(to / LAYOUT / "aggregated-tp1-dp1")
    assert [row["outcome"] for row in second.layouts().values()] == ["done"]
    _check_prefill(profile, load_profile(TRUTH / "prefill-tp1-dp1"))
    _check_decode(profile, load_profile(TRUTH / "decode-tp1-dp1"))
    assert json.loads(next(to.glob(".run-*/status.json")).read_text())["phase"] == "done"


def _check_prefill(profile: Profile, truth: Profile) -> None:
    """Lengths between those that were measured; the truth's own prefill is linear in pieces, with knees of its own."""
    assert profile.prefill is not None
    assert truth.prefill is not None
    isl = np.array([200.0, 450.0, 900.0, 1300.0, 1700.0])
    isl = isl[~np.isin(isl, profile.samples["prefill"]["isl"])]
    off = np.abs(profile.prefill.ttft_ms(isl) / SLOWER / truth.prefill.ttft_ms(isl) - 1)
    assert off.mean() <= 0.05 + profile.meta.errors["prefill"].mean, (isl, off, profile.meta.errors)


def _check_decode(profile: Profile, truth: Profile) -> None:
    assert profile.decode is not None
    assert truth.decode is not None
    batch = np.array([2.0, 3.0, 6.0, 7.0])
    kv = batch * np.array([400.0, 800.0, 500.0, 1200.0])
    off = np.abs(profile.decode.itl_ms(batch, kv) / SLOWER / truth.decode.itl_ms(batch, kv) - 1)
    assert off.mean() <= 0.02 + profile.meta.errors["decode"].mean, (off, profile.meta.errors)


def test_an_engine_that_dies_in_the_middle_of_a_sample(tmp_path: Path) -> None:
    port = free_port()
    command = [sys.executable, "-m", "worker_graph.simulated", "--profile", str(TRUTH), "--role", "aggregated",
               "--port", str(port), "--model", "sim"]  # fmt: skip
    process = Process(command, tmp_path / "engine.log", {"PYTHONPATH": str(ROOT)})
    process.wait_for(f"http://127.0.0.1:{port}/health", 60.0)
    to = tmp_path / "out"
    run = Run(arguments(f"http://127.0.0.1:{port}", to), tmp_path / "run.log")
    journal = run.until_samples(to, 5, 120.0)
    process.stop(0.0)
    assert run.wait(60.0) == 3
    layout = run.layouts()["tp1"]
    assert layout["outcome"] == "failed"
    assert "is not healthy" in layout["reason"]
    assert len(samples(journal)) >= 5
    assert not (to / LAYOUT).exists()


def test_an_engine_that_never_gets_healthy(tmp_path: Path) -> None:
    silent = tmp_path / "vllm"
    silent.write_text("#!/bin/sh\necho loading weights\nsleep 600 &\nwait\n")
    silent.chmod(0o755)
    to = tmp_path / "out"
    run = Run(
        ["--model", "llama-3.1-8b", "--stub", "--gpu", "cpu", "--layout", "tp1", "--vllm", str(silent), "--to", str(to),
         "--startup-timeout-s", "3"],
        tmp_path / "run.log",
    )  # fmt: skip
    assert run.wait(60.0) == 3
    layout = run.layouts()["tp1"]
    assert layout["reason"] == "did not get healthy within 3 s"
    assert layout["log"] == ["loading weights"]
    left = json.loads(next(to.glob(".run-*/processes.json")).read_text())
    assert left == []


def test_ctrl_c_ends_the_engine_that_starts(tmp_path: Path) -> None:
    pid_file = tmp_path / "pid"
    silent = tmp_path / "vllm"
    silent.write_text(f"#!/bin/sh\necho $$ > {pid_file}.part && mv {pid_file}.part {pid_file}\nsleep 600 &\nwait\n")
    silent.chmod(0o755)
    run = Run(
        ["--model", "llama-3.1-8b", "--stub", "--gpu", "cpu", "--layout", "tp1", "--vllm", str(silent),
         "--to", str(tmp_path / "out")],
        tmp_path / "run.log",
    )  # fmt: skip
    _until(pid_file)
    run.send(signal.SIGINT)
    assert run.wait(30.0) == 130
    assert "--resume" in run.log.read_text()
    assert not Path(f"/proc/{pid_file.read_text().strip()}").exists()


def _until(file: Path) -> None:
    for _ in range(600):
        if file.exists():
            return
        time.sleep(0.05)
    raise AssertionError(f"{file} never came")
