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
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode == 0, done.stderr


_COMPILED = """
import re
import triton.language as tl
from triton import compile
from triton.backends.compiler import GPUTarget
from triton.compiler import ASTSource
from profiler.kernels.block_kernel import copy_runs

# Half of the heads of blocks of 16 tokens: runs of 1 KiB within 2 KiB.
constants = dict(
    SOURCE_HALF=1 << 22, SOURCE_BLOCK=4096, SOURCE_SLOT=256, SOURCE_START=128, TARGET_HALF=2048, TARGET_BLOCK=131072,
    TARGET_SLOT=128, TARGET_START=0, SOURCE_BY_ID=True, TARGET_BY_ID=False, SLOTS=16, RUN=128, WORD=tl.int64, VECTOR=2,
    PIECES=1, PIECE=2048)
signature = {n: "*i64" if n not in constants else "constexpr" for n in copy_runs.arg_names}
values = {(copy_runs.arg_names.index(n),): v for n, v in constants.items()}
attributes = {(i,): [["tt.divisibility", 16]] for i in range(4)}
source = ASTSource(fn=copy_runs, signature=signature, constexprs=values, attrs=attributes)
text = compile(source, target=GPUTarget("cuda", 90, 32)).asm["ptx"]
print(len(re.findall(r"ld\\.global\\S*v2\\.b64", text)), len(re.findall(r"st\\.global\\S*v2\\.b64", text)))
"""


def test_on_hopper_threads_move_16_bytes_at_once() -> None:
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    environment.pop("TRITON_INTERPRET", None)
    command = [sys.executable, "-c", _COMPILED]
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stdout.split() == ["8", "8"]
