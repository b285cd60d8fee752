"""Two planners on one graph: one acts, the other stands by and takes over; they never both act."""

from __future__ import annotations

import time
from contextlib import ExitStack
from itertools import groupby
from pathlib import Path

from planner.demo.settings import PREFILL
from tests.fault_tolerance.planner.installation import BUDGET, PATIENCE_S, Json, Planner, planner_of
from tests.fault_tolerance.planner.stages import Installation, at_work, is_at_rest
from tests.fault_tolerance.planner.traffic import LOW_RPS
from tests.fault_tolerance.planner.watch import Look
from tests.servers import needs_prometheus, needs_smg, wait_until

pytestmark = [needs_prometheus, needs_smg]


def holds(planner: Planner) -> bool:
    lease = planner.state()["lease"]
    return lease is not None and bool(lease["held"])


def applied(record: Json) -> bool:
    """Whether a record's plan was carried out, as the graph confirmed."""
    return bool(record["outcome"]) and "*" not in record["outcome"]


def stands_by(planner: Planner, holder: str, ticks: int) -> None:
    """It says for so many ticks from now on that another one acts."""
    for one in planner.wait_for_ticks(ticks, time.time()):
        assert one["outcome"] == {"*": f"standby: lease held by {holder}"}, one
        assert one["level"] == "model", "it goes on learning"
    assert planner.state()["lease"]["holder"] == holder


def test_only_one_acts(installation: Installation, tmp_path: Path) -> None:
    graph, url = installation.graph, installation.prometheus.url
    first = planner_of(tmp_path / "first", graph, url, identity="first")
    second = planner_of(tmp_path / "second", graph, url, identity="second")
    began_s = time.time()
    with ExitStack() as stack:
        first.start(stack)
        wait_until(lambda: holds(first), "the first takes the lease", PATIENCE_S)
        second.start(stack)
        stands_by(second, "first", ticks=3)
        at_work(installation, first)
        stands_by(second, "first", ticks=2)

        # Asleep, as a machine may fall: the other one takes over, and the sleeper, awake again, accepts it.
        first.process.pause()
        asleep_s = time.time()
        wait_until(lambda: holds(second), "the second takes over", PATIENCE_S)
        installation.traffic.rps = LOW_RPS
        wait_until(lambda: is_at_rest(installation, second), "the second scales down", PATIENCE_S, every_s=0.3)
        first.process.resume()
        stands_by(first, "second", ticks=3)
        lapsed_first(installation.watch.looks(asleep_s), "first", "second")

        second.process.kill()
        killed_s = time.time()
        wait_until(lambda: holds(first), "the first takes over", PATIENCE_S)
        at_work(installation, first)
        lapsed_first(installation.watch.looks(killed_s), "second", "first")

    assert installation.watch.most_asked(began_s) <= BUDGET
    acts = sorted(
        (record["time"], planner.config["service"]["identity"])
        for planner in (first, second)
        for record in planner.records()
        if applied(record)
    )
    assert [name for name, _ in groupby(identity for _, identity in acts)] == ["first", "second", "first"]
    moved = {record["outcome"][PREFILL] for record in second.records() if applied(record)}
    assert moved != {"unchanged"}, "the second did change something when it was its turn"


def lapsed_first(looks: list[Look], before: str, after: str) -> None:
    """The lease went from one to the other, and not before it had lapsed."""
    assert looks[0].holder == before
    lapses_s = looks[0].at_s + looks[0].lease_s
    taken = next(look for look in looks if look.holder == after)
    # A look is timed when it is asked for, and answered a little later.
    assert taken.at_s > lapses_s - 1.0
