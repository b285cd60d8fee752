"""A child process of its own session, with a log file, that is ended whole: itself and all that it started."""

from __future__ import annotations

import asyncio
import contextlib
import os
import re
import signal
from collections.abc import Mapping, Sequence
from pathlib import Path

from profiler.errors import DependencyError

#: What colours a terminal; programs write it to logs, too.
_COLOUR = re.compile(r"\x1b\[[0-9;]*m")

#: Bytes of a log's end that an error quotes from.
_TAIL_BYTES = 4096


class Process:
    """One running child. Its session's id is its own process id, so that its children can be ended with it."""

    def __init__(self, process: asyncio.subprocess.Process, log: Path) -> None:
        self._process = process
        self.log = log

    @classmethod
    async def start(cls, argv: Sequence[str], env: Mapping[str, str], log: Path) -> Process:
        """Start a command; its output goes to `log`.

        Raises:
            DependencyError: the program is not there or cannot be run, or the log cannot be written.
        """
        try:
            sink = log.open("ab")
        except OSError as error:
            raise DependencyError(f"{log} cannot be written: {error.strerror or error}") from None
        with sink:
            try:
                process = await asyncio.create_subprocess_exec(
                    *argv,
                    stdin=asyncio.subprocess.DEVNULL,
                    stdout=sink,
                    stderr=asyncio.subprocess.STDOUT,
                    env={**os.environ, **env},
                    # Ctrl-C in the terminal must reach the supervisor alone, which drains before it ends anything.
                    start_new_session=True,
                )
            except OSError as error:
                raise DependencyError(f"{argv[0]} cannot be run: {error.strerror or error}") from None
        return cls(process, log)

    @property
    def pid(self) -> int:
        """Process id, and the id of its session."""
        return self._process.pid

    @property
    def exit_code(self) -> int | None:
        """None while it runs; negative for the signal that ended it."""
        return self._process.returncode

    async def wait(self) -> int:
        """Its exit code, once it has ended."""
        return await self._process.wait()

    async def stop(self, grace_s: float) -> None:
        """SIGTERM, and SIGKILL to the whole session when the grace is over; returns when nothing of it runs."""
        if self.exit_code is None:
            with contextlib.suppress(ProcessLookupError):
                self._process.terminate()
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._process.wait(), grace_s)
        kill_session(self.pid)
        await self._process.wait()

    def last_line(self) -> str:
        """The last line of its log that is not empty, for errors."""
        try:
            with self.log.open("rb") as file:
                file.seek(0, os.SEEK_END)
                file.seek(max(0, file.tell() - _TAIL_BYTES))
                text = file.read().decode(errors="replace")
        except OSError as error:
            return f"log cannot be read: {error.strerror or error}"
        lines = [line.strip() for line in _COLOUR.sub("", text).splitlines() if line.strip()]
        return lines[-1] if lines else "its log is empty"


def kill_session(pid: int) -> None:
    """SIGKILL to every process of a session; vLLM's engine core outlives its API server otherwise."""
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(pid, signal.SIGKILL)
