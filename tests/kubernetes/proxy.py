"""Between a client and the API server: passes requests on, or spoils them as a test asks for it.

It ends TLS with the cluster's own certificate and speaks TLS to the server; watches stream through it. Who asks is told
by the bearer token, so clients need a kubeconfig with one (`Proxy.kubeconfig`).
"""

from __future__ import annotations

import asyncio
import base64
import json
import re
import ssl
import threading
from collections.abc import Coroutine, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from enum import Enum
from pathlib import Path
from typing import Any, TypeVar

import aiohttp
import yaml
from aiohttp import web

from tests.kubernetes.control_plane import ControlPlane
from tests.kubernetes.program import fixed_port

Result = TypeVar("Result")

#: What the API server calls these.
REASONS = {
    401: "Unauthorized", 403: "Forbidden", 404: "NotFound", 409: "Conflict", 410: "Expired", 422: "Invalid",
    429: "TooManyRequests", 500: "InternalError", 503: "ServiceUnavailable", 504: "Timeout",
}  # fmt: skip
#: Of one connection: they are not for the next.
_HOP = {"connection", "keep-alive", "transfer-encoding", "content-length", "host", "upgrade", "content-encoding"}


class Kind(Enum):
    """What becomes of a request."""

    ANSWER = "another answer, without asking the server"
    EVENT = "a watch that begins and ends with an error event"
    DELAY = "asked later"
    LOSE = "asked, and the connection cut instead of the answer"


@dataclass
class Fault:
    """What is done to requests that match.

    Attributes:
        kind: what is done.
        method, path: they match; a regular expression that is searched in path and query.
        left: how often it is still done; None for ever.
        hits: how often it was done.
        status: of the answer.
        delay_s: before the server is asked.
    """

    kind: Kind
    method: str = ".*"
    path: str = ""
    left: int | None = 1
    hits: int = 0
    status: int = 500
    delay_s: float = 0.0

    def take(self, request: web.BaseRequest) -> bool:
        """Whether it is done to this request; counts it."""
        if self.left == 0 or not re.fullmatch(self.method, request.method) or not re.search(self.path, request.path_qs):
            return False
        self.left = None if self.left is None else self.left - 1
        self.hits += 1
        return True


