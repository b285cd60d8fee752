"""Samples of one engine: prefill alone and batched, pure decode, and both in one iteration."""

from __future__ import annotations

import asyncio
import math
import time
from collections.abc import Coroutine, Sequence
from typing import Any

from profiler.measure import steady
from profiler.measure.base import Facts, Point, Sample, SampleError
from profiler.measure.client import Client, Stream
from profiler.measure.facts import scrape, settled
from profiler.measure.prompts import Streams

#: Output tokens of a decode sample: enough iterations that a few milliseconds of jitter at its ends do not matter.
DECODE_STEPS = 64
#: Share of its tokens that the first stream has when the engine's clock is read for the second time.
MOST_OF_WINDOW = 0.85
#: Fewest iterations that a window must show.
LEAST_STEPS = 16
#: Streams of a batch whose chunks say how many tokens there are so far; the others cost the server what users' do.
PROBES = 8
#: Prompts sent one after another into a decoding batch, in one mixed sample.
MIXED_PROMPTS = 8
#: Iterations between two of them, and before the first. What an iteration without a prompt takes is known from those
#: before, and its error counts as often as there are others between prompts: so few between, and many before.
MIXED_PAUSE_STEPS, MIXED_QUIET_STEPS = 1, 40
#: Lone prompts whose TTFT is at most so many ms are sent so many times in a row for one sample, others once: what a
#: processor takes to launch a short prompt's kernels scatters, what a GPU takes to compute a long one's does not.
LONE_PROMPTS = ((60.0, 5), (250.0, 3))
#: Above this share of a core the client itself may be what is slow; the engine's own clock counts then.
BUSY_CLIENT = 0.8

_PREFILL, _ITL = "vllm:request_prefill_time_seconds", "vllm:inter_token_latency_seconds"
_HITS, _PREEMPTIONS = "vllm:prefix_cache_hits_total", "vllm:num_preemptions_total"
_FINISHED = f"{_PREFILL}_count"


