"""Objects by name and by label: how many requests they take, how replicas are written, and who gives way."""

from __future__ import annotations

from typing import Any

import pytest

from planner.connectors.kubernetes.cluster import Patch
from planner.connectors.kubernetes.errors import ConflictError, ForbiddenError, InvalidError, NotFoundError
from planner.connectors.kubernetes.ownership import OwnedByOtherError
from planner.connectors.kubernetes.resources import (
    AUTOSCALERS,
    DEPLOYMENTS,
    LEADER_WORKER_SETS,
    POD_CLIQUE_SCALING_GROUPS,
    POD_CLIQUE_SETS,
    POD_CLIQUES,
    Resource,
)
from planner.connectors.kubernetes.settings import GraphObject, KubernetesSettings, PoolObject
from planner.connectors.kubernetes.target import Target
from planner.connectors.kubernetes.targets import MismatchError, make_target
from planner.core.types import Pool, Role
from tests.unit.connectors.kubernetes.fake_cluster import FakeCluster, Object

POOLS = (Pool("P", Role.PREFILL, 1), Pool("D", Role.DECODE, 1))


def thing(name: str, pool: str = "", replicas: int = 1, managers: Any = (), role: str = "", layout: str = "") -> Object:
    fields: Object = {"f:spec": {"f:replicas": {}}}
    entries = [{"manager": one, "fieldsV1": fields, "subresource": "scale"} for one in managers]
    given = {"graph": "g", "pool": pool, "role": role, "layout": layout}
    own = {f"plimsoll.io/{key}": value for key, value in given.items() if value}
    meta = {"name": name, "resourceVersion": "5", "managedFields": entries, **({"labels": own} if pool else {})}
    return {"metadata": meta, "spec": {"replicas": replicas, "selector": {"matchLabels": {"a": name}}}}


def labelled(*things: Object, version: tuple[int, int] = (1, 33)) -> tuple[FakeCluster, Target]:
    cluster = FakeCluster(version)
    cluster.lists[DEPLOYMENTS] = list(things)
    return cluster, make_target(cluster.real(), "g", POOLS, KubernetesSettings())


def test_pools_by_label_take_two_lists_and_one_where_no_groups_are_installed() -> None:
    front = thing("front", "Frontend", role="gateway")
    cluster, target = labelled(thing("p", "P", 2), thing("d", "D", 3), front, thing("x", "old"))
    assert [(one.pool, one.object_name, one.desired) for one in target.read()] == [
        ("P", "p", 2),
        ("D", "d", 3),
        ("old", "x", 1),
    ]
    assert len(cluster.calls) == 2
    target.read()
    assert len(cluster.calls) == 3


def test_a_pool_without_an_object_is_named_with_the_labels_that_it_needs() -> None:
    _, target = labelled(thing("p", "P"))
    with pytest.raises(NotFoundError, match=r"of D; expected one with the labels plimsoll.io/graph=g and .*pool=D"):
        target.read()


def test_groups_that_may_not_be_listed_matter_only_where_a_pool_is_missing() -> None:
    cluster, target = labelled(thing("p", "P"), thing("d", "D"))
    cluster.lists[LEADER_WORKER_SETS] = ForbiddenError("403: leaderworkersets")
    assert len(target.read()) == 2
    asked = len(cluster.calls)
    assert len(target.read()) == 2
    assert len(cluster.calls) == asked + 1, "it is asked for again, and refused again, at every tick"
    cluster.lists[DEPLOYMENTS] = [thing("p", "P")]
    with pytest.raises(ForbiddenError):
        target.read()
    cluster.lists[LEADER_WORKER_SETS] = [thing("d", "D")]
    assert {one.pool for one in target.read()} == {"P", "D"}


