"""Children of the supervisor: ended whole, quoted from, and found again after a crash."""

import asyncio
import json
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from profiler.errors import DependencyError
from worker_graph.local import leftovers
from worker_graph.local.ports import check_free
from worker_graph.local.process import Process

#: Starts a child of its own that ignores SIGTERM, says both process ids, and waits.
STUBBORN = """
import os, signal, subprocess, sys, time
deaf = "import signal, time; signal.signal(signal.SIGTERM, signal.SIG_IGN); time.sleep(60)"
child = subprocess.Popen([sys.executable, "-c", deaf])
print(os.getpid(), child.pid, flush=True)
signal.signal(signal.SIGTERM, signal.SIG_IGN)
time.sleep(60)
"""


def alive(pid: int) -> bool:
    """Whether a process runs; a zombie does not."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0] not in ("Z", "X")
    except FileNotFoundError:
        return False


def gone_within(pid: int, seconds: float) -> bool:
    """Whether a process ends; a SIGKILL takes a moment to be carried out."""
    end = time.monotonic() + seconds
    while alive(pid) and time.monotonic() < end:
        time.sleep(0.01)
    return not alive(pid)


def test_stop_ends_what_ignores_sigterm_and_its_children(tmp_path: Path) -> None:
    async def scenario() -> tuple[int, int]:
        process = await Process.start([sys.executable, "-c", STUBBORN], {}, tmp_path / "log")
        while not (tmp_path / "log").read_text().strip():
            await asyncio.sleep(0.01)
        own, child = map(int, (tmp_path / "log").read_text().split())
        assert process.pid == own
        assert alive(own)
        assert alive(child)
        await process.stop(0.2)
        assert process.exit_code == -signal.SIGKILL
        return own, child

    own, child = asyncio.run(scenario())
    assert gone_within(own, 5)
    assert gone_within(child, 5)


def test_a_program_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(DependencyError, match="no-such-program cannot be run: No such file"):
        asyncio.run(Process.start(["no-such-program"], {}, tmp_path / "log"))


def test_the_last_line_of_the_log_is_quoted_without_colours(tmp_path: Path) -> None:
    async def scenario() -> str:
        code = r"print('first'); print('\x1b[31mValueError: out of memory\x1b[0m\n\n')"
        process = await Process.start([sys.executable, "-c", code], {"PYTHONUNBUFFERED": "1"}, tmp_path / "log")
        await process.wait()
        return process.last_line()

    assert asyncio.run(scenario()) == "ValueError: out of memory"


def test_leftovers_are_ended_and_strangers_with_their_number_are_not(tmp_path: Path) -> None:
    said: list[str] = []
    left = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)"], start_new_session=True)
    stranger = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)"], start_new_session=True)
    try:
        leftovers.write(tmp_path, [left.pid, stranger.pid])
        noted = json.loads((tmp_path / "processes.json").read_text())
        noted[1]["started"] -= 1  # as if the number had been given to another process since
        (tmp_path / "processes.json").write_text(json.dumps(noted))
        assert leftovers.end(tmp_path, said.append) == 1
        assert left.wait(5) == -signal.SIGKILL
        assert stranger.poll() is None
        assert said == ["ended 1 processes that an earlier run had left"]
    finally:
        for process in (left, stranger):
            process.kill()
            process.wait()


def test_what_leftovers_held_is_free_when_they_have_been_ended(tmp_path: Path) -> None:
    # A process with memory to give back takes its time to die; its port is taken until then.
    code = """
import socket, time
memory = bytearray(256 << 20)
for at in range(0, len(memory), 4096):
    memory[at] = 1
server = socket.create_server(("127.0.0.1", 0))
print(server.getsockname()[1], flush=True)
time.sleep(60)
"""
    command = [sys.executable, "-c", code]
    with subprocess.Popen(command, start_new_session=True, stdout=subprocess.PIPE, text=True) as left:
        assert left.stdout is not None
        try:
            port = int(left.stdout.readline())
            leftovers.write(tmp_path, [left.pid])
            assert leftovers.end(tmp_path, lambda _: None) == 1
            check_free("127.0.0.1", port, "the next one")
        finally:
            left.kill()


def test_a_damaged_note_is_said(tmp_path: Path) -> None:
    said: list[str] = []
    (tmp_path / "processes.json").write_text("{")
    assert leftovers.end(tmp_path, said.append) == 0
    assert "cannot be read" in said[0]


def test_no_note_is_nothing_left(tmp_path: Path) -> None:
    assert leftovers.end(tmp_path, pytest.fail) == 0
