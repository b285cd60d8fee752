"""`profiler run` as a program of its own, so that it can be killed as programs are."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

_PROGRAM = "from profiler.cli import main; main()"
ROOT = Path(__file__).resolve().parents[3]


class Run:
    """A run under way."""

    def __init__(self, arguments: Sequence[str], log: Path, environment: Mapping[str, str] | None = None) -> None:
        self.log, self.answer = log, log.with_suffix(".json")
        with log.open("wb") as said, self.answer.open("wb") as answered:
            self._popen = subprocess.Popen(
                [sys.executable, "-c", _PROGRAM, "run", "--output", "json", *arguments],
                stdin=subprocess.DEVNULL,
                stdout=answered,
                stderr=said,
                env={**os.environ, "PYTHONPATH": str(ROOT), **(environment or {})},
                cwd=ROOT,
            )

    @property
    def pid(self) -> int:
        return self._popen.pid

    def wait(self, timeout_s: float) -> int:
        """Its exit code; its log when it takes too long."""
        try:
            return self._popen.wait(timeout_s)
        except subprocess.TimeoutExpired:
            self._popen.kill()
            self._popen.wait()
            raise AssertionError(self.log.read_text()) from None

    def send(self, number: signal.Signals) -> None:
        """A signal to it alone."""
        self._popen.send_signal(number)

    def kill(self) -> None:
        """As nothing can be caught."""
        self._popen.send_signal(signal.SIGKILL)
        self._popen.wait()

    def layouts(self) -> dict[str, dict[str, Any]]:
        """What it answered, by layout."""
        return {one["name"]: one for one in json.loads(self.answer.read_text())["layouts"]}

    def until_samples(self, to: Path, count: int, timeout_s: float) -> Path:
        """Its journal, once it holds so many samples."""
        end = time.monotonic() + timeout_s
        while time.monotonic() < end:
            for journal in to.glob(".run-*/samples-*.jsonl"):
                if journal.read_text().count('"kind": "sample"') >= count:
                    return journal
            assert self._popen.poll() is None, self.log.read_text()
            time.sleep(0.02)
        raise AssertionError(self.log.read_text())


def samples(journal: Path) -> list[str]:
    """Lines of a journal that are samples."""
    return [line for line in journal.read_text().splitlines() if '"kind": "sample"' in line]
