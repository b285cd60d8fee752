"""`planner demo` as a user starts it: it ends by itself with its verdict, or says why it cannot, and leaves nothing."""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import subprocess
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import requests

from tests.integration.local.graphs import alive, cleaned, environment, eventually, left, planner
from tests.servers import free_port, needs_smg

pytestmark = needs_smg


@dataclass
class Demo:
    """A demo that runs, or one that ran."""

    process: subprocess.Popen[str]
    place: Path
    out: Path
    port: int

    def ended(self, timeout_s: float) -> tuple[int, str, str]:
        """Exit code, standard output and standard error."""
        out, err = self.process.communicate(timeout=timeout_s)
        return self.process.returncode, out, err

    def planner(self) -> int | None:
        """Process id of its planner, once that runs."""
        return next((pid for pid, line in alive(self.place).items() if " -m planner run " in line), None)

    def decides(self) -> bool:
        """Whether the planner answers, so that the load is under way, or about to be."""
        state = requests.get(f"http://127.0.0.1:{self.port}/api/state", timeout=5.0, proxies={"http": ""})
        return state.status_code == 200 and (self.out / "decisions.jsonl").exists()


@contextlib.contextmanager
def demo(tmp_path: Path, duration_s: float = 60.0) -> Iterator[Demo]:
    with cleaned() as place:
        out, port = tmp_path / "demo", free_port()
        words = ("demo", "--trace", f"generate:documents,duration_s={duration_s:g}", "--port", str(port), "--out", out)
        process = subprocess.Popen(
            planner(*words), stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
            env=environment(), cwd=place, start_new_session=True,
        )  # fmt: skip
        try:
            yield Demo(process, place, out, port)
        finally:
            if process.poll() is None:
                process.kill()
                process.communicate()


def test_it_ends_by_itself_with_its_verdict(tmp_path: Path) -> None:
    began = time.monotonic()
    with demo(tmp_path) as one:
        code, out, err = one.ended(180.0)
        print(f"ended after {time.monotonic() - began:.0f} s\n{out}")
        assert code == 0, err
        assert "planner (live)" in out
        assert "1p1d (replayed)" in out
        live = next(line for line in out.splitlines() if "planner (live)" in line).split()
        assert live[-2] == "0", out  # lost
        assert f"watch it: http://127.0.0.1:{one.port}" in out
        assert (one.out / "decisions.jsonl").read_text().count("\n") >= 3
        assert left(one.place) == {}


def test_ctrl_c_in_the_middle_leaves_nothing(tmp_path: Path) -> None:
    with demo(tmp_path, 600.0) as one:
        eventually(one.decides, "the planner decides", 90.0)
        assert len(alive(one.place)) >= 6  # itself, graph, gateway, two workers, planner
        one.process.send_signal(signal.SIGINT)
        code, _, err = one.ended(60.0)
        assert code == 130, err
        assert "interrupted; everything was ended" in err
        assert "Traceback" not in err
        assert left(one.place) == {}


def test_ctrl_c_on_the_way_up_leaves_nothing(tmp_path: Path) -> None:
    with demo(tmp_path, 600.0) as one:
        eventually(lambda: len(alive(one.place)) >= 3, "the graph comes up", 60.0)
        one.process.send_signal(signal.SIGINT)
        code, _, err = one.ended(60.0)
        assert code == 130, err
        assert left(one.place) == {}


def test_its_port_is_taken(tmp_path: Path) -> None:
    with socket.socket() as taken, demo(tmp_path) as one:
        # Python needs far longer to start than this.
        taken.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        taken.bind(("127.0.0.1", one.port))
        taken.listen()
        code, _, err = one.ended(60.0)
        assert code == 3, err
        assert f"the page (--port): 127.0.0.1:{one.port} cannot be listened on" in err
        assert not one.out.exists()
        assert left(one.place) == {}


def test_a_planner_that_dies_in_the_middle_is_said_with_its_log(tmp_path: Path) -> None:
    with demo(tmp_path, 600.0) as one:
        eventually(one.decides, "the planner decides", 90.0)
        pid = one.planner()
        assert pid is not None
        os.kill(pid, signal.SIGKILL)
        code, _, err = one.ended(60.0)
        assert code == 3, err
        assert "planner run ended with exit code -9" in err
        assert str(one.out / "planner.log") in err
        assert left(one.place) == {}
