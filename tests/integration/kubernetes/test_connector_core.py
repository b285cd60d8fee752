"""The connector on a real API server: lease, ordered and guarded writes, Events, deletion costs, few requests."""

from __future__ import annotations

import random
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import pytest
from kubernetes import client

from planner.connectors.base import WorkerLoad
from planner.connectors.kubernetes import resources, victims
from planner.connectors.kubernetes.cluster import Cluster
from planner.connectors.kubernetes.connector import KubernetesConnector
from planner.connectors.kubernetes.errors import ConflictError, UnreachableError
from planner.connectors.kubernetes.lease import Lease
from planner.connectors.kubernetes.pods import DELETION_COST
from planner.connectors.kubernetes.settings import KubernetesSettings
from planner.connectors.kubernetes.target import PoolTarget, Target
from planner.connectors.kubernetes.targets import make_target
from planner.core.types import Pool, Role
from tests.integration.kubernetes.objects import deployment
from tests.kubernetes.cluster import Cluster as TestCluster
from tests.kubernetes.fixtures import Kubelet
from tests.kubernetes.nodes import Node
from tests.kubernetes.proxy import Proxy
from tests.servers import wait_until

POOLS = (Pool("prefill", Role.PREFILL, 1), Pool("decode", Role.DECODE, 1))
PATIENCE_S = 60.0
ME, OTHER = "planner-0", "planner-1"


@pytest.fixture
def clusters(control_plane: TestCluster, namespace: str) -> Iterator[Callable[..., Cluster]]:
    """Makes clients of the test's namespace."""
    made: list[Cluster] = []

    def make(through: Proxy | None = None, timeout_s: float = 15.0) -> Cluster:
        file = control_plane.kubeconfig if through is None else through.kubeconfig(control_plane.kubeconfig)
        made.append(Cluster(namespace, kubeconfig=file, timeout_s=timeout_s))
        return made[-1]

    yield make
    for one in made:
        one.close()


@pytest.fixture
def cluster(clusters: Callable[..., Cluster]) -> Cluster:
    return clusters()


def pool(name: str, replicas: int, **options: Any) -> dict[str, Any]:
    """The Deployment of a pool."""
    body = deployment(name, replicas, **options)
    labels = {"plimsoll.io/graph": "g", "plimsoll.io/pool": name}
    body["metadata"]["labels"] |= labels
    body["spec"]["template"]["metadata"]["labels"] |= labels
    return {"apiVersion": "apps/v1", "kind": "Deployment", **body}


def connected(
    cluster: Cluster, target: Target | None = None, *, max_gpus: int = 8, **settings: Any
) -> KubernetesConnector:
    return KubernetesConnector(cluster, "g", POOLS, KubernetesSettings(**settings), max_gpus, target=target)


def desired(cluster: Cluster) -> dict[str, int]:
    found = cluster.list(resources.DEPLOYMENTS, labels="plimsoll.io/graph=g").items
    return {one["metadata"]["name"]: one["spec"]["replicas"] for one in found}


def scale(cluster: Cluster, name: str, replicas: int) -> None:
    """As somebody else does."""
    cluster.patch(resources.DEPLOYMENTS, name, {"spec": {"replicas": replicas}})


def at_rest(cluster: Cluster, name: str) -> bool:
    """Whether an object does not change for a second."""
    before = cluster.read(resources.DEPLOYMENTS, name)["metadata"]["resourceVersion"]
    time.sleep(1.0)
    return cluster.read(resources.DEPLOYMENTS, name)["metadata"]["resourceVersion"] == before


class Meanwhile(Target):
    """A target to whose objects something happens between being seen and written."""

    def __init__(self, target: Target, happen: Callable[[Mapping[str, int]], None]) -> None:
        self._target, self._happen = target, happen

    def read(self) -> Sequence[PoolTarget]:
        return self._target.read()

    def write(self, replicas: Mapping[str, int], seen: Sequence[PoolTarget]) -> None:
        self._happen(replicas)
        self._target.write(replicas, seen)


