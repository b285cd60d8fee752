from __future__ import annotations

import logging
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import pytest

from planner.connectors.base import NotHolderError, WorkerLoad
from planner.connectors.kubernetes.connector import KubernetesConnector
from planner.connectors.kubernetes.errors import ClusterError, ConflictError, ForbiddenError, UnreachableError
from planner.connectors.kubernetes.ownership import OwnedByOtherError
from planner.connectors.kubernetes.pods import DELETION_COST
from planner.connectors.kubernetes.resources import AUTOSCALERS, LEASES, PODS
from planner.connectors.kubernetes.settings import KubernetesSettings
from planner.core.types import Pool, Role
from tests.unit.connectors.kubernetes.memory import Call, Clock, MemoryCluster, MemoryTarget
from tests.unit.connectors.kubernetes.test_view import GRAPH, nowhere, pod, pool

POOLS = (Pool("prefill", Role.PREFILL, 1), Pool("decode", Role.DECODE, 1))
ME = "planner-0"


class Bed:
    """A connector on a cluster in memory that holds the lease; every pool has the pods that it asks for."""

    def __init__(
        self, prefill: int = 2, decode: int = 3, *, max_gpus: int = 8, atomic: bool = False, **settings: Any
    ) -> None:
        self.cluster, self.clock = MemoryCluster(), Clock()
        self.target = MemoryTarget([pool("prefill", prefill), pool("decode", decode)], atomic=atomic)
        self.connector = KubernetesConnector(
            self.cluster, "chat", POOLS, KubernetesSettings(**settings), max_gpus,
            target=self.target, steady=self.clock, wall=lambda: 1_770_000_000.0,
        )  # fmt: skip
        self.run_controllers()
        assert self.connector.lease(ME, 45).held

    def run_controllers(self) -> None:
        """Pods become what is desired, at once."""
        for key in [key for key in self.cluster.objects if key[0] == "pods"]:
            del self.cluster.objects[key]
        for one in self.target.pools.values():
            for i in range(one.desired):
                self.add(one.pool, i)

    def add(self, pool: str, i: int, **meta: Any) -> None:
        owner = [{"kind": "ReplicaSet", "controller": True}]
        self.cluster.put(PODS, pod(f"{pool}-{i}", labels(pool), ownerReferences=owner, **meta))

    def apply(self, loads: Mapping[str, WorkerLoad] | None = None, **plan: int) -> Mapping[str, str]:
        return self.connector.apply(plan, ME, loads)

    @property
    def desired(self) -> dict[str, int]:
        return {name: one.desired for name, one in self.target.pools.items()}

    def events(self) -> list[tuple[str, str]]:
        found = [one for (kind, _), one in self.cluster.objects.items() if kind.startswith("events")]
        return [(one["reason"], one["regarding"]["name"]) for one in found]


def labels(pool: str) -> dict[str, str]:
    return {**GRAPH, "plimsoll.io/pool": pool}


def autoscaler(name: str) -> dict[str, Any]:
    to = {"apiVersion": "apps/v1", "kind": "Deployment", "name": name}
    return {"metadata": {"name": "h"}, "spec": {"scaleTargetRef": to}}


def test_downs_come_first_and_both_are_said_and_told() -> None:
    bed = Bed()
    assert bed.apply(prefill=3, decode=2) == {"prefill": "2 -> 3", "decode": "3 -> 2"}
    assert bed.target.writes == [{"decode": 2}, {"prefill": 3}]
    assert bed.events() == [("ScaledDown", "chat-decode"), ("ScaledUp", "chat-prefill")]


def test_both_pools_are_one_write_where_the_object_allows_it() -> None:
    bed = Bed(atomic=True)
    bed.apply(prefill=3, decode=2)
    assert bed.target.writes == [{"decode": 2, "prefill": 3}]


def test_the_same_plan_again_writes_nothing() -> None:
    bed = Bed()
    assert bed.apply(prefill=2, decode=3) == {"prefill": "unchanged", "decode": "unchanged"}
    assert bed.target.writes == []
    assert bed.events() == []
    assert {call[0] for call in bed.cluster.calls[2:]} == {"get", "list"}


def test_what_the_budget_does_not_hold_yet_waits_for_the_next_call() -> None:
    bed = Bed(2, 4, max_gpus=6)
    said = bed.apply(prefill=1, decode=5)
    assert said == {"prefill": "2 -> 1", "decode": "unchanged, waits for 1 GPU of workers that drain"}
    bed.run_controllers()
    bed.add("prefill", 1, deletionTimestamp="2026-03-01T12:00:00Z")
    assert bed.apply(prefill=1, decode=5)["decode"] == "unchanged, waits for 1 GPU of workers that drain"
    bed.run_controllers()
    assert bed.apply(prefill=1, decode=5) == {"prefill": "unchanged", "decode": "4 -> 5"}


def test_beyond_the_budget_is_said() -> None:
    said = Bed(max_gpus=6).apply(prefill=2, decode=5)
    assert said["decode"] == "3 -> 4, waits for 1 GPU above the budget of 6"


