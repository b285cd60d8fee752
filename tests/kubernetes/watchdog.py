"""Ends what a test run has started when the run itself is killed: `python watchdog.py`, told through its input.

Each line of the input is "+ PID" (watch) or "- PID" (ended properly). At the end of the input, which comes when the run
ends in whatever way, the process groups that are left are killed. A parent-death signal would not do: Linux sends it
when the thread that started the process ends.
"""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
from pathlib import Path


def started(pid: int) -> str | None:
    """When a process started, in clock ticks, to tell it from a later one of the same id; None if there is none."""
    try:
        stat = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8")
    except OSError:
        return None
    return stat.rpartition(")")[2].split()[19]


def main() -> None:
    """Until the input ends."""
    watched: dict[int, str | None] = {}
    for line in sys.stdin:
        sign, _, text = line.partition(" ")
        pid = int(text)
        if sign == "+":
            watched[pid] = started(pid)
        else:
            watched.pop(pid, None)
    for pid, since in watched.items():
        if since is not None and started(pid) == since:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(pid, signal.SIGKILL)


class Watchdog:
    """The test run's side of it."""

    def __init__(self) -> None:
        command = [sys.executable, "-S", __file__]
        self._process = subprocess.Popen(command, stdin=subprocess.PIPE, text=True, bufsize=1, start_new_session=True)

    def watch(self, pid: int) -> None:
        """Kill the process group of this id should the run end."""
        self._tell(f"+ {pid}\n")

    def forget(self, pid: int) -> None:
        """It has ended."""
        self._tell(f"- {pid}\n")

    def close(self) -> None:
        """Kill what has not been forgotten."""
        assert self._process.stdin is not None
        self._process.stdin.close()
        self._process.wait()

    def _tell(self, line: str) -> None:
        assert self._process.stdin is not None
        self._process.stdin.write(line)


if __name__ == "__main__":
    main()
