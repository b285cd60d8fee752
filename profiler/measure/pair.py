"""Samples of the hand-off: what a prefill/decode pair takes beyond its parts."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Mapping
from typing import Any

from profiler.measure import steady
from profiler.measure.base import Facts, Point, Sample, SampleError
from profiler.measure.client import Client
from profiler.measure.facts import Scrape, scrape
from profiler.measure.prompts import Streams

#: Output tokens of the decode request: the first is what TTFT ends with, the others say what a step takes.
_STEPS = 12
#: Hand-offs one after another of which a sample is the median one, where the first took at most so many ms.
HANDOFFS, QUICK_MS = 3, 500.0
#: Asks a prefill engine to hold a prompt's KV for another (vLLM's NixlConnector; null asks it to fill the place in).
_HOLD: Mapping[str, Any] = {
    "do_remote_decode": True,
    "do_remote_prefill": False,
    "remote_engine_id": None,
    "remote_block_ids": None,
    "remote_host": None,
    "remote_port": None,
}
_EXTERNAL = "vllm:prompt_tokens_by_source_total{external_kv_transfer}"
_EXTERNAL_HITS = "vllm:external_prefix_cache_hits_total"
#: Histogram over hand-offs and, on an engine of several GPUs, over these.
_POST = "vllm:nixl_post_time_seconds"


class PairMeter:
    """Takes samples of table `transfer` from two engines that hand KV over, without a gateway between.

    Args:
        prefill, decode: facts of the engines.
        decode_tp: GPUs of the decode engine that each fetch their part of a prompt, side by side.
        seed: of the prompts.
        timeout_s: a request that has not ended after so long is lost.
    """

    def __init__(
        self, prefill: Facts, decode: Facts, *, decode_tp: int = 1, seed: int = 0, timeout_s: float = 300.0
    ) -> None:
        self._decode_tp = decode_tp
        self._prefill = Client(prefill, timeout_s)
        self._decode = Client(decode, timeout_s)
        self._streams = Streams(seed + 1)
        self._warm = False

    async def close(self) -> None:
        """Close the connections."""
        await self._prefill.close()
        await self._decode.close()

    async def measure(self, point: Point) -> Sample:
        """Take one sample of a point.

        Raises:
            SampleError: requests were lost, or the decode engine computed the prompt itself.
            ValueError: another table, or more tokens than the engines hold.
        """
        if point.table != "transfer":
            raise ValueError(f"table {point.table} is not measured on a pair")
        tokens = round(point.at[0])
        for facts in (self._prefill.facts, self._decode.facts):
            if facts.max_model_len is not None and tokens + _STEPS > facts.max_model_len:
                raise ValueError(f"{tokens + _STEPS} tokens exceed max_model_len {facts.max_model_len} of {facts.url}")
        if not self._warm:
            # The first hand-off of a pair shakes hands; the second finds memory registered.
            for _ in range(2):
                await self._hand_over(min(tokens, 512))
            self._warm = True
        began = time.monotonic()
        found = [await self._hand_over(tokens)]
        # A hand-off waits for iterations and polls of two engines: it scatters by more than what it moves takes.
        if found[0]["total_ms"] <= QUICK_MS:
            found += [await self._hand_over(tokens) for _ in range(HANDOFFS - 1)]
        values = sorted(found, key=lambda one: one["transfer_ms"])[len(found) // 2]
        return Sample(point, values | {"prompts": float(len(found))}, time.monotonic() - began)

    async def _hand_over(self, tokens: int) -> dict[str, float]:
        loop = asyncio.get_running_loop()
        prompt = self._streams.prompt(self._streams.fresh(), tokens)
        before = await self._scrape()
        sent = loop.time()
        answer, prefill_s = await self._prefill.answer(prompt, 1, stream=False, kv_transfer_params=dict(_HOLD))
        params = answer.get("kv_transfer_params")
        if not params:
            raise SampleError(f"{self._prefill.facts.url} hands no KV over: no kv_transfer_params in its answer")
        stream = await self._decode.stream(prompt, _STEPS, kv_transfer_params=params)
        timeline = stream.timeline()
        after = await self._check_moved(before, tokens)
        step = steady.step_ms([timeline], steady.Window(timeline[0][0], timeline[-1][0])) or 0.0
        total, prefill = 1e3 * (timeline[0][0] - sent), 1e3 * prefill_s
        values = {
            "tokens": float(tokens),
            "total_ms": total,
            "prefill_ms": prefill,
            "first_step_ms": step,
            # Never below zero; what is left of a hand-off that the clock does not resolve is a microsecond.
            "transfer_ms": max(1e-3, total - prefill - step),
        }
        post = self._post_ms(before, after)
        return values if post is None else values | {"post_ms": post}

    async def _scrape(self) -> Scrape:
        return await scrape(self._decode.session, self._decode.facts.url)

    def _post_ms(self, before: Scrape, after: Scrape) -> float | None:
        """What each GPU of the decode engine took to post its copies, ms; None where the engine does not tell."""
        if after.get(f"{_POST}_count") <= before.get(f"{_POST}_count"):
            return None
        # A GPU that fetches from several of the prefill engine posts, and counts, once for each.
        return 1e3 * (after.get(f"{_POST}_sum") - before.get(f"{_POST}_sum")) / self._decode_tp

    async def _check_moved(self, before: Scrape, tokens: int) -> Scrape:
        """Refuse a hand-off whose KV the decode engine computed itself: it would do so in silence.

        Returns:
            The metrics that show it; the engine books copies when they have ended, before the first token.
        """
        block = self._decode.facts.block_size or 16
        for _ in range(40):
            after = await self._scrape()
            names = [name for name in (_EXTERNAL, _EXTERNAL_HITS) if name in after.totals]
            if not names:
                raise SampleError(f"{self._decode.facts.url} exports no count of transferred tokens")
            if any(after.get(name) - before.get(name) >= tokens - block for name in names):
                return after
            await asyncio.sleep(0.05)
        moved = max(after.get(name) - before.get(name) for name in names)
        raise SampleError(f"{moved:.0f} of {tokens} prompt tokens were transferred; the others were computed again")