def test_a_pool_that_the_plan_does_not_name_stays_and_one_that_is_not_there_is_said() -> None:
    bed = Bed()
    assert bed.apply(decode=4, router=1) == {"decode": "3 -> 4", "router": "not applied: the graph has no such pool"}
    assert bed.desired == {"prefill": 2, "decode": 4}


def test_without_the_lease_nothing_is_written() -> None:
    bed = Bed()
    bed.cluster.objects[LEASES.name, "plimsoll-chat"]["spec"]["holderIdentity"] = "other"
    with pytest.raises(NotHolderError, match="held by other"):
        bed.apply(prefill=3)
    assert not bed.target.writes
    assert not bed.events()


def test_a_lease_that_lapses_between_two_writes_ends_the_call() -> None:
    bed = Bed()

    def slow(replicas: Mapping[str, int]) -> None:
        bed.clock.now_s += 44.0

    bed.target.fail = slow  # type: ignore[assignment]
    with pytest.raises(NotHolderError, match="lapsed"):
        bed.apply(prefill=3, decode=2)
    assert bed.target.writes == [{"decode": 2}]


def test_the_lease_is_asked_for_after_the_last_look_and_before_the_first_write() -> None:
    bed = Bed()
    bed.connector.read()
    del bed.cluster.calls[:]
    bed.apply(decode=2)
    verbs = [f"{verb} {kind.partition('.')[0]}" for verb, kind, _ in bed.cluster.calls]
    assert verbs == ["list pods", "get leases", "get version", "patch pods", "create events"]


def test_an_object_that_changed_meanwhile_is_looked_at_again() -> None:
    bed = Bed()
    changes = iter([5, 4])

    def meanwhile(replicas: Mapping[str, int]) -> None:
        count = next(changes, None)
        if count is not None:
            old = bed.target.pools["decode"]
            bed.target.pools["decode"] = replace(old, desired=count, resource_version=f"9{count}")

    bed.target.fail = meanwhile  # type: ignore[assignment]
    assert bed.apply(prefill=3, decode=2) == {"prefill": "2 -> 3", "decode": "3 -> 2"}
    assert bed.desired == {"prefill": 3, "decode": 2}


def test_three_conflicts_in_a_row_are_left_to_the_next_tick() -> None:
    bed = Bed()
    tries = []

    def always(replicas: Mapping[str, int]) -> ClusterError | None:
        if "decode" in replicas:
            tries.append(replicas)
            return ConflictError("the object has been modified")
        return None

    bed.target.fail = always
    assert bed.apply(prefill=3, decode=2) == {
        "prefill": "2 -> 3",
        "decode": "not applied: the object has been modified",
    }
    assert len(tries) == 3
    with pytest.raises(ConflictError):
        bed.apply(decode=2)


def test_one_pool_that_may_not_be_written_does_not_hold_up_the_other(caplog: pytest.LogCaptureFixture) -> None:
    bed = Bed()
    bed.target.fail = lambda replicas: ForbiddenError("may not") if "decode" in replicas else None
    with caplog.at_level(logging.WARNING):
        assert bed.apply(prefill=3, decode=2) == {"prefill": "2 -> 3", "decode": "not applied: may not"}
    assert "pool decode: may not" in caplog.text
    with pytest.raises(ForbiddenError):
        bed.apply(decode=2)


def test_a_server_that_does_not_answer_is_not_asked_for_the_next_pool() -> None:
    bed = Bed()
    asked = []

    def silent(replicas: Mapping[str, int]) -> ClusterError:
        asked.append(replicas)
        return UnreachableError("timed out")

    bed.target.fail = silent
    with pytest.raises(UnreachableError):
        bed.apply(prefill=3, decode=2)
    assert asked == [{"decode": 2}]


def test_a_crash_between_two_writes_converges() -> None:
    bed = Bed()
    bed.target.fail = lambda replicas: UnreachableError("gone") if "prefill" in replicas else None
    assert bed.apply(prefill=3, decode=2) == {"decode": "3 -> 2", "prefill": "not applied: gone"}
    successor = KubernetesConnector(
        bed.cluster, "chat", POOLS, KubernetesSettings(), 8, target=bed.target, steady=bed.clock
    )
    bed.target.fail = lambda _: None
    bed.clock.now_s += 1.0
    assert not successor.lease("planner-1", 45).held
    bed.clock.now_s += 46.0
    assert successor.lease("planner-1", 45).held
    assert successor.apply({"prefill": 3, "decode": 2}, "planner-1") == {"prefill": "2 -> 3", "decode": "unchanged"}


def test_a_write_whose_answer_was_lost_is_nobody_elses_doing() -> None:
    bed = Bed(max_gpus=20)
    for count in (4, 6, 8):
        bed.target.fail = lambda _: None
        assert bed.apply(decode=count)["decode"].endswith(f" -> {count}")

        def lost(replicas: Mapping[str, int], count: int = count) -> UnreachableError:
            bed.target.pools["decode"] = replace(bed.target.pools["decode"], desired=count + 1)
            return UnreachableError("the answer was lost")

        bed.target.fail = lost
        with pytest.raises(UnreachableError):
            bed.apply(decode=count + 1)
        assert bed.connector.read().notices == ()


