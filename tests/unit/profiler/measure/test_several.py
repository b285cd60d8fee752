"""Samples that are the median one of several: lone prompts and hand-offs sent one after another."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine, Sequence
from typing import Any, TypeVar

import pytest

from profiler.measure import EngineMeter, Facts, PairMeter, Point
from profiler.measure.client import Stream
from profiler.measure.facts import Scrape

T = TypeVar("T")
FACTS = Facts("http://x", "m", "0.26.0", 100_000, 16, True, 4096, 16, 2048)


class Pair(PairMeter):
    """Hand-offs that take as long as they are told: (all of it, the hand-off), ms."""

    def __init__(self, *times: tuple[float, float]) -> None:
        super().__init__(FACTS, FACTS)
        self.left, self._warm = list(times), True

    async def _hand_over(self, tokens: int) -> dict[str, float]:
        total, moved = self.left.pop(0)
        return {"tokens": float(tokens), "total_ms": total, "transfer_ms": moved}


class Lone(EngineMeter):
    """Prompts that take as long as they are told, ms; the first of them is for warming up."""

    def __init__(self, *times: float) -> None:
        super().__init__(FACTS)
        self.left, self._warm, self._client = list(times), True, self  # type: ignore[assignment]

    async def stream(self, *_: object) -> Stream:
        stream = Stream(0.0)
        first_s = 1e-3 * self.left.pop(0)
        stream.timeline = lambda: [(first_s, 1)]  # type: ignore[method-assign]
        return stream

    async def _at_once(self, prompts: Sequence[str], isl: int, hit: int) -> dict[str, float]:
        assert (len(prompts), hit) == (1, 0)
        ttft = self.left.pop(0)
        return {"isl": float(isl), "ttft_ms": ttft, "server_ms": ttft - 1}


def now(work: Coroutine[Any, Any, T]) -> T:
    return asyncio.run(work)


def test_a_quick_hand_off_is_the_median_one_of_three() -> None:
    pair = Pair((90.0, 30.0), (500.0, 10.0), (80.0, 20.0), (1.0, 1.0))
    sample = now(pair.measure(Point("transfer", (512.0,))))
    # The whole row of that hand-off, not medians of each column.
    assert sample.values == {"tokens": 512.0, "total_ms": 80.0, "transfer_ms": 20.0, "prompts": 3.0}
    assert len(pair.left) == 1


def test_a_slow_hand_off_is_sent_once() -> None:
    pair = Pair((500.1, 30.0), (90.0, 10.0), (90.0, 20.0))
    assert now(pair.measure(Point("transfer", (512.0,)))).values["transfer_ms"] == 30.0
    assert len(pair.left) == 2


def test_the_post_of_a_hand_off_is_what_the_engines_count_grew_by() -> None:
    name = "vllm:nixl_post_time_seconds"
    before, after = (Scrape({f"{name}_sum": s, f"{name}_count": n}, ()) for s, n in ((1.0, 7.0), (1.012, 9.0)))
    assert PairMeter(FACTS, FACTS)._post_ms(before, after) == pytest.approx(12.0)
    # Two GPUs post side by side.
    assert PairMeter(FACTS, FACTS, decode_tp=2)._post_ms(before, after) == pytest.approx(6.0)
    # The first hand-off creates the count; without one, or without growth, nothing is known.
    assert PairMeter(FACTS, FACTS)._post_ms(Scrape({}, ()), before) == pytest.approx(1000.0)
    assert PairMeter(FACTS, FACTS)._post_ms(before, before) is None
    assert PairMeter(FACTS, FACTS)._post_ms(Scrape({}, ()), Scrape({}, ())) is None


@pytest.mark.parametrize(("first_ms", "prompts"), [(60.0, 5), (60.1, 3), (250.0, 3), (250.1, 1)])
def test_short_prompts_are_sent_several_times(first_ms: float, prompts: int) -> None:
    times = [70.0, 30.0, 90.0, 20.0, 50.0][:prompts]
    lone = Lone(first_ms, *times, 1.0)
    values = now(lone.measure(Point("prefill", (512.0, 1.0, 0.0)))).values
    median = sorted(times)[prompts // 2]
    assert (values["ttft_ms"], values["server_ms"], values["prompts"]) == (median, median - 1, float(prompts))
    assert lone.left == [1.0]
