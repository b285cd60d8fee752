"""DynamoGraphDeployments of both versions: which component is which pool, what one worker holds, one write for both."""

from __future__ import annotations

from fractions import Fraction
from typing import Any

import pytest

from planner.connectors.kubernetes.cluster import Patch
from planner.connectors.kubernetes.errors import ClusterError
from planner.connectors.kubernetes.resources import (
    DYNAMO_GRAPHS_V1ALPHA1,
    DYNAMO_GRAPHS_V1BETA1,
    SCALING_ADAPTERS_V1ALPHA1,
    SCALING_ADAPTERS_V1BETA1,
)
from planner.connectors.kubernetes.settings import GraphObject, KubernetesSettings
from planner.connectors.kubernetes.target import Target
from planner.connectors.kubernetes.targets import MismatchError, gateway_selector, make_target
from planner.connectors.kubernetes.targets.seen import SeenPool
from planner.core.in_place import Rolling
from planner.core.types import Pool, Role
from tests.unit.connectors.kubernetes.fake_cluster import FakeCluster, Object

SETTINGS = KubernetesSettings(graph=GraphObject(kind="DynamoGraphDeployment", name="q"))
POOLS = (Pool("prefill", Role.PREFILL, 1), Pool("decode", Role.DECODE, 1))
META = {"name": "q", "uid": "u", "resourceVersion": "5", "generation": 3}


def service(gpus: int | str = 1, *args: str, sub: str = "", **more: Any) -> Object:
    main = {"args": ["--model", "m", *args], "command": ["python3", "-m", "dynamo.vllm"]}
    return {
        "componentType": "worker",
        "replicas": 2,
        "resources": {"limits": {"gpu": str(gpus)}},
        "extraPodSpec": {"mainContainer": main},
        **({"subComponentType": sub} if sub else {}),
        **more,
    }


def alpha(**services: Object) -> Object:
    front = {"Frontend": {"componentType": "frontend", "replicas": 1}}
    return {"metadata": dict(META), "spec": {"services": front | services}}


def component(name: str, kind: str, gpus: int = 1, *args: str, **more: Any) -> Object:
    main = {"name": "main", "args": ["--model", "m", *args], "resources": {"limits": {"nvidia.com/gpu": gpus}}}
    return {"name": name, "type": kind, "replicas": 2, "podTemplate": {"spec": {"containers": [main]}}, **more}


def beta(*components: Object) -> Object:
    front = {"name": "Frontend", "type": "frontend"}
    return {"metadata": dict(META), "spec": {"components": [front, *components]}}


def target(thing: Object, cluster: FakeCluster | None = None, pools: tuple[Pool, ...] = POOLS) -> Target:
    cluster = cluster or FakeCluster()
    cluster.lists[DYNAMO_GRAPHS_V1BETA1 if "components" in thing["spec"] else DYNAMO_GRAPHS_V1ALPHA1] = [thing]
    return make_target(cluster.real(), "g", pools, SETTINGS)


def test_services_by_sub_component_type() -> None:
    graph = alpha(A=service(2, "-tp", "2", sub="decode"), B=service(1, sub="prefill", replicas=5))
    prefill, decode = target(graph).read()
    assert (prefill.pool, prefill.desired, prefill.gpus_per_worker, prefill.layout) == ("prefill", 5, 1, (1, 1))
    assert (decode.pool, decode.desired, decode.gpus_per_worker, decode.layout) == ("decode", 2, 2, (2, 1))
    assert decode.selector == {
        "nvidia.com/dynamo-graph-deployment-name": "q",
        "nvidia.com/dynamo-component": "A",
    }
    assert (decode.resource, decode.object_name, decode.resource_version) == (DYNAMO_GRAPHS_V1ALPHA1, "q", "5")


def test_components_by_type_with_the_gpus_of_their_pod_templates() -> None:
    graph = beta(component("D", "decode", 8, multinode={"nodeCount": 2}), component("P", "prefill", 4, "-dp", "4"))
    prefill, decode = target(graph).read()
    assert (prefill.gpus_per_worker, prefill.layout, prefill.pods_per_worker) == (4, (1, 4), 1)
    assert (decode.gpus_per_worker, decode.pods_per_worker) == (16, 2)


