"""A small asynchronous client of the API server, for the programs of the test bed (kubelet, operators)."""

from __future__ import annotations

import asyncio
import json
import ssl
import sys
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, TypeVar

import aiohttp
import yaml

Object = dict[str, Any]
Result = TypeVar("Result")

MERGE = "application/merge-patch+json"
STRATEGIC = "application/strategic-merge-patch+json"
#: Between tries while the API server is away, s.
_PAUSE_S = 0.2


class ApiError(Exception):
    """An answer other than success."""

    def __init__(self, status: int, message: str) -> None:
        super().__init__(f"{status} {message}")
        self.status = status


class Api:
    """One user's view of one API server; get it from `connect`."""

    def __init__(self, session: aiohttp.ClientSession, url: str) -> None:
        self._session, self._url = session, url

    async def ask(
        self, method: str, path: str, body: Object | None = None, *, kind: str = "application/json", **query: str | int
    ) -> Object:
        """One request, tried again for as long as the API server is away or overloaded.

        Raises:
            ApiError: it refused.
        """
        data = None if body is None else json.dumps(body)
        while True:
            try:
                async with self._session.request(
                    method, self._url + path, data=data, params=query, headers={"Content-Type": kind}
                ) as answer:
                    text = await answer.text()
                    if answer.status < 400:
                        return json.loads(text)  # type: ignore[no-any-return]
                    if answer.status != 429 and answer.status < 500:
                        raise ApiError(answer.status, _message(text))
            except (aiohttp.ClientError, TimeoutError) as error:
                _say(f"{method} {path}: {error!r}")
            await asyncio.sleep(_PAUSE_S)

    async def get(self, path: str, **query: str | int) -> Object:
        """Read."""
        return await self.ask("GET", path, **query)

    async def find(self, path: str) -> Object | None:
        """Read what may not be there."""
        return await unless(404, self.get(path))

    async def create(self, path: str, body: Object) -> Object:
        """Make."""
        return await self.ask("POST", path, body)

    async def patch(self, path: str, body: Object, kind: str = MERGE) -> Object:
        """Change; a merge patch unless told."""
        return await self.ask("PATCH", path, body, kind=kind)

    async def delete(self, path: str, body: Object | None = None) -> Object:
        """Delete."""
        return await self.ask("DELETE", path, body)

    async def follow(
        self, path: str, relisted: Callable[[list[Object]], Awaitable[None]], **query: str | int
    ) -> AsyncIterator[tuple[str, Object]]:
        """The events of a collection for ever: list, watch, and list again when the watch breaks.

        Args:
            path: of the collection.
            relisted: called with all objects after every list, before the events that follow it.
            query: selectors.
        """
        while True:
            listed = await self.get(path, **query)
            await relisted(listed["items"])
            version = listed["metadata"]["resourceVersion"]
            try:
                async for event in self._watch(path, version, **query):
                    if event["type"] == "ERROR":
                        _say(f"watch {path}: {event['object'].get('message')}")
                        break
                    if event["type"] != "BOOKMARK":
                        yield event["type"], event["object"]
            except (aiohttp.ClientError, TimeoutError, json.JSONDecodeError, ApiError) as error:
                _say(f"watch {path}: {error!r}")
            await asyncio.sleep(_PAUSE_S)

    async def _watch(self, path: str, version: str, **query: str | int) -> AsyncIterator[Object]:
        asked = {**query, "watch": "true", "resourceVersion": version, "timeoutSeconds": 600}
        forever = aiohttp.ClientTimeout(total=None, sock_connect=10.0)
        async with self._session.get(self._url + path, params=asked, timeout=forever) as answer:
            if answer.status >= 400:
                raise ApiError(answer.status, _message(await answer.text()))
            # Lines of any length: aiohttp's own reading of lines has a limit.
            left = b""
            async for chunk in answer.content.iter_any():
                *lines, left = (left + chunk).split(b"\n")
                for line in lines:
                    yield json.loads(line)


@asynccontextmanager
async def connect(kubeconfig: Path) -> AsyncIterator[Api]:
    """A client of the user of a kubeconfig that `pki.write_kubeconfig` wrote."""
    config = yaml.safe_load(kubeconfig.read_text(encoding="utf-8"))
    cluster, user = config["clusters"][0]["cluster"], config["users"][0]["user"]
    context = ssl.create_default_context(cafile=cluster["certificate-authority"])
    headers = {"Accept": "application/json", "User-Agent": "plimsoll-test-bed"}
    if "token" in user:
        headers["Authorization"] = f"Bearer {user['token']}"
    else:
        context.load_cert_chain(user["client-certificate"], user["client-key"])
    connector = aiohttp.TCPConnector(ssl=context, limit=20)
    timeout = aiohttp.ClientTimeout(total=30.0)
    async with aiohttp.ClientSession(connector=connector, headers=headers, timeout=timeout) as session:
        yield Api(session, cluster["server"])


async def unless(status: int, asked: Awaitable[Result]) -> Result | None:
    """What was asked for, or None where the answer is of this status."""
    try:
        return await asked
    except ApiError as error:
        if error.status == status:
            return None
        raise


def _message(text: str) -> str:
    try:
        return str(json.loads(text).get("message", text))
    except json.JSONDecodeError:
        return text


def _say(line: str) -> None:
    print(line, file=sys.stderr, flush=True)
