"""The demo's programs: started as a user would start them, and ended with all that they started."""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

from profiler.errors import DependencyError, InputError
from worker_graph.local.process import kill_session

T = TypeVar("T")

#: Seconds that a program gets to end by itself: the graph ends its workers within ten.
_GRACE_S = 20.0


class Child:
    """`planner VERB …` as a process of its own session, with a log."""

    def __init__(self, words: list[str], log: Path) -> None:
        self.name, self.log = f"planner {words[0]}", log
        with log.open("wb") as sink:
            self._process = subprocess.Popen(  # noqa: S603 (this very program)
                [sys.executable, "-m", "planner", *words],
                stdin=subprocess.DEVNULL,
                stdout=sink,
                stderr=sink,
                start_new_session=True,
            )

    def wait_for(self, found: Callable[[], T | None], timeout_s: float, what: str) -> T:
        """What `found` returns once it returns something.

        Raises:
            InputError: the program ended because something that it was given is wrong.
            DependencyError: it ended, or nothing was found in time.
        """
        end = time.monotonic() + timeout_s
        while time.monotonic() < end:
            self.check()
            result = found()
            if result is not None:
                return result
            time.sleep(0.05)
        raise DependencyError(f"{what} did not come up within {timeout_s:g} s; {self.last_line()} ({self.log})")

    def check(self) -> None:
        """Raise if the program has ended."""
        code = self._process.poll()
        if code is None:
            return
        if code == InputError.exit_code:
            raise InputError(self.last_line().removeprefix("error: "))
        raise DependencyError(f"{self.name} ended with exit code {code}: {self.last_line()} ({self.log})")

    def last_line(self) -> str:
        """The end of its log, for errors."""
        lines = self.log.read_text(encoding="utf-8", errors="replace").strip().splitlines()
        return lines[-1] if lines else "its log is empty"

    def stop(self) -> None:
        """SIGTERM, and the end of its whole session if that takes too long."""
        if self._process.poll() is None:
            self._process.terminate()
            try:
                self._process.wait(_GRACE_S)
            except subprocess.TimeoutExpired:
                kill_session(self._process.pid)
                self._process.wait()
