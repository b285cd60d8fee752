"""Requests in the background, at a rate that can be changed while they flow."""

from __future__ import annotations

import asyncio
import random
import threading
from collections import Counter
from collections.abc import Iterator

from planner.demo.settings import MODEL
from profiler.load import Load, Result, ScheduledRequest
from tests.fault_tolerance.planner.installation import SPEED_UP

#: Requests per second of the engines: a pair of workers is far more than enough for one, and not enough for the other.
LOW_RPS, HIGH_RPS = 0.5, 6.0

#: Long prompts and short answers: few requests make much work.
ISL, OSL = 12_000, 16


class Traffic:
    """Open-loop load from `start` to `stop`.

    Attributes:
        rps: mean rate of a Poisson process, requests per second of the engines.
        outcomes: how the requests ended so far, counted.
    """

    def __init__(self, gateway_url: str) -> None:
        self.rps = LOW_RPS
        self.outcomes = Counter[str]()
        self._load = Load(gateway_url, MODEL, speed_up=SPEED_UP, timeout_s=120.0)
        self._ended = False
        self._thread = threading.Thread(target=self._run, name="traffic")

    def start(self) -> None:
        self._thread.start()

    def stop(self) -> None:
        self._ended = True
        self._thread.join()

    def _run(self) -> None:
        asyncio.run(self._load.run_open(self._schedule(), self._count))

    def _schedule(self) -> Iterator[ScheduledRequest]:
        chance, at_s = random.Random(7), 0.0  # noqa: S311 (no secret)
        while not self._ended:
            yield ScheduledRequest(at_s, ISL, OSL)
            at_s += chance.expovariate(self.rps)

    def _count(self, result: Result) -> None:
        self.outcomes[result.outcome.value] += 1