# -- the lease -----------------------------------------------------------------------------------------------------


class Holder(threading.Thread):
    """A planner that wants the lease, with a wall clock that is wrong, and notes from when to when it held it."""

    def __init__(self, cluster: Cluster, name: str, end_s: float, skew_s: float) -> None:
        super().__init__(name=name)
        self.lease = Lease(cluster, "g", steady=self._steady, wall=lambda: time.time() + skew_s)
        self.held: list[tuple[float, float, str]] = []
        self.lost = 0
        self._end_s, self._random = end_s, random.Random(name)  # noqa: S311
        self._read_s = 0.0

    def _steady(self) -> float:
        self._read_s = time.monotonic()
        return self._read_s

    def run(self) -> None:
        while time.monotonic() < self._end_s:
            try:
                state = self.lease.take(self.name, 1)
            except (ConflictError, UnreachableError):
                self.lost += 1
                continue
            if state.held:
                # What it says is from when it looked at its clock last; on a busy machine that is a while ago.
                self.held.append((time.monotonic(), self._read_s + state.expires_in_s, self.name))
            # Some are late for their renewal, some give the lease back.
            choice = self._random.random()
            if state.held and choice < 0.4:
                now = time.monotonic()
                self.held = [(from_s, min(until_s, now), name) for from_s, until_s, name in self.held]
                self.lease.release(self.name)
            time.sleep(1.6 if choice > 0.85 else self._random.uniform(0.0, 0.3))


def test_of_planners_that_race_with_wrong_clocks_never_two_hold_the_lease(
    clusters: Callable[..., Cluster], control_plane: TestCluster, proxy: Proxy
) -> None:
    end_s = time.monotonic() + 12.0
    # One of them loses answers: it was given the lease and does not know it.
    proxy.lose_answer(times=4, method="PUT|POST", path="leases")
    holders = [
        Holder(clusters(), "a", end_s, -3600.0),
        Holder(clusters(), "b", end_s, 3600.0),
        Holder(clusters(proxy), "c", end_s, 0.0),
    ]
    for one in holders:
        one.start()
    for one in holders:
        one.join()
    spans = sorted(span for one in holders for span in one.held)
    assert len({span[2] for span in spans}) >= 2, "it changed hands"
    assert holders[2].lost >= 1
    for i, (_, until_s, name) in enumerate(spans):
        for from_s, _, other in spans[i + 1 :]:
            assert other == name or from_s >= until_s, f"{name} and {other} both held it"


def test_a_lease_looks_as_kubernetes_own(cluster: Cluster) -> None:
    lease = Lease(cluster, "My_Graph")
    lease.take(ME, 15)
    spec = cluster.read(resources.LEASES, "plimsoll-my-graph")["spec"]
    assert (spec["holderIdentity"], spec["leaseDurationSeconds"], spec["leaseTransitions"]) == (ME, 15, 0)
    assert len(spec["renewTime"].partition(".")[2]) == len("123456Z")
    lease.release(ME)
    assert Lease(cluster, "My_Graph").take(OTHER, 15).held
    assert cluster.read(resources.LEASES, "plimsoll-my-graph")["spec"]["leaseTransitions"] == 1


# -- writes --------------------------------------------------------------------------------------------------------


