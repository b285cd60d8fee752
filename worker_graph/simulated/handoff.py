"""The KV hand-off between two engines: what a prefill engine's answer says, and how a decode engine uses it.

Real engines move KV over NIXL's side channel. Here the decode engine asks the prefill engine over HTTP whether it still
holds the blocks when the transfer begins, and tells it when it is over; the time between comes from the profile.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import aiohttp

#: Wall seconds that a prefill engine has to answer.
ANSWER_S = 5.0


class HandOffError(Exception):
    """The prefill engine is gone, or does not hold the request's KV."""


@dataclass(frozen=True)
class Source:
    """Where a prompt's KV is."""

    host: str
    port: int
    engine_id: str
    request_id: str

    @classmethod
    def of(cls, params: Mapping[str, Any]) -> Source | None:
        """The source that `kv_transfer_params` name; None when the prompt is to be computed here.

        As in vLLM, parameters that are not complete lead to local computation.
        """
        if not params.get("do_remote_prefill"):
            return None
        host, port = params.get("remote_host"), params.get("remote_port")
        engine, request = params.get("remote_engine_id"), params.get("remote_request_id")
        if isinstance(port, str) and port.isdigit():
            port = int(port)
        if not isinstance(host, str) or not isinstance(port, int) or not isinstance(request, str):
            return None
        return cls(host, port, str(engine), request)

    def params(self, blocks: int) -> dict[str, Any]:
        """`kv_transfer_params` of a prefill engine's answer; the block ids are as many as real ones, but not real."""
        return {
            "do_remote_prefill": True,
            "do_remote_decode": False,
            "remote_engine_id": self.engine_id,
            "remote_request_id": self.request_id,
            "remote_block_ids": list(range(blocks)),
            "remote_host": self.host,
            "remote_port": self.port,
        }


class Peers:
    """The prefill engines that this engine fetches from."""

    def __init__(self) -> None:
        self._session: aiohttp.ClientSession | None = None

    async def pull(self, source: Source) -> None:
        """A transfer begins.

        Raises:
            HandOffError: the engine does not answer, or does not hold the request.
        """
        await self._post(source, "pull")

    async def release(self, source: Source) -> None:
        """A transfer is over.

        Raises:
            HandOffError: the engine did not hear it; it frees the blocks when they expire.
        """
        await self._post(source, "release")

    async def close(self) -> None:
        """Close all connections."""
        if self._session is not None:
            await self._session.close()

    async def _post(self, source: Source, verb: str) -> None:
        if self._session is None:
            self._session = aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=ANSWER_S))
        host = f"[{source.host}]" if ":" in source.host else source.host
        url = f"http://{host}:{source.port}/simulated/{verb}"
        body = {"engine_id": source.engine_id, "request_id": source.request_id}
        try:
            async with self._session.post(url, json=body) as answer:
                if answer.status != 200:
                    raise HandOffError(f"{url}: {answer.status} {await answer.text()}")
        except (TimeoutError, aiohttp.ClientError, OSError) as error:
            raise HandOffError(f"{url}: {error or type(error).__name__}") from None