def test_two_objects_of_one_pool_are_two_layouts_or_an_error() -> None:
    old, new = (
        thing("d", "D", layout="tp2-dp1"),
        thing("e", "D", layout="tp4-dp1"),
    )
    old["metadata"]["creationTimestamp"], new["metadata"]["creationTimestamp"] = "2026-01-01", "2026-01-02"
    _, target = labelled(new, thing("p", "P"), old)
    assert {one.pool: one.object_name for one in target.read()} == {"P": "p", "D": "d", "D-tp4-dp1": "e"}
    _, target = labelled(thing("d", "D"), thing("e", "D"), thing("p", "P"))
    with pytest.raises(MismatchError, match="Deployment d and Deployment e both say that they are pool D"):
        target.read()


def test_a_retired_object_whose_manifest_was_applied_again_holds_no_pool() -> None:
    retired, new = thing("d", "D", 0, layout="tp1-dp1"), thing("d-tp2", "D", 3, layout="tp2-dp1")
    retired["metadata"]["labels"]["plimsoll.io/retired-from"] = "D"
    _, target = labelled(retired, new, thing("p", "P"))
    assert {one.pool: one.object_name for one in target.read()} == {"P": "p", "D": "d-tp2"}


def named(cluster: FakeCluster, **objects: PoolObject) -> Target:
    return make_target(cluster.real(), "g", POOLS, KubernetesSettings(objects=objects))


def test_named_objects_take_one_list_per_kind() -> None:
    cluster = FakeCluster()
    cluster.lists[DEPLOYMENTS] = [thing(f"d{i}", replicas=i) for i in range(200)]
    target = named(cluster, **{f"p{i}": PoolObject(name=f"d{i}", gpus_per_worker=3) for i in range(200)})
    assert [one.desired for one in target.read()] == list(range(200))
    assert cluster.calls == ["list apps/v1 deployments "]
    assert target.read()[0].gpus_per_worker == 3


def test_a_named_object_that_is_not_there_is_named() -> None:
    cluster = FakeCluster()
    cluster.lists[DEPLOYMENTS] = [thing("p")]
    with pytest.raises(NotFoundError, match="namespace ns has no Deployment q"):
        named(cluster, P=PoolObject(name="p"), D=PoolObject(name="q")).read()


ROLLOUTS = Resource("argoproj.io", "v1alpha1", "rollouts", "Rollout")


def with_rollouts(*names: str) -> FakeCluster:
    cluster = FakeCluster()
    served = [{"name": one, "kind": "Rollout", "namespaced": True} for one in names]
    versions = {"versions": [{"version": "v1alpha1"}], "preferredVersion": {"version": "v1alpha1"}}
    cluster.documents["/apis/argoproj.io"] = versions
    cluster.documents["/apis/argoproj.io/v1alpha1"] = {"resources": served}
    cluster.lists[ROLLOUTS] = [thing("r", replicas=2)]
    path = "/apis/argoproj.io/v1alpha1/namespaces/ns/rollouts/r/scale"
    cluster.documents[path] = {"spec": {"replicas": 2}, "status": {"selector": "app=r,tier in (a, b),x!=y"}}
    return cluster


def test_any_kind_with_a_scale_subresource_is_found_once_and_its_selector_asked_for_once() -> None:
    cluster = with_rollouts("rollouts", "rollouts/scale")
    target = named(cluster, P=PoolObject(kind="rollouts.argoproj.io", name="r"))
    [seen] = target.read()
    assert (seen.resource, seen.desired, seen.selector, seen.gpus_per_worker) == (ROLLOUTS, 2, {"app": "r"}, None)
    cluster.calls.clear()
    target.read()
    assert cluster.calls == ["list argoproj.io/v1alpha1 rollouts metadata.name=r"]


@pytest.mark.parametrize(
    ("cluster", "said"),
    [
        (with_rollouts("rollouts"), "has no scale subresource"),
        (with_rollouts("others"), "has no rollouts"),
        (FakeCluster(), "has no API group argoproj.io"),
    ],
)
def test_a_kind_that_cannot_be_scaled_says_why(cluster: FakeCluster, said: str) -> None:
    with pytest.raises(MismatchError, match=said):
        named(cluster, P=PoolObject(kind="rollouts.argoproj.io", name="r")).read()