def test_supply_is_read_and_a_plan_carried_out_on_real_workers(
    cluster: Cluster, kubelet: Callable[..., Kubelet]
) -> None:
    kubelet(Node("gpu-a", 3), delay_s=0.5)
    connector = connected(cluster)
    cluster.create(resources.DEPLOYMENTS, pool("prefill", 1))
    cluster.create(resources.DEPLOYMENTS, pool("decode", 1))
    wait_until(lambda: sum(one.ready for one in connector.read().pools.values()) == 2, "two serve", PATIENCE_S)
    assert connector.lease(ME, 30).held
    assert connector.apply({"prefill": 1, "decode": 3}, ME) == {"prefill": "unchanged", "decode": "1 -> 3"}

    def one_is_left_over() -> bool:
        state = connector.read().pools["decode"]
        return (state.desired, state.ready, state.starting, state.unschedulable) == (3, 2, 1, 1)

    wait_until(one_is_left_over, "two of three serve, one finds no node", PATIENCE_S)
    supply = connector.read()
    assert supply.pools["decode"].trouble == (
        "1 worker without a node: 0/1 nodes are available: 1 Insufficient nvidia.com/gpu."
    )
    assert supply.gpus_per_worker == {"prefill": 1, "decode": 1}
    assert all(0.0 <= seconds <= 30.0 for seconds in supply.startup_s["decode"])
    # Both roles may change while that one waits. A lease that is old is not written with.
    assert connector.lease(ME, 30).held
    said = connector.apply({"prefill": 2, "decode": 2}, ME)
    assert said == {"prefill": "1 -> 2", "decode": "3 -> 2"}
    wait_until(
        lambda: connector.read().pools["prefill"].unschedulable == 1, "the other role waits for a node", PATIENCE_S
    )
    assert connector.lease(ME, 30).held
    assert connector.apply({"prefill": 2, "decode": 1}, ME)["decode"] == "2 -> 1"
    wait_until(lambda: connector.read().pools["prefill"].ready == 2, "it got that one's GPU", PATIENCE_S)


@contextmanager
def watching(cluster: Cluster, seen: list[int]) -> Iterator[None]:
    """Note the GPUs that the pods hold or ask for, as often as the server answers."""
    stop = threading.Event()

    def watch() -> None:
        while not stop.is_set():
            pods = cluster.list(resources.PODS, labels="plimsoll.io/graph=g").items
            seen.append(sum(one["status"].get("phase") not in {"Succeeded", "Failed"} for one in pods))

    thread = threading.Thread(target=watch)
    thread.start()
    try:
        yield
    finally:
        stop.set()
        thread.join()


def test_the_budget_holds_at_every_observed_instant_while_workers_drain(
    clusters: Callable[..., Cluster], kubelet: Callable[..., Kubelet]
) -> None:
    cluster = clusters()
    kubelet(Node("gpu-a", 16), delay_s=0.2)
    connector = connected(cluster, max_gpus=6)
    cluster.create(resources.DEPLOYMENTS, pool("prefill", 2, drain_s="1.5"))
    cluster.create(resources.DEPLOYMENTS, pool("decode", 4, drain_s="1.5"))
    wait_until(lambda: sum(one.ready for one in connector.read().pools.values()) == 6, "six serve", PATIENCE_S)
    seen: list[int] = []
    waited = False
    with watching(clusters(), seen):
        for plan in ({"prefill": 5, "decode": 1}, {"prefill": 1, "decode": 5}):
            end_s = time.monotonic() + PATIENCE_S
            while desired(cluster) != plan:
                assert time.monotonic() < end_s
                assert connector.lease(ME, 30).held
                waited |= "waits for" in " ".join(connector.apply(plan, ME).values())
                time.sleep(0.2)
        wait_until(lambda: connector.read().pools["decode"].ready == 5, "the last plan serves", PATIENCE_S)
    assert waited
    assert max(seen) == 6, Counter(seen)


def test_an_object_that_changes_between_look_and_write_is_looked_at_again(cluster: Cluster) -> None:
    cluster.create(resources.DEPLOYMENTS, pool("prefill", 2))
    cluster.create(resources.DEPLOYMENTS, pool("decode", 3))
    counts = iter([5, 1])

    def meanwhile(replicas: Mapping[str, int]) -> None:
        count = next(counts, None)
        if count is not None:
            scale(cluster, "decode", count)

    connector = connected(cluster, Meanwhile(make_target(cluster, "g", POOLS, KubernetesSettings()), meanwhile))
    connector.lease(ME, 30)
    assert connector.apply({"decode": 2}, ME) == {"decode": "3 -> 2"}
    assert desired(cluster) == {"prefill": 2, "decode": 2}