def test_gpus_that_the_operator_worked_out_count_while_they_are_of_this_spec() -> None:
    graph = beta(component("D", "decode", 0), component("P", "prefill", 4))
    graph["status"] = {"observedGeneration": 3, "components": {"D": {"gpusPerReplica": 6}}}
    assert [one.gpus_per_worker for one in target(graph).read()] == [4, 6]
    graph["status"]["observedGeneration"] = 2
    assert [one.gpus_per_worker for one in target(graph).read()] == [4, 0]


def test_a_components_own_name_as_the_pools() -> None:
    pools = (Pool("A", Role.DECODE, 1), Pool("B", Role.DECODE, 1))
    graph = alpha(A=service(sub="decode", replicas=1), B=service(sub="decode", replicas=2))
    assert [one.desired for one in target(graph, pools=pools).read()] == [1, 2]


def test_two_components_of_one_role_are_named() -> None:
    graph = alpha(A=service(sub="decode"), B=service(sub="decode"), P=service(sub="prefill"))
    with pytest.raises(MismatchError, match=r"A and B for decode: name the pool as one of them, instead of decode"):
        target(graph).read()


def test_default_names_where_nothing_says_a_role() -> None:
    graph = alpha(VllmPrefillWorker=service(replicas=3), VllmDecodeWorker=service(replicas=4))
    assert [one.desired for one in target(graph).read()] == [3, 4]


def test_a_worker_without_a_role_is_an_aggregated_one() -> None:
    pools = (Pool("workers", Role.AGGREGATED, 1),)
    assert target(alpha(W=service(replicas=7)), pools=pools).read()[0].desired == 7
    with pytest.raises(MismatchError, match=r"no prefill workers for pool prefill; it has W \(aggregated\)"):
        target(alpha(W=service())).read()


def test_a_pool_of_the_wrong_role_is_refused() -> None:
    pools = (Pool("A", Role.PREFILL, 1),)
    with pytest.raises(MismatchError, match="A for decode, and pool A is for prefill"):
        target(alpha(A=service(sub="decode")), pools=pools).read()


def test_services_change_in_one_merge_patch_guarded_by_what_was_seen() -> None:
    cluster = FakeCluster()
    graph = target(alpha(A=service(sub="decode"), B=service(sub="prefill")), cluster)
    graph.write({"prefill": 1, "decode": 3}, graph.read())
    assert graph.atomic
    [(path, body, how, _)] = cluster.patches
    assert path.endswith("/v1alpha1/namespaces/ns/dynamographdeployments/q")
    assert how is Patch.MERGE
    services = {"B": {"replicas": 1}, "A": {"replicas": 3}}
    assert body == {"metadata": {"resourceVersion": "5"}, "spec": {"services": services}}


def test_components_change_in_one_json_patch_guarded_by_what_was_seen() -> None:
    cluster = FakeCluster()
    graph = target(beta(component("D", "decode"), component("P", "prefill")), cluster)
    graph.write({"prefill": 1, "decode": 2}, graph.read())
    graph.write({"prefill": 1, "decode": 3}, graph.read())
    bodies = [body for _, body, how, _ in cluster.patches if how is Patch.JSON]
    guard = {"op": "replace", "path": "/metadata/resourceVersion", "value": "5"}
    prefill = {"op": "add", "path": "/spec/components/2/replicas", "value": 1}
    decode = {"op": "add", "path": "/spec/components/1/replicas", "value": 3}
    # A pool that has what is asked for is left alone.
    assert bodies == [[guard, prefill], [guard, prefill, decode]]


def adapter(component: str, replicas: int, key: str = "componentName") -> Object:
    meta = {"name": f"q-{component.lower()}", "resourceVersion": "9"}
    return {"metadata": meta, "spec": {"replicas": replicas, "dgdRef": {"name": "q", key: component}}}


