"""Two replicas of the planner's Deployment: one acts at a time, whatever becomes of it, of the Lease, or its network.

That never two act is read from the audit log and the Lease's history after every test (`Site.one_actor_since`): every
write of a planner's pod came while the Lease was that pod's.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime

import pytest
from kubernetes import client

from planner.demo.settings import DECODE, PREFILL
from tests.fault_tolerance.kubernetes.site import ONE_EACH, Site, deployment, timed
from tests.fault_tolerance.planner.traffic import HIGH_RPS, LOW_RPS
from tests.kubernetes.installation.graphs import GRAPH
from tests.kubernetes.installation.installation import PATIENCE_S
from tests.kubernetes.installation.planner import Planner
from tests.kubernetes.installation.planners import LEASE_S
from tests.servers import needs_prometheus, needs_smg, wait_until

pytestmark = [needs_prometheus, needs_smg]

LEASE = f"plimsoll-{GRAPH}"


@pytest.fixture(scope="module")
def replicas(shared: Site) -> Iterator[None]:
    """Two planners, which reach the API server through the proxy."""
    shared.know(*shared.made.start_planner(2, api_server=shared.proxy.url))
    yield
    shared.made.remove_planners()


@pytest.fixture
def pair(site: Site, replicas: None) -> tuple[Planner, Planner]:
    """The one that acts, with the graph at rest, and the one that stands by."""
    planners = site.made.wait_for_planners(2)
    site.know(*planners)
    first = the_one_that_acts(planners)
    (second,) = (one for one in planners if one is not first)
    site.at_rest(first)
    assert not second.holds()
    return first, second


def the_one_that_acts(planners: Sequence[Planner]) -> Planner:
    """As soon as one of them does; while a renewal fails none may."""
    found: list[Planner] = []

    def acts_alone() -> bool:
        found[:] = [one for one in planners if one.holds()]
        return len(found) == 1

    wait_until(acts_alone, "one of them acts", PATIENCE_S)
    return found[0]


def acts(site: Site, planner: Planner, since_s: float) -> None:
    """It holds the Lease, and scales the graph up and down."""
    wait_until(planner.holds, "it acts", PATIENCE_S)
    mark = site.control_plane.audit_mark()
    site.scale(DECODE, 2)
    wait_until(lambda: site.steps(mark, DECODE) == 1, "it writes", PATIENCE_S)
    assert {one.pod for one in site.writes(mark)} == {planner.pod}
    site.within_budget(since_s)


def test_the_one_that_stands_by_learns_and_writes_nothing(site: Site, pair: tuple[Planner, Planner]) -> None:
    first, second = pair
    mark, began_s = site.control_plane.audit_mark(), time.time()
    acts(site, first, began_s)
    for one in second.wait_for_ticks(3):
        assert one["outcome"] == {"*": f"standby: lease held by {first.identity}"}, one
        assert one["level"] == "model", "it goes on learning"
    calls = site.control_plane.audit(mark, namespace=site.made.namespace)
    assert {one.verb for one in calls if one.pod == second.pod} == {"get", "list"}
    site.one_actor_since(mark)


def test_the_one_that_acts_is_deleted(site: Site, pair: tuple[Planner, Planner]) -> None:
    first, _ = pair
    mark, began_s = site.control_plane.audit_mark(), time.time()
    site.made.delete_pod(first.pod)
    # For less than a tick: the other one may have taken it before anybody looks.
    wait_until(lambda: "" in site.made.lease.holders(began_s), "it gives the lease back", PATIENCE_S)
    timed(lambda: site.made.lease.holder not in {"", first.identity}, "planner deleted: from the lease given back")
    planners = site.made.wait_for_planners(2)
    site.know(*planners)
    acts(site, the_one_that_acts(planners), began_s)
    site.one_actor_since(mark)


def test_the_one_that_acts_is_killed_between_two_writes(site: Site, pair: tuple[Planner, Planner]) -> None:
    first, _ = pair
    mark, began_s = site.control_plane.audit_mark(), time.time()
    # Both pools are to be lowered in one tick; the second write never gets to the server.
    held = site.proxy.delay(PATIENCE_S, times=1, method="PATCH", path=f"{deployment(PREFILL)}/scale")
    site.calm(DECODE, PREFILL)
    # A planner that looks between the two would lower one of them alone.
    site.proxy.hang()
    site.scale(PREFILL, 2)
    site.scale(DECODE, 2)
    site.proxy.go_on()
    wait_until(lambda: held.hits == 1, "half of the change is written", PATIENCE_S, every_s=0.02)
    killed_s = time.time()
    site.made.delete_pod(first.pod, killed=True)
    wait_until(lambda: not first.runs(), "it is dead", PATIENCE_S, every_s=0.02)
    assert site.replicas() == {PREFILL: 2, DECODE: 1}
    # Meanwhile there is load for which the half is right, and a person has filled the budget with the other role: two
    # of each, and the one that drains.
    site.traffic.rps = HIGH_RPS
    site.scale(DECODE, 2, calmly=False)
    timed(
        lambda: site.made.lease.holder not in {"", first.identity},
        "planner killed: until another has its lease",
        killed_s,
    )
    timed(lambda: len(site.writes(mark)) > 1, "half a change, planner killed: until the next write", killed_s)
    site.know(*site.made.wait_for_planners(2))

    def carried_out() -> bool:
        replicas = site.replicas()
        return replicas[PREFILL] > 2 and replicas[DECODE] == 1

    wait_until(carried_out, "the plan of now is carried out", PATIENCE_S)
    site.traffic.rps = LOW_RPS
    assert site.steps(mark, DECODE) == 2, "one of each planner"
    site.within_budget(began_s)
    site.one_actor_since(mark)


def test_the_network_of_the_one_that_acts_is_cut(site: Site, pair: tuple[Planner, Planner]) -> None:
    first, second = pair
    mark, began_s = site.control_plane.audit_mark(), time.time()
    site.proxy.sever(first.pod)
    timed(second.holds, "network of the acting planner cut: until the other acts")
    acts(site, second, began_s)
    cut_off = first.newest()
    assert cut_off["level"] == "last_good"
    assert cut_off["outcome"]["*"].startswith("not applied: the lease is unknown")
    assert first.state()["errors"]["lease"]["active"]
    back_s = time.time()
    site.proxy.heal()
    outcome = {"*": f"standby: lease held by {second.identity}"}
    timed(
        lambda: first.newest()["outcome"] == outcome, "network cut: from its return until the first stands by", back_s
    )
    assert not first.state()["errors"]["lease"]["active"]
    assert site.made.lease.holder == second.identity
    site.one_actor_since(mark)


def test_somebody_else_takes_the_lease(site: Site, pair: tuple[Planner, Planner]) -> None:
    site.calm(DECODE)
    mark, began_s = site.control_plane.audit_mark(), time.time()
    now = datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ")
    spec = {"holderIdentity": "somebody-else", "leaseDurationSeconds": int(LEASE_S), "renewTime": now}
    coordination = client.CoordinationV1Api(site.made.api)
    coordination.patch_namespaced_lease(LEASE, site.made.namespace, {"spec": spec})
    site.scale(DECODE, 2)
    words = {"*": "standby: lease held by somebody-else"}

    def accepted(planner: Planner) -> bool:
        return any(one["outcome"] == words for one in planner.decisions(began_s))

    for one in pair:
        wait_until(lambda one=one: accepted(one), "it accepts that", PATIENCE_S)
    silent = "lease taken by somebody who is silent: until a planner acts"
    timed(lambda: site.made.lease.holder != "somebody-else", silent, began_s)
    wait_until(lambda: site.replicas() == ONE_EACH, "it does what there was to do", PATIENCE_S)
    # The audit log is written behind the answer.
    wait_until(lambda: site.steps(mark, DECODE) >= 1, "its write is in the audit log")
    assert site.steps(mark, DECODE) == 1
    site.within_budget(began_s)
    site.one_actor_since(mark)


def test_the_lease_is_deleted(site: Site, pair: tuple[Planner, Planner]) -> None:
    mark, began_s = site.control_plane.audit_mark(), time.time()
    client.CoordinationV1Api(site.made.api).delete_namespaced_lease(LEASE, site.made.namespace)

    def taken_anew() -> bool:
        seen = site.made.lease.holders(began_s)
        return "" in seen and seen[-1] != ""

    timed(taken_anew, "lease deleted: until a planner holds a new one", began_s)
    # The one that had it has noticed when it has asked again.
    for one in pair:
        one.wait_for_ticks(2)
    acts(site, the_one_that_acts(pair), began_s)
    site.one_actor_since(mark)
