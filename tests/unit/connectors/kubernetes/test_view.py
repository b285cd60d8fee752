from __future__ import annotations

from typing import Any

import pytest

from planner.connectors.base import Supply, WorkerStatus
from planner.connectors.kubernetes.resources import DEPLOYMENTS, PODS
from planner.connectors.kubernetes.settings import KubernetesSettings
from planner.connectors.kubernetes.supply import MISSING_FOR_S, Missing, supply_of
from planner.connectors.kubernetes.target import PoolTarget
from planner.connectors.kubernetes.view import Viewer, common_selector
from planner.core.types import PoolState
from tests.unit.connectors.kubernetes.memory import MemoryCluster, MemoryTarget

GRAPH = {"plimsoll.io/graph": "chat"}
GATEWAY = {**GRAPH, "plimsoll.io/role": "gateway"}
GATEWAYS = "plimsoll.io/graph=chat,plimsoll.io/role=gateway"


def pool(name: str, desired: int, selector: dict[str, str] | None = None, gpus: int | None = 1) -> PoolTarget:
    labels = selector if selector is not None else {**GRAPH, "plimsoll.io/pool": name}
    return PoolTarget(name, DEPLOYMENTS, f"chat-{name}", desired, 1, gpus, (gpus or 1, 1), labels, uid=name)


def pod(
    name: str, labels: dict[str, str], *, ready: bool = True, ip: str = "10.0.0.1", gpus: int = 1, **meta: Any
) -> dict[str, Any]:
    condition = {"type": "Ready", "status": str(ready), "lastTransitionTime": "2026-03-01T10:01:00Z"}
    ports = [{"name": "http", "containerPort": 8000}, {"name": "metrics", "containerPort": 29000}]
    return {
        "metadata": {"name": name, "uid": name, "labels": labels, "creationTimestamp": "2026-03-01T10:00:00Z", **meta},
        "spec": {
            "nodeName": "n",
            "containers": [{"name": "main", "ports": ports, "resources": {"limits": {"nvidia.com/gpu": str(gpus)}}}],
        },
        "status": {"phase": "Running", "podIP": ip, "conditions": [condition]},
    }


def nowhere(name: str, labels: dict[str, str], why: str) -> dict[str, Any]:
    made = pod(name, labels, ready=False, ip="")
    del made["spec"]["nodeName"]
    made["status"]["conditions"] = [
        {"type": "PodScheduled", "status": "False", "reason": "Unschedulable", "message": why}
    ]
    return made


def look(
    cluster: MemoryCluster, pools: list[PoolTarget], gateways: str = GATEWAYS, **settings: Any
) -> tuple[Supply, int]:
    options = KubernetesSettings(**settings)
    view = Viewer(cluster, MemoryTarget(pools), "chat", options, gateways).look()
    return supply_of(view, options.worker_metrics_port, {}, {}, {}), view.elsewhere


def test_counts_workers_and_gateways_by_one_list_of_pods() -> None:
    cluster = MemoryCluster()
    decode = {**GRAPH, "plimsoll.io/pool": "decode", "pod-template-hash": "x"}
    for thing in (
        pod("d1", decode),
        pod("d2", decode, ip="fd00::2"),
        pod("d3", decode, ready=False, ip="10.0.0.3"),
        nowhere("d4", decode, "0/2 nodes are available: 2 Insufficient nvidia.com/gpu."),
        pod("d5", decode, deletionTimestamp="2026-03-01T12:00:00Z"),
        pod("g1", GATEWAY, ip="10.0.1.1"),
        pod("g2", GATEWAY, ready=False),
        pod("other", {"app": "other"}),
    ):
        cluster.put(PODS, thing)
    supply, elsewhere = look(cluster, [pool("decode", 5), pool("prefill", 2)])
    trouble = "1 worker without a node: 0/2 nodes are available: 2 Insufficient nvidia.com/gpu."
    assert supply.pools["decode"] == PoolState(5, 2, 3, 1, unschedulable=1, trouble=trouble)
    assert supply.pools["prefill"] == PoolState(desired=2, ready=0, starting=2)
    assert [(one.name, one.status, one.address) for one in supply.workers] == [
        ("d1", WorkerStatus.READY, "10.0.0.1:8000"),
        ("d2", WorkerStatus.READY, "[fd00::2]:8000"),
        ("d3", WorkerStatus.STARTING, "10.0.0.3:8000"),
        ("d4", WorkerStatus.STARTING, ""),
        ("d5", WorkerStatus.TERMINATING, "10.0.0.1:8000"),
    ]
    assert supply.gateways == ("10.0.1.1:29000",)
    assert supply.notices == (f"pool decode: {trouble}",)
    assert supply.layouts == {"decode": (1, 1), "prefill": (1, 1)}
    assert elsewhere == 0
    assert cluster.called("list", "pods") == ["plimsoll.io/graph=chat"]


