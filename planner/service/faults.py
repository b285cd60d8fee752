"""Failures by stage of a tick: counted each, logged when they begin, change and end, and kept for whoever asks."""

from __future__ import annotations

import re
import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from enum import StrEnum
from types import TracebackType

from planner.service.logs import log
from profiler.errors import PlimsollError


class Stage(StrEnum):
    """The parts of a tick that fail on their own."""

    READ = "read"
    OBSERVE = "observe"
    DECIDE = "decide"
    LEASE = "lease"
    APPLY = "apply"
    LAYOUTS = "layouts"
    JOURNAL = "journal"
    CHECKPOINT = "checkpoint"
    TICK = "tick"


@dataclass(frozen=True, slots=True)
class Fault:
    """The last failure of a stage.

    Attributes:
        text: what failed, for people.
        at_s: when, unix time.
        since_s: when the present run of failures began, unix time.
        in_a_row: failures since then.
        active: whether the stage's last try failed.
    """

    text: str
    at_s: float
    since_s: float
    in_a_row: int
    active: bool


class Faults:
    """Keeps the failures.

    Args:
        wall_s: gives unix time.
        on_failure: called with each failure's stage, for counting.
    """

    def __init__(self, wall_s: Callable[[], float], on_failure: Callable[[Stage], None] = lambda _: None) -> None:
        self._wall_s = wall_s
        self._on_failure = on_failure
        self._last: dict[Stage, Fault] = {}
        self._lock = threading.Lock()

    @property
    def last(self) -> Mapping[Stage, Fault]:
        """The last failure of every stage that ever failed."""
        with self._lock:
            return dict(self._last)

    def active(self, stage: Stage) -> Fault | None:
        """The failure that a stage is in now."""
        with self._lock:
            fault = self._last.get(stage)
        return fault if fault is not None and fault.active else None

    def stage(self, stage: Stage) -> Guard:
        """A context in which a stage runs: what it raises is noted and goes no further."""
        return Guard(self, stage)

    def failed(self, stage: Stage, error: Exception) -> None:
        """Note a failure."""
        self._on_failure(stage)
        now, text = self._wall_s(), _words(stage, error)
        before = self.active(stage)
        since, count = (before.since_s, before.in_a_row + 1) if before else (now, 1)
        with self._lock:
            self._last[stage] = Fault(text, now, since, count, active=True)
        # The same failure with another number in it is no news.
        if before is None or _shape(before.text) != _shape(text):
            # A failure that is not one of ours is a mistake in the program: its place is worth a long line, once.
            known = isinstance(error, PlimsollError | OSError)
            log.error("%s", text, extra={"stage": stage}, exc_info=None if known else error)

    def recovered(self, stage: Stage) -> None:
        """Note that a stage went well."""
        fault = self.active(stage)
        if fault is None:
            return
        with self._lock:
            self._last[stage] = replace(fault, active=False)
        span = self._wall_s() - fault.since_s
        log.info("works again after %d failures in %.0f s", fault.in_a_row, span, extra={"stage": stage})


class Guard:
    """Keeps a stage's failure from the other stages and from the next tick."""

    def __init__(self, faults: Faults, stage: Stage) -> None:
        self._faults = faults
        self._stage = stage

    def __enter__(self) -> None:
        """Nothing to set up."""

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> bool:
        """Note how the stage ended. Orders to end the process go through."""
        if error is None:
            self._faults.recovered(self._stage)
        if isinstance(error, Exception):
            self._faults.failed(self._stage, error)
            return True
        return False


def _words(stage: Stage, error: Exception) -> str:
    if isinstance(error, OSError) and error.strerror:
        return f"{stage}: {error.strerror}" + (f": {error.filename}" if error.filename else "")
    return str(error) if isinstance(error, PlimsollError) else f"{type(error).__name__}: {error}"


def _shape(text: str) -> str:
    return re.sub(r"\d+", "0", text)
