"""The API server is gone, or hangs, while the load rises: the planner stays, lowers nothing, and acts soon after."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator

import pytest

from planner.demo.settings import PREFILL
from tests.fault_tolerance.kubernetes.site import Site, timed
from tests.fault_tolerance.planner.traffic import CROWD_RPS, LOW_RPS
from tests.kubernetes.control_plane import ControlPlane
from tests.kubernetes.installation.installation import PATIENCE_S
from tests.kubernetes.installation.planner import Planner
from tests.servers import needs_prometheus, needs_smg, wait_until

pytestmark = [needs_prometheus, needs_smg]

#: Decisions without an API server.
TICKS = 2


@pytest.fixture(scope="module")
def planner(shared: Site) -> Iterator[Planner]:
    (made,) = shared.made.start_planner()
    shared.know(made)
    yield made
    shared.made.remove_planners()


@pytest.mark.parametrize(
    ("begin", "end", "words", "what"),
    [
        pytest.param(
            ControlPlane.kill_api_server, ControlPlane.start_api_server, "onnection refused", "killed", id="killed"
        ),
        pytest.param(ControlPlane.pause_api_server, ControlPlane.resume_api_server, "imed out", "hung", id="hung"),
    ],
)
def test_the_api_server_is_away_while_the_load_rises(
    site: Site,
    planner: Planner,
    begin: Callable[[ControlPlane], None],
    end: Callable[[ControlPlane], None],
    words: str,
    what: str,
) -> None:
    site.at_rest(planner)
    began_s, mark = time.time(), site.control_plane.audit_mark()
    begin(site.control_plane)
    try:
        site.traffic.rps = CROWD_RPS

        def says() -> bool:
            newest = planner.newest()
            return newest["level"] == "last_good" and words in " ".join(newest["reasons"])

        wait_until(says, "it says so", PATIENCE_S)
        made = planner.wait_for_ticks(TICKS)
        assert planner.alive()
        # One worker each, unless a tick that read the graph just before the outage has already seen more load.
        known = [one for one in planner.decisions() if one["level"] == "model"][-1]
        for one in made:
            assert one["level"] == "last_good", one
            assert one["plan"] == known["plan"], "the last plan is kept while nothing is known of the graph"
            assert one["outcome"]["*"].startswith("not applied: the lease is unknown"), one
        assert planner.state()["errors"]["read"]["active"]
    finally:
        end(site.control_plane)
    back_s = time.time()
    timed(lambda: site.steps(mark, PREFILL) > 0, f"API server {what}: from its return to the first write", back_s)

    def carried_out() -> bool:
        # A decision is told when all that it asks for is written.
        newest = planner.newest()
        return newest["level"] == "model" and newest["plan"] == site.replicas()

    wait_until(carried_out, "the plan is carried out", PATIENCE_S)
    # Of a tick that may have begun before the server has said that it is ready.
    away = made[-1]["at_s"]
    first = next(one for one in planner.decisions() if one["at_s"] > away and one["level"] == "model")
    assert first["plan"][PREFILL] > 1, "what the load that it saw all the time asks for"
    assert site.replicas()[PREFILL] > 1
    assert site.lowered_since(began_s) == []
    # On a busy machine a single read may fail at any moment.
    wait_until(lambda: not planner.state()["errors"]["read"]["active"], "it reads the graph", PATIENCE_S)
    site.traffic.rps = LOW_RPS
    site.within_budget(began_s)
    site.one_actor_since(mark)