def test_a_pod_is_of_the_pool_whose_selector_says_most_of_it() -> None:
    cluster = MemoryCluster()
    old, new = {"app": "d"}, {"app": "d", "plimsoll.io/layout": "tp4-dp1"}
    cluster.put(PODS, pod("a", old))
    cluster.put(PODS, pod("b", new))
    supply, _ = look(cluster, [pool("d", 1, old), pool("d-tp4-dp1", 1, new)])
    assert {one.name: one.pool for one in supply.workers} == {"a": "d", "b": "d-tp4-dp1"}


def test_pods_of_a_former_pool_hold_their_gpus() -> None:
    cluster = MemoryCluster()
    gone = {**GRAPH, "plimsoll.io/pool": "former"}
    cluster.put(PODS, pod("f", gone, gpus=4, deletionTimestamp="2026-03-01T12:00:00Z"))
    ended = pod("e", gone, gpus=4)
    ended["status"]["phase"] = "Failed"
    cluster.put(PODS, ended)
    assert look(cluster, [pool("decode", 0)])[1] == 4


def test_gateways_elsewhere_cost_one_more_list_and_say_what_port_they_lack() -> None:
    cluster = MemoryCluster()
    cluster.put(PODS, pod("g", {"app": "gate"}))
    supply, _ = look(cluster, [pool("decode", 0)], "app=gate")
    assert supply.gateways == ("10.0.0.1:29000",)
    supply, _ = look(cluster, [pool("decode", 0)], "app=gate", gateway_metrics_port="prom")
    assert supply.gateways == ("10.0.0.1:29000",)
    thing = pod("g", {"app": "gate"})
    thing["spec"]["containers"][0]["ports"] = [{"containerPort": 1}, {"containerPort": 2}]
    cluster.put(PODS, thing)
    supply, _ = look(cluster, [pool("decode", 0)], "app=gate")
    assert supply.gateways == ()
    assert supply.notices == ("gateway pod g has no port metrics: set gateway_metrics_port to the one it has",)


def test_a_worker_without_the_metrics_port_is_reported() -> None:
    cluster = MemoryCluster()
    thing = pod("d", {**GRAPH, "plimsoll.io/pool": "decode"})
    thing["spec"]["containers"][0]["ports"] = [{"containerPort": 1}, {"containerPort": 2}]
    cluster.put(PODS, thing)
    supply, _ = look(cluster, [pool("decode", 1)])
    assert "pod d has no port http" in supply.notices[0]


@pytest.mark.parametrize(
    ("selectors", "expected"),
    [
        ([], ""),
        ([{**GRAPH, "a": "1"}, {**GRAPH, "a": "2"}], "plimsoll.io/graph=chat"),
        ([{"team": "x", "a": "1"}, {"team": "x", "a": "2"}], "team=x"),
        ([{"app": "b"}, {"app": "a"}], "app in (a,b)"),
        ([{"app": "x" * 60 + str(i)} for i in range(200)], "app"),
        ([{"app": "b"}, {"name": "a"}], ""),
        ([{"app": "b"}, {}], ""),
    ],
)
def test_one_selector_finds_the_pods_of_all_pools(selectors: list[dict[str, str]], expected: str) -> None:
    assert common_selector(selectors) == expected


def test_workers_without_a_pod_are_trouble_after_a_while() -> None:
    cluster, missing = MemoryCluster(), Missing()
    viewer = Viewer(cluster, MemoryTarget([pool("decode", 2)]), "chat", KubernetesSettings(), GATEWAYS)
    assert missing.see(viewer.look(), 0.0) == {}
    (text,) = missing.see(viewer.look(), MISSING_FOR_S).values()
    assert text.startswith("2 workers asked for and without a pod for more than 30 s: see the Events of Deployment")
    for name in "ab":
        cluster.put(PODS, pod(name, {**GRAPH, "plimsoll.io/pool": "decode"}))
    assert missing.see(viewer.look(), 2 * MISSING_FOR_S) == {}


def test_hundreds_of_pools_are_one_list() -> None:
    cluster = MemoryCluster()
    pools = [pool(f"p{i}", 1) for i in range(200)]
    for one in pools:
        cluster.put(PODS, pod(one.pool, {**GRAPH, "plimsoll.io/pool": one.pool}))
    supply, _ = look(cluster, pools)
    assert sum(state.ready for state in supply.pools.values()) == 200
    assert len(cluster.calls) == 1
