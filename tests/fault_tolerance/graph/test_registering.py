"""A new gateway is told of the workers that serve; one that goes meanwhile must not keep it from anything else."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

from worker_graph.local.gateway import Backend, Gateway
from worker_graph.local.worker import LocalWorker, State, register_again
from worker_graph.spec import Role


class NeverReady(Gateway):
    """Takes every worker and never sends requests to any, as when they are gone."""

    name = "never-ready"

    def __init__(self) -> None:
        self.added: list[str] = []

    def command(self, host: str, port: int, metrics_port: int, *, disaggregated: bool, routing: str) -> Sequence[str]:
        raise NotImplementedError

    async def ready(self) -> bool:
        return True

    async def add(self, url: str, role: Role) -> None:  # noqa: ARG002 (the interface has it)
        self.added.append(url)

    async def remove(self, url: str) -> None:
        pass

    async def backends(self) -> list[Backend]:
        return []


async def _until_added(gateway: NeverReady) -> None:
    while not gateway.added:
        await asyncio.sleep(0.01)


def test_a_worker_that_is_to_leave_is_given_up() -> None:
    async def scenario() -> None:
        worker, gateway = LocalWorker("w-1", "w", Role.DECODE, State.READY), NeverReady()
        registering = asyncio.create_task(register_again(gateway, "http://w", worker))
        await _until_added(gateway)
        assert not registering.done()
        worker.drain.set()
        await asyncio.wait_for(registering, 30.0)

    asyncio.run(scenario())


def test_a_worker_that_ended_is_given_up() -> None:
    async def scenario() -> None:
        life = asyncio.Event()
        worker, gateway = LocalWorker("w-1", "w", Role.DECODE, State.READY), NeverReady()
        worker.task = asyncio.create_task(_live(life))
        registering = asyncio.create_task(register_again(gateway, "http://w", worker))
        await _until_added(gateway)
        assert not registering.done()
        life.set()
        await asyncio.wait_for(registering, 30.0)

    asyncio.run(scenario())


async def _live(life: asyncio.Event) -> None:
    await life.wait()
