"""`profiler record` as a command; runs against engines are in the integration tests."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
import typer
from typer.testing import CliRunner

from profiler.cli.record import record
from profiler.errors import DependencyError, InputError

app = typer.Typer()
app.command()(record)
SCHEDULE = ["--schedule", "poisson:rate=1,duration_s=5,isl=10,osl=1"]
BASE = ["--model", "m", "--gpu", "h100-sxm"]


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--url", "http://127.0.0.1:1"], "--schedule"),
        (SCHEDULE, "--url"),
        (["--prefill-url", "http://127.0.0.1:1", *SCHEDULE], "--decode-url"),
        (["--url", "http://127.0.0.1:1", "--trace", "t.csv", "--rate-scale", "3"], "rate_scale"),
        (["--url", "http://127.0.0.1:1", "--speed-up", "0", *SCHEDULE], "--speed-up"),
        (["--url", "http://127.0.0.1:1", "--timeout-s", "nan", *SCHEDULE], "--timeout-s"),
    ],
)
def test_wrong_use(tmp_path: Path, arguments: list[str], words: str) -> None:
    ended = CliRunner().invoke(app, [*BASE, "--to", str(tmp_path / "runs"), *arguments])
    assert isinstance(ended.exception, InputError), ended.output
    assert words in str(ended.exception)
    assert not (tmp_path / "runs").exists()


def test_an_engine_that_is_not_there(tmp_path: Path) -> None:
    ended = CliRunner().invoke(app, [*BASE, "--to", str(tmp_path / "runs"), "--url", "http://127.0.0.1:1", *SCHEDULE])
    assert isinstance(ended.exception, DependencyError)
    assert not (tmp_path / "runs").exists()


def test_a_gpu_host_needs_few_packages() -> None:
    """Recording runs where the engine is; plots, statistics and the planner's own clients are not there."""
    heavy = ("scipy", "plotly", "statsmodels", "apscheduler", "requests", "prometheus_api_client", "numba")
    code = (
        "import sys, profiler.cli.record, profiler.record.jobs;"
        f"sys.exit(' '.join(name for name in {heavy!r} if name in sys.modules) or 0)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=False)
    assert (done.returncode, done.stderr) == (0, "")