def writing(version: tuple[int, int], *managers: str) -> tuple[FakeCluster, Target]:
    return labelled(thing("p", "P", 2, managers), thing("d", "D", 3), version=version)


def test_an_old_server_gets_merge_patches_of_the_version_that_was_seen() -> None:
    cluster, target = writing((1, 20))
    target.write({"D": 1, "P": 2}, target.read())
    body = {"metadata": {"resourceVersion": "5"}, "spec": {"replicas": 1}}
    assert cluster.patches == [
        ("/apis/apps/v1/namespaces/ns/deployments/d/scale", body, Patch.MERGE, False),
    ]


def test_a_newer_one_gets_server_side_apply() -> None:
    cluster, target = writing((1, 22))
    target.write({"D": 1}, target.read())
    meta = {"name": "d", "resourceVersion": "5"}
    body = {"apiVersion": "autoscaling/v1", "kind": "Scale", "metadata": meta, "spec": {"replicas": 1}}
    assert [one[1:] for one in cluster.patches] == [(body, Patch.APPLY, False)]


OWNED = ConflictError('409: Apply failed with 1 conflict: conflict with "x" using autoscaling/v1: .spec.replicas')
CHANGED = ConflictError("409: the object has been modified")


def test_the_author_of_the_manifest_gives_way() -> None:
    cluster, target = writing((1, 33), "kubectl")
    cluster.answers = [OWNED]
    target.write({"P": 1}, target.read())
    assert [force for *_, force in cluster.patches] == [False, True]


def test_a_controller_does_not_and_is_named() -> None:
    cluster, target = writing((1, 33), "kubectl", "my-operator")
    cluster.answers = [OWNED]
    with pytest.raises(OwnedByOtherError, match="my-operator owns the replicas of Deployment p"):
        target.write({"P": 1}, target.read())
    assert [force for *_, force in cluster.patches] == [False]


def test_a_change_in_between_is_no_question_of_ownership() -> None:
    cluster, target = writing((1, 33), "kubectl")
    cluster.answers = [CHANGED]
    with pytest.raises(ConflictError) as caught:
        target.write({"P": 1}, target.read())
    assert not isinstance(caught.value, OwnedByOtherError)
    assert len(cluster.patches) == 1


@pytest.mark.parametrize("version", [(1, 20), (1, 33)])
def test_a_write_is_repeated_while_the_replicas_are_what_was_seen(version: tuple[int, int]) -> None:
    cluster, target = writing(version)
    scale = {"metadata": {"resourceVersion": "6"}, "spec": {"replicas": 2}}
    cluster.documents["/apis/apps/v1/namespaces/ns/deployments/p/scale"] = scale
    cluster.answers = [CHANGED, None]
    target.write({"P": 1}, target.read())
    assert [body["metadata"]["resourceVersion"] for _, body, *_ in cluster.patches] == ["5", "6"]
    scale["spec"] = {"replicas": 3}
    cluster.answers = [CHANGED, None]
    with pytest.raises(ConflictError):
        target.write({"P": 1}, target.read())
    assert len(cluster.patches) == 3


def test_the_claim_of_an_autoscaler_counts_while_there_is_one() -> None:
    cluster, target = writing((1, 33), "kube-controller-manager")
    to = {"apiVersion": "apps/v1", "kind": "Deployment", "name": "p"}
    cluster.lists[AUTOSCALERS] = [{"metadata": {"name": "h"}, "spec": {"scaleTargetRef": to}}]
    cluster.answers = [OWNED]
    with pytest.raises(OwnedByOtherError, match="kube-controller-manager"):
        target.write({"P": 1}, target.read())
    cluster.lists[AUTOSCALERS] = []
    cluster.answers = [OWNED]
    target.write({"P": 1}, target.read())
    assert [force for *_, force in cluster.patches] == [False, False, True]