class EngineMeter:
    """Takes samples of tables `prefill`, `decode` and `mixed`. One at a time: nothing else may load the engine.

    Args:
        facts: of the engine.
        seed: of the prompts; another one for each run on an engine that keeps a prefix cache.
        timeout_s: a request that has not ended after so long is lost.
    """

    def __init__(self, facts: Facts, *, seed: int = 0, timeout_s: float = 300.0) -> None:
        self.facts = facts
        self._client = Client(facts, timeout_s)
        self._streams = Streams(seed)
        #: Length up to which a stream was last sent, hence cached unless evicted since.
        self._filled: dict[int, int] = {}
        self._warm = False

    async def close(self) -> None:
        """Close the connections."""
        await self._client.close()

    async def measure(self, point: Point) -> Sample:
        """Take one sample of a point.

        The first call sends a few requests before it, so that nothing that an engine does once is measured.

        Raises:
            SampleError: requests were lost, were preempted, or hit the prefix cache otherwise than was asked.
            ValueError: the point lies beyond the engine's limits, or its table is not measured on one engine.
        """
        await self._warm_up()
        began = time.monotonic()
        match point.table:
            case "prefill":
                isl, batch, hit = (round(value) for value in point.at)
                values = await self._prefill(isl, batch, hit)
            case "decode":
                values = await self._decode(round(point.at[0]), point.at[1])
            case "mixed":
                values = await self._mixed(round(point.at[0]), round(point.at[1]), point.at[2])
            case _:
                raise ValueError(f"table {point.table} is not measured on one engine")
        return Sample(point, values, time.monotonic() - began)

    async def _warm_up(self) -> None:
        if self._warm:
            return
        longest = max(16, min(2048, (self.facts.max_model_len or 2048) // 2))
        for isl in (min(64, longest), longest, longest):
            await self._client.stream(self._streams.prompt(self._streams.fresh(), isl), 4)
        self._warm = True

    # -- prefill ---------------------------------------------------------------------------------------------------

    async def _prefill(self, isl: int, batch: int, hit: int) -> dict[str, float]:
        self._fits(isl + 1, batch)
        if not 0 <= hit < isl:
            raise ValueError(f"{hit} of {isl} tokens cannot be cached: at least one is computed")
        if batch == 1 and not hit:
            return await self._lone(isl)
        prompts = [self._streams.prompt(self._streams.fresh(), isl) for _ in range(batch)]
        if hit:
            heads = [self._streams.fresh() for _ in range(batch)]
            fillers = [self._streams.tokens(head, hit) for head in heads]
            prompts = [self._streams.extended(head, isl) for head in fillers]
            await _all([self._client.stream(self._streams.extended(head, hit + 1), 1) for head in fillers])
        return await self._at_once(prompts, isl, hit)

    async def _lone(self, isl: int) -> dict[str, float]:
        """The one of median TTFT of several prompts sent one after another."""
        # An engine that has idled, and its GPU's clock, take longer for the first prompt than for those after it.
        first = await self._client.stream(self._streams.prompt(self._streams.fresh(), isl), 1)
        taken_ms = 1e3 * (first.timeline()[0][0] - first.sent_s)
        prompts = next((count for most_ms, count in LONE_PROMPTS if taken_ms <= most_ms), 1)
        found = [
            await self._at_once([self._streams.prompt(self._streams.fresh(), isl)], isl, 0) for _ in range(prompts)
        ]
        return sorted(found, key=lambda one: one["ttft_ms"])[prompts // 2] | {"prompts": float(prompts)}

    async def _at_once(self, prompts: Sequence[str], isl: int, hit: int) -> dict[str, float]:
        """Prompts sent together, each with so many cached tokens."""
        session, url, batch = self._client.session, self.facts.url, len(prompts)
        before = await scrape(session, url)
        streams = await _all([self._client.stream(prompt, 1) for prompt in prompts])
        after = await settled(session, url, _FINISHED, before.get(_FINISHED) + batch)
        sent = min(stream.sent_s for stream in streams)
        first = max(stream.timeline()[0][0] for stream in streams)
        self._check_hits(after.get(_HITS) - before.get(_HITS), batch * hit)
        values = {"isl": float(isl), "batch": float(batch), "prefix_hit_tokens": float(hit)}
        values["ttft_ms"] = 1e3 * (first - sent)
        server = 1e3 * (after.get(f"{_PREFILL}_sum") - before.get(f"{_PREFILL}_sum")) / batch
        if server > 0:
            values["server_ms"] = server
        return values

    def _check_hits(self, seen: float, wanted: float) -> None:
        """Refuse a sample whose prompts were cached by accident, or were not although they had to be."""
        block = self.facts.block_size or 16
        if not wanted - 0.02 * wanted - block <= seen <= wanted + block:
            raise SampleError(f"{seen:.0f} prompt tokens were in the prefix cache, {wanted:.0f} had to be")

    # -- decode ----------------------------------------------------------------------------------------------------

    async def _decode(self, batch: int, kv_tokens: float) -> dict[str, float]:
        context = kv_tokens / batch
        steps = DECODE_STEPS if context >= 2.5 * DECODE_STEPS else max(LEAST_STEPS, int(context / 2.5))
        steps += self._ramp_steps(batch, context)
        length = max(1, round(context - steps / 2))
        self._fits(length + steps, batch)
        if self.facts.prefix_caching and not self._is_filled(batch, length):
            await self._fill(batch, length)
        for attempt in range(3):
            session, url = self._client.session, self.facts.url
            before = (await scrape(session, url)).get(_PREEMPTIONS)
            began = time.process_time(), time.monotonic()
            streams: list[Stream] = []
            watch = asyncio.create_task(self._server_itl_ms(streams, batch, steps))
            try:
                ended = await _all([self._decoding(k, length, steps, streams) for k in range(batch)])
            finally:
                watch.cancel()
                server = (await asyncio.gather(watch, return_exceptions=True))[0]
            busy = (time.process_time() - began[0]) / (time.monotonic() - began[1])
            timelines = [stream.timeline() for stream in ended[:PROBES]]
            window = steady.common([(stream.first_s, stream.last_s) for stream in ended])
            if window is not None and steady.steps_in(timelines, window) >= min(LEAST_STEPS, steps // 2):
                break
            if attempt == 0 and self.facts.prefix_caching:
                await self._fill(batch, length)  # it was evicted meanwhile
            else:
                steps *= 3
                self._fits(length + steps, batch)
        else:
            raise SampleError(f"{batch} requests of {length} tokens never decoded at the same time")
        lost = (await scrape(session, url)).get(_PREEMPTIONS) - before
        if lost:
            raise SampleError(f"{lost:.0f} of {batch} requests were preempted")
        itl = steady.step_ms(timelines, window)
        if itl is None:
            raise SampleError(f"no stream of {batch} showed an iteration")
        values = {"batch": float(batch), "kv_tokens": kv_tokens, "context_tokens": context, "itl_ms": itl}
        if isinstance(server, float):
            values["server_itl_ms"] = server
            if busy > BUSY_CLIENT:
                values["itl_ms"] = server
        elif busy > BUSY_CLIENT:
            values["suspect"] = 1.0
        return values

    def _decoding(self, k: int, length: int, steps: int, streams: list[Stream]) -> Coroutine[Any, Any, Stream]:
        """Request k of a batch; it joins `streams` when it is sent."""
        return self._client.stream(self._streams.prompt(k, length), steps, streams.append, counting=k < PROBES)

    def _ramp_steps(self, batch: int, context: float) -> int:
        """Iterations that the first request decodes before the last one's prompt is computed."""
        # With a prefix cache, what is left of each prompt is less than a block.
        left = (self.facts.block_size or 16) if self.facts.prefix_caching else context
        tokens = int(batch * left)
        return math.ceil(tokens / max(1, self._budget() - batch))

    def _budget(self) -> int:
        return self.facts.max_num_batched_tokens or 2048

    def _is_filled(self, batch: int, length: int) -> bool:
        return all(self._filled.get(k, 0) >= length for k in range(batch))

    async def _fill(self, batch: int, length: int) -> None:
        """Bring streams 0 to batch - 1 into the engine's prefix cache up to a length."""
        await _all([self._client.stream(self._streams.prompt(k, length), 1) for k in range(batch)])
        # Older and longer beginnings may have been evicted for these; what is believed to be there and is not costs
        # one sample that is taken again.
        capacity = self.facts.kv_capacity_tokens or 0
        others = {k: have for k, have in self._filled.items() if k >= batch}
        if sum(others.values()) + batch * length > capacity:
            others = {}
        self._filled = others | {k: max(length, self._filled.get(k, 0)) for k in range(batch)}
        if sum(self._filled.values()) > capacity:
            self._filled = dict.fromkeys(range(batch), length)

    async def _server_itl_ms(self, streams: Sequence[Stream], batch: int, steps: int) -> float | None:
        """The mean gap between tokens by the engine's own clock, over most of the span in which all streams run."""
        session, url = self._client.session, self.facts.url
        while len(streams) < batch or not all(stream.started for stream in streams):
            await asyncio.sleep(0.005)
        first = await scrape(session, url)
        # The first that was sent ends first. What it has by its chunks, not by their number: busy servers merge tokens.
        while (streams[0].timeline() or [(0.0, 0)])[-1][1] < MOST_OF_WINDOW * steps:
            if any(stream.ended_s is not None for stream in streams):
                return None
            await asyncio.sleep(0.01)
        last = await scrape(session, url)
        count = last.get(f"{_ITL}_count") - first.get(f"{_ITL}_count")
        total = last.get(f"{_ITL}_sum") - first.get(f"{_ITL}_sum")
        return 1e3 * total / count if count >= batch * LEAST_STEPS / 2 else None

    # -- mixed -----------------------------------------------------------------------------------------------------

    async def _mixed(self, prefill_tokens: int, batch: int, kv_tokens: float) -> dict[str, float]:
        if prefill_tokens > self._budget() - batch:
            raise ValueError(f"{prefill_tokens} prompt tokens beside {batch} requests do not fit one iteration")
        context = kv_tokens / batch
        most = 8 * (MIXED_QUIET_STEPS + MIXED_PROMPTS * (MIXED_PAUSE_STEPS + 2))
        ramp = self._ramp_steps(batch, context)
        steps = most + ramp
        length = max(1, round(context - ramp - (MIXED_QUIET_STEPS + MIXED_PROMPTS * MIXED_PAUSE_STEPS) / 2))
        self._fits(length + steps, batch + 1)
        if self.facts.prefix_caching and not self._is_filled(batch, length):
            await self._fill(batch, length)
        prompts = [self._streams.prompt(self._streams.fresh(), prefill_tokens) for _ in range(MIXED_PROMPTS)]
        streams: list[Stream] = []
        tasks = [asyncio.create_task(self._decoding(k, length, steps, streams)) for k in range(batch)]
        try:
            began, start, end = await self._inject(tasks, streams, prompts)
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
            await self._idle()
        timelines = [stream.timeline() for stream in streams if stream.counting]
        if any(not timeline or timeline[-1][0] < end for timeline in timelines):
            raise SampleError(f"{batch} requests did not decode while {MIXED_PROMPTS} prompts were sent")
        quiet = steady.step_ms(timelines, steady.Window(began, start))
        if quiet is None:
            raise SampleError("no iteration without a prompt was seen")
        value = steady.mixed_ms(timelines, steady.Window(start, end), quiet, MIXED_PROMPTS)
        if value is None or value <= 0:
            raise SampleError(f"iterations with {prefill_tokens} prompt tokens cannot be told from the others")
        return {
            "prefill_tokens": float(prefill_tokens),
            "batch": float(batch),
            "kv_tokens": kv_tokens,
            "iteration_ms": value,
        }

    async def _inject(
        self, tasks: Sequence[asyncio.Task[Stream]], streams: Sequence[Stream], prompts: Sequence[str]
    ) -> tuple[float, float, float]:
        """Send prompts into a batch that decodes.

        Returns:
            When all of it decoded, when the first prompt was sent, and when the last was answered.
        """
        loop = asyncio.get_running_loop()

        def pieces() -> int:
            return min((stream.transcript.pieces for stream in streams), default=0)

        async def until(least: int) -> None:
            while pieces() < least:
                for task in tasks:
                    if task.done():
                        task.result()  # raises what it was lost by
                        raise SampleError("a request ended before the prompts were sent")
                await asyncio.sleep(0.002)

        while len(streams) < len(tasks):
            await asyncio.sleep(0.002)
        await until(1)
        began, at = loop.time(), pieces()
        await until(at + MIXED_QUIET_STEPS)
        pause = (loop.time() - began) / MIXED_QUIET_STEPS * MIXED_PAUSE_STEPS
        start = loop.time()
        for number, prompt in enumerate(prompts):
            if number:
                await asyncio.sleep(pause)
            await self._client.stream(prompt, 1)
        end = loop.time()
        have = pieces()
        await until(have + 2)  # so that every stream shows the last of these iterations
        return began, start, end

    async def _idle(self) -> None:
        """Until the engine runs nothing: requests that were cut off go on until it notices."""
        for _ in range(200):
            seen = await scrape(self._client.session, self.facts.url)
            if seen.get("vllm:num_requests_running") == 0 and seen.get("vllm:num_requests_waiting") == 0:
                return
            await asyncio.sleep(0.05)
        raise SampleError(f"{self.facts.url} still runs requests that were cut off 10 s ago")

    # -- both ------------------------------------------------------------------------------------------------------

    def _fits(self, tokens: int, batch: int) -> None:
        """Refuse what the engine cannot hold at once.

        Raises:
            ValueError: it cannot.
        """
        facts = self.facts
        if facts.max_model_len is not None and tokens > facts.max_model_len:
            raise ValueError(f"{tokens} tokens exceed max_model_len {facts.max_model_len}")
        if facts.max_num_seqs is not None and batch > facts.max_num_seqs:
            raise ValueError(f"{batch} requests exceed max_num_seqs {facts.max_num_seqs}")
        if facts.kv_capacity_tokens is not None and tokens * batch > facts.kv_capacity_tokens:
            raise ValueError(
                f"{batch} requests of {tokens} tokens exceed {facts.kv_capacity_tokens} tokens of KV cache"
            )


async def _all(requests: Sequence[Coroutine[Any, Any, Stream]]) -> list[Stream]:
    """All at once; the first that is lost ends the others."""
    tasks = [asyncio.create_task(request) for request in requests]
    try:
        return list(await asyncio.gather(*tasks))
    except BaseException:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        raise
