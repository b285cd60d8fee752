"""What the planner depends on is gone or hangs: Prometheus, the graph's supervisor. It holds, says so, and recovers."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager

import pytest

from planner.demo.settings import PREFILL
from tests.fault_tolerance.planner.installation import (
    BUDGET,
    PAIR,
    PATIENCE_S,
    TICKS,
    Json,
    Planner,
    alive,
    scaled_by_hand,
)
from tests.fault_tolerance.planner.stages import Installation, at_rest, at_work, is_at_rest, planner_alone
from tests.fault_tolerance.planner.traffic import LOW_RPS
from tests.servers import Server, needs_prometheus, needs_smg, wait_until

pytestmark = [needs_prometheus, needs_smg]

TWO_EACH = dict.fromkeys(PAIR, 2)


@pytest.fixture(scope="module")
def planner(shared: Installation, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Planner]:
    yield from planner_alone(shared, tmp_path_factory.mktemp("planner"), shared.prometheus.url)


def newest_is(planner: Planner, level: str, words: str) -> Callable[[], bool]:
    """Whether the last decision was made at a level, for a reason that has these words."""

    def says() -> bool:
        newest = planner.decisions()[-1]
        return newest["level"] == level and words in " ".join(newest["reasons"])

    return says


def test_follows_the_load_up_and_down(installation: Installation, planner: Planner) -> None:
    at_rest(installation, planner)
    began_s = time.time()
    grown = at_work(installation, planner)
    assert sum(grown.values()) <= BUDGET
    assert not installation.watch.lowered(began_s)

    installation.traffic.rps = LOW_RPS
    at_rest(installation, planner)
    reasons = [reason for one in planner.decisions(began_s) for reason in one["reasons"]]
    assert f"{PREFILL}:scale_up" in reasons
    assert f"{PREFILL}:scale_down" in reasons
    assert installation.watch.most_asked(began_s) <= BUDGET
    installation.traffic.check()


@contextmanager
def prometheus_killed(installation: Installation) -> Iterator[None]:
    server = installation.prometheus.server
    assert server is not None
    server.kill()
    try:
        yield
    finally:
        installation.prometheus.start(installation.stack)


@contextmanager
def paused(server: Server | None) -> Iterator[None]:
    assert server is not None
    server.pause()
    try:
        yield
    finally:
        server.resume()


@contextmanager
def prometheus_hung(installation: Installation) -> Iterator[None]:
    with paused(installation.prometheus.server):
        yield


Outage = Callable[[Installation], AbstractContextManager[None]]


@pytest.mark.parametrize(
    ("outage", "words"),
    [
        pytest.param(prometheus_killed, "cannot be reached", id="killed"),
        pytest.param(prometheus_hung, "did not answer within 1 s", id="hung"),
    ],
)
def test_prometheus_gone(
    installation: Installation,
    planner: Planner,
    outage: Callable[[Installation], AbstractContextManager[None]],
    words: str,
) -> None:
    at_rest(installation, planner)
    with outage(installation):
        wait_until(newest_is(planner, "hold", words), "the planner holds", PATIENCE_S)
        scaled_by_hand(installation.graph, planner, TWO_EACH, time.time())
        since_s = time.time()
        made = planner.wait_for_ticks(TICKS, since_s)
        held(made, words)
        assert "unknown" in planner.state()["last"]["observation"]["arrivals"]
        assert not installation.watch.lowered(since_s)
    # With the load in sight again, two of each are too many: it was the fault that kept them.
    at_rest(installation, planner)


def held(made: list[Json], words: str) -> None:
    """All of these decisions kept what there was, and said why."""
    for one in made:
        assert one["level"] == "hold", one
        assert one["plan"] == one["current"] == TWO_EACH, one
        assert any(reason.startswith("arrivals unknown: Prometheus") and words in reason for reason in one["reasons"])
        assert one["outcome"] == dict.fromkeys(PAIR, "unchanged"), "it goes on holding the lease"


def test_supervisor_hung(installation: Installation, planner: Planner) -> None:
    at_rest(installation, planner)
    plan = at_work(installation, planner)
    since_s = time.time()
    with paused(installation.graph.supervisor):
        wait_until(newest_is(planner, "last_good", "did not answer within 1 s"), "it says so", PATIENCE_S)
        made = planner.wait_for_ticks(TICKS, time.time())
        for one in made:
            assert one["level"] == "last_good"
            assert one["plan"] == plan, "the last plan is repeated, as long as nothing is known"
            assert one["outcome"]["*"].startswith("not applied: the lease is unknown")
        state = planner.state()
        assert state["errors"]["read"]["active"]
        assert state["lease"] is None
    wait_until(newest_is(planner, "model", "sized_for"), "it plans again", PATIENCE_S)
    wait_until(lambda: bool(planner.state()["lease"]["held"]), "it holds the lease again", PATIENCE_S)
    resumed = next(one for one in planner.decisions(since_s) if one["at_s"] > made[-1]["at_s"] and one["current"])
    assert resumed["current"] == plan, "nothing was lowered while nobody looked"
    assert not planner.state()["errors"]["read"]["active"]


def test_supervisor_killed(installation: Installation, planner: Planner) -> None:
    graph = installation.graph
    plan = at_work(installation, planner)
    workers = graph.process_ids()
    assert graph.supervisor is not None
    graph.supervisor.kill()
    wait_until(newest_is(planner, "last_good", "is the graph up?"), "it says so", PATIENCE_S)
    made = planner.wait_for_ticks(TICKS, time.time())
    assert {one["level"] for one in made} == {"last_good"}
    assert all(one["plan"] == plan for one in made)
    assert planner.alive()
    assert alive(workers) == workers, "gateway and workers serve on without their supervisor"

    graph.start(installation.stack)
    assert not alive(workers), "a new supervisor ends what the last one left, before it starts its own"
    wait_until(lambda: graph.desired()[PREFILL] >= 2, "it scales the new graph up as it did the old", PATIENCE_S)
    # Its first workers have no metrics yet: what it decides then is reactive.
    wait_until(newest_is(planner, "model", ""), "it sizes by the model again", PATIENCE_S)
    assert not planner.state()["errors"]["read"]["active"]
    installation.traffic.rps = LOW_RPS
    wait_until(lambda: is_at_rest(installation, planner), "and down", PATIENCE_S, every_s=0.3)
