"""Requests in the background, at a rate that can be changed while they flow."""

from __future__ import annotations

import asyncio
import random
import threading
import time
from collections import Counter
from collections.abc import Iterator
from datetime import UTC, datetime

from planner.demo.settings import MODEL
from profiler.load import Load, Outcome, Result, ScheduledRequest
from tests.fault_tolerance.planner.installation import SPEED_UP

#: Requests per second of the engines: a pair of workers is far more than enough for one, and not enough for the other.
LOW_RPS, HIGH_RPS = 0.5, 6.0

#: Asks for the whole budget and keeps it; what is added for a crowd that is only coming is given back once it has come.
CROWD_RPS = 12.0

#: Long prompts and short answers: few requests make much work.
ISL, OSL = 12_000, 16


class Traffic:
    """Open-loop load from `start` to `stop`.

    Attributes:
        rps: mean rate of a Poisson process, requests per second of the engines.
        outcomes: how the requests ended so far, counted.
        lost: those that did not complete, in words: when they were sent and ended (UTC), how, and what was answered.
    """

    def __init__(self, gateway_url: str) -> None:
        self.rps = LOW_RPS
        self.outcomes = Counter[str]()
        self.lost: list[str] = []
        self._load = Load(gateway_url, MODEL, speed_up=SPEED_UP, timeout_s=120.0)
        self._ended = False
        self._thread = threading.Thread(target=self._run, name="traffic")

    def start(self) -> None:
        self._thread.start()

    def stop(self) -> None:
        self._ended = True
        self._thread.join()

    def check(self) -> None:
        """Requests have ended so far, and none was lost."""
        assert not self.lost, "\n".join([f"lost, of {dict(self.outcomes)}:", *self.lost])
        assert self.outcomes

    def _run(self) -> None:
        asyncio.run(self._load.run_open(self._schedule(), self._count))

    def _schedule(self) -> Iterator[ScheduledRequest]:
        chance, at_s = random.Random(7), 0.0  # noqa: S311 (no secret)
        while not self._ended:
            yield ScheduledRequest(at_s, ISL, OSL)
            at_s += chance.expovariate(self.rps)

    def _count(self, result: Result) -> None:
        self.outcomes[result.outcome.value] += 1
        if result.outcome is not Outcome.COMPLETED:
            now_s, took_s = time.time(), (result.e2e_ms or 0.0) / 1000.0 / SPEED_UP
            self.lost.append(f"{_clock(now_s - took_s)} to {_clock(now_s)}: {result.outcome.value}, {result.error}")


def _clock(at_s: float) -> str:
    """Time of day, UTC, as the programs' logs have it."""
    return datetime.fromtimestamp(at_s, UTC).strftime("%H:%M:%S.%f")[:-3]
