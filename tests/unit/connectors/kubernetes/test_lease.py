from __future__ import annotations

import pytest

from planner.connectors.base import NotHolderError
from planner.connectors.kubernetes.errors import UnreachableError
from planner.connectors.kubernetes.lease import Lease
from planner.connectors.kubernetes.resources import LEASES
from tests.unit.connectors.kubernetes.memory import Call, Clock, MemoryCluster

NAME = "plimsoll-chat"


def planner(cluster: MemoryCluster, clock: Clock, wall_s: float = 0.0) -> Lease:
    """With a wall clock that is wrong by as much as the test wants."""
    return Lease(cluster, "chat", steady=clock, wall=lambda: 1_769_999_000.25 + clock() + wall_s)


def record(cluster: MemoryCluster) -> dict[str, object]:
    return cluster.objects[LEASES.name, NAME]["spec"]


def test_the_first_one_takes_it_and_renews_it() -> None:
    cluster, clock = MemoryCluster(), Clock()
    lease = planner(cluster, clock)
    state = lease.take("a", 14.2)
    assert (state.holder, state.held, state.expires_in_s) == ("a", True, 15.0)
    assert record(cluster) == {
        "holderIdentity": "a",
        "leaseDurationSeconds": 15,
        "acquireTime": "2026-02-02T02:40:00.250000Z",
        "renewTime": "2026-02-02T02:40:00.250000Z",
        "leaseTransitions": 0,
    }
    clock.now_s += 5
    assert lease.take("a", 15).held
    assert record(cluster)["leaseTransitions"] == 0
    lease.check("a")


@pytest.mark.parametrize("skew_s", [-86_400.0, 0.0, 86_400.0])
def test_another_waits_for_a_whole_duration_without_change_whatever_the_clocks_say(skew_s: float) -> None:
    cluster, one, two = MemoryCluster(), Clock(), Clock()
    a, b = planner(cluster, one), planner(cluster, two, wall_s=skew_s)
    assert a.take("a", 15).held
    two.now_s += 100.0
    waiting = b.take("b", 15)
    assert (waiting.holder, waiting.held, waiting.expires_in_s) == ("a", False, 15.0)
    two.now_s += 14.0
    one.now_s += 14.0
    a.take("a", 15)
    assert not b.take("b", 15).held
    two.now_s += 14.9
    assert not b.take("b", 15).held
    two.now_s += 0.2
    assert b.take("b", 15).held
    assert record(cluster)["leaseTransitions"] == 1
    with pytest.raises(NotHolderError, match="held by b"):
        a.check("a")
    assert a.take("a", 15).holder == "b"


def test_the_holder_gives_up_before_anybody_else_may_take_it() -> None:
    cluster, clock = MemoryCluster(), Clock()
    lease = planner(cluster, clock)
    lease.take("a", 15)
    clock.now_s += 12.9
    lease.check("a")
    # A write takes up to the request's timeout of 2 s.
    clock.now_s += 0.2
    with pytest.raises(NotHolderError, match="lapsed"):
        lease.check("a")


def test_the_holders_time_runs_from_before_the_request() -> None:
    cluster, clock = MemoryCluster(), Clock()

    def slow(call: Call) -> None:
        if call[0] in {"create", "update"}:
            clock.now_s += 4.0

    cluster.before = slow
    assert planner(cluster, clock).take("a", 15).expires_in_s == 11.0


def test_a_planner_that_has_not_taken_it_does_not_act_under_its_name() -> None:
    cluster, clock = MemoryCluster(), Clock()
    planner(cluster, clock).take("a", 15)
    with pytest.raises(NotHolderError):
        planner(cluster, clock).check("a")


@pytest.mark.parametrize("verb", ["create", "update"])
def test_of_two_that_write_at_once_one_gets_it(verb: str) -> None:
    cluster, clock = MemoryCluster(), Clock()
    a, b = planner(cluster, clock), planner(cluster, clock)
    if verb == "update":
        a.take("a", 15)
        a.release("a")

    def quicker(call: Call) -> None:
        if call[0] == verb:
            cluster.before = lambda _: None
            assert b.take("b", 15).held

    cluster.before = quicker
    state = a.take("a", 15)
    assert (state.holder, state.held) == ("b", False)


def test_released_it_is_free_at_once() -> None:
    cluster, clock = MemoryCluster(), Clock()
    a, b = planner(cluster, clock), planner(cluster, clock)
    a.take("a", 15)
    b.release("b")
    assert record(cluster)["holderIdentity"] == "a"
    a.release("a")
    assert record(cluster)["holderIdentity"] == ""
    with pytest.raises(NotHolderError, match="no one"):
        a.check("a")
    assert b.take("b", 15).held


def test_a_lease_that_was_deleted_is_made_again() -> None:
    cluster, clock = MemoryCluster(), Clock()
    lease = planner(cluster, clock)
    lease.take("a", 15)
    del cluster.objects[LEASES.name, NAME]
    with pytest.raises(NotHolderError):
        lease.check("a")
    assert lease.take("a", 15).held


def test_labels_that_somebody_has_put_on_it_stay() -> None:
    cluster, clock = MemoryCluster(), Clock()
    lease = planner(cluster, clock)
    lease.take("a", 15)
    cluster.objects[LEASES.name, NAME]["metadata"]["labels"]["team"] = "search"
    lease.take("a", 15)
    assert cluster.objects[LEASES.name, NAME]["metadata"]["labels"]["team"] == "search"


def test_a_renewal_without_an_answer_is_no_renewal() -> None:
    cluster, clock = MemoryCluster(), Clock()
    lease = planner(cluster, clock)
    lease.take("a", 15)
    clock.now_s += 10.0

    def cut(call: Call) -> None:
        if call[0] == "update":
            raise UnreachableError("cut")

    cluster.before = cut
    with pytest.raises(UnreachableError):
        lease.take("a", 15)
    clock.now_s += 4.0
    with pytest.raises(NotHolderError):
        lease.check_time("a")
