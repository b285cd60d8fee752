from __future__ import annotations

import logging
from dataclasses import replace
from typing import Any

import pytest

from planner.connectors.kubernetes.errors import ForbiddenError
from planner.connectors.kubernetes.events import AGAIN_S, PAUSE_S, Events
from planner.connectors.kubernetes.resources import DEPLOYMENTS
from planner.connectors.kubernetes.target import PoolTarget
from tests.unit.connectors.kubernetes.memory import Call, Clock, MemoryCluster

POOL = PoolTarget("decode", DEPLOYMENTS, "chat-decode", 3, 1, 1, (1, 1), {"app": "decode"}, uid="u1")


def events(cluster: MemoryCluster) -> list[dict[str, Any]]:
    return [one for (kind, _), one in cluster.objects.items() if kind == "events.events.k8s.io"]


def test_an_action_says_from_to_who_and_about_what() -> None:
    cluster = MemoryCluster()
    writer = Events(cluster, steady=Clock(), wall=lambda: 1_770_000_000.25)
    writer.scaled(POOL, 3, 4, "planner-0")
    writer.scaled(POOL, 4, 2, "planner-0")
    up, down = events(cluster)
    assert (up["reason"], up["note"]) == ("ScaledUp", "decode: 3 -> 4 workers, asked for by planner-0")
    assert (down["reason"], down["type"], down["action"]) == ("ScaledDown", "Normal", "Scale")
    assert up["regarding"] == {
        "apiVersion": "apps/v1",
        "kind": "Deployment",
        "namespace": "serving",
        "name": "chat-decode",
        "uid": "u1",
    }
    assert (up["reportingController"], up["reportingInstance"]) == ("plimsoll-planner", "planner-0")
    assert up["eventTime"] == "2026-02-02T02:40:00.250000Z"


def test_a_refusal_that_lasts_is_one_event_with_a_count_written_now_and_then() -> None:
    cluster, clock = MemoryCluster(), Clock()
    writer = Events(cluster, steady=clock, wall=lambda: 0.0)
    for _ in range(100):
        writer.refused(POOL, "Unschedulable", "no node", "p")
        clock.now_s += 15.0
    (event,) = events(cluster)
    assert event["type"] == "Warning"
    assert event["series"]["count"] > 80
    assert len(cluster.calls) <= 3 + 1500 / AGAIN_S


def test_a_refusal_that_comes_again_is_another_one() -> None:
    cluster = MemoryCluster()
    writer = Events(cluster, steady=Clock(), wall=lambda: 0.0)
    writer.refused(POOL, "Unschedulable", "no node", "p")
    writer.over(POOL, "Unschedulable")
    writer.refused(POOL, "Unschedulable", "no node", "p")
    assert len(events(cluster)) == 2


def test_pools_of_one_object_have_their_own_events() -> None:
    cluster = MemoryCluster()
    writer = Events(cluster, steady=Clock(), wall=lambda: 0.0)
    other = replace(POOL, pool="prefill")
    for _ in range(5):
        writer.over(other, "RivalController")
        writer.refused(POOL, "RivalController", "decode is left alone", "p")
    assert len(events(cluster)) == 1


def test_an_event_that_the_server_has_forgotten_is_written_anew() -> None:
    cluster, clock = MemoryCluster(), Clock()
    writer = Events(cluster, steady=clock, wall=lambda: 0.0)
    writer.refused(POOL, "Unschedulable", "no node", "p")
    cluster.objects.clear()
    clock.now_s += AGAIN_S
    writer.refused(POOL, "Unschedulable", "no node", "p")
    assert len(events(cluster)) == 1


def test_without_the_right_it_is_logged_once_and_tried_rarely(caplog: pytest.LogCaptureFixture) -> None:
    cluster, clock = MemoryCluster(), Clock()
    writer = Events(cluster, steady=clock, wall=lambda: 0.0)

    def forbid(call: Call) -> None:
        raise ForbiddenError("cannot create events")

    cluster.before = forbid
    with caplog.at_level(logging.WARNING):
        for _ in range(50):
            writer.scaled(POOL, 3, 4, "p")
            clock.now_s += PAUSE_S / 10
    assert len(cluster.calls) == 5
    assert len(caplog.records) == 1


def test_switched_off_none_is_written() -> None:
    cluster = MemoryCluster()
    Events(cluster, enabled=False).scaled(POOL, 3, 4, "p")
    assert not cluster.calls


def test_a_note_fits_what_the_server_takes() -> None:
    cluster = MemoryCluster()
    Events(cluster, wall=lambda: 0.0).refused(POOL, "Unschedulable", "ü" * 2000, "p" * 200)
    (event,) = events(cluster)
    assert len(event["note"].encode()) <= 1024
    assert len(event["reportingInstance"]) <= 128
