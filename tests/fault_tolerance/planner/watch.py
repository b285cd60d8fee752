"""Looks at a graph all the time, from a thread of its own, and remembers what it had."""

from __future__ import annotations

import threading
import time
from dataclasses import dataclass
from itertools import pairwise

from profiler.errors import PlimsollError
from tests.fault_tolerance.planner.installation import Counts, Graph

#: Between two looks; a tick is several times as long.
EVERY_S = 0.2


@dataclass(frozen=True)
class Look:
    """What the graph had at a moment, unix time; `lease_s` is what was left of the holder's lease."""

    at_s: float
    desired: Counts
    ready: Counts
    gpus_held: int
    holder: str
    lease_s: float


class Watch:
    """Looks from `start` to `stop`; moments at which the graph did not answer are missing."""

    def __init__(self, graph: Graph) -> None:
        self._client = graph.client
        self._looks: list[Look] = []
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._run, name="watch")

    def start(self) -> None:
        self._thread.start()

    def stop(self) -> None:
        self._ended.set()
        self._thread.join()

    def looks(self, since_s: float = 0.0) -> list[Look]:
        """Those since a unix time."""
        return [look for look in list(self._looks) if look.at_s >= since_s]

    def lowered(self, since_s: float) -> list[str]:
        """Every moment since then at which a pool was asked to have fewer workers than a moment before, in words."""
        return [
            f"{name} from {before.desired[name]} to {count} at {after.at_s:.1f}"
            for before, after in pairwise(self.looks(since_s))
            for name, count in after.desired.items()
            if count < before.desired[name]
        ]

    def most_asked(self, since_s: float) -> int:
        """The most workers that were asked for at once; every one has a GPU."""
        return max(sum(look.desired.values()) for look in self.looks(since_s))

    def _run(self) -> None:
        while not self._ended.wait(EVERY_S):
            at_s = time.time()
            try:
                status = self._client.status()
            except PlimsollError:
                continue
            pools, lease = status["pools"], status["lease"]
            self._looks.append(
                Look(
                    at_s=at_s,
                    desired={name: pool["desired"] for name, pool in pools.items()},
                    ready={name: pool["ready"] for name, pool in pools.items()},
                    gpus_held=status["gpus"]["held"],
                    holder=lease["holder"],
                    lease_s=lease["expires_in_s"],
                )
            )
