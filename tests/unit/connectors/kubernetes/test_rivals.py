"""Other controllers of the same replicas: by their objects, and by what they do."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pytest

from planner.connectors.kubernetes.errors import ForbiddenError
from planner.connectors.kubernetes.resources import (
    AUTOSCALERS,
    AUTOSCALERS_V1,
    DEPLOYMENTS,
    SCALED_OBJECTS,
    SCALING_ADAPTERS_V1BETA1,
    Resource,
)
from planner.connectors.kubernetes.rivals import ASK_AGAIN, Autoscalers, Fights, rivals
from planner.connectors.kubernetes.target import PoolTarget
from tests.unit.connectors.kubernetes.fake_cluster import FakeCluster, Object


def seen(name: str = "d", desired: int = 1, resource: Resource = DEPLOYMENTS, managers: Any = ()) -> PoolTarget:
    return PoolTarget(f"pool-{name}", resource, name, desired, 1, 1, None, {}, tuple(managers))


def scaler(name: str, to: str, kind: str | None = "Deployment", group: str = "apps/v1", **annotations: str) -> Object:
    ref = {"name": to, **({"kind": kind, "apiVersion": group} if kind else {})}
    return {"metadata": {"name": name, "annotations": annotations}, "spec": {"scaleTargetRef": ref}}


def test_an_autoscaler_of_the_same_object_is_named_with_what_to_do() -> None:
    cluster = FakeCluster()
    cluster.lists[AUTOSCALERS] = [scaler("h", "d"), scaler("i", "d", kind="StatefulSet"), scaler("j", "other")]
    found = rivals(cluster.real(), [seen("d"), seen("e")])
    assert found == {
        "pool-d": "HorizontalPodAutoscaler h also sets the replicas of Deployment d: delete it, or take pool-d out of "
        "the planner's pools"
    }


def test_an_autoscaler_of_a_scaling_adapter() -> None:
    cluster = FakeCluster()
    kind = "DynamoGraphDeploymentScalingAdapter"
    cluster.lists[AUTOSCALERS] = [scaler("h", "q-d", kind, "nvidia.com/v1alpha1")]
    assert "pool-q-d" in rivals(cluster.real(), [seen("q-d", resource=SCALING_ADAPTERS_V1BETA1)])


def test_keda_is_named_itself_and_not_the_autoscaler_that_it_makes() -> None:
    cluster = FakeCluster()
    cluster.lists[AUTOSCALERS] = [scaler("keda-hpa-k", "d")]
    cluster.lists[SCALED_OBJECTS] = [
        scaler("k", "d", kind=None),
        scaler("l", "e", kind=None, **{"autoscaling.keda.sh/paused": "true"}),
    ]
    found = rivals(cluster.real(), [seen("d"), seen("e")])
    assert list(found) == ["pool-d"]
    assert found["pool-d"].startswith("ScaledObject k ")


def test_old_servers_are_asked_for_v1_and_what_is_absent_only_now_and_then() -> None:
    cluster = FakeCluster()
    cluster.lists[AUTOSCALERS_V1] = [scaler("h", "d")]
    found = Autoscalers(cluster.real())
    assert found.rivals([seen("d")])
    assert len(cluster.calls) == 3
    for _ in range(ASK_AGAIN):
        assert found.rivals([seen("d")])
    assert set(cluster.calls[3:]) == {"list autoscaling/v1 horizontalpodautoscalers "}
    assert found.blind == ()


def test_what_is_installed_later_is_found() -> None:
    cluster = FakeCluster()
    cluster.lists[AUTOSCALERS] = []
    found = Autoscalers(cluster.real())
    assert found.rivals([seen("d")]) == {}
    cluster.lists[SCALED_OBJECTS] = [scaler("k", "d")]
    for _ in range(ASK_AGAIN):
        assert found.rivals([seen("d")]) == {}
    assert list(found.rivals([seen("d")])) == ["pool-d"]
    assert list(found.rivals([seen("d")])) == ["pool-d"]


def test_what_may_not_be_listed_is_said_until_it_may() -> None:
    cluster = FakeCluster()
    cluster.lists[AUTOSCALERS] = ForbiddenError("cannot list horizontalpodautoscalers: 403: forbidden")
    found = Autoscalers(cluster.real())
    for _ in range(ASK_AGAIN + 1):
        assert found.rivals([seen("d")]) == {}
        [said] = found.blind
    assert "403" in said
    assert "a HorizontalPodAutoscaler of the same replicas would not be noticed" in said
    assert sum("autoscaling/v2" in call for call in cluster.calls) == 1
    cluster.lists[AUTOSCALERS] = [scaler("h", "d")]
    assert list(found.rivals([seen("d")])) == ["pool-d"]
    assert found.blind == ()


def run(fights: Fights, steps: Sequence[tuple[int | None, int]]) -> list[bool]:
    """Ticks of (what is read then, what the planner writes after it; None for nothing)."""
    fought = []
    for wrote, desired in steps:
        fought.append("pool-d" in fights.saw([seen("d", desired, managers=["someone"])]))
        if wrote is not None and not fought[-1]:
            fights.wrote("pool-d", wrote)
    return fought


def test_one_change_by_hand_is_no_fight() -> None:
    assert run(Fights(), [(3, 1), (None, 3), (None, 3), (3, 1), (None, 3), (None, 3)]) == [False] * 6


def test_nor_are_the_planners_own_changes() -> None:
    assert not any(run(Fights(), [(i + 1, i) for i in range(20)]))


def test_two_changes_back_within_a_few_ticks_are_and_the_pool_is_left_alone_for_a_while() -> None:
    fights = Fights(hold=3)
    assert run(fights, [(3, 1), (3, 1), (3, 1), (3, 1), (3, 1), (3, 1)]) == [False, False, True, True, True, False]


def test_changes_far_apart_are_not() -> None:
    quiet: list[tuple[int | None, int]] = [(None, 1)] * 10
    assert not any(run(Fights(within=10), [(3, 1), (None, 1), *quiet, (3, 1), (None, 1), *quiet]))


def test_a_fight_that_begins_anew_is_left_alone_for_longer() -> None:
    fights = Fights(hold=2, longest=6)
    fought = run(fights, [(3, 1)] * 40)
    lengths = [len(run) for run in "".join("x" if one else " " for one in fought).split()]
    assert lengths[:4] == [2, 4, 6, 6]


def test_after_a_quiet_time_it_counts_from_the_beginning() -> None:
    fights = Fights(hold=2, within=5)
    run(fights, [(3, 1)] * 10)
    quiet: list[tuple[int | None, int]] = [(None, 3)] * 12
    run(fights, quiet)
    fought = run(fights, [(3, 1)] * 6)
    assert sum(fought) == 2


def test_the_words_name_who_and_what() -> None:
    fights = Fights()
    for _ in range(3):
        found = fights.saw([seen("d", 1, managers=["a", "gitops"])])
        fights.wrote("pool-d", 4)
    words = found["pool-d"]
    assert words.startswith(
        "gitops set the replicas of Deployment d back, at last from 4 to 1; left alone for 20 ticks"
    )


@pytest.mark.parametrize("managers", [()])
def test_a_server_that_does_not_say_who(managers: tuple[str, ...]) -> None:
    fights = Fights(changes=1)
    fights.wrote("pool-d", 4)
    assert fights.saw([seen("d", 1, managers=managers)])["pool-d"].startswith("another controller set")
