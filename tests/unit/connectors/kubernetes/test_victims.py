from __future__ import annotations

from planner.connectors.base import WorkerLoad
from planner.connectors.kubernetes.pods import Phase, Pod, PodWorker, worker_of
from planner.connectors.kubernetes.victims import choose, costs


def worker(
    name: str,
    phase: Phase = Phase.READY,
    created_s: float = 0.0,
    cost: str | None = None,
    owner: str = "ReplicaSet",
) -> PodWorker:
    pod = Pod(name, name, phase, created_s=created_s, owner_kind=owner, deletion_cost=cost)
    made = worker_of(name, "decode", [pod])
    assert made is not None
    return made


def names(workers: list[PodWorker], loads: dict[str, WorkerLoad]) -> list[str]:
    return [one.name for one in choose(workers, len(workers), loads)]


def test_the_order_in_which_workers_go() -> None:
    workers = [
        worker("busy"),
        worker("cached"),
        worker("old", created_s=1),
        worker("young", created_s=2),
        worker("unknown", created_s=3),
        worker("starting", Phase.STARTING),
        worker("failing", Phase.FAILING),
        worker("nowhere", Phase.UNSCHEDULABLE),
        worker("going", Phase.TERMINATING),
    ]
    loads = {
        "busy": WorkerLoad(9, 0.0),
        "cached": WorkerLoad(1, 0.5),
        "old": WorkerLoad(1, 0.1),
        "young": WorkerLoad(1, 0.1),
    }
    assert names(workers, loads) == [
        "nowhere", "failing", "starting", "young", "old", "cached", "busy", "unknown",
    ]  # fmt: skip


def test_only_those_that_go_are_marked_lowest_first() -> None:
    workers = [worker(name) for name in "abcd"]
    loads = {name: WorkerLoad(i) for i, name in enumerate("abcd")}
    assert costs(workers, 2, loads) == {"a": "-2", "b": "-1"}


def test_costs_that_are_right_already_are_not_written_and_stale_ones_go() -> None:
    workers = [
        worker("a", cost="-2"),
        worker("b", cost="7"),
        worker("c", cost="-1"),
        worker("d", cost="5"),
        worker("e", cost="x"),
    ]
    loads = {name: WorkerLoad(i) for i, name in enumerate("abcde")}
    assert costs(workers, 2, loads) == {"b": "-1", "c": None}


def test_what_no_replica_set_owns_is_not_marked() -> None:
    assert costs([worker("a", owner="StatefulSet"), worker("b", owner="PodClique")], 1, {}) == {}
