"""One request of a measurement: streamed, with every chunk's time, and every way to fail an error."""

from __future__ import annotations

import asyncio
import json
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import aiohttp

from profiler.load.stream import Counting, Transcript
from profiler.measure.base import Facts, SampleError


@dataclass
class Stream:
    """A request under way, or ended.

    Attributes:
        sent_s: when it was sent, by the loop's clock.
        transcript: what has come so far.
        ended_s: when its stream ended; None before.
        counting: whether its chunks say how many tokens there are so far.
        first_s, last_s: when its first and its last token had come, once it has ended.
    """

    sent_s: float
    transcript: Transcript = field(default_factory=Transcript)
    ended_s: float | None = None
    counting: bool = True
    first_s: float = math.nan
    last_s: float = math.nan

    @property
    def started(self) -> bool:
        """Whether a first chunk has come."""
        return self.transcript.pieces > 0

    def timeline(self) -> list[tuple[float, int]]:
        """When how many tokens had come; of streams that were asked to count."""
        return self.transcript.timeline()


class Client:
    """Requests to one engine.

    Args:
        facts: of the engine.
        timeout_s: a request that has not ended after so long is lost.
    """

    def __init__(self, facts: Facts, timeout_s: float = 300.0) -> None:
        self.facts = facts
        self._timeout = aiohttp.ClientTimeout(total=timeout_s)
        self._session: aiohttp.ClientSession | None = None

    @property
    def session(self) -> aiohttp.ClientSession:
        """The connections; made on first use, since they belong to a running loop."""
        if self._session is None:
            # An idle connection is not used again shortly before the server closes it (uvicorn after 5 s).
            connector = aiohttp.TCPConnector(limit=0, keepalive_timeout=2.0)
            headers = {"Content-Type": "application/json"}
            self._session = aiohttp.ClientSession(connector=connector, timeout=self._timeout, headers=headers)
        return self._session

    async def close(self) -> None:
        """Close the connections."""
        if self._session is not None:
            await self._session.close()
            self._session = None

    def body(self, prompt: str, max_tokens: int, **fields: Any) -> bytes:
        """The JSON of a request.

        Args:
            prompt: JSON of a list of token ids.
            max_tokens: output tokens; exactly so many are made.
            fields: more of the request.
        """
        rest = {
            "model": self.facts.model,
            "max_tokens": max_tokens,
            "temperature": 0,
            "ignore_eos": True,
            **fields,
        }
        return f'{{"prompt": {prompt}, {json.dumps(rest)[1:]}'.encode()

    async def stream(
        self,
        prompt: str,
        max_tokens: int,
        on_start: Callable[[Stream], None] | None = None,
        *,
        counting: bool = True,
        **fields: Any,
    ) -> Stream:
        """Send a request and read its stream to the end.

        Args:
            prompt: JSON of a list of token ids.
            max_tokens: output tokens; exactly so many are made.
            on_start: called with the stream when it is sent; its transcript grows from then on.
            counting: whether each chunk says how many tokens there are so far, which costs the server a little.
            fields: more of the request.

        Raises:
            SampleError: it was lost, whole or in part.
        """
        # A usage in every chunk counts tokens that were merged; ids would bring the whole prompt back with the first.
        options = {"include_usage": True, "continuous_usage_stats": counting}
        body = self.body(prompt, max_tokens, stream=True, stream_options=options, **fields)
        loop = asyncio.get_running_loop()
        stream = Stream(loop.time(), counting=counting)
        if on_start is not None:
            on_start(stream)
        try:
            async with self.session.post(f"{self.facts.url}/v1/completions", data=body) as answer:
                if answer.status != 200:
                    raise SampleError(f"{self.facts.url}: {answer.status}: {(await answer.text())[:300]}")
                async for piece in answer.content.iter_any():
                    stream.transcript.add(piece, loop.time())
        except TimeoutError:
            raise SampleError(f"{self.facts.url}: no end after {loop.time() - stream.sent_s:.0f} s") from None
        except (aiohttp.ClientError, OSError) as error:
            raise SampleError(f"{self.facts.url}: {str(error) or type(error).__name__}") from None
        stream.ended_s = loop.time()
        reading = stream.transcript.read(Counting.CHUNKS)
        made = reading.completion_tokens
        if reading.error or not reading.done or made != max_tokens:
            problem = reading.error or ("" if reading.done else "the stream broke off")
            raise SampleError(f"{self.facts.url}: {made} of {max_tokens} tokens; {problem}".rstrip("; "))
        stream.first_s, stream.last_s = reading.first_s or math.nan, reading.last_s or math.nan
        return stream

    async def answer(self, prompt: str, max_tokens: int, **fields: Any) -> tuple[Mapping[str, Any], float]:
        """Send a request and await its whole answer.

        Returns:
            The answer, and the seconds that it took.

        Raises:
            SampleError: it was lost.
        """
        loop = asyncio.get_running_loop()
        sent = loop.time()
        body = self.body(prompt, max_tokens, **fields)
        try:
            async with self.session.post(f"{self.facts.url}/v1/completions", data=body) as reply:
                if reply.status != 200:
                    raise SampleError(f"{self.facts.url}: {reply.status}: {(await reply.text())[:300]}")
                data = await reply.json()
        except (aiohttp.ClientError, TimeoutError, OSError, ValueError) as error:
            raise SampleError(f"{self.facts.url}: {str(error) or type(error).__name__}") from None
        return data, loop.time() - sent
