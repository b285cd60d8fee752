"""Alerts and dashboard ask for what a planner's and an engine's page really hold, labels and their values too."""

from __future__ import annotations

import asyncio
import json
import re
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import pytest
from aiohttp.test_utils import TestClient, TestServer
from prometheus_client.parser import text_string_to_metric_families

from planner.core.types import Known, Observation
from planner.explain import explained
from planner.service.api import make_app
from tests.manifests import MANIFESTS, alerts
from tests.unit.service.conftest import FakeEyes, Rigging, model, rig

__all__ = ["model", "rig"]

#: Labels that Prometheus adds to what it scrapes from pods.
ADDED = {"namespace", "pod", "instance", "job", "le"}
#: Of a selector: the metric and what is in its braces.
_SELECTOR = re.compile(r"\b(sla_planner_\w+|vllm:\w+|process_\w+)(?:\{([^}]*)\})?")
_MATCHER = re.compile(r"(\w+)(=~|!~|!=|=)\"([^\"]*)\"")

#: Metric by name, with its labels and the values that they have.
Page = dict[str, dict[str, set[str]]]


class Eyes(FakeEyes):
    """Sees everything."""

    def observe(self, *about: Any, **more: Any) -> Observation:
        return replace(super().observe(*about, **more), itl_ms=Known(9.0))


@pytest.fixture
def page(rig: Rigging) -> Page:
    """The real page of a planner to which nothing is unknown."""
    made = rig(eyes=Eyes())
    made.ticks(12)

    async def ask() -> str:
        async with TestClient(TestServer(make_app(made.loop, explained))) as asked, asked.get("/metrics") as answer:
            return await answer.text()

    found: Page = {}
    for family in text_string_to_metric_families(asyncio.run(ask())):
        for sample in family.samples:
            labels = found.setdefault(sample.name, {})
            for name, value in sample.labels.items():
                labels.setdefault(name, set()).add(value)
    return found


def queries() -> Iterator[tuple[str, str]]:
    """What each alert and each panel asks."""
    for alert in alerts():
        yield alert["alert"], alert["expr"]
    dashboard = json.loads((MANIFESTS / "monitoring" / "dashboard.json").read_text(encoding="utf-8"))
    for panel in dashboard["panels"]:
        for target in panel.get("targets", []):
            yield panel["title"], target["expr"]
    for variable in dashboard["templating"]["list"]:
        if variable["type"] == "query":
            yield variable["name"], variable["query"]["query"]


def test_alerts_and_panels_ask_for_what_there_is(page: Page) -> None:
    asked = set()
    for where, query in queries():
        for name, matchers in _SELECTOR.findall(query):
            if not name.startswith("sla_planner_"):
                continue
            asked.add(name)
            assert name in page, f"{where}: {name} is not exported"
            for label, how, value in _MATCHER.findall(matchers):
                if label in ADDED or "$" in value:
                    continue
                assert label in page[name], f"{where}: {name} has no label {label}"
                for one in value.split("|") if "~" in how else [value]:
                    assert one in page[name][label], f"{where}: {name} never has {label}={one!r}"
        for labels in re.findall(r"\b(?:by|on|ignoring)\s*\(([^)]*)\)", query):
            known = ADDED | {label for name, _ in _SELECTOR.findall(query) for label in page.get(name, {})}
            known |= {"plimsoll_io_role"} if "vllm:" in query else set()
            assert {label.strip() for label in labels.split(",")} <= known, f"{where}: {labels}"
    assert len(asked) > 25


def test_the_engines_metrics_are_vllms() -> None:
    """Names of vLLM's `vllm/v1/metrics/loggers.py`."""
    names = {
        "vllm:num_requests_running", "vllm:num_requests_waiting", "vllm:kv_cache_usage_perc",
        "vllm:prompt_tokens_total", "vllm:generation_tokens_total", "vllm:time_to_first_token_seconds_bucket",
        "vllm:inter_token_latency_seconds_bucket",
    }  # fmt: skip
    asked = {name for _, query in queries() for name, _ in _SELECTOR.findall(query) if name.startswith("vllm:")}
    assert asked == names
