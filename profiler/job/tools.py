"""What a unit is measured with, and waiting for several things at once."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field
from typing import Protocol, TypeVar

from profiler.engines.engine import Engine
from profiler.job.plan import Plan, Unit
from profiler.measure import EngineMeter, Facts, Meter, PairMeter, read_facts
from profiler.sampling import Target

T = TypeVar("T")


class ClosingMeter(Meter, Protocol):
    """A meter with connections."""

    async def close(self) -> None:
        """Close them."""
        ...


@dataclass(frozen=True)
class Tools:
    """What a unit is measured with; tests put others in their place."""

    launch: Callable[[Plan, Unit], Sequence[tuple[Engine, tuple[str, ...] | None]]] = lambda plan, unit: plan.launch(
        unit
    )
    facts: Callable[..., Awaitable[Facts]] = read_facts
    engine_meter: Callable[[Facts, int], ClosingMeter] = lambda facts, seed: EngineMeter(facts, seed=seed)
    pair_meter: Callable[[Facts, Facts, int, int], ClosingMeter] = lambda prefill, decode, decode_tp, seed: PairMeter(
        prefill, decode, decode_tp=decode_tp, seed=seed
    )
    target: Target = field(default_factory=Target)


async def together(work: Sequence[Awaitable[T]]) -> list[T]:
    """Results of all; the first failure ends the others and is raised as it is."""
    tasks = [asyncio.ensure_future(one) for one in work]
    try:
        return list(await asyncio.gather(*tasks))
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
