"""A fake kubelet: nodes with GPUs, and pods that start, get ready, crash and end as their annotations say.

    python -m tests.kubernetes.kubelet KUBECONFIG --delay 0.5 --node gpu-a=8 --node gpu-b=8

What a pod may ask for is in `annotations`. Every pod has an address of its own in 127.0.0.0/8. Pods are bound by the
real scheduler. One list and watch of all pods, whatever their number.
"""

from __future__ import annotations

import argparse
import asyncio
import itertools
import random
import signal
import socket
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import AsyncExitStack, suppress
from pathlib import Path

import aiohttp
import yaml

from tests.kubernetes.annotations import Wishes
from tests.kubernetes.api import Api, Object, connect
from tests.kubernetes.commands import Commands
from tests.kubernetes.job_index import JobIndexes
from tests.kubernetes.nodes import LABEL, Node, create_node, delete_node
from tests.kubernetes.pod_life import PodLife
from tests.kubernetes.runners import Idle, Runner, SimulatedEngine


class Addresses:
    """Addresses 127.N.0.0/16 that no other kubelet on this machine uses; N is claimed by a socket that is bound."""

    _CLAIM_PORT = 19_999

    def __init__(self) -> None:
        for second in random.sample(range(1, 255), 254):
            claim = socket.socket()
            try:
                claim.bind((f"127.{second}.0.1", self._CLAIM_PORT))
            except OSError:
                claim.close()
                continue
            self._claim = claim
            self._all: Iterator[str] = (f"127.{second}.{n // 250 + 1}.{n % 250 + 1}" for n in itertools.count())
            return
        raise RuntimeError("every 127.N.0.0/16 is claimed")

    def __next__(self) -> str:
        return next(self._all)

    def close(self) -> None:
        """Give them back."""
        self._claim.close()


