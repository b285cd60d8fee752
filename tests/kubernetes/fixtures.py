"""Fixtures of tests against a Kubernetes API; a conftest imports those that it gives on. See `tests.kubernetes`."""

from __future__ import annotations

import asyncio
import os
import sys
import uuid
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path

import pytest
from kubernetes import client

from tests.kubernetes import binaries, cluster, crds
from tests.kubernetes.api import connect
from tests.kubernetes.cluster import Cluster, ExistingCluster
from tests.kubernetes.control_plane import ControlPlane
from tests.kubernetes.nodes import Node, create_node, delete_node
from tests.kubernetes.program import Program
from tests.kubernetes.proxy import Proxy, running_proxy
from tests.kubernetes.watchdog import Watchdog
from tests.servers import wait_until

ROOT = Path(__file__).parents[2]


class SharedCluster:
    """One cluster for all folders of tests of a run, though each folder's conftest has its own fixture."""

    def __init__(self) -> None:
        self._stack = ExitStack()
        self._cluster: Cluster | None = None
        self._users = 0

    @contextmanager
    def use(self, folder: Path) -> Iterator[Cluster]:
        """The cluster, started for the first that asks and ended with the last."""
        if self._cluster is None:
            self._cluster = self._make(folder)
        self._users += 1
        try:
            yield self._cluster
        finally:
            self._users -= 1
            if self._users == 0:
                self._cluster = None
                self._stack.close()

    def _make(self, folder: Path) -> Cluster:
        named = cluster.existing()
        if named is not None:
            return ExistingCluster(named, folder)
        found = binaries.find()
        if isinstance(found, str):
            pytest.skip(found)
        return self._stack.enter_context(ControlPlane(found, folder / "control-plane"))


_SHARED = SharedCluster()


class Kubelet:
    """A fake kubelet that runs as a process.

    Attributes:
        folder: its files; logs of commands in pods are `FOLDER/pods/NAMESPACE/POD/CONTAINER.log`.
    """

    def __init__(self, on: Cluster, folder: Path, nodes: Sequence[Node], delay_s: float, watchdog: Watchdog) -> None:
        self.folder, self._cluster, self._nodes = folder, on, nodes
        self._name = f"kubelet-{uuid.uuid4().hex[:8]}"
        command: list[str | Path] = [
            sys.executable, "-m", "tests.kubernetes.kubelet", on.kubeconfig, "--delay", str(delay_s),
            "--name", self._name, "--folder", folder,
        ]  # fmt: skip
        self.program = Program("kubelet", command, folder, watchdog, _environment())

    def start(self) -> None:
        """Its nodes are there when this returns."""
        self.add_nodes(*self._nodes)
        self.program.start()

    def stop(self) -> None:
        """Its nodes go, and what ran in its pods ends."""
        self.program.stop()

    def add_nodes(self, *nodes: Node) -> None:
        """More nodes."""

        async def add() -> None:
            async with connect(self._cluster.kubeconfig) as api:
                for node in nodes:
                    await create_node(api, Node(node.name, node.gpus, node.product, node.labels, self._name))

        asyncio.run(add())

    def remove_node(self, name: str) -> None:
        """Take a node away, as a machine that is switched off: its pods stay as they were last seen."""

        async def remove() -> None:
            async with connect(self._cluster.kubeconfig) as api:
                await delete_node(api, name)

        asyncio.run(remove())

    def log(self, namespace: str, pod: str, container: str) -> str:
        """What a container wrote whose command ran."""
        return (self.folder / "pods" / namespace / pod / f"{container}.log").read_text(encoding="utf-8")


