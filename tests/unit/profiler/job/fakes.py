"""Engines and meters without processes: a known formula answers, and they fail when they are told to."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from profiler.engines.engine import EngineDiedError
from profiler.engines.machine import Device, Machine
from profiler.job.journal import Journal
from profiler.job.plan import Plan, Unit
from profiler.job.prepare import Prepared, prepare
from profiler.job.settings import Settings
from profiler.job.tools import Tools
from profiler.measure import Facts, Point, Sample
from profiler.models.layouts import Layout
from profiler.sampling import Target

GPU = "NVIDIA H100 80GB HBM3"


class Killed(BaseException):
    """What SIGKILL looks like to a test: nothing catches it, and nothing is done after it."""


@dataclass
class FakeEngine:
    """An engine that starts, ends or hangs as it is told."""

    url: str = "http://fake"
    pid: int | None = None
    start_error: EngineDiedError | None = None
    dies: asyncio.Event = field(default_factory=asyncio.Event)
    healthy: bool = True
    started: int = 0
    stopped: int = 0

    async def spawn(self) -> None:
        self.started += 1

    async def start(self) -> float | None:
        if self.start_error is not None:
            raise self.start_error
        return 12.0

    async def death(self) -> EngineDiedError:
        await self.dies.wait()
        return EngineDiedError("ended with code -9", ["last words"])

    async def check(self) -> None:
        if not self.healthy:
            raise EngineDiedError("is not healthy any more", ["last words"])

    def failed(self, what: str) -> EngineDiedError:
        return EngineDiedError(what, ["last words"])

    async def stop(self) -> None:
        self.stopped += 1


def values_of(point: Point) -> dict[str, float]:
    """A made-up engine's truth."""
    if point.table == "prefill":
        isl, batch, hit = point.at
        return {"isl": isl, "batch": batch, "prefix_hit_tokens": hit, "ttft_ms": 5.0 + 0.04 * batch * (isl - hit)}
    if point.table == "decode":
        batch, kv = point.at
        itl = 6.0 + 0.01 * batch + 2e-5 * kv
        return {"batch": batch, "kv_tokens": kv, "context_tokens": kv / batch, "itl_ms": itl}
    if point.table == "mixed":
        tokens, batch, kv = point.at
        iteration = 6.0 + 0.04 * tokens + 0.01 * batch + 2e-5 * kv
        return {"prefill_tokens": tokens, "batch": batch, "kv_tokens": kv, "iteration_ms": iteration}
    tokens = point.at[0]
    return {"tokens": tokens, "transfer_ms": 1.0 + 0.001 * tokens}


@dataclass
class FakeMeter:
    """Answers by the formula; `before` is called ahead of each sample and may raise or wait."""

    before: Callable[[Point], Any] = lambda _: None
    taken: list[Point] = field(default_factory=list)
    closed: bool = False
    wall_s: float = 0.01

    async def measure(self, point: Point) -> Sample:
        came = self.before(point)
        if asyncio.iscoroutine(came):
            await came
        self.taken.append(point)
        return Sample(point, values_of(point), self.wall_s)

    async def close(self) -> None:
        self.closed = True


def machine(gpus: int = 4) -> Machine:
    return Machine("h100-sxm", tuple(Device(index, GPU, 81559.0) for index in range(gpus)), "570.1")


def settings(to: Path, **changes: Any) -> Settings:
    """A run of Llama 3.1 8B with a small domain; `vllm` is a program that is certainly there."""
    given = {
        "model": "llama-3.1-8b", "to": to, "vllm": ("sh",), "layouts": (Layout(1),), "max_num_seqs": 16,
        "max_num_batched_tokens": 2048, "longest_isl": 1024, "max_model_len": 4096,
    }  # fmt: skip
    return Settings(**(given | changes))


async def prepared(to: Path, gpus: int = 4, **changes: Any) -> Prepared:
    return await prepare(settings(to, **changes), lambda *_: machine(gpus))


def tools(
    engines: Callable[[Unit, int], FakeEngine], meters: Callable[[], FakeMeter], version: str = "0.26.0", **facts: Any
) -> Tools:
    """Tools of a run: `engines` by unit and number, a meter for each engine or pair."""

    capacity: dict[str, int | None] = {}

    def launch(plan: Plan, unit: Unit) -> Sequence[tuple[FakeEngine, tuple[str, ...] | None]]:
        made = []
        for number, worker in enumerate(unit.workers):
            engine = engines(unit, number)
            engine.url = f"http://fake-{number}"
            # As memory arithmetic has it, or the engine would be refused.
            capacity[engine.url] = worker.layout.kv_tokens
            made.append((engine, tuple(plan.command(worker, 8000 + number))))
        return made

    async def read(url: str, model: str | None = None, **known: int) -> Facts:
        known_here: dict[str, Any] = {
            "url": url, "model": model or "m", "version": version, "kv_capacity_tokens": capacity[url],
            "block_size": 16, "prefix_caching": True, "max_model_len": 4096,
        }  # fmt: skip
        return Facts(**(known_here | known | facts))

    target = Target(min_repeats=1, max_repeats=2)
    return Tools(launch, read, lambda *_: meters(), lambda *_: meters(), target)


def samples_in(journal: Path) -> list[tuple[str, tuple[float, ...]]]:
    """Points in a journal, in order, by label."""
    opened = Journal(journal)
    labels = ("aggregated", "prefill", "decode", "pair")
    return [(s.point.table, s.point.at) for label in labels for s in opened.history(label).samples]
