"""The API server answers wrongly, late or never: the planner converges, takes no step twice and keeps the budget.

What there is to do is to undo what a person has scaled; that a person does so once is no fight either.
"""

from __future__ import annotations

import itertools
import time
from collections.abc import Callable, Iterator

import pytest
from kubernetes import client

from planner.demo.settings import DECODE, PREFILL
from tests.fault_tolerance.kubernetes.site import ONE_EACH, Site, timed
from tests.kubernetes.installation.installation import PATIENCE_S
from tests.kubernetes.installation.planner import Planner
from tests.kubernetes.installation.planners import NAME
from tests.kubernetes.proxy import Fault, Proxy
from tests.servers import needs_prometheus, needs_smg, wait_until

pytestmark = [needs_prometheus, needs_smg]

#: Of one request, in the tests' configuration.
TIMEOUT_S = 2.0

SCALE = r"deployments/[a-z-]+/scale"

#: By turns, so that no pool is changed by hand too often.
POOLS = itertools.cycle((DECODE, PREFILL))


@pytest.fixture(scope="module")
def planner(shared: Site) -> Iterator[Planner]:
    """One that reaches the API server through the proxy."""
    (made,) = shared.made.start_planner(api_server=shared.proxy.url)
    shared.know(made)
    yield made
    shared.made.remove_planners()


def healthy(planner: Planner) -> bool:
    """Whether nothing fails any more, and nothing is reported."""
    state = planner.state()
    return not state["notices"] and not any(fault["active"] for fault in state["errors"].values())


@pytest.mark.parametrize(
    ("spoil", "what"),
    [
        pytest.param(lambda to: to.answer(409, times=2, method="PATCH", path=SCALE), "2 conflicts", id="409-twice"),
        pytest.param(lambda to: to.answer(409, times=40, method="PATCH", path=SCALE), "40 conflicts", id="409-often"),
        pytest.param(lambda to: to.answer(429, times=3, method="PATCH", path=SCALE), "3 answers 429", id="429"),
        pytest.param(lambda to: to.answer(500, times=3, method="PATCH", path=SCALE), "3 answers 500", id="500"),
        pytest.param(lambda to: to.lose_answer(method="PATCH", path=SCALE), "a lost answer", id="answer-lost"),
        pytest.param(
            lambda to: to.delay(TIMEOUT_S + 0.5, times=1, method="PATCH", path=SCALE), "a write too slow", id="too-slow"
        ),
        pytest.param(lambda to: to.lose_answer(method="PUT", path="leases"), "a lost renewal", id="renewal-lost"),
        pytest.param(lambda to: to.answer(500, times=3, method="PUT", path="leases"), "3 renewals 500", id="lease-500"),
        pytest.param(lambda to: to.answer(410, times=30, method="GET", path="pods"), "30 lists 410", id="lists-410"),
    ],
)
def test_a_write_that_fails_is_done_later_and_once(
    site: Site, planner: Planner, spoil: Callable[[Proxy], Fault], what: str
) -> None:
    site.at_rest(planner)
    pool = next(POOLS)
    site.calm(pool)
    began_s, mark = time.time(), site.control_plane.audit_mark()
    fault = spoil(site.proxy)
    site.scale(pool, 2)
    wait_until(lambda: fault.left == 0, f"{what}: it has come to that", PATIENCE_S)
    timed(lambda: site.replicas() == ONE_EACH, f"{what}: from the last of them to the write")
    wait_until(lambda: site.is_at_rest(planner) and healthy(planner), "the planner is at rest", PATIENCE_S)
    assert site.steps(mark, pool) == 1, site.writes(mark)
    assert {one["level"] for one in planner.decisions(began_s)} <= {"model", "last_good"}
    site.within_budget(began_s)
    site.one_actor_since(mark)


def test_rights_that_are_revoked_and_given_back(site: Site, planner: Planner) -> None:
    rbac, namespace = client.RbacAuthorizationV1Api(site.made.api), site.made.namespace
    site.at_rest(planner)
    began_s, mark = time.time(), site.control_plane.audit_mark()
    role = rbac.read_namespaced_role(NAME, namespace)
    without = [rule for rule in role.rules if "deployments/scale" not in rule.resources]
    assert len(without) < len(role.rules)
    rbac.patch_namespaced_role(NAME, namespace, {"rules": client.ApiClient().sanitize_for_serialization(without)})
    pool = next(POOLS)
    try:
        site.scale(pool, 2)

        def refused() -> bool:
            outcome = planner.newest()["outcome"]
            return "403" in str(outcome) and "forbidden" in str(outcome)

        wait_until(refused, "the planner says what it may not", PATIENCE_S)
        assert planner.state()["errors"]["apply"]["active"]
        assert 'cannot patch resource "deployments/scale"' in planner.state()["errors"]["apply"]["text"]
        assert planner.holds(), "it goes on holding the lease"
    finally:
        rules = client.ApiClient().sanitize_for_serialization(role.rules)
        rbac.patch_namespaced_role(NAME, namespace, {"rules": rules})
    timed(lambda: site.replicas() == ONE_EACH, "a right revoked: from its return to the write")
    wait_until(lambda: site.is_at_rest(planner) and healthy(planner), "the planner is at rest", PATIENCE_S)
    assert site.steps(mark, pool) == 1
    site.within_budget(began_s)


def test_answers_that_are_slow_and_in_time(site: Site, planner: Planner) -> None:
    """Ticks take longer than their interval: those between are left out, and the others stay on their grid."""
    site.at_rest(planner)
    pool, mark = next(POOLS), site.control_plane.audit_mark()
    site.calm(pool)
    site.proxy.delay(0.25)
    site.scale(pool, 2)
    timed(lambda: site.replicas() == ONE_EACH, "every answer 0.25 s late: from a person's change to the write")
    began_s = time.time()
    made = planner.wait_for_ticks(4, began_s)
    late = [(one["at_s"] / planner.state()["clock"]["speed_up"]) % 1.0 for one in made]
    assert all(one["level"] == "model" for one in made)
    assert max(late) < 0.9, f"begun within a second of the clock's: {late}"
    assert planner.metric("sla_planner_ticks_missed_total") > 0
    site.proxy.heal()
    assert site.steps(mark, pool) == 1
    site.one_actor_since(mark)


def test_answers_that_are_too_slow(site: Site, planner: Planner) -> None:
    """Nothing is known and nothing is done; the planner's own clockwork goes on."""
    site.at_rest(planner)
    pool, mark = next(POOLS), site.control_plane.audit_mark()
    site.calm(pool)
    site.proxy.delay(TIMEOUT_S + 0.5)
    site.scale(pool, 2)
    began_s = time.time()

    def says() -> bool:
        newest = planner.newest()
        return newest["level"] == "last_good" and "imed out" in " ".join(newest["reasons"])

    wait_until(says, "it says so", PATIENCE_S)
    planner.wait_for_ticks(2)
    assert planner.alive()
    assert planner.state()["errors"]["read"]["active"]
    assert site.steps(mark, pool) == 0
    assert site.lowered_since(began_s) == []
    healed_s = time.time()
    site.proxy.heal()
    timed(
        lambda: site.replicas() == ONE_EACH, "every answer too late: from the first one in time to the write", healed_s
    )
    wait_until(lambda: site.is_at_rest(planner) and healthy(planner), "the planner is at rest", PATIENCE_S)
    assert site.steps(mark, pool) == 1
    site.one_actor_since(mark)
