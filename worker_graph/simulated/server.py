"""vLLM's HTTP API in front of a simulated engine."""

from __future__ import annotations

import asyncio
import time
import zlib
from typing import Any
from uuid import uuid4

from aiohttp import web
from aiohttp.typedefs import Handler
from prometheus_client import CONTENT_TYPE_LATEST, generate_latest

from worker_graph.simulated import protocol
from worker_graph.simulated.engine import Call, Engine
from worker_graph.simulated.handoff import Source
from worker_graph.simulated.protocol import ApiError, Ask, bad_request
from worker_graph.simulated.replies import DONE, Reply
from worker_graph.simulated.request import Request

#: The API is that of this version of vLLM.
VERSION = "0.32.0+simulated"
#: Longest body read: a prompt of 128k tokens as text or ids is a megabyte or two.
MAX_BODY = 64 * 2**20


class Server:
    """The HTTP side of one engine.

    Args:
        engine: the engine.
        host: where a decode engine reaches this one for hand-offs.
        port: likewise.

    Attributes:
        draining: as vLLM between SIGTERM and the end of --shutdown-timeout: new requests get an empty answer, status
            200, and /health stays 200.
    """

    def __init__(self, engine: Engine, host: str, port: int) -> None:
        self.engine = engine
        self.host, self.port = host, port
        self.draining = False
        self._limits = engine.scheduler.limits
        self._registry = engine.metrics.registry()
        self._started = int(time.time())

    def application(self) -> web.Application:
        """The aiohttp application; run it with `handler_cancellation`, or clients that leave abort nothing."""
        app = web.Application(client_max_size=MAX_BODY, middlewares=[_errors])
        app.add_routes(
            [
                web.get("/health", self._health),
                web.get("/ping", self._health),
                web.post("/ping", self._health),
                web.get("/version", self._version),
                web.get("/load", self._load),
                web.get("/metrics", self._metrics),
                web.get("/v1/models", self._models),
                web.post("/v1/completions", self._completions),
                web.post("/v1/chat/completions", self._chat),
                web.post("/tokenize", self._tokenize),
                web.post("/simulated/pull", self._pull),
                web.post("/simulated/release", self._release),
            ]
        )
        app.on_cleanup.append(self._close)
        return app

    async def _close(self, _: web.Application) -> None:
        await self.engine.close()

    # Small things.

    async def _health(self, _: web.Request) -> web.Response:
        return web.Response()

    async def _version(self, _: web.Request) -> web.Response:
        return web.json_response({"version": VERSION})

    async def _load(self, _: web.Request) -> web.Response:
        return web.json_response({"server_load": self.engine.load})

    async def _metrics(self, _: web.Request) -> web.Response:
        self.engine.settle()
        return web.Response(body=generate_latest(self._registry), headers={"Content-Type": CONTENT_TYPE_LATEST})

    async def _models(self, _: web.Request) -> web.Response:
        model = {
            "id": self.engine.model,
            "object": "model",
            "created": self._started,
            "owned_by": "vllm",
            "root": self.engine.model,
            "parent": None,
            "max_model_len": self._limits.max_model_len,
            "permission": [],
        }
        return web.json_response({"object": "list", "data": [model]})

    async def _tokenize(self, http: web.Request) -> web.Response:
        body = protocol.read_json(await http.read())
        protocol.check_model(body, self.engine.model)
        if "messages" in body:
            count = protocol.chat_tokens(body)
            words = [f"{n}" for n in range(count)]
        elif isinstance(prompt := body.get("prompt"), str):
            words = prompt.split()
        else:
            raise bad_request("prompt: a string is required", "prompt")
        tokens = [zlib.crc32(word.encode()) % 100_000 for word in words]
        limit = self._limits.max_model_len
        answer = {"count": len(tokens), "max_model_len": limit, "tokens": tokens, "token_strs": None}
        return web.json_response(answer)

    # Hand-offs.

    async def _pull(self, http: web.Request) -> web.Response:
        name = await self._named(http)
        if not self.engine.scheduler.holds(name):
            raise ApiError(404, "NotFoundError", f"No KV is held for request `{name}`.")
        return web.json_response({})

    async def _release(self, http: web.Request) -> web.Response:
        return web.json_response({"released": self.engine.release(await self._named(http))})

    async def _named(self, http: web.Request) -> str:
        body = protocol.read_json(await http.read())
        if body.get("engine_id") != self.engine.engine_id:
            raise ApiError(404, "NotFoundError", "This is another engine: the one that held the KV is gone.")
        return str(body.get("request_id"))

    # Text.

    async def _completions(self, http: web.Request) -> web.StreamResponse:
        return await self._generate(http, chat=False)

    async def _chat(self, http: web.Request) -> web.StreamResponse:
        return await self._generate(http, chat=True)

    async def _generate(self, http: web.Request, *, chat: bool) -> web.StreamResponse:
        body = protocol.read_json(await http.read())
        ask = protocol.read_ask(body, chat=chat, model=self.engine.model, max_model_len=self._limits.max_model_len)
        reply = Reply(ask, http.headers.get("X-Request-Id") or uuid4().hex, self.engine.model)
        if self.draining:
            return await self._refuse(http, ask, reply)
        # Two requests may come under one id; what is held for a decode engine needs a name of its own.
        request = Request(ask.isl, ask.max_tokens, name=f"{reply.id}-{uuid4().hex[:8]}", hand_off=ask.hand_off)
        try:
            call = self.engine.submit(request, stream=ask.stream, source=Source.of(ask.kv_transfer_params))
        except ValueError as error:
            raise bad_request(str(error)) from None
        try:
            if ask.stream:
                return await self._stream(http, call, reply)
            while not call.ended:
                await call.news()
            _raise(call)
            return web.json_response(reply.whole(self.engine.tokens(call), "length", self._params(call.request)))
        finally:
            self.engine.leave(call)

    async def _stream(self, http: web.Request, call: Call, reply: Reply) -> web.StreamResponse:
        await call.news()
        # The status line waits for the first token, so that a failed hand-off is a 500 here too.
        _raise(call)
        response = await _open(http)
        sent = 0
        while True:
            tokens, ended = self.engine.tokens(call), call.ended
            if not ended:
                # The last one comes with the reason, once it has passed the front end: a chunk of its own would leave
                # nothing to say it with.
                tokens = min(tokens, reply.ask.max_tokens - 1)
            if tokens > sent:
                chunk = reply.part(sent, tokens, "length" if ended else None)
                if sent == 0:
                    chunk = reply.first() + chunk
                await response.write(chunk + reply.last(tokens) if ended else chunk)
                sent = tokens
            if ended:
                break
            await call.news()
        await response.write_eof()
        return response

    async def _refuse(self, http: web.Request, ask: Ask, reply: Reply) -> web.StreamResponse:
        self.engine.metrics.count("request_success", label="abort")
        if not ask.stream:
            return web.json_response(reply.whole(0, "abort", None))
        response = await _open(http)
        await response.write(DONE)
        await response.write_eof()
        return response

    def _params(self, request: Request) -> dict[str, Any] | None:
        """What a decode engine needs to fetch the prompt's KV."""
        if not request.hand_off:
            return None
        source = Source(self.host, self.port, self.engine.engine_id, request.name)
        return source.params(request.blocks)


def _raise(call: Call) -> None:
    if call.error:
        raise ApiError(500, "InternalServerError", call.error)


async def _open(http: web.Request) -> web.StreamResponse:
    response = web.StreamResponse(headers={"Content-Type": "text/event-stream; charset=utf-8"})
    await response.prepare(http)
    return response


@web.middleware
async def _errors(request: web.Request, handler: Handler) -> web.StreamResponse:
    try:
        return await handler(request)
    except ApiError as error:
        return web.json_response(error.body, status=error.status)
    except web.HTTPException as error:
        if error.status < 400:
            raise
        # The form of FastAPI, which answers for vLLM where no handler does.
        return web.json_response({"detail": error.reason}, status=error.status)


async def drain(server: Server, timeout_s: float) -> None:
    """Let the streams in flight end, for at most that long; new requests are refused meanwhile."""
    server.draining = True
    try:
        async with asyncio.timeout(timeout_s):
            await server.engine.idle()
    except TimeoutError:
        pass  # what is left is cut, as vLLM cuts it
