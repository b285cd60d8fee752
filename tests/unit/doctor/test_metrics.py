"""Why a target has no samples, and what its samples lack."""

from __future__ import annotations

from typing import Any

import pytest

from planner.connectors.base import Supply, Worker, WorkerStatus
from planner.doctor.base import Verdict
from planner.doctor.metrics import (
    Seen,
    judge_engines,
    judge_gateways,
    judge_interval,
    required,
    sort_series,
    targets_of,
)
from planner.doctor.missing import why_missing
from planner.doctor.prometheus import duration_s, judge_retention
from planner.observe.base import Series
from planner.observe.dialects import engine_dialect, gateway_dialect

A = "10.1.2.3:8000"
VLLM, SMG = engine_dialect("vllm"), gateway_dialect("smg")


def active(address: str = A, *, instance: str | None = None, health: str = "up", error: str = "", **labels: str) -> Any:
    return {
        "activeTargets": [
            {
                "discoveredLabels": {"__address__": address},
                "labels": {"instance": instance or address, **labels},
                "scrapeUrl": f"http://{address}/metrics",
                "health": health,
                "lastError": error,
            }
        ],
        "droppedTargets": [],
    }


@pytest.mark.parametrize(
    ("known", "match", "words"),
    [
        (active(), {}, ""),
        (active(health="down", error="connection refused"), {}, "down: connection refused"),
        (active(health="unknown"), {}, "not scraped yet"),
        (active(instance="decode-0"), {}, "its label instance is 'decode-0'"),
        (active(namespace="b"), {"namespace": "a"}, "its series have namespace='b'"),
        (active(), {"namespace": "a"}, "namespace=None"),
        (active("10.9.9.9:8000"), {}, "not discovered"),
        ({"activeTargets": [], "droppedTargets": [{"discoveredLabels": {"__address__": A}}]}, {}, "dropped"),
    ],
)
def test_why_a_target_is_missing(known: Any, match: dict[str, str], words: str) -> None:
    found, fix = why_missing(A, known, match)
    assert words in found
    assert bool(found) == bool(words) == bool(fix)


def test_targets_are_workers_that_serve_and_gateways() -> None:
    workers = (
        Worker("a", "decode", WorkerStatus.READY, A),
        Worker("b", "decode", WorkerStatus.STARTING, "10.0.0.1:8000"),
        Worker("c", "decode", WorkerStatus.READY, ""),
    )
    assert [one.address for one in targets_of(Supply({}, workers, ("10.0.0.2:29000",)))] == [A, "10.0.0.2:29000"]


def test_samples_by_target() -> None:
    found = [
        Series("up", {"instance": A}, (1.0, 2.0), (1.0, 0.0)),
        Series("x", {"instance": A, "le": "1"}, (1.0,), (5.0,)),
        Series("up", {"instance": "other"}, (1.0,), (1.0,)),
    ]
    seen = sort_series(found, [A, "b"])
    assert (seen[A].up, seen[A].scrapes_s, seen["b"].up) == (False, [1.0, 2.0], None)
    assert seen[A].labels == {"x": [{"instance": A, "le": "1"}]}


def test_series_that_a_worker_lacks_are_named() -> None:
    whole = Seen(True, {name: [{}] for name in (*required(VLLM), VLLM.started, VLLM.prefix_queries)})
    assert [one.verdict for one in judge_engines(VLLM, {A: whole})] == [Verdict.PASS]
    lacking = Seen(True, {name: one for name, one in whole.labels.items() if name != VLLM.kv_usage})
    [check] = judge_engines(VLLM, {A: whole, "b": lacking})
    assert (check.verdict, check.found) == (Verdict.FAIL, f"{VLLM.kv_usage} is not exported by b")
    old = Seen(True, {name: one for name, one in whole.labels.items() if name != VLLM.started})
    assert [one.verdict for one in judge_engines(VLLM, {A: old})] == [Verdict.PASS, Verdict.WARN]


def test_a_gateway_that_counts_one_that_has_not_yet_and_another_program() -> None:
    [counter] = SMG.arrivals

    def seen(**labels: list[dict[str, str]]) -> dict[str, Seen]:
        return {A: Seen(True, dict(labels))}

    good = {counter.name: [{"method": "POST", "path": "/v1/completions"}]}
    assert [one.verdict for one in judge_gateways(SMG, seen(**good))] == [Verdict.PASS]
    probes = {counter.name: [{"method": "GET", "path": "/health"}]}
    [check] = judge_gateways(SMG, seen(**probes))
    assert check.verdict is Verdict.WARN
    assert "method in {POST}" in check.found
    [check] = judge_gateways(SMG, seen(**{SMG.signs[0]: [{}]}))
    assert "no request yet" in check.found
    [check] = judge_gateways(SMG, seen(go_goroutines=[{}]))
    assert (check.verdict, "is no smg" in check.found) == (Verdict.FAIL, True)
    assert [one.verdict for one in judge_gateways(SMG, {})] == [Verdict.FAIL]


@pytest.mark.parametrize(
    ("scrape_s", "verdict"), [(5.0, Verdict.PASS), (15.0, Verdict.PASS), (30.0, Verdict.WARN), (60.0, Verdict.FAIL)]
)
def test_scrapes_beside_ticks(scrape_s: float, verdict: Verdict) -> None:
    assert judge_interval(scrape_s, 15.0, 60.0).verdict is verdict


@pytest.mark.parametrize(
    ("told", "verdict"),
    [("15d", Verdict.PASS), ("15d or 50GiB", Verdict.PASS), ("1m", Verdict.FAIL), ("30m", Verdict.WARN),
     ("", Verdict.SKIP), ("50GiB", Verdict.SKIP)],
)  # fmt: skip
def test_retention(told: str, verdict: Verdict) -> None:
    assert judge_retention(told, 90.0).verdict is verdict


def test_durations_as_prometheus_writes_them() -> None:
    assert duration_s("1h30m") == 5400.0
    assert duration_s("500ms") == 0.5
    assert duration_s("soon") is None
    assert duration_s("1h later") is None
