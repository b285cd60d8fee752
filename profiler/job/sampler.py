"""Taking samples from one engine until its tables are good enough, its budget is spent, or it fails."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from typing import TypeVar

from profiler.engines.engine import Engine, EngineDiedError
from profiler.errors import DependencyError
from profiler.job.journal import Journal, StorageError
from profiler.measure import Meter, Point
from profiler.sampling import Sampling

T = TypeVar("T")

#: So many points lost one after the other, and the engine is taken to be no good although it answers.
MOST_LOST_IN_A_ROW = 8

#: A sample may run over the budget by this share of it; filling a KV cache takes long.
OVERRUN = 0.1


@dataclass
class Sampler:
    """Samples of one engine, or of a pair, under one label of the journal.

    Attributes:
        label: of the journal.
        meter: takes the samples.
        sampling: chooses their points.
        journal: keeps them.
        engines: that must live.
        budget_s: seconds of measuring, those before a resume included.
        sample_timeout_s: an engine that takes longer for one sample hangs.
        on_change: called after each sample.
    """

    label: str
    meter: Meter
    sampling: Sampling
    journal: Journal
    engines: Sequence[Engine]
    budget_s: float
    sample_timeout_s: float
    on_change: Callable[[], None] = lambda: None

    @property
    def out_of_budget(self) -> bool:
        """Whether the seconds are used up."""
        return self.journal.history(self.label).spent_s >= self.budget_s

    @property
    def wants_more(self) -> bool:
        """Whether there is something left to measure."""
        history = self.journal.history(self.label)
        return not self.out_of_budget and self.sampling.choose(history.samples, history.failed) is not None

    async def run(self) -> None:
        """Measure to the end; whatever happens, what was taken is in the journal.

        Raises:
            EngineDiedError: an engine ended, hangs, or does not do what it is asked.
            StorageError: the disk is full.
        """
        mark = time.monotonic()

        def spent() -> float:
            nonlocal mark
            before, mark = mark, time.monotonic()
            return mark - before

        try:
            await self._sample(spent)
        except StorageError:
            raise
        except BaseException:
            # What the last sample took before the engine died or the run was interrupted was paid for, too.
            self.journal.spend(self.label, spent())
            raise

    async def _sample(self, spent: Callable[[], float]) -> None:
        history = self.journal.history(self.label)
        in_a_row = 0
        while True:
            choice = None if self.out_of_budget else self.sampling.choose(history.samples, history.failed)
            if choice is None:
                return
            point = choice.point
            left_s = self.budget_s * (1.0 + OVERRUN) - history.spent_s
            try:
                async with asyncio.timeout(min(self.sample_timeout_s, left_s)) as limit:
                    sample = await self.meter.measure(point)
            except TimeoutError:
                if not limit.expired():
                    raise
                if left_s < self.sample_timeout_s:
                    self.journal.lose(self.label, point, "broken off: the budget was used up", spent())
                    return
                text = f"hangs: no sample of {describe(point)} within {self.sample_timeout_s:g} s"
                self.journal.lose(self.label, point, text, spent())
                await self._check()
                raise self.engines[0].failed(text) from None
            except (DependencyError, ValueError) as error:
                self.journal.lose(self.label, point, str(error), spent())
                await self._check()
                in_a_row += 1
                if in_a_row >= MOST_LOST_IN_A_ROW:
                    raise self.engines[0].failed(f"lost {in_a_row} samples in a row, the last: {error}") from None
            else:
                self.journal.add(self.label, sample, choice.why.value, spent())
                in_a_row = 0
            self.on_change()

    async def _check(self) -> None:
        for engine in self.engines:
            await engine.check()


async def while_alive(work: Awaitable[T], engines: Sequence[Engine]) -> T:
    """The result of some work on engines, or the end of one of them, whichever comes first.

    Raises:
        EngineDiedError: an engine ended; the work was broken off.
    """
    task = asyncio.ensure_future(work)
    deaths = [asyncio.create_task(engine.death()) for engine in engines]
    try:
        await asyncio.wait([task, *deaths], return_when=asyncio.FIRST_COMPLETED)
        for death in deaths:
            if death.done():
                raise death.result()
        return await task
    except EngineDiedError as error:
        if error.log:
            raise
        # Requests fail a little before the process is seen to end; why it ended says more.
        for death in deaths:
            try:
                raise await asyncio.wait_for(asyncio.shield(death), 1.0)
            except TimeoutError:
                continue
        raise
    finally:
        for one in (task, *deaths):
            one.cancel()
        await asyncio.gather(task, *deaths, return_exceptions=True)


def describe(point: Point) -> str:
    """A point for people."""
    return f"{point.table} at " + " x ".join(f"{value:g}" for value in point.at)
