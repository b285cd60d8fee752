"""The Triton kernel, interpreted on the processor, against plain indexing; needs torch and triton."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

pytest.importorskip("torch")
pytest.importorskip("triton")

ROOT = Path(__file__).parents[4]


@pytest.mark.parametrize("case", ["gather", "scatter", "between", "permute", "host", "refusals"])
def test_the_kernel_is_plain_indexing(case: str) -> None:
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "TRITON_INTERPRET": "1"}
    command = [sys.executable, "-m", "tests.integration.kernels.cases", case, "triton"]
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