@contextmanager
def running_kubelet(
    on: Cluster, folder: Path, nodes: Sequence[Node] = (Node("gpu-a"),), delay_s: float = 0.3
) -> Iterator[Kubelet]:
    """A fake kubelet for as long as the context; only one runs in a cluster at a time."""
    on.needs_own()
    on.needs_controllers()
    on.needs_scheduler()
    folder.mkdir(parents=True, exist_ok=True)
    with on.client() as api:
        others = [node.metadata.name for node in client.CoreV1Api(api).list_node().items]
    assert not others, f"another kubelet's nodes are there: {others}"
    watchdog = Watchdog()
    kubelet = Kubelet(on, folder, nodes, delay_s, watchdog)
    try:
        kubelet.start()
        yield kubelet
    finally:
        kubelet.stop()
        watchdog.close()
        # Those of a kubelet that was killed.
        with on.client() as api:
            client.CoreV1Api(api).delete_collection_node()


@contextmanager
def new_namespace(on: Cluster, prefix: str = "test") -> Iterator[str]:
    """A namespace that goes with all that is in it; pods are removed at once, so that their GPUs are free."""
    name = f"{prefix}-{uuid.uuid4().hex[:8]}"
    with on.client() as api:
        core = client.CoreV1Api(api)
        core.create_namespace({"metadata": {"name": name}})
        if not isinstance(on, ControlPlane) or on.controllers is not None:
            wait_until(lambda: bool(core.list_namespaced_service_account(name).items), "a service account")
        try:
            yield name
        finally:
            core.delete_namespace(name)
            core.delete_collection_namespaced_pod(name, grace_period_seconds=0)


@contextmanager
def running_operators(on: Cluster, folder: Path, *names: str) -> Iterator[Program]:
    """Operators of kinds in `crds.NAMES`, whose definitions are installed; log in `FOLDER/operators.log`."""
    on.needs_own()
    with on.client() as api:
        crds.install(api, *names)
    watchdog = Watchdog()
    command = [sys.executable, "-m", "tests.kubernetes.operators", on.kubeconfig, *names]
    program = Program("operators", command, folder, watchdog, _environment())
    program.start()
    try:
        yield program
    finally:
        program.stop()
        watchdog.close()


def _environment() -> dict[str, str]:
    """For programs of this package, from whatever folder they run in."""
    paths = os.pathsep.join([str(ROOT), *filter(None, [os.environ.get("PYTHONPATH")])])
    return {**os.environ, "PYTHONPATH": paths}


@pytest.fixture(scope="session")
def control_plane(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    """The cluster of the whole run."""
    with _SHARED.use(tmp_path_factory.mktemp("kubernetes")) as shared:
        yield shared


@pytest.fixture
def namespace(control_plane: Cluster) -> Iterator[str]:
    """The name of a namespace of the test's own."""
    with new_namespace(control_plane) as name:
        yield name


@pytest.fixture
def api(control_plane: Cluster) -> Iterator[client.ApiClient]:
    """A client of the administrator."""
    with control_plane.client() as made:
        yield made


@pytest.fixture
def kubelet(control_plane: Cluster, namespace: str, tmp_path: Path) -> Iterator[Callable[..., Kubelet]]:
    """Starts the test's fake kubelet: `kubelet(Node("gpu-a", 8), Node("gpu-b", 4), delay_s=1.0)`."""
    with ExitStack() as stack:

        def start(*nodes: Node, delay_s: float = 0.3) -> Kubelet:
            folder = tmp_path / "kubelet"
            return stack.enter_context(running_kubelet(control_plane, folder, nodes or (Node("gpu-a"),), delay_s))

        yield start


@pytest.fixture
def proxy(control_plane: Cluster) -> Iterator[Proxy]:
    """A proxy in front of the API server, which can spoil requests."""
    control_plane.needs_own()
    assert isinstance(control_plane, ControlPlane)
    with running_proxy(control_plane) as made:
        yield made


@pytest.fixture
def operators(
    control_plane: Cluster, api: client.ApiClient, namespace: str, tmp_path: Path
) -> Iterator[Callable[..., Program]]:
    """Installs definitions and runs their operators: `operators("leaderworkerset", "dynamo-v1beta1")`."""
    with ExitStack() as stack:

        def start(*names: str) -> Program:
            return stack.enter_context(running_operators(control_plane, tmp_path, *names))

        yield start