class Proxy:
    """Runs in a thread of its own from `start` to `stop`; its methods are for other threads.

    Attributes:
        url: for clients.
        seen: method, and path with query, of every request.
    """

    def __init__(self, cluster: ControlPlane) -> None:
        self._cluster = cluster
        self._port = fixed_port()
        self.url = f"https://127.0.0.1:{self._port}"
        self.seen: list[tuple[str, str]] = []
        self._faults: list[Fault] = []
        self._severed: set[str] = set()
        self._free = asyncio.Event()
        self._loop = asyncio.new_event_loop()
        self._ended = asyncio.Event()
        self._ready = threading.Event()
        self._thread = threading.Thread(target=self._run, name="proxy")
        self._site: web.SockSite | web.TCPSite | None = None

    def start(self) -> None:
        """Listen."""
        self._thread.start()
        assert self._ready.wait(30.0), "the proxy listens"

    def stop(self) -> None:
        """End."""
        self._loop.call_soon_threadsafe(self._ended.set)
        self._thread.join()
        self._loop.close()

    def kubeconfig(self, of: Path) -> Path:
        """A user's kubeconfig that leads through here; the user must have a token."""
        config = yaml.safe_load(of.read_text(encoding="utf-8"))
        assert "token" in config["users"][0]["user"], f"{of} has no token, and certificates end at the proxy"
        config["clusters"][0]["cluster"]["server"] = self.url
        file = of.with_name(f"{of.stem}-through-{self._port}.kubeconfig")
        file.write_text(json.dumps(config), encoding="utf-8")
        return file

    # Faults.

    def answer(self, status: int, *, times: int | None = 1, method: str = ".*", path: str = "") -> Fault:
        """Answer instead of the server."""
        return self._add(Fault(Kind.ANSWER, method, path, times, status=status))

    def break_watches(self, status: int = 410, *, times: int | None = 1, path: str = "") -> Fault:
        """Answer new watches with an error event, as the server does whose history is shorter than that."""
        return self._add(Fault(Kind.EVENT, "GET", rf"{path}.*[?&]watch=", times, status=status))

    def delay(self, seconds: float, *, times: int | None = None, method: str = ".*", path: str = "") -> Fault:
        """Ask the server later."""
        return self._add(Fault(Kind.DELAY, method, path, times, delay_s=seconds))

    def lose_answer(self, *, times: int | None = 1, method: str = ".*", path: str = "") -> Fault:
        """The server does what is asked, and the client never hears of it."""
        return self._add(Fault(Kind.LOSE, method, path, times))

    def heal(self) -> None:
        """No more faults; the network is whole again."""

        async def heal() -> None:
            self._faults.clear()
            self._severed.clear()
            self._free.set()
            if self._site is None:
                await self._listen()

        self._do(heal())

    def hang(self) -> None:
        """Connections are accepted, requests wait until `go_on` or `heal`, and watches bring nothing more."""

        async def hang() -> None:
            self._free.clear()

        self._do(hang())

    def go_on(self) -> None:
        """The end of `hang` alone: other faults stay."""

        async def go_on() -> None:
            self._free.set()

        self._do(go_on())

    def cut(self) -> None:
        """Connections break off, and new ones are refused until `heal`."""

        async def cut() -> None:
            if self._site is not None:
                await self._site.stop()
                self._site = None
            self._abort()

        self._do(cut())

    def sever(self, pod: str) -> None:
        """The network between here and one pod is cut until `heal`: its requests break off."""

        async def sever() -> None:
            self._severed.add(pod)

        self._do(sever())

    def drop_connections(self) -> None:
        """Connections break off; new ones are accepted."""

        async def drop() -> None:
            self._abort()

        self._do(drop())

    def _add(self, fault: Fault) -> Fault:
        async def add() -> Fault:
            self._faults.append(fault)
            return fault

        return self._do(add())

    def _do(self, what: Coroutine[Any, Any, Result]) -> Result:
        return asyncio.run_coroutine_threadsafe(what, self._loop).result(30.0)

    def _abort(self) -> None:
        for connection in self._server.connections:
            if connection.transport is not None:
                connection.transport.abort()

    # The server.

    def _run(self) -> None:
        self._loop.run_until_complete(self._serve())

    async def _serve(self) -> None:
        context = ssl.create_default_context(cafile=str(self._cluster.authority))
        connector = aiohttp.TCPConnector(ssl=context, limit=0)
        forever = aiohttp.ClientTimeout(total=None, sock_connect=10.0)
        async with aiohttp.ClientSession(
            connector=connector,
            timeout=forever,
            auto_decompress=False,
            skip_auto_headers={"User-Agent", "Accept", "Content-Type"},
        ) as self._session:
            self._server = web.Server(self._handle, handler_cancellation=True, access_log=None)
            self._runner = web.ServerRunner(self._server)
            await self._runner.setup()
            self._free.set()
            await self._listen()
            self._ready.set()
            await self._ended.wait()
            self._free.set()
            self._abort()
            await self._runner.shutdown()
            await self._runner.cleanup()
        # TLS connections end on later turns of the loop.
        await asyncio.sleep(0.25)

    async def _listen(self) -> None:
        pki = self._cluster.pki.folder
        context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
        context.load_cert_chain(pki / "server.crt", pki / "server.key")
        self._site = web.TCPSite(self._runner, "127.0.0.1", self._port, ssl_context=context, reuse_address=True)
        await self._site.start()

    async def _handle(self, request: web.BaseRequest) -> web.StreamResponse:
        self.seen.append((request.method, request.path_qs))
        await self._free.wait()
        if self._severed and pod_of(request.headers.get("Authorization", "")) in self._severed:
            return self._broken(request)
        fault = next((one for one in self._faults if one.take(request)), None)
        if fault is not None and fault.kind is Kind.ANSWER:
            headers = {"Retry-After": "1"} if fault.status == 429 else {}
            return web.json_response(_status(fault.status), status=fault.status, headers=headers)
        if fault is not None and fault.kind is Kind.EVENT:
            return web.json_response({"type": "ERROR", "object": _status(fault.status)})
        if fault is not None and fault.kind is Kind.DELAY:
            await asyncio.sleep(fault.delay_s)
        return await self._forward(request, lose=fault is not None and fault.kind is Kind.LOSE)

    async def _forward(self, request: web.BaseRequest, *, lose: bool) -> web.StreamResponse:
        headers = {key: value for key, value in request.headers.items() if key.lower() not in _HOP}
        body = await request.read()
        url = f"{self._cluster.url}{request.raw_path}"
        try:
            upstream = await self._session.request(request.method, url, data=body or None, headers=headers)
        except aiohttp.ClientError:
            # As the client would see it without a proxy.
            return self._broken(request)
        try:
            if lose:
                await upstream.read()
                return self._broken(request)
            kept = {
                key: value for key, value in upstream.headers.items() if key.lower() not in _HOP - {"content-encoding"}
            }
            response = web.StreamResponse(status=upstream.status, headers=kept)
            await response.prepare(request)
            try:
                async for chunk in upstream.content.iter_any():
                    await self._free.wait()
                    await response.write(chunk)
            except aiohttp.ClientError:
                return self._broken(request)
            await response.write_eof()
            return response
        finally:
            upstream.close()

    def _broken(self, request: web.BaseRequest) -> web.StreamResponse:
        if request.transport is not None:
            request.transport.abort()
        return web.Response()


@contextmanager
def running_proxy(cluster: ControlPlane) -> Iterator[Proxy]:
    """A proxy for as long as the context."""
    proxy = Proxy(cluster)
    proxy.start()
    try:
        yield proxy
    finally:
        with suppress(TimeoutError):
            proxy.heal()
        proxy.stop()


def pod_of(authorization: str) -> str:
    """The pod that a request's token is bound to; empty for others."""
    parts = authorization.removeprefix("Bearer ").split(".")
    if len(parts) != 3:
        return ""
    claims = json.loads(base64.urlsafe_b64decode(parts[1] + "=" * (-len(parts[1]) % 4)))
    return str(claims.get("kubernetes.io", {}).get("pod", {}).get("name", ""))


def _status(code: int) -> dict[str, Any]:
    """The API's object for an error."""
    return {
        "kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Failure", "code": code,
        "reason": REASONS.get(code, "Unknown"), "message": f"the test's proxy answers {code}",
    }  # fmt: skip
