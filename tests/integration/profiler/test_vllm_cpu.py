"""`profiler run` starts real vLLM on the CPU, is killed in the middle, and goes on."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from profiler.tables import load_profile
from tests.integration.profiler.runs import Run, samples
from tests.integration.vllm_cpu import setup
from tests.integration.vllm_cpu.workers import ENVIRONMENT


@pytest.fixture
def env() -> Path:
    """The virtual environment with vLLM; tests never install it by themselves."""
    folder = setup.folder()
    if not setup.is_complete(folder):
        pytest.skip(f"no vLLM for the CPU in {folder}; make it with: python tests/integration/vllm_cpu/setup.py")
    return folder


def arguments(env: Path, to: Path, *more: str) -> list[str]:
    # Compiling is skipped since it takes longer than the test, the CPU's attention takes blocks of multiples of 32
    # tokens, and the memory is sized for a model of 0.8 million weights.
    return [
        "--model", str(setup.model_folder(env)), "--gpu", "cpu", "--layout", "tp1", "--vllm", str(env / "bin" / "vllm"),
        "--to", str(to), "--max-num-seqs", "4", "--max-num-batched-tokens", "512", "--block-size", "32",
        "--max-model-len", "1024", "--longest-isl", "512", "--max-gpu-minutes", "0.4", "--startup-timeout-s", "240",
        *more, "--", "--dtype", "bfloat16", "--enforce-eager", "--kv-cache-memory-bytes", "64M",
        "--disable-uvicorn-access-log",
    ]  # fmt: skip


def test_killed_and_resumed(env: Path, tmp_path: Path) -> None:
    to = tmp_path / "out"
    environment = ENVIRONMENT | {
        "VLLM_CACHE_ROOT": str(tmp_path / "cache"), "VLLM_CONFIG_ROOT": str(tmp_path / "config"),
    }  # fmt: skip
    first = Run(arguments(env, to), tmp_path / "first.log", environment)
    journal = first.until_samples(to, 5, 240.0)
    (engine,) = json.loads((journal.parent / "processes.json").read_text())
    first.kill()
    before = samples(journal)
    # The engine outlives the run that was killed, and the next run must not start beside it.
    assert Path(f"/proc/{engine['pid']}").exists()

    second = Run(arguments(env, to, "--resume"), tmp_path / "second.log", environment)
    assert second.wait(300.0) == 0, second.log.read_text()
    assert "ended 1 processes that an earlier run had left" in second.log.read_text()
    assert not Path(f"/proc/{engine['pid']}").exists()
    assert samples(journal)[: len(before)] == before

    layout = second.layouts()["tp1"]
    assert layout["outcome"] == "done"
    assert len(layout["startup_s"]["aggregated"]) == 2
    assert json.loads((journal.parent / "processes.json").read_text()) == []
    for role in ("prefill", "decode", "aggregated"):
        profile = load_profile(to / "tiny-model" / "cpu" / "vllm-0.32.0" / f"{role}-tp1-dp1")
        assert profile.meta.kv_capacity_tokens is not None
        assert profile.meta.limits.max_num_batched_tokens == 512
        assert profile.meta.startup_s is not None
        assert min(profile.meta.startup_s) > 1.0
