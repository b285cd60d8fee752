"""The simulated engine as a program: its arguments, its timing file, its life."""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from http.client import HTTPConnection
from pathlib import Path

import numpy as np
import pytest

from tests.engines import engine, transfer
from worker_graph.simulated.__main__ import main
from worker_graph.simulated.timing import WorkerTiming

ROOT = Path(__file__).parents[4]
H200 = ROOT / "profiling_results" / "llama-3.1-8b-instruct-fp8" / "h200-sxm"
ROLES = ("prefill", "decode", "aggregated")


@pytest.fixture(scope="module")
def file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("timing") / "aggregated.npz"
    WorkerTiming.of(engine(step_ms=5.0), transfer(), role="aggregated", source="by hand").save(path)
    return path


def failure(capsys: pytest.CaptureFixture[str], *arguments: object) -> tuple[int, str]:
    with pytest.raises(SystemExit) as ended:
        main([str(argument) for argument in arguments])
    assert isinstance(ended.value.code, int)
    return ended.value.code, capsys.readouterr().err


@pytest.mark.parametrize("role", ROLES)
def test_a_timing_file_holds_what_the_profiles_say(role: str, tmp_path: Path) -> None:
    from worker_graph.simulated.profiles import worker_timing  # noqa: PLC0415

    path = tmp_path / "timing.npz"
    main(["--role", role, "--profile", str(H200), "--write-timing", str(path)])
    read, made = WorkerTiming.load(path), worker_timing(role, [H200])
    assert read.limits == made.limits
    assert read.limits.role == role
    assert read.limits.max_model_len == 131_072
    for name in ("prefill", "decode", "transfer", "post"):
        np.testing.assert_array_equal(getattr(read, name), getattr(made, name))
    assert read.decode_ms(3, 1000) > 0.0 < read.linear_ms(100)


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--port", "0"], ["--role"]),
        (["--role", "prefill", "--port", "0"], ["--profile, --timing", "one of them"]),
        (["--role", "prefill", "--port", "70000", "--timing", "x"], ["--port", "70000"]),
        (["--role", "prefill", "--port", "0", "--timing", "x", "--speed-up", "0"], ["--speed-up", "above 0"]),
        (["--role", "prefill", "--port", "0", "--timing", "x", "--startup-s", "nan"], ["--startup-s", "nan"]),
        (["--role", "prefill", "--port", "0", "--timing", "nowhere.npz"], ["nowhere.npz", "cannot be read"]),
        (["--role", "prefill", "--port", "0", "--profile", "nowhere"], ["nowhere", "holds no profile"]),
        (["--role", "prefill", "--profile", str(H200 / "vllm-unknown" / "prefill-tp1-dp1")], ["no decode profile"]),
    ],
)
def test_wrong_usage_is_named(arguments: list[str], words: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    code, text = failure(capsys, *arguments)
    assert code == 2
    for word in words:
        assert word in text


def test_a_timing_file_of_another_role_or_broken(
    file: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert failure(capsys, "--role", "decode", "--timing", file, "--port", 0)[0] == 2
    broken = tmp_path / "broken.npz"
    whole = file.read_bytes()
    for content in (b"", b"text", whole[: len(whole) // 2]):
        broken.write_bytes(content)
        code, text = failure(capsys, "--role", "aggregated", "--timing", broken, "--port", 0)
        assert (code, str(broken) in text) == (2, True)
    table = dict(np.load(file))
    for name, value in (("decode", np.zeros((3, 4))), ("prefill", np.array([0.0, np.nan])), ("about", np.array("{}"))):
        np.savez(broken, **{**table, name: value})
        assert failure(capsys, "--role", "aggregated", "--timing", broken, "--port", 0)[0] == 2


def test_without_a_port_there_is_nothing_to_do(file: Path, capsys: pytest.CaptureFixture[str]) -> None:
    code, text = failure(capsys, "--role", "aggregated", "--timing", file)
    assert (code, "--port" in text) == (2, True)


def test_a_taken_port_is_said_at_once(file: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        code, text = failure(capsys, "--role", "aggregated", "--timing", file, "--port", port)
    assert code == 3
    assert f"127.0.0.1:{port}: the port is taken" in text


@contextlib.contextmanager
def process(file: Path, *options: str) -> Iterator[tuple[subprocess.Popen[str], int]]:
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    arguments = ["--role", "aggregated", "--timing", str(file), "--port", str(port), *options]
    worker = subprocess.Popen(
        [sys.executable, "-m", "worker_graph.simulated", *arguments],
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        stderr=subprocess.PIPE,
        text=True,
    )
    try:
        yield worker, port
    finally:
        worker.kill()
        worker.communicate()


def listening(port: int) -> HTTPConnection:
    """A connection, as soon as there is one."""
    while True:
        client = HTTPConnection("127.0.0.1", port, timeout=20)
        try:
            client.connect()
        except ConnectionRefusedError:
            time.sleep(0.02)
        else:
            return client


STREAM = b'{"prompt": "a", "max_tokens": %d, "stream": true}'


@pytest.mark.parametrize(("timeout", "whole"), [("0", False), ("60", True)])
def test_sigterm_cuts_the_streams_or_lets_them_end(file: Path, timeout: str, whole: bool) -> None:
    # 400 iterations of 5 ms at twice the speed: a second.
    with process(file, "--shutdown-timeout", timeout, "--speed-up", "2") as (worker, port):
        client = listening(port)
        client.request("POST", "/v1/completions", STREAM % 400)
        answer = client.getresponse()
        assert answer.status == 200
        answer.fp.readline()
        worker.send_signal(signal.SIGTERM)
        rest = b""
        with contextlib.suppress(OSError, ValueError):
            # The connection may end within a chunk.
            while line := answer.fp.readline():
                rest += line
        client.close()
        assert worker.wait(20) == 0
        assert (b"[DONE]" in rest) == whole


def test_sigterm_while_starting_up_ends_at_once(file: Path) -> None:
    with process(file, "--startup-s", "3600") as (worker, port):
        with socket.socket() as probe:
            # Bound but not listening: nobody else gets the port, and nobody gets through.
            while probe.connect_ex(("127.0.0.1", port)) == 0 or not _bound(port):
                time.sleep(0.02)
        # The handlers are set a moment after the port is bound.
        while not _catches(worker.pid, signal.SIGTERM):
            time.sleep(0.02)
        worker.send_signal(signal.SIGTERM)
        assert worker.wait(20) == 0


def _bound(port: int) -> bool:
    with socket.socket() as other:
        try:
            other.bind(("127.0.0.1", port))
        except OSError:
            return True
        return False


def _catches(pid: int, number: signal.Signals) -> bool:
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    caught = next(int(line.split()[1], 16) for line in lines if line.startswith("SigCgt"))
    return bool(caught >> (number - 1) & 1)
