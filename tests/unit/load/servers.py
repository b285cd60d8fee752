"""Small servers that speak `/v1/completions` in the ways that a client meets."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any

from aiohttp import web
from aiohttp.test_utils import TestServer

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]


def line(event: object) -> bytes:
    """One event of a stream."""
    return b"data: " + (event if isinstance(event, bytes) else json.dumps(event).encode()) + b"\n\n"


def chunk(text: str, finish_reason: str | None = None, ids: list[int] | None = None) -> bytes:
    """A chunk of tokens."""
    choice = {"index": 0, "text": text, "finish_reason": finish_reason, "token_ids": ids}
    return line({"object": "text_completion", "choices": [choice], "usage": None})


def usage(prompt_tokens: int, completion_tokens: int) -> bytes:
    """The event that closes a stream with `include_usage`."""
    counts = {"prompt_tokens": prompt_tokens, "completion_tokens": completion_tokens}
    return line({"object": "text_completion", "choices": [], "usage": counts})


DONE = line(b"[DONE]")


def answer(pieces: list[bytes], *, status: int = 200, pause_s: float = 0.0, cut: bool = False) -> Handler:
    """A handler that writes these pieces, whatever it was asked; `cut` breaks the connection after them."""

    async def handle(request: web.Request) -> web.StreamResponse:
        await request.read()
        response = web.StreamResponse(status=status)
        await response.prepare(request)
        for piece in pieces:
            await response.write(piece)
            await asyncio.sleep(pause_s)
        if cut and request.transport is not None:
            request.transport.abort()
        return response

    return handle


def engine(bodies: list[dict[str, Any]] | None = None, *, tokens: int | None = None, wait_s: float = 0.0) -> Handler:
    """A handler that behaves: as many word tokens as were asked for (or `tokens`), then usage and `[DONE]`."""

    async def handle(request: web.Request) -> web.StreamResponse:
        body = await request.json()
        if bodies is not None:
            bodies.append(body)
        prompt = body["prompt"]
        prompt_tokens = len(prompt) if isinstance(prompt, list) else len(prompt.split())
        number = body["max_tokens"] if tokens is None else tokens
        pieces = [chunk(f" w{index}", ids=[index]) for index in range(number)]
        await asyncio.sleep(wait_s)
        return await answer([*pieces, usage(prompt_tokens, number), DONE])(request)

    return handle


@asynccontextmanager
async def serving(handler: Handler) -> AsyncIterator[str]:
    """The base address of a server with this handler."""
    application = web.Application(client_max_size=1 << 24)
    application.router.add_post("/v1/completions", handler)
    server = TestServer(application)
    await server.start_server()
    try:
        yield str(server.make_url("")).rstrip("/")
    finally:
        await server.close()