class FakeKubelet:
    """Runs the pods of its nodes.

    Args:
        kubeconfig: of an administrator, as `pki.write_kubeconfig` writes it.
        nodes: its nodes, made when it starts and taken away when it ends.
        delay_s: from a pod's binding to its running, where it does not say.
        name: its own; its nodes carry it as a label, and nodes made with it later are its own too.
        folder: for pods' files and logs (`FOLDER/pods/NAMESPACE/POD/CONTAINER.log`) and claims.
    """

    def __init__(
        self, kubeconfig: Path, nodes: Sequence[Node] = (), *, delay_s: float = 0.5, name: str = "kubelet", folder: Path
    ) -> None:
        self.kubeconfig, self.nodes, self.delay_s, self.name, self.folder = kubeconfig, nodes, delay_s, name, folder
        cluster = yaml.safe_load(kubeconfig.read_text(encoding="utf-8"))["clusters"][0]["cluster"]
        self._access = (cluster["server"], Path(cluster["certificate-authority"]))
        self._own: set[str] = set()
        self._waiting: dict[str, Object] = {}
        self._lives: dict[str, PodLife] = {}
        self._api: Api
        self._probes: aiohttp.ClientSession
        self._addresses: Addresses
        self._indexes: JobIndexes

    async def run(self, stop: asyncio.Event) -> None:
        """Until told to stop; then its nodes go, and what ran in pods ends."""
        async with AsyncExitStack() as stack:
            self._api = await stack.enter_async_context(connect(self.kubeconfig))
            timeout = aiohttp.ClientTimeout(total=2.0)
            self._probes = await stack.enter_async_context(aiohttp.ClientSession(timeout=timeout))
            self._addresses = Addresses()
            stack.callback(self._addresses.close)
            self._indexes = JobIndexes(self._api)
            for node in self.nodes:
                await create_node(self._api, Node(node.name, node.gpus, node.product, node.labels, self.name))
            stopped = asyncio.create_task(stop.wait())
            watches = [asyncio.create_task(self._watch_nodes()), asyncio.create_task(self._watch_pods())]
            done, _ = await asyncio.wait([stopped, *watches], return_when=asyncio.FIRST_COMPLETED)
            for task in (stopped, *watches):
                task.cancel()
            await asyncio.gather(stopped, *watches, return_exceptions=True)
            for life in self._lives.values():
                await life.gone()
            with suppress(TimeoutError):
                # The API server may have been ended before.
                async with asyncio.timeout(5.0):
                    for name in sorted(self._own):
                        await delete_node(self._api, name)
            for task in done - {stopped}:
                task.result()

    async def _watch_nodes(self) -> None:
        async def relisted(nodes: list[Object]) -> None:
            self._own = {node["metadata"]["name"] for node in nodes}
            await self._take_waiting()

        async for kind, node in self._api.follow("/api/v1/nodes", relisted, labelSelector=f"{LABEL}={self.name}"):
            if kind == "DELETED":
                self._own.discard(node["metadata"]["name"])
            else:
                self._own.add(node["metadata"]["name"])
                await self._take_waiting()

    async def _take_waiting(self) -> None:
        for pod in [*self._waiting.values()]:
            await self._seen(pod)

    async def _watch_pods(self) -> None:
        async def relisted(pods: list[Object]) -> None:
            there = {pod["metadata"]["uid"] for pod in pods}
            for uid in self._lives.keys() - there:
                await self._lives.pop(uid).gone()
            for pod in pods:
                await self._seen(pod)

        async for kind, pod in self._api.follow("/api/v1/pods", relisted):
            if kind != "DELETED":
                await self._seen(pod)
                continue
            self._waiting.pop(pod["metadata"]["uid"], None)
            self._indexes.forget(pod)
            if (life := self._lives.pop(pod["metadata"]["uid"], None)) is not None:
                await life.gone()

    async def _seen(self, pod: Object) -> None:
        uid, node = pod["metadata"]["uid"], pod["spec"].get("nodeName")
        if uid in self._lives:
            self._lives[uid].seen(pod)
            return
        if node not in self._own:
            # Bound to a node that the other watch has not shown yet, to somebody else's, or to none.
            self._waiting[uid] = pod
            return
        self._waiting.pop(uid, None)
        if pod.get("status", {}).get("phase") in {"Succeeded", "Failed"} and "deletionTimestamp" not in pod["metadata"]:
            return
        if Wishes.of(pod).true("indexed"):
            pod = await self._indexes.give(pod)
        life = PodLife(pod, self._api, self._probes, self.delay_s, next(self._addresses), self._runner, self._commands)
        self._lives[uid] = life
        if "deletionTimestamp" in pod["metadata"]:
            life.seen(pod)

    def _runner(self, pod: Object, ip: str) -> Runner:
        wishes = Wishes.of(pod)
        if wishes.get("engine") == "simulated":
            return SimulatedEngine(pod, wishes, ip)
        if wishes.get("exec"):
            return self._commands(pod, ip)
        return Idle(wishes)

    def _commands(self, pod: Object, ip: str) -> Commands:
        folder = self.folder / "pods" / pod["metadata"]["namespace"] / pod["metadata"]["name"]
        return Commands(pod, self._api, ip, folder, self.folder / "claims", self._access)


def _node(text: str) -> Node:
    name, _, gpus = text.partition("=")
    return Node(name, int(gpus or 8))


async def _main(options: argparse.Namespace) -> None:
    stop = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, stop.set)
    folder = options.folder or Path(tempfile.mkdtemp(prefix="kubelet-"))
    kubelet = FakeKubelet(options.kubeconfig, options.node, delay_s=options.delay, name=options.name, folder=folder)
    await kubelet.run(stop)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(prog="python -m tests.kubernetes.kubelet", description="A fake kubelet.")
    parser.add_argument("kubeconfig", type=Path)
    parser.add_argument("--delay", type=float, default=0.5, metavar="S", help="from binding to running (default 0.5)")
    parser.add_argument("--node", type=_node, action="append", default=[], metavar="NAME=GPUS")
    parser.add_argument("--name", default="kubelet", help="its own; nodes with this label are its too")
    parser.add_argument("--folder", type=Path, help="for files of pods")
    asyncio.run(_main(parser.parse_args()))
