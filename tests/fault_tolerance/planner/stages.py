"""Where a test begins: an installation, and a planner on it that is at rest or at work."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

from tests.fault_tolerance.planner.installation import (
    BUDGET,
    PAIR,
    PATIENCE_S,
    Counts,
    Graph,
    Planner,
    Prometheus,
    planner_of,
)
from tests.fault_tolerance.planner.proxy import Proxy
from tests.fault_tolerance.planner.traffic import CROWD_RPS, Traffic
from tests.fault_tolerance.planner.watch import Watch
from tests.servers import wait_until


@dataclass
class Installation:
    """What all tests share; `stack` ends what a test starts anew of it."""

    graph: Graph
    prometheus: Prometheus
    proxy: Proxy
    traffic: Traffic
    watch: Watch
    stack: ExitStack


def planner_alone(shared: Installation, folder: Path, url: str) -> Iterator[Planner]:
    """A planner that runs for a module's tests."""
    with ExitStack() as stack:
        planner = planner_of(folder, shared.graph, url)
        planner.start(stack)
        yield planner


def is_at_rest(installation: Installation, planner: Planner) -> bool:
    """Whether the planner sees everything, and a pair of workers is there, which is all that little load needs."""
    newest = planner.decisions()[-1]
    well = newest["level"] == "model" and not newest["gaps"] and newest["current"] == newest["plan"] == PAIR
    return well and installation.graph.settled()


def at_rest(installation: Installation, planner: Planner) -> None:
    """Wait until that is so."""
    wait_until(lambda: is_at_rest(installation, planner), "the planner is at rest", PATIENCE_S, every_s=0.3)


def at_work(installation: Installation, planner: Planner) -> Counts:
    """Send what asks for the whole budget until the planner's plan is there, and return it."""
    installation.traffic.rps = CROWD_RPS

    def grown() -> bool:
        newest = planner.decisions()[-1]
        enough = newest["level"] == "model" and sum(newest["plan"].values()) == BUDGET and not newest["gaps"]
        return enough and newest["plan"] == newest["current"] and installation.graph.settled()

    wait_until(grown, "the planner has scaled up", PATIENCE_S, every_s=0.3)
    return installation.graph.desired()