def test_conflicts_that_do_not_end_are_left_to_the_next_tick(clusters: Callable[..., Cluster], proxy: Proxy) -> None:
    admin, cluster = clusters(), clusters(proxy)
    admin.create(resources.DEPLOYMENTS, pool("prefill", 2))
    admin.create(resources.DEPLOYMENTS, pool("decode", 3))
    connector = connected(cluster)
    connector.lease(ME, 30)
    proxy.answer(409, times=None, method="PATCH", path="deployments/decode/scale")
    said = connector.apply({"prefill": 3, "decode": 2}, ME)
    assert said["prefill"] == "2 -> 3"
    assert said["decode"].startswith("not applied: cannot patch deployments.apps decode: 409")
    assert sum(method == "GET" and "/deployments?" in path for method, path in proxy.seen) == 3, "looks"
    proxy.heal()
    assert connector.apply({"prefill": 3, "decode": 2}, ME) == {"prefill": "unchanged", "decode": "3 -> 2"}


def test_a_planner_that_ends_between_two_writes_is_followed_by_one_that_finishes(
    clusters: Callable[..., Cluster], proxy: Proxy
) -> None:
    admin, cluster = clusters(), clusters(proxy, timeout_s=3.0)
    admin.create(resources.DEPLOYMENTS, pool("prefill", 2))
    admin.create(resources.DEPLOYMENTS, pool("decode", 3))

    class Ended(BaseException):
        """As SIGKILL: nothing is tidied up."""

    def killed(replicas: Mapping[str, int]) -> None:
        if "prefill" in replicas:
            raise Ended

    plan = {"prefill": 3, "decode": 2}
    connector = connected(cluster, Meanwhile(make_target(cluster, "g", POOLS, KubernetesSettings()), killed))
    assert connector.lease(ME, 6).held
    with pytest.raises(Ended):
        connector.apply(plan, ME)
    assert desired(admin) == {"prefill": 2, "decode": 2}
    successor = connected(admin)
    wait_until(lambda: successor.lease(OTHER, 30).held, "the lease lapses", PATIENCE_S)
    assert successor.apply(plan, OTHER) == {"prefill": "2 -> 3", "decode": "unchanged"}


def test_a_write_whose_answer_is_lost_is_found_done(clusters: Callable[..., Cluster], proxy: Proxy) -> None:
    admin, cluster = clusters(), clusters(proxy)
    admin.create(resources.DEPLOYMENTS, pool("prefill", 2))
    admin.create(resources.DEPLOYMENTS, pool("decode", 3))
    connector = connected(cluster)
    wait_until(lambda: at_rest(admin, "decode"), "no status is written any more", PATIENCE_S)
    connector.lease(ME, 30)
    proxy.lose_answer(method="PATCH", path="deployments/decode/scale")
    with pytest.raises(UnreachableError):
        connector.apply({"decode": 4}, ME)
    assert not any("back" in one for one in connector.read().notices), "nobody is blamed for it"
    assert connector.apply({"decode": 4}, ME) == {"decode": "unchanged"}


# -- Events and marks ----------------------------------------------------------------------------------------------


