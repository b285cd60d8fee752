"""Prometheus answers late, wrongly, or not all: no pool is lowered on what was not measured."""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Collection, Iterator
from dataclasses import dataclass

import pytest

from planner.demo.settings import PREFILL
from tests.fault_tolerance.planner.installation import (
    PAIR,
    PATIENCE_S,
    STALE_S,
    TICK_S,
    TICKS,
    Graph,
    Json,
    Planner,
    scaled_by_hand,
)
from tests.fault_tolerance.planner.proxy import Mode
from tests.fault_tolerance.planner.stages import Installation, at_rest, planner_alone
from tests.servers import needs_prometheus, needs_smg, wait_until

pytestmark = [needs_prometheus, needs_smg]

#: From the beginning of a fault until it must be seen: samples get old first.
LATEST_S = STALE_S + 10 * TICK_S

TWO_EACH = dict.fromkeys(PAIR, 2)


@pytest.fixture(scope="module")
def planner(shared: Installation, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Planner]:
    yield from planner_alone(shared, tmp_path_factory.mktemp("planner"), shared.proxy.url)


def no_address(graph: Graph) -> Collection[str]:
    return ()


def gateway(graph: Graph) -> Collection[str]:
    return {graph.status()["gateway"]["metrics"]}


def present_workers(graph: Graph) -> Collection[str]:
    """One of each pool; they become half of them when as many are added."""
    return {worker["address"] for worker in graph.status()["workers"]}


@dataclass(frozen=True)
class Fault:
    """What the proxy does, and what the planner says of it: level, and words in a reason or a gap."""

    mode: Mode
    level: str
    words: str
    hidden: Callable[[Graph], Collection[str]] = no_address

    def said_in(self, decision: Json) -> bool:
        """Whether a decision names the fault."""
        texts = [*decision["reasons"], *decision["gaps"]]
        # Where queues still show the way, a new worker that was not scraped yet hides them for a moment.
        allowed = {self.level, "hold"} if self.level == "reactive" else {self.level}
        return decision["level"] in allowed and any(re.search(self.words, text) for text in texts)


FAULTS = {
    "late": Fault(Mode.SLOW, "hold", "did not answer within 1 s"),
    "500": Fault(Mode.ERROR, "hold", "answered 500: out of memory"),
    "garbage": Fault(Mode.GARBAGE, "hold", "not JSON: <html>"),
    "empty": Fault(Mode.EMPTY, "hold", "gateway .* not in the metrics"),
    "not a number": Fault(Mode.NAN, "hold", "is nan"),
    "frozen": Fault(Mode.FROZEN, "hold", "last read .* ago|stale"),
    "gateway missing": Fault(Mode.PASS, "reactive", "gateway .* not in the metrics", gateway),
    "half of the workers missing": Fault(Mode.PASS, "model", "1 of 2 prefill workers have no metrics", present_workers),
}


@pytest.mark.parametrize("fault", [pytest.param(fault, id=name) for name, fault in FAULTS.items()])
def test_lowers_nothing(installation: Installation, planner: Planner, fault: Fault) -> None:
    graph, proxy = installation.graph, installation.proxy
    at_rest(installation, planner)
    try:
        began_s = time.time()
        proxy.hidden = fault.hidden(graph)
        proxy.mode = fault.mode
        # No later than this may it be noticed; one that never does must not get away with it.
        wait_until(lambda: spoiled(planner, began_s) or time.time() > began_s + LATEST_S, "it is noticed", PATIENCE_S)
        scaled_by_hand(graph, planner, TWO_EACH, began_s)
        since_s = time.time()

        def says_or_lowers() -> bool:
            return fault.said_in(planner.decisions()[-1]) or bool(installation.watch.lowered(since_s))

        wait_until(says_or_lowers, f"it says {fault.words}", PATIENCE_S)
        made = planner.wait_for_ticks(TICKS, time.time())
        assert not installation.watch.lowered(since_s)
        for one in made:
            assert fault.said_in(one), one
            assert one["plan"] == TWO_EACH, one
        assert fault.level in {one["level"] for one in made}
        if fault.level == "model":
            assert {f"{PREFILL}:metrics_incomplete"} <= {reason for one in made for reason in one["reasons"]}
    finally:
        proxy.mode, proxy.hidden = Mode.PASS, ()
    # With everything in sight again, two of each are too many: it was the fault that kept them.
    at_rest(installation, planner)


def spoiled(planner: Planner, since_s: float) -> bool:
    """Whether something is amiss in the newest decision since then."""
    made = planner.decisions(since_s)
    return bool(made) and (made[-1]["level"] != "model" or bool(made[-1]["gaps"]))
