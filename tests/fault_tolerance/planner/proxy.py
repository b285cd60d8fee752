"""Between planner and Prometheus: passes answers on, or spoils them as it is told."""

from __future__ import annotations

import asyncio
import json
import threading
from collections.abc import Collection
from enum import StrEnum
from typing import Any

import aiohttp
from aiohttp import web


class Mode(StrEnum):
    """What becomes of an answer."""

    PASS = "pass"  # noqa: S105 (no password)
    SLOW = "slow"
    """It comes long after anyone waits for it."""
    ERROR = "error"
    """500."""
    GARBAGE = "garbage"
    """200, and a page of HTML."""
    EMPTY = "empty"
    """No series at all."""
    NAN = "nan"
    """Every value is not a number."""
    FROZEN = "frozen"
    """The last answer from before, for ever."""


class Proxy:
    """Runs in a thread of its own from `start` to `stop`.

    Attributes:
        mode: of the answers from now on.
        hidden: addresses whose series are left out, in any mode.
    """

    def __init__(self, upstream: str, slow_s: float) -> None:
        self.mode = Mode.PASS
        self.hidden: Collection[str] = ()
        self.url = ""
        self._upstream = upstream
        self._slow_s = slow_s
        self._last = b""
        self._loop = asyncio.new_event_loop()
        self._ended = asyncio.Event()
        self._ready = threading.Event()
        self._thread = threading.Thread(target=self._run, name="proxy")

    def start(self) -> None:
        self._thread.start()
        assert self._ready.wait(30.0), "the proxy listens"

    def stop(self) -> None:
        self._loop.call_soon_threadsafe(self._ended.set)
        self._thread.join()
        self._loop.close()

    def _run(self) -> None:
        self._loop.run_until_complete(self._serve())

    async def _serve(self) -> None:
        async with aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=30.0)) as self._session:
            app = web.Application()
            app.router.add_route("*", "/{path:.*}", self._answer)
            runner = web.AppRunner(app, access_log=None, shutdown_timeout=0.1)
            await runner.setup()
            await web.TCPSite(runner, "127.0.0.1", 0).start()
            self.url = "http://{}:{}".format(*runner.addresses[0])
            self._ready.set()
            await self._ended.wait()
            await runner.cleanup()

    async def _answer(self, request: web.Request) -> web.StreamResponse:
        mode = self.mode
        if mode is Mode.SLOW:
            await asyncio.sleep(self._slow_s)
        if mode is Mode.ERROR:
            return web.json_response({"status": "error", "error": "out of memory"}, status=500)
        if mode is Mode.GARBAGE:
            return web.Response(text="<html><body>Sign in</body></html>", content_type="text/html")
        if mode is Mode.FROZEN:
            return web.Response(body=self._last, content_type="application/json")
        try:
            body = await self._ask(request)
        except (aiohttp.ClientError, TimeoutError) as error:
            return web.Response(status=502, text=str(error))
        if mode is Mode.PASS:
            self._last = body
        return web.Response(body=self._spoiled(body, mode), content_type="application/json")

    async def _ask(self, request: web.Request) -> bytes:
        url = f"{self._upstream}{request.path_qs}"
        async with self._session.request(request.method, url, data=await request.read()) as answer:
            return await answer.read()

    def _spoiled(self, body: bytes, mode: Mode) -> bytes:
        if mode is Mode.PASS and not self.hidden:
            return body
        answer: Any = json.loads(body)
        rows = [row for row in answer["data"]["result"] if row["metric"].get("instance") not in self.hidden]
        if mode is Mode.EMPTY:
            rows = []
        if mode is Mode.NAN:
            rows = [{**row, "values": [[at, "NaN"] for at, _ in row["values"]]} for row in rows]
        answer["data"]["result"] = rows
        return json.dumps(answer).encode()
