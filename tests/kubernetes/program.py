"""One program of the test bed: started, paused, killed and started again with the same command."""

from __future__ import annotations

import contextlib
import os
import random
import signal
import socket
import subprocess
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from tests.kubernetes.watchdog import Watchdog


def fixed_port() -> int:
    """A free loopback port that no outgoing connection takes, so that a server can come back to it.

    Linux gives outgoing connections ports from 32768 on; a client that tries a stopped server's port there again and
    again may even connect to itself.
    """
    for _ in range(1000):
        port = random.randrange(20_000, 32_000)  # noqa: S311 (no secret)
        with socket.socket() as probe, contextlib.suppress(OSError):
            probe.bind(("127.0.0.1", port))
            return port
    raise RuntimeError("no free port between 20000 and 32000")


class Program:
    """A process in a session of its own.

    Args:
        name: of its log, `FOLDER/NAME.log`.
        command: absolute, with its arguments.
        folder: its working directory.
        watchdog: ends it should the test run be killed.
        env: its environment; this process's own if None.
    """

    def __init__(
        self,
        name: str,
        command: Sequence[str | Path],
        folder: Path,
        watchdog: Watchdog,
        env: Mapping[str, str] | None = None,
    ) -> None:
        self.name, self.command, self.folder = name, list(command), folder
        self.log = folder / f"{name}.log"
        self._watchdog, self._env = watchdog, env
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def alive(self) -> bool:
        """Whether it runs, paused or not."""
        return self._process is not None and self._process.poll() is None

    @property
    def pid(self) -> int:
        """Of the process that runs or ran last."""
        assert self._process is not None, f"{self.name} was never started"
        return self._process.pid

    def start(self) -> None:
        """Start it; nothing if it runs."""
        if self.alive:
            return
        with self.log.open("ab") as log:
            self._process = subprocess.Popen(
                self.command, stdout=log, stderr=subprocess.STDOUT, stdin=subprocess.DEVNULL, cwd=self.folder,
                env=self._env, start_new_session=True,
            )  # fmt: skip
        self._watchdog.watch(self._process.pid)

    def stop(self, grace_s: float = 20.0) -> None:
        """Ask it to end and kill what is left after the grace."""
        if self.alive:
            self.resume()
            os.kill(self.pid, signal.SIGTERM)
            with contextlib.suppress(subprocess.TimeoutExpired):
                self._process.wait(grace_s)  # type: ignore[union-attr]
        self.kill()

    def kill(self) -> None:
        """SIGKILL to it and its children."""
        if self._process is None:
            return
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self.pid, signal.SIGKILL)
        self._process.wait()
        self._watchdog.forget(self.pid)

    def pause(self) -> None:
        """SIGSTOP: its connections stay open and nothing is answered."""
        os.killpg(self.pid, signal.SIGSTOP)

    def resume(self) -> None:
        """SIGCONT."""
        os.killpg(self.pid, signal.SIGCONT)

    def wait_until(self, true: Callable[[], bool], what: str, timeout_s: float = 120.0) -> None:
        """Until something holds of it.

        Raises:
            RuntimeError: it ended; with the end of its log.
            TimeoutError: it did not come.
        """
        end = time.monotonic() + timeout_s
        while True:
            if not self.alive:
                raise RuntimeError(f"{self.name} ended: {self.tail()}")
            if true():
                return
            if time.monotonic() > end:
                raise TimeoutError(f"{self.name}, {what}: not within {timeout_s:g} s: {self.tail()}")
            time.sleep(0.05)

    def tail(self, size: int = 2000) -> str:
        """The end of its log."""
        return self.log.read_text(encoding="utf-8", errors="replace")[-size:] if self.log.exists() else ""
