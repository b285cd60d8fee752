"""The page and its fake API against the real one: a loop on a fake graph, through the service's own interface."""

from __future__ import annotations

import json
from functools import partial
from typing import Any

from planner.core.types import Unknown
from planner.explain import explained
from planner.service.api import make_app
from planner.service.status import state_of
from tests.integration.page import histories
from tests.integration.page.conftest import Page, Server
from tests.unit.service.conftest import DOWN, Rig, Rigging, model, rig  # noqa: F401 - fixtures


def ticked(rigging: Rigging) -> Rig:
    """Some ticks of a planner that works, and one whose metrics are away."""
    made = rigging().ticks(8)
    made.eyes.rate_rps = Unknown("Prometheus at http://127.0.0.1:9090 refused the connection")
    return made.ticks(1)


def test_the_fake_api_has_the_real_ones_form(rig: Rigging) -> None:  # noqa: F811
    made = ticked(rig)
    real = state_of(made.loop)
    fake = histories.state(list(histories.decisions(3, made.time.wall_s)), made.time.wall_s)
    summary = json.loads(made.loop.history.page(None, 2)[0].json)
    missing(fake, real, "state")
    missing(fake["last"]["decision"], summary, "summary")


def missing(fake: Any, real: Any, where: str) -> None:
    """Fail where the real answer lacks a field that the fake one has; readings may be of either kind."""
    if (
        not isinstance(fake, dict)
        or not isinstance(real, dict)
        or "unknown" in real
        or set(fake) == {"prefill", "decode"}
    ):
        return
    lacking = {name for name in fake if name not in real} - {"value", "age_s", "unknown"}
    assert not lacking, f"{where} has no {', '.join(sorted(lacking))}"
    for name, value in fake.items():
        if name not in {"outcome", "errors"}:
            missing(value, real.get(name), f"{where}.{name}")


def test_the_real_service_is_shown(page: Page, rig: Rigging) -> None:  # noqa: F811
    made = ticked(rig)
    server = Server(partial(make_app, made.loop, explained))
    try:
        page.open(server.url, 9)
        why = "arrivals unknown: Prometheus at http://127.0.0.1:9090 refused the connection"
        assert page.text("#verdict").startswith(f"! HOLD: {why}; nothing is scaled down")
        assert page.text("#tile-rate .big") == "unknown: Prometheus at http://127.0.0.1:9090 refused the connection"
        assert page.text("#tile-ttft .big") == "120 ms"
        assert page.text("#tile-itl .big") == "unknown: no metrics"
        counts = made.graph.counts
        assert page.text("#tile-gpus .big") == f"{sum(counts.values())} of 16"
        assert page.text("#tile-lease") == "Lease\nthis planner\none"
        page.run("document.querySelector('#list li:nth-child(2) button').click()")
        page.until("the explanation", lambda: "plans considered" in page.text("#explanation"))
        made.eyes.rate_rps, made.graph.fails["apply"] = 20.0, DOWN
        made.ticks(1)
        page.until("the failure", lambda: "the supervisor is down" in page.text("#notes"))
        assert page.complaints() == []
    finally:
        server.close()