def test_who_sets_replicas_back_is_left_alone_and_told() -> None:
    bed = Bed()
    for _ in range(2):
        bed.connector.read()
        assert bed.apply(decode=4) == {"decode": "3 -> 4"}
        bed.target.pools["decode"] = replace(bed.target.pools["decode"], desired=3, managers=("an-operator",))
    (notice,) = bed.connector.read().notices
    assert notice.startswith("pool decode: an-operator set the replicas of Deployment chat-decode back")
    assert bed.apply(decode=4)["decode"].startswith("not applied: an-operator")
    assert bed.apply(decode=3) == {"decode": "unchanged"}
    assert ("RivalController", "chat-decode") in bed.events()


def test_an_autoscaler_of_the_same_replicas_is_left_alone_unless_taken_over() -> None:
    for takeover, said in (("when_free", "not applied: HorizontalPodAutoscaler h also"), ("always", "3 -> 4")):
        bed = Bed(takeover=takeover)
        bed.cluster.put(AUTOSCALERS, autoscaler("chat-decode"))
        assert any("HorizontalPodAutoscaler h" in one for one in bed.connector.read().notices)
        outcome = bed.apply(prefill=3, decode=4)
        assert outcome["decode"].startswith(said)
        assert outcome["prefill"] == "2 -> 3"


def test_an_owner_found_at_the_write_is_not_tried_again() -> None:
    bed = Bed()
    bed.target.fail = lambda _: OwnedByOtherError("keda owns it")
    assert bed.apply(decode=4) == {"decode": "not applied: keda owns it"}
    assert bed.events() == [("RivalController", "chat-decode")]


def test_an_unschedulable_worker_is_told_and_does_not_hold_up_the_other_pool() -> None:
    bed = Bed(3, 3, max_gpus=8)
    bed.cluster.put(PODS, nowhere("prefill-2", labels("prefill"), "no GPU left"))
    assert bed.apply(prefill=5, decode=5) == {
        "prefill": "unchanged, waits for 2 GPUs above the budget of 8",
        "decode": "3 -> 5",
    }
    assert ("Unschedulable", "chat-prefill") in bed.events()


def test_the_least_loaded_are_marked_before_they_go() -> None:
    bed = Bed(decode=4)
    loads = {"decode-0": WorkerLoad(5), "decode-1": WorkerLoad(0), "decode-2": WorkerLoad(2)}

    def unmarked_until_now(replicas: Mapping[str, int]) -> None:
        costs = {name: bed.cluster.objects["pods", name]["metadata"].get("annotations") for name in loads}
        assert costs == {"decode-0": None, "decode-1": {DELETION_COST: "-2"}, "decode-2": {DELETION_COST: "-1"}}

    bed.target.fail = unmarked_until_now  # type: ignore[assignment]
    assert bed.apply(loads, decode=2) == {"decode": "4 -> 2"}


def test_a_cluster_that_does_not_honour_costs_is_told_of_once(caplog: pytest.LogCaptureFixture) -> None:
    bed = Bed(decode=4)
    bed.cluster.kubernetes = (1, 20)
    with caplog.at_level(logging.WARNING):
        bed.apply(decode=3)
        bed.apply(decode=2)
    assert not bed.cluster.called("patch", "pods")
    assert len([one for one in caplog.records if "does not honour" in one.message]) == 1


def test_without_the_right_to_mark_the_scale_down_goes_on(caplog: pytest.LogCaptureFixture) -> None:
    bed = Bed(decode=4)

    def forbid(call: Call) -> None:
        if call[:2] == ("patch", "pods"):
            raise ForbiddenError("cannot patch pods")

    bed.cluster.before = forbid
    with caplog.at_level(logging.WARNING):
        assert bed.apply(decode=2) == {"decode": "4 -> 2"}
    assert "cannot patch pods" in caplog.text


def test_workers_on_cpus_count_for_the_profiles_gpus() -> None:
    bed = Bed(max_gpus=6)
    for name, one in bed.target.pools.items():
        bed.target.pools[name] = replace(one, gpus_per_worker=0)
    assert bed.apply(decode=5)["decode"] == "3 -> 4, waits for 1 GPU above the budget of 6"


def test_a_pool_whose_gpus_cannot_be_read_is_a_notice() -> None:
    bed = Bed()
    bed.target.pools["extra"] = replace(pool("extra", 0), gpus_per_worker=None)
    (notice,) = bed.connector.read().notices
    assert "pool extra: the GPUs of Deployment chat-extra cannot be read" in notice


def test_starts_are_learnt_over_reads() -> None:
    bed = Bed(decode=0)
    bed.connector.read()
    bed.target.pools["decode"] = replace(bed.target.pools["decode"], desired=1)
    bed.run_controllers()
    assert bed.connector.read().startup_s == {"decode": (60.0,)}