def test_events_are_on_the_pools_objects_where_kubectl_finds_them(cluster: Cluster, api: client.ApiClient) -> None:
    made = cluster.create(resources.DEPLOYMENTS, pool("prefill", 1))
    cluster.create(resources.DEPLOYMENTS, pool("decode", 1))
    scaler = {
        "apiVersion": "autoscaling/v1",
        "kind": "HorizontalPodAutoscaler",
        "metadata": {"name": "h"},
        "spec": {
            "maxReplicas": 9,
            "scaleTargetRef": {"apiVersion": "apps/v1", "kind": "Deployment", "name": "decode"},
        },
    }
    cluster.create(resources.AUTOSCALERS_V1, scaler)
    connector = connected(cluster)
    connector.read()
    connector.lease(ME, 30)
    for _ in range(3):
        said = connector.apply({"prefill": 2, "decode": 2}, ME)
        assert said["decode"].startswith("not applied: HorizontalPodAutoscaler h")
    listed = client.CoreV1Api(api).list_namespaced_event(cluster.namespace).items
    ours = {one.reason: one for one in listed if one.reporting_component == "plimsoll-planner"}
    # No node is there: the workers may be unschedulable already.
    assert ours.keys() - {"Unschedulable"} == {"ScaledUp", "RivalController"}
    up, rival = ours["ScaledUp"], ours["RivalController"]
    assert up.message == "prefill: 1 -> 2 workers, asked for by planner-0"
    assert up.involved_object.uid == made["metadata"]["uid"]
    assert (rival.type, rival.involved_object.name, rival.series.count) == ("Warning", "decode", 2)


def test_the_least_loaded_workers_are_marked_to_go(
    cluster: Cluster, kubelet: Callable[..., Kubelet], monkeypatch: pytest.MonkeyPatch
) -> None:
    # Older servers take the annotation as any other and do not act on it.
    monkeypatch.setattr(victims, "SINCE", (1, 0))
    kubelet(Node("gpu-a", 8))
    cluster.create(resources.DEPLOYMENTS, pool("prefill", 0))
    cluster.create(resources.DEPLOYMENTS, pool("decode", 4))
    connector = connected(cluster)
    wait_until(lambda: connector.read().pools["decode"].ready == 4, "four serve", PATIENCE_S)
    names = sorted(one.name for one in connector.read().workers)
    loads = {name: WorkerLoad(requests) for name, requests in zip(names, [3.0, 0.0, 7.0], strict=False)}
    connector.lease(ME, 30)
    marks: dict[str, str | None] = {}

    def note(replicas: Mapping[str, int]) -> None:
        for one in cluster.list(resources.PODS).items:
            marks[one["metadata"]["name"]] = (one["metadata"].get("annotations") or {}).get(DELETION_COST)

    target = Meanwhile(make_target(cluster, "g", POOLS, KubernetesSettings()), note)
    second = connected(cluster, target)
    assert second.lease(ME, 30).held
    assert second.apply({"decode": 2}, ME, loads) == {"decode": "4 -> 2"}
    assert marks == {names[0]: "-1", names[1]: "-2", names[2]: None, names[3]: None}


# -- requests ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("pools", [2, 200])
def test_requests_of_a_tick_do_not_grow_with_the_pools(
    cluster: Cluster, control_plane: TestCluster, pools: int, record_property: Callable[[str, object], None]
) -> None:
    control_plane.needs_own()
    planned = [Pool(f"p{i}", Role.DECODE, 1) for i in range(pools)]
    for one in planned:
        cluster.create(resources.DEPLOYMENTS, pool(one.name, 0))
    connector = KubernetesConnector(cluster, "g", planned, KubernetesSettings(), 1000)
    plan = {one.name: 0 for one in planned}

    def tick() -> None:
        supply = connector.read()
        assert len(supply.pools) == pools
        assert connector.lease(ME, 30).held
        assert set(connector.apply(plan, ME).values()) == {"unchanged"}

    tick()
    mark, began_s = control_plane.audit_mark(), time.monotonic()
    tick()
    took_s = time.monotonic() - began_s
    calls = control_plane.audit(mark, user="admin", namespace=cluster.namespace)
    made = Counter(f"{one.verb} {one.resource}" for one in calls if "kubernetes" not in one.agent.lower().split("/")[0])
    print(f"{pools} pools: {made.total()} requests in {took_s:.2f} s: {dict(made)}")
    # Another test may have installed that kind of objects, which each look then lists, too.
    sets = made.pop("list leaderworkersets", 0)
    assert sets in {0, 2}
    assert made.total() <= 10
