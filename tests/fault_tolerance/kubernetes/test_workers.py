"""Workers that cannot start, other controllers of the same replicas, and a planner that has to be started again."""

from __future__ import annotations

import time
from collections.abc import Iterator
from typing import Any

import pytest
from kubernetes import client

from planner.core.record import DecisionRecord, from_line
from planner.demo.settings import DECODE, PREFILL
from tests.fault_tolerance.kubernetes.site import Site, deployment, timed
from tests.fault_tolerance.planner.traffic import CROWD_RPS, HIGH_RPS
from tests.kubernetes.installation.installation import PATIENCE_S
from tests.kubernetes.installation.planner import Planner
from tests.kubernetes.nodes import Node
from tests.servers import get, needs_prometheus, needs_smg, wait_until

pytestmark = [needs_prometheus, needs_smg]

NODE = "gpu-a"


@pytest.fixture(scope="module", autouse=True)
def _installed(shared: Site) -> Iterator[None]:
    shared.know(*shared.made.start_planner())
    yield
    shared.made.remove_planners()


@pytest.fixture
def running(site: Site) -> Planner:
    """The one that runs now."""
    (made,) = site.made.wait_for_planners()
    site.know(made)
    return made


@pytest.fixture
def planner(site: Site, running: Planner) -> Planner:
    """The same, at rest."""
    site.at_rest(running)
    return running


def pool_of(planner: Planner, name: str) -> dict[str, object]:
    found: dict[str, object] = planner.state()["last"]["observation"]["pools"][name]
    return found


def event_of(site: Site, reason: str, words: str, since_s: float) -> bool:
    """Whether there is an Event of a reason with these words."""
    return any(reason == one and words in message for one, message in site.made.events(since_s))


def undone(site: Site, pool: str) -> None:
    """A role goes on being scaled: what a person has done to it is undone."""
    mark = site.control_plane.audit_mark()
    site.scale(pool, 2)
    wait_until(lambda: site.steps(mark, pool) == 1, "the other role is scaled", PATIENCE_S)
    assert site.replicas()[pool] == 1


def test_workers_that_cannot_start(site: Site, planner: Planner) -> None:
    began_s = time.time()
    site.cordon(NODE)
    try:
        # Three more prefill workers are the most that the budget holds.
        site.traffic.rps = CROWD_RPS
        wait_until(lambda: pool_of(planner, PREFILL)["unschedulable"] == 3, "no node takes them", PATIENCE_S)
        site.traffic.rps = HIGH_RPS
        words = "0/1 nodes are available: 1 node(s) were unschedulable."
        trouble = f"3 workers without a node: {words}"
        assert pool_of(planner, PREFILL)["trouble"] == trouble
        assert f"pool {PREFILL}: {trouble}" in planner.state()["notices"]
        wait_until(lambda: event_of(site, "Unschedulable", words, began_s), "an Event says so", PATIENCE_S)
        undone(site, DECODE)

        # A node comes. On it one worker crashes, one has no image, and one is well.
        crashes, pulls, _ = site.pending(PREFILL)
        site.annotate(crashes, crash="true")
        site.annotate(pulls, image_pull_fails="true")
        came_s = time.time()
        site.made.kubelet.add_nodes(Node("gpu-b", 8))

        seen: dict[str, object] = {}

        def failing() -> bool:
            seen.update(pool_of(planner, PREFILL))
            return (seen["unschedulable"], seen["failing"], seen["ready"]) == (0, 2, 2)

        timed(failing, "a node comes: until the planner sees who serves and who fails", came_s)
        # Of several reasons it says one; both of them come into it as they change turns. What was seen at that moment:
        # one that crashes runs for a moment, time and again.
        assert "2 workers failing: " in str(seen["trouble"])
        wait_until(lambda: event_of(site, "WorkersFailing", f"{PREFILL}: ", began_s), "an Event", PATIENCE_S)
        undone(site, DECODE)

        site.annotate(crashes, crash=None)
        site.annotate(pulls, image_pull_fails=None)
        mended_s = time.time()
        wait_until(lambda: pool_of(planner, PREFILL)["failing"] == 0, "they start", PATIENCE_S)
        timed(lambda: pool_of(planner, PREFILL)["ready"] == 4, "workers mended: until all serve", mended_s)
        wait_until(lambda: planner.state()["notices"] == [], "nothing is reported any more", PATIENCE_S)
    finally:
        site.cordon(NODE, cordoned=False)
    # The person's worker came on top of a plan that was the whole budget.
    site.within_budget(began_s, by_hand=1)


