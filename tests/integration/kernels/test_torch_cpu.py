"""Block copies and micro-benchmarks with torch on the processor, in the environment that holds vLLM."""

import json
import os
import subprocess
from pathlib import Path

import pytest

from tests.integration.vllm_cpu import setup

ROOT = Path(__file__).parents[3]
CONFIG = {
    "architectures": ["LlamaForCausalLM"],
    "model_type": "llama",
    "hidden_size": 64,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "intermediate_size": 128,
    "vocab_size": 512,
    "head_dim": 16,
    "torch_dtype": "bfloat16",
    "max_position_embeddings": 2048,
}


@pytest.fixture(scope="session")
def python() -> Path:
    """An interpreter with torch; tests never install it by themselves."""
    env = setup.folder()
    if not setup.is_complete(env):
        pytest.skip(f"no vLLM for the CPU in {env}; make it with: python tests/integration/vllm_cpu/setup.py")
    return env / "bin" / "python"


def run(python: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    return subprocess.run(
        [python, "-m", *arguments], cwd=ROOT, env=environment, capture_output=True, text=True, timeout=240, check=False
    )  # fmt: skip


@pytest.mark.parametrize("method", ["index", "per_block"])
@pytest.mark.parametrize("case", ["gather", "scatter", "between", "permute", "host", "refusals"])
def test_copies_are_plain_indexing(python: Path, case: str, method: str) -> None:
    done = run(python, "tests.integration.kernels.cases", case, method)
    assert done.returncode == 0, done.stderr


def test_the_fallback_is_taken_and_recorded(python: Path) -> None:
    done = run(python, "tests.integration.kernels.cases", "fallback", "chosen")
    assert done.returncode == 0, done.stderr


@pytest.fixture
def config(tmp_path: Path) -> Path:
    file = tmp_path / "config.json"
    file.write_text(json.dumps(CONFIG), encoding="utf-8")
    return file


def test_a_whole_run_between_two_ranks(python: Path, config: Path, tmp_path: Path) -> None:
    out = tmp_path / "micro.json"
    done = run(python, "profiler.kernels", "--config", str(config), "--tp", "2", "--device", "cpu", "--seconds", "60",
               "--out", str(out), "--output", "json")  # fmt: skip
    assert done.returncode == 0, done.stderr
    data = json.loads(out.read_text(encoding="utf-8"))
    assert json.loads(done.stdout) == data
    assert {p["name"] for p in data["gemm"]} == {"qkv", "o", "gate_up", "down", "lm_head"}
    assert [p["bytes"] for p in data["all_reduce"]] == [8192, 65536, 524288]
    assert data["prefill"]
    assert data["decode"]
    copies = data["copies"]["points"]
    assert {"ceiling_d2h", "gather", "scatter"} <= {p["operation"] for p in copies}
    assert all(p["checked"] for p in copies)


def test_a_budget_is_kept_and_what_it_left_out_is_named(python: Path, config: Path, tmp_path: Path) -> None:
    out = tmp_path / "micro.json"
    done = run(python, "profiler.kernels", "--config", str(config), "--device", "cpu", "--seconds", "1", "--out",
               str(out))  # fmt: skip
    assert done.returncode == 0, done.stderr
    data = json.loads(out.read_text(encoding="utf-8"))
    assert data["skipped"]
    assert "was spent" in data["skipped"][0]


def test_no_gpu_is_wrong_usage(python: Path, config: Path) -> None:
    done = run(python, "profiler.kernels", "--config", str(config))
    assert done.returncode == 2
    assert "0 GPUs found" in done.stderr
