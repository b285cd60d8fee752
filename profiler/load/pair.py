"""Load on pairs of prefill and decode workers without a gateway: the client hands the KV cache over itself.

The protocol is that of vLLM's connectors (`NixlConnector` and those like it): the prefill worker is asked for one token
with `do_remote_decode`, its answer says in `kv_transfer_params` where the KV blocks are, and the decode worker gets
these word for word with the request for the whole stream.
"""

from __future__ import annotations

import asyncio
import itertools
import json
import uuid
from collections.abc import Mapping, Sequence
from typing import Any

import aiohttp

from profiler.errors import InputError
from profiler.load.client import Load, RequestLostError, ScheduledRequest
from profiler.load.prompts import Kind
from profiler.load.results import Outcome
from profiler.load.stream import Counting, Transcript

#: What asks a prefill worker to compute a prompt for another worker and to keep its blocks.
REMOTE_DECODE: Mapping[str, Any] = {
    "do_remote_decode": True,
    "do_remote_prefill": False,
    "remote_engine_id": None,
    "remote_block_ids": None,
    "remote_host": None,
    "remote_port": None,
}


class PairLoad(Load):
    """Load on prefill and decode workers, each list served round robin.

    TTFT counts from sending the prefill request to the first token of the decode worker's stream, which is what a user
    of a gateway without any cost of its own would see. Results carry `prefill_ms`. An answer of a prefill worker
    without `kv_transfer_params` is an error: the decode worker would compute the prompt itself, unseen.

    Args:
        prefill_urls, decode_urls: base addresses, without `/v1`.
        model: name that all of them serve.
        speed_up, timeout_s, prompt, counting, seed, keep_text, extra: as for `Load`; the timeout is that of each of
            the two requests.

    Raises:
        InputError: a list is empty.
    """

    def __init__(
        self,
        prefill_urls: Sequence[str],
        decode_urls: Sequence[str],
        model: str,
        *,
        speed_up: float = 1.0,
        timeout_s: float = 600.0,
        prompt: Kind = Kind.WORDS,
        counting: Counting = Counting.CHUNKS,
        seed: int = 0,
        keep_text: bool = False,
        extra: Mapping[str, Any] | None = None,
    ) -> None:
        for name, urls in (("prefill_urls", prefill_urls), ("decode_urls", decode_urls)):
            if not urls:
                raise InputError("is empty", expected="at least one worker's address", field=name)
        super().__init__(
            decode_urls[0],
            model,
            speed_up=speed_up,
            timeout_s=timeout_s,
            prompt=prompt,
            counting=counting,
            seed=seed,
            keep_text=keep_text,
            extra=extra,
        )
        self._prefill = itertools.cycle([url.rstrip("/") + "/v1/completions" for url in prefill_urls])
        self._decode = itertools.cycle([url.rstrip("/") + "/v1/completions" for url in decode_urls])
        # One token, whole, whatever the caller's fields ask of the answer.
        of_stream = ("stream", "stream_options", "return_token_ids", "min_tokens")
        fields = {name: value for name, value in self._fields.items() if name not in of_stream}
        self._prefill_tail = json.dumps({**fields, "stream": False, "kv_transfer_params": REMOTE_DECODE})[1:]

    def _bodies(self, request: ScheduledRequest) -> tuple[bytes, ...]:
        prompt = self._prompt(request)
        return (
            f'{{"prompt": {prompt}, "max_tokens": 1, {self._prefill_tail}'.encode(),
            f'"prompt": {prompt}, "max_tokens": {request.osl}, {self._tail}'.encode(),
        )

    async def _exchange(
        self, session: aiohttp.ClientSession, bodies: tuple[bytes, ...], transcript: Transcript
    ) -> float | None:
        loop = asyncio.get_running_loop()
        prefill_body, decode_rest = bodies
        # Connectors that pair by request id need the same one at both workers.
        headers = {"X-Request-Id": uuid.uuid4().hex}
        sent = loop.time()
        async with session.post(next(self._prefill), data=prefill_body, headers=headers) as answer:
            text = await answer.text()
            if answer.status != 200:
                raise RequestLostError(Outcome.STATUS, f"prefill: {answer.status}: {text[:200]}")
        prefill_s = loop.time() - sent
        decode_body = f'{{"kv_transfer_params": {_hand_off(text)}, '.encode() + decode_rest
        await self._stream(session, next(self._decode), decode_body, transcript, headers)
        return prefill_s


def _hand_off(answer: str) -> str:
    """The JSON text of the `kv_transfer_params` in a prefill worker's answer."""
    try:
        body = json.loads(answer)
    except ValueError:
        raise RequestLostError(Outcome.ERROR, f"prefill: the answer is not JSON: {answer[:80]}") from None
    params = body.get("kv_transfer_params") if isinstance(body, dict) else None
    if not params:
        raise RequestLostError(Outcome.ERROR, f"prefill: no kv_transfer_params in the answer: {answer[:80]}")
    return json.dumps(params)