@pytest.mark.parametrize(
    ("resource", "key"),
    [(SCALING_ADAPTERS_V1BETA1, "componentName"), (SCALING_ADAPTERS_V1ALPHA1, "serviceName")],
)
def test_replicas_of_components_with_adapters_are_read_and_written_there_in_order(resource: Any, key: str) -> None:
    cluster = FakeCluster((1, 20))
    other = adapter("D", 7, key)
    other["spec"]["dgdRef"]["name"] = "another"
    cluster.lists[resource] = [other, adapter("D", 4, key), adapter("P", 3, key)]
    thing = beta(component("D", "decode", scalingAdapter={}), component("P", "prefill", scalingAdapter={}))
    graph = target(thing, cluster)
    seen = graph.read()
    assert not graph.atomic
    assert [(one.object_name, one.desired, one.resource_version) for one in seen] == [("q-p", 3, "9"), ("q-d", 4, "9")]
    # What the graph itself asks for, until the operator has carried the others there.
    assert [one.carried for one in seen if isinstance(one, SeenPool)] == [2, 2]
    graph.write({"decode": 1, "prefill": 5}, seen)
    assert [path.rsplit("/", 2)[1:] for path, *_ in cluster.patches] == [["q-d", "scale"], ["q-p", "scale"]]
    assert cluster.patches[0][1] == {"metadata": {"resourceVersion": "9"}, "spec": {"replicas": 1}}


_ROLLING = "nvidia.com/deployment-rolling-update-max"


@pytest.mark.parametrize(
    ("whole", "own", "expected"),
    [
        ({}, {}, Rolling(Fraction(1, 4), Fraction(1, 4))),
        ({f"{_ROLLING}-unavailable": "0"}, {f"{_ROLLING}-surge": "2"}, Rolling(0, 2)),
        ({f"{_ROLLING}-unavailable": "50%"}, {f"{_ROLLING}-unavailable": "10%"}, Rolling(Fraction(1, 10))),
        ({f"{_ROLLING}-unavailable": "some"}, {}, Rolling()),
        ({"nvidia.com/deployment-strategy": "Recreate"}, {}, Rolling(Fraction(1), 0)),
    ],
)
def test_how_workers_are_replaced_is_annotated(whole: dict[str, str], own: dict[str, str], expected: Rolling) -> None:
    graphs = [
        alpha(P=service(sub="prefill"), D=service(sub="decode", annotations=own)),
        beta(component("P", "prefill"), component("D", "decode")),
    ]
    graphs[1]["spec"]["components"][-1]["podTemplate"]["metadata"] = {"annotations": own}
    for graph in graphs:
        graph["spec"]["annotations"] = whole
        assert target(graph).read()[1].rolling == expected


def test_groups_of_several_nodes_are_not_replaced_in_place() -> None:
    graph = alpha(P=service(sub="prefill"), D=service(sub="decode", multinode={"nodeCount": 2}))
    assert [one.rolling for one in target(graph).read()] == [Rolling(), None]


def test_an_adapter_between_two_direct_ones_keeps_the_order() -> None:
    cluster = FakeCluster((1, 20))
    cluster.lists[SCALING_ADAPTERS_V1ALPHA1] = [adapter("B", 2, "serviceName")]
    pools = tuple(Pool(name, Role.DECODE, 1) for name in "ABC")
    adapted = service(sub="decode", scalingAdapter={"enabled": True})
    graph = target(alpha(A=service(sub="decode"), B=adapted, C=service(sub="decode")), cluster, pools)
    graph.write({"A": 1, "B": 1, "C": 3}, graph.read())
    assert [path.rsplit("/", 1)[1] for path, *_ in cluster.patches] == ["q", "scale", "q"]
    # The second patch of the graph stands on what the first one made of it.
    assert cluster.patches[2][1]["metadata"]["resourceVersion"] == "after-1"


def test_writes_one_after_the_other_stand_on_each_other() -> None:
    cluster = FakeCluster()
    graph = target(alpha(P=service(sub="prefill"), D=service(sub="decode")), cluster)
    seen = graph.read()
    graph.write({"prefill": 1}, seen)
    graph.write({"decode": 3}, seen)
    graph.read()
    graph.write({"decode": 3}, seen)
    versions = [body["metadata"]["resourceVersion"] for _, body, *_ in cluster.patches]
    assert versions == ["5", "after-1", "5"]