def test_taking_over_asks_nobody() -> None:
    cluster = FakeCluster()
    cluster.lists[DEPLOYMENTS] = [thing("p", managers=["my-operator"])]
    settings = KubernetesSettings(objects={"P": PoolObject(name="p")}, takeover="always")
    target = make_target(cluster.real(), "g", POOLS, settings)
    target.write({"P": 4}, target.read())
    assert [force for *_, force in cluster.patches] == [True]


def test_a_server_that_does_not_know_apply_there_gets_a_merge_patch() -> None:
    cluster, target = writing((1, 33))
    cluster.answers = [InvalidError("415")]
    target.write({"P": 1}, target.read())
    assert [how for _, _, how, _ in cluster.patches] == [Patch.APPLY, Patch.MERGE]


def grove(replicas: int = 1, least: int = 1) -> tuple[FakeCluster, Target]:
    cluster = FakeCluster((1, 20))

    def clique(name: str, role: str, gpus: int) -> Object:
        container = {"name": "main", "args": ["--model", "m"], "resources": {"limits": {"nvidia.com/gpu": gpus}}}
        spec = {"replicas": 1, "podSpec": {"containers": [container]}}
        return {"name": name, "labels": {"plimsoll.io/role": role}, "spec": spec}

    cliques = [clique("p", "prefill", 1), clique("d-ldr", "decode", 8), clique("d-wkr", "decode", 8)]
    groups = [{"name": "d", "cliqueNames": ["d-ldr", "d-wkr"]}]
    template = {"cliques": cliques, "podCliqueScalingGroups": groups}
    mine = {"app.kubernetes.io/part-of": "s"}
    cluster.lists[POD_CLIQUE_SETS] = [{"metadata": {"name": "s"}, "spec": {"replicas": replicas, "template": template}}]
    spec = {"replicas": 4, "minAvailable": least, "podSpec": cliques[0]["spec"]["podSpec"]}
    # The template still says 1: what was scaled since stands in the clique alone.
    cluster.lists[POD_CLIQUES] = [{"metadata": {"name": "s-0-p", "labels": mine, "resourceVersion": "3"}, "spec": spec}]
    group = {"replicas": 2, "cliqueNames": ["d-ldr", "d-wkr"]}
    cluster.lists[POD_CLIQUE_SCALING_GROUPS] = [{"metadata": {"name": "s-0-d", "labels": mine}, "spec": group}]
    settings = KubernetesSettings(graph=GraphObject(kind="PodCliqueSet", name="s"))
    return cluster, make_target(cluster.real(), "g", POOLS, settings)


def test_the_pools_of_a_pod_clique_set_are_its_cliques_and_groups() -> None:
    cluster, target = grove()
    prefill, decode = target.read()
    assert (prefill.pool, prefill.object_name, prefill.desired, prefill.gpus_per_worker) == ("P", "s-0-p", 4, 1)
    assert (decode.object_name, decode.desired, decode.gpus_per_worker, decode.pods_per_worker) == ("s-0-d", 2, 16, 2)
    assert len(cluster.calls) == 3
    target.write({"P": 2, "D": 3}, (prefill, decode))
    assert [path.split("/")[-3:] for path, *_ in cluster.patches] == [
        ["podcliques", "s-0-p", "scale"],
        ["podcliquescalinggroups", "s-0-d", "scale"],
    ]


def test_copies_of_the_whole_set_are_refused() -> None:
    _, target = grove(replicas=2)
    with pytest.raises(MismatchError, match="replicas: 2, so many copies of the whole graph"):
        target.read()


def test_a_clique_that_would_lose_its_gang_is_not_scaled() -> None:
    cluster, target = grove(least=3)
    seen = target.read()
    with pytest.raises(Exception, match="takes 3 workers"):
        target.write({"P": 2}, seen)
    assert cluster.patches == []
    target.write({"P": 0}, seen)
    assert len(cluster.patches) == 1
