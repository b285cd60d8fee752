"""Where a run stands, in a ConfigMap: for `kubectl get`, while the run goes on, and never in its way."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Callable, Mapping
from types import TracebackType
from typing import Protocol

from profiler.errors import DependencyError

#: Seconds between changes that are only about progress.
EVERY_S = 10.0
#: Seconds that the last change may take once the run has ended.
LAST_S = 15.0


class Keys(Protocol):
    """What sets keys of a ConfigMap."""

    def merge(self, name: str, data: Mapping[str, str], labels: Mapping[str, str] | None = None) -> None:
        """Set keys; DependencyError where that fails."""


class Announcer:
    """Writes the newest state under one key, from a thread of its own; the states between are left out.

    A cluster that cannot be reached is said once and tried again with the next state: measuring goes on.

    Args:
        keys: of the cluster.
        name: of the ConfigMap.
        key: under which this run stands, such as its layout.
        say: a line for people.
    """

    def __init__(self, keys: Keys, name: str, key: str, say: Callable[[str], None]) -> None:
        self._keys, self._name, self._key, self._say = keys, name, key, say
        self._wanted: dict[str, object] | None = None
        self._turn: object = None
        self._written_at = float("-inf")
        self._due = False
        self._ended = False
        self._failed = False
        self._changed = threading.Condition()
        self._thread = threading.Thread(target=self._run, name="announcer", daemon=True)

    def __enter__(self) -> Announcer:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        with self._changed:
            self._ended = True
            self._changed.notify()
        self._thread.join(LAST_S)

    def tell(self, state: Mapping[str, object]) -> None:
        """The state now; a phase or a layout that turned is written at once, anything else every so many seconds."""
        turn = (state.get("phase"), state.get("layout"))
        with self._changed:
            self._wanted = dict(state)
            if turn != self._turn or time.monotonic() - self._written_at >= EVERY_S:
                self._turn, self._written_at, self._due = turn, time.monotonic(), True
                self._changed.notify()

    def _run(self) -> None:
        while True:
            with self._changed:
                self._changed.wait_for(lambda: self._due or self._ended)
                state, self._wanted, self._due, ended = self._wanted, None, False, self._ended
            if state is not None:
                self._write(state)
            if ended:
                return

    def _write(self, state: Mapping[str, object]) -> None:
        try:
            self._keys.merge(self._name, {self._key: json.dumps(state, allow_nan=False)})
        except DependencyError as error:
            if not self._failed:
                self._say(f"the state is not shown: {error}")
            self._failed = True
        else:
            self._failed = False
