"""A small sweep in Dynamo's form that agrees with itself, and what is said about it."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from profiler.importer import Described
from profiler.schema import Engine, ModelInfo

Arrays = dict[str, np.ndarray]
CAPACITY = 100_000


@pytest.fixture
def prefill() -> Arrays:
    isl = np.array([100, 1000, 2000, 4000])
    ttft = np.array([10.1, 40.3, 70.7, 150.9])
    return {"prefill_isl": isl, "prefill_ttft": ttft, "prefill_thpt_per_gpu": isl / ttft * 1e3}


@pytest.fixture
def decode() -> Arrays:
    context = np.repeat([500.0, 2000.0], 3)
    batch = np.array([1, 50, 100, 1, 10, 40], dtype=np.float64)
    itl = 5 + 0.02 * batch + 1e-4 * batch * context
    return {
        "x_kv_usage": batch * context / CAPACITY,
        "y_context_length": context,
        "z_itl": itl,
        "z_thpt_per_gpu": batch / itl * 1e3 * 0.98,
        "max_kv_tokens": np.array([CAPACITY]),
    }


@pytest.fixture
def write(tmp_path: Path) -> Callable[[Arrays, Arrays], Path]:
    def npz(prefill: Arrays, decode: Arrays) -> Path:
        folder = tmp_path / "dynamo"
        for half, arrays in (("prefill", prefill), ("decode", decode)):
            file = folder / f"selected_{half}_interpolation" / "raw_data.npz"
            file.parent.mkdir(parents=True, exist_ok=True)
            np.savez(file, **arrays)
        return folder

    return npz


@pytest.fixture
def described() -> Described:
    return Described(
        model=ModelInfo(name="toy", dtype="bfloat16"),
        gpu="toy-gpu",
        engine=Engine(name="vllm", version="0.11.0"),
        tp=1,
        dp=1,
        source="made up for tests",
        licence="Apache-2.0",
    )