def test_a_component_that_is_scaled_with_others_is_refused() -> None:
    graph = beta(component("D", "decode"), component("P", "prefill"))
    graph["spec"]["experimental"] = {"componentGroups": [{"name": "pd", "components": [{"name": "P"}, {"name": "D"}]}]}
    with pytest.raises(MismatchError, match="scales P together with other components, in its group pd"):
        target(graph).read()


def test_an_adapter_that_is_not_there_yet_is_an_error_that_says_so() -> None:
    cluster = FakeCluster()
    cluster.lists[SCALING_ADAPTERS_V1BETA1] = []
    graph = target(beta(component("D", "decode", scalingAdapter={}), component("P", "prefill")), cluster)
    with pytest.raises(ClusterError, match="D of DynamoGraphDeployment q leaves its replicas to a scaling adapter"):
        graph.write({"decode": 1}, graph.read())
    assert cluster.patches == []


def test_fewer_workers_than_min_available_are_refused_before_anything_is_written() -> None:
    cluster = FakeCluster()
    graph = target(beta(component("D", "decode", minAvailable=2), component("P", "prefill")), cluster)
    with pytest.raises(ClusterError, match="takes 2 workers"):
        graph.write({"prefill": 3, "decode": 1}, graph.read())
    assert cluster.patches == []


def planned(thing: Object) -> bool:
    return any(getattr(one, "rival", "") for one in target(thing).read())


@pytest.mark.parametrize("module", ["planner_sla", "dynamo.planner.planner_sla", "dynamo.planner"])
def test_dynamos_own_planner_is_a_rival_while_it_has_replicas(module: str) -> None:
    main = {"command": ["python3", "-m", module], "args": ["--environment=kubernetes"]}
    workers = {"P": service(sub="prefill"), "D": service(sub="decode")}
    one: Object = {"componentType": "planner", "extraPodSpec": {"mainContainer": main}}
    [prefill, _] = target(alpha(**workers, Planner=one)).read()
    assert "component Planner of DynamoGraphDeployment q" in getattr(prefill, "rival", "")
    assert not planned(alpha(**workers, Planner={**one, "replicas": 0}))
    two = [component("P", "prefill"), component("D", "decode")]
    template = {"spec": {"containers": [{"name": "main", **main}]}}
    assert planned(beta(*two, {"name": "Planner", "type": "planner", "podTemplate": template}))


def test_this_planner_as_a_component_of_the_graph_is_none() -> None:
    main = {"name": "main", "command": ["planner", "run"], "args": ["--config", "/etc/plimsoll/planner.yaml"]}
    one = {"name": "Planner", "type": "planner", "podTemplate": {"spec": {"containers": [main]}}}
    assert not planned(beta(component("P", "prefill"), component("D", "decode"), one))


def test_the_version_that_shows_the_components_is_taken() -> None:
    cluster = FakeCluster()
    cluster.lists[DYNAMO_GRAPHS_V1BETA1] = [{"metadata": dict(META), "spec": {}}]
    graph = target(alpha(P=service(sub="prefill"), D=service(sub="decode")), cluster)
    assert graph.read()[0].resource == DYNAMO_GRAPHS_V1ALPHA1
    cluster.calls.clear()
    graph.read()
    assert len(cluster.calls) == 1


def test_a_cluster_without_dynamo() -> None:
    with pytest.raises(MismatchError, match="is Dynamo's operator installed"):
        make_target(FakeCluster().real(), "g", POOLS, SETTINGS).read()


def test_the_gateway_is_the_frontend() -> None:
    found = gateway_selector("g", SETTINGS)
    assert found == "nvidia.com/dynamo-graph-deployment-name=q,nvidia.com/dynamo-component-type=frontend"
    assert gateway_selector("g", KubernetesSettings()) == "plimsoll.io/graph=g,plimsoll.io/role=gateway"
    assert gateway_selector("g", KubernetesSettings(gateway_selector="a=b")) == "a=b"
