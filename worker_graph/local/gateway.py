"""The gateway in front of the workers: an existing Rust one, behind an interface small enough for another."""

from __future__ import annotations

import asyncio
import shutil
import sys
from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import aiohttp

from profiler.errors import DependencyError, InputError
from worker_graph.spec import GraphSpec, Role

#: Upper edges of the gateway's duration histograms, s: steps of a quarter, so that a share below any SLA can be read
#: off to within a few per cent of the limit.
DURATION_BUCKETS_S = tuple(round(0.001 * 1.25**k, 6) for k in range(60))

_TIMEOUT = aiohttp.ClientTimeout(total=10.0)


@dataclass(frozen=True, slots=True)
class Backend:
    """A worker as the gateway knows it: its id there, whether requests go to it, and requests in flight."""

    id: str
    url: str
    healthy: bool
    load: int


class Gateway(ABC):
    """Starts as a process of its own; workers come and go while it serves."""

    #: Name in `--gateway`.
    name: str

    @abstractmethod
    def command(self, host: str, port: int, metrics_port: int, *, disaggregated: bool, routing: str) -> Sequence[str]:
        """The command that starts it, without workers."""

    @abstractmethod
    async def ready(self) -> bool:
        """Whether it answers."""

    @abstractmethod
    async def add(self, url: str, role: Role) -> None:
        """Send requests to this worker from now on; returns before the gateway has looked at it."""

    @abstractmethod
    async def remove(self, url: str) -> None:
        """Send it no new requests; it leaves `backends` when those in flight have ended. Unknown: nothing happens."""

    @abstractmethod
    async def backends(self) -> list[Backend]:
        """The workers that it knows, draining ones included."""


class SmgGateway(Gateway):
    """Shepherd Model Gateway (`smg`).

    A pair of a prefill and a decode worker serves without `kv_connector`, too, but then no KV is handed over and the
    decode worker computes the prompt again in silence; both are always given.
    """

    name = "smg"

    def __init__(self, session: aiohttp.ClientSession, host: str, port: int) -> None:
        self._session = session
        self._base = f"http://{host}:{port}"

    def command(self, host: str, port: int, metrics_port: int, *, disaggregated: bool, routing: str) -> Sequence[str]:
        """`smg launch` on these ports; every metric's histogram has `DURATION_BUCKETS_S`."""
        policies = {
            "round-robin": ["round_robin"],
            "least-loaded": ["least_load"],
            "kv": ["cache_aware"],
            "random": ["random"],
        }
        return [
            *executable("smg"), "launch", "--host", host, "--port", str(port),
            "--prometheus-host", host, "--prometheus-port", str(metrics_port),
            "--prometheus-duration-buckets", *(f"{edge:g}" for edge in DURATION_BUCKETS_S),
            "--policy", *policies[routing],
            # A queue that the planner has not answered yet is the planner's business: with these off, an overloaded
            # pool queues in its engines, where it is measured, and no request is refused.
            "--disable-worker-overload-protection", "--queue-size", "100000", "--queue-timeout-secs", "600",
            "--max-concurrent-requests", "0", "--worker-wedge-secs", "120",
            # The supervisor watches its processes; a worker is out at once when its process has ended.
            "--health-check-interval-secs", "5", "--load-monitor-interval", "1", "--log-level", "warn",
            *(["--pd-disaggregation"] if disaggregated else []),
        ]  # fmt: skip

    async def ready(self) -> bool:
        """Whether its worker list answers."""
        try:
            await self._call("GET", "/workers")
        except DependencyError:
            return False
        return True

    async def add(self, url: str, role: Role) -> None:
        """`POST /workers`, answered with 202 before the worker is looked at."""
        body: dict[str, Any] = {"url": url, "runtime_type": "vllm"}
        if role is Role.AGGREGATED:
            body |= {"worker_type": "regular"}
        else:
            kv_role = "kv_producer" if role is Role.PREFILL else "kv_consumer"
            body |= {"worker_type": role.value, "kv_connector": "NixlConnector", "kv_role": kv_role}
        await self._call("POST", "/workers", body)

    async def remove(self, url: str) -> None:
        """`DELETE /workers/{id}`, which drains."""
        for backend in await self.backends():
            if backend.url == url:
                await self._call("DELETE", f"/workers/{backend.id}")

    async def backends(self) -> list[Backend]:
        """`GET /workers`."""
        answer = await self._call("GET", "/workers")
        return [
            Backend(one["id"], one["url"], one.get("status") == "ready", int(one.get("load", 0)))
            for one in answer["workers"]
        ]

    async def _call(self, method: str, path: str, body: Any = None) -> Any:
        try:
            async with self._session.request(method, self._base + path, json=body, timeout=_TIMEOUT) as answer:
                if answer.status == 404 and method == "DELETE":
                    return {}
                if answer.status >= 400:
                    text = (await answer.text())[:300]
                    raise DependencyError(f"gateway: {method} {path} answered {answer.status}: {text}")
                return await answer.json(content_type=None) if answer.status != 204 else {}
        except (aiohttp.ClientError, TimeoutError, ValueError) as error:
            raise DependencyError(f"gateway: {method} {path}: {str(error) or type(error).__name__}") from None


#: One line per gateway.
GATEWAYS: dict[str, type[SmgGateway]] = {"smg": SmgGateway}

#: How the gateway chooses a worker, in the words of the graph's DYN_ROUTER_MODE.
ROUTINGS = ("least-loaded", "round-robin", "random", "kv")


def routing_of(spec: GraphSpec) -> str:
    """The routing that the graph's frontend asks for with DYN_ROUTER_MODE; the least loaded worker otherwise.

    Raises:
        InputError: a mode that there is not.
    """
    for frontend in spec.frontends:
        mode = frontend.env.get("DYN_ROUTER_MODE")
        if mode is not None:
            name = mode.replace("_", "-")
            if name not in ROUTINGS:
                raise frontend.error(f"DYN_ROUTER_MODE is {mode!r}", expected=", ".join(ROUTINGS))
            return name
    return ROUTINGS[0]


def executable(program: str) -> list[str]:
    """The program beside this interpreter, as a virtual environment installs it, or else on PATH.

    Raises:
        DependencyError: it is in neither place.
    """
    beside = Path(sys.executable).with_name(program)
    if beside.exists():
        return [str(beside)]
    found = shutil.which(program)
    if found is None:
        raise DependencyError(f"{program} is not installed; install it with: pip install {program}")
    return [found]


def gateway(name: str, session: aiohttp.ClientSession, host: str, port: int) -> Gateway:
    """A gateway by its name.

    Raises:
        InputError: there is none of this name.
    """
    if name not in GATEWAYS:
        raise InputError(f"is {name!r}", expected=", ".join(GATEWAYS), field="--gateway")
    return GATEWAYS[name](session, host, port)


async def wait_until_ready(one: Gateway, timeout_s: float) -> bool:
    """Whether the gateway answers within so many seconds."""
    end = asyncio.get_running_loop().time() + timeout_s
    while asyncio.get_running_loop().time() < end:
        if await one.ready():
            return True
        await asyncio.sleep(0.1)
    return False