def test_another_autoscaler_has_one_pool(site: Site, planner: Planner) -> None:
    site.calm(DECODE)
    began_s, mark, name = time.time(), site.control_plane.audit_mark(), deployment(DECODE)
    scaling = client.AutoscalingV1Api(site.made.api)
    target = {"apiVersion": "apps/v1", "kind": "Deployment", "name": name}
    body = {"metadata": {"name": "somebody"}, "spec": {"scaleTargetRef": target, "maxReplicas": 3}}
    scaling.create_namespaced_horizontal_pod_autoscaler(site.made.namespace, body)
    words = f"HorizontalPodAutoscaler somebody also sets the replicas of Deployment {name}"
    try:
        wait_until(lambda: words in str(planner.state()["notices"]), "it is reported", PATIENCE_S)
        site.scale(DECODE, 2)

        def left_alone() -> bool:
            newest = planner.newest()
            refused = str(newest["outcome"].get(DECODE, "")).startswith(f"not applied: {words}")
            return newest["plan"][DECODE] == 1 and newest["current"][DECODE] == 2 and refused

        wait_until(left_alone, "the pool is left alone", PATIENCE_S)
        undone(site, PREFILL)
        wait_until(lambda: event_of(site, "RivalController", words, began_s), "an Event says so", PATIENCE_S)
        assert site.replicas()[DECODE] == 2
        assert site.steps(mark, DECODE) == 0
    finally:
        scaling.delete_namespaced_horizontal_pod_autoscaler("somebody", site.made.namespace)
    timed(lambda: site.replicas()[DECODE] == 1, "another autoscaler deleted: until its pool is scaled")
    wait_until(lambda: planner.state()["notices"] == [], "nothing is reported any more", PATIENCE_S)
    site.within_budget(began_s)


def test_a_planner_that_is_killed_goes_on_with_what_was_learned(site: Site, running: Planner) -> None:
    """In another pod, whose folders are empty: from the ConfigMap."""
    site.traffic.rps = HIGH_RPS
    wait_until(lambda: running.state()["settings"]["lead_time_measured"], "it has measured starts", PATIENCE_S)
    # No worker starts any more: a start that the tick after this one measured would be learned, too.
    site.at_rest(running)
    learned = record(running, running.newest())
    killed_s = time.time()
    site.made.delete_pod(running.pod, killed=True)
    wait_until(lambda: [one.pod for one in site.made.planners()] != [running.pod], "another pod is made", PATIENCE_S)
    (heir,) = site.made.wait_for_planners()
    site.know(heir)
    timed(heir.holds, "planner killed, no other there: until its successor acts", killed_s)
    first = record(heir, heir.decisions()[0])
    assert first.decision.at_s > learned.decision.at_s, "its journal is its own"
    assert first.state.forecast.bins_known >= learned.state.forecast.bins_known > 5
    assert first.state.lengths is not None
    assert first.settings.lead_time_s == learned.settings.lead_time_s
    assert first.decision.level == "model"


def record(planner: Planner, summary: dict[str, Any]) -> DecisionRecord:
    """A decision's whole record."""
    return from_line(get(f"{planner.url}/api/decisions/{summary['id']}"), source="answer", number=1)
