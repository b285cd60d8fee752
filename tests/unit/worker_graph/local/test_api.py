"""The supervisor's interface: what it refuses, and who may scale."""

import asyncio
from collections.abc import Mapping
from pathlib import Path
from typing import cast

import pytest
from aiohttp.test_utils import TestClient, TestServer

from profiler.errors import InputError
from worker_graph.local.api import make_app
from worker_graph.local.options import LocalOptions
from worker_graph.local.supervisor import Supervisor
from worker_graph.local.worker import LocalWorker, Surroundings
from worker_graph.spec import load_graph

MANIFESTS = Path(__file__).parents[4] / "manifests"


def supervisor(tmp_path: Path, gpus: int = 8) -> Supervisor:
    """A supervisor that has not been started: it takes orders and starts nothing."""
    spec = load_graph(MANIFESTS / "disagg.yaml")
    return Supervisor(spec, LocalOptions(tmp_path, engine="simulated", gpus=gpus), lambda _: None)


async def call(tmp_path: Path, *calls: tuple[str, str, object]) -> list[tuple[int, Mapping[str, object]]]:
    """Answers to calls in a row, as (status, body)."""
    answers = []
    async with TestClient(TestServer(make_app(supervisor(tmp_path)))) as client:
        for method, path, body in calls:
            async with client.request(method, path, json=body) as answer:
                answers.append((answer.status, await answer.json()))
    return answers


def run(tmp_path: Path, *calls: tuple[str, str, object]) -> list[tuple[int, Mapping[str, object]]]:
    """`call`, awaited."""
    return asyncio.run(call(tmp_path, *calls))


def scale(**replicas: object) -> tuple[str, str, object]:
    """A call that scales."""
    return "POST", "/scale", {"replicas": replicas}


def test_both_pools_change_or_none(tmp_path: Path) -> None:
    refused, taken, found = run(
        tmp_path,
        scale(VllmPrefillWorker=3, VllmDecodeWorker=6),
        scale(VllmPrefillWorker=3, VllmDecodeWorker=5),
        ("GET", "/status", None),
    )
    assert refused[0] == 409
    assert refused[1]["code"] == "over_budget"
    assert "3 VllmPrefillWorker, 6 VllmDecodeWorker take 9 GPUs; expected at most 8" in str(refused[1]["error"])
    assert taken == (200, {"outcome": {"VllmPrefillWorker": "1 to 3", "VllmDecodeWorker": "1 to 5"}, "holder": ""})
    pools = found[1]["pools"]
    assert isinstance(pools, dict)
    assert {name: pool["desired"] for name, pool in pools.items()} == {"VllmPrefillWorker": 3, "VllmDecodeWorker": 5}


@pytest.mark.parametrize(
    ("body", "said"),
    [
        ({"replicas": {"Nobody": 1}}, "there is no pool 'Nobody'; expected VllmPrefillWorker, VllmDecodeWorker"),
        ({"replicas": {"VllmDecodeWorker": -1}}, "field replicas.VllmDecodeWorker: is -1; expected 0 or more"),
        ({"replicas": {"VllmDecodeWorker": 1.5}}, "expected whole numbers by pool"),
        ({"replicas": {"VllmDecodeWorker": True}}, "expected whole numbers by pool"),
        ({"replicas": 3}, "field replicas: is 3"),
        ({}, "field replicas: is None"),
        ([], "field body: is a list"),
    ],
)
def test_wrong_orders_are_named_and_change_nothing(tmp_path: Path, body: object, said: str) -> None:
    refused, found = run(tmp_path, ("POST", "/scale", body), ("GET", "/status", None))
    assert refused[0] == 400
    assert said in str(refused[1]["error"])
    pools = found[1]["pools"]
    assert isinstance(pools, dict)
    assert [pool["desired"] for pool in pools.values()] == [1, 1]


def test_a_planner_without_the_lease_is_refused_and_a_person_is_not(tmp_path: Path) -> None:
    order = {"replicas": {"VllmDecodeWorker": 2}}
    answers = run(
        tmp_path,
        ("POST", "/scale", order | {"holder": "a"}),
        ("POST", "/lease", {"holder": "a", "duration_s": 60}),
        ("POST", "/lease", {"holder": "b", "duration_s": 60}),
        ("POST", "/scale", order | {"holder": "b"}),
        ("POST", "/scale", order | {"holder": "a"}),
        ("POST", "/scale", {"replicas": {"VllmDecodeWorker": 3}}),
        ("DELETE", "/lease", {"holder": "b"}),
        ("DELETE", "/lease", {"holder": "a"}),
        ("POST", "/lease", {"holder": "b", "duration_s": 60}),
    )
    assert [status for status, _ in answers] == [409, 200, 200, 409, 200, 200, 200, 200, 200]
    assert answers[0][1]["code"] == "not_holder"
    assert (answers[1][1]["held"], answers[2][1]["held"], answers[2][1]["holder"]) == (True, False, "a")
    assert "held by a, not by b" in str(answers[3][1]["error"])
    assert answers[6][1]["holder"] == "a"
    assert answers[7][1]["holder"] == ""
    assert answers[8][1]["held"] is True


@pytest.mark.parametrize("duration_s", [-1, 86_401, "long", None])
def test_leases_have_an_end(tmp_path: Path, duration_s: object) -> None:
    ((status, body),) = run(tmp_path, ("POST", "/lease", {"holder": "a", "duration_s": duration_s}))
    assert status == 400
    assert "duration_s" in str(body["error"])


def test_a_page_in_a_browser_cannot_change_anything(tmp_path: Path) -> None:
    async def scenario() -> tuple[int, str]:
        # What a form can send without the browser asking first.
        plain = {"Content-Type": "text/plain"}
        async with (
            TestClient(TestServer(make_app(supervisor(tmp_path)))) as client,
            client.post("/scale", data='{"replicas":{}}', headers=plain) as answer,
        ):
            return answer.status, await answer.text()

    status, text = asyncio.run(scenario())
    assert status == 400
    assert "expected application/json" in text


def test_a_planners_budget_holds_below_the_machines(tmp_path: Path) -> None:
    order = {"replicas": {"VllmDecodeWorker": 3}}
    refused, taken, found, by_hand, after, wrong = run(
        tmp_path,
        ("POST", "/scale", order | {"max_gpus": 3}),
        ("POST", "/scale", order | {"max_gpus": 4}),
        ("GET", "/status", None),
        ("POST", "/scale", {"replicas": {"VllmDecodeWorker": 7}}),
        ("GET", "/status", None),
        ("POST", "/scale", order | {"max_gpus": 2.5}),
    )
    assert refused[0] == 409
    assert "take 4 GPUs; expected at most 3" in str(refused[1]["error"])
    assert taken[0] == 200
    assert found[1]["gpus"]["budget"] == 4
    assert by_hand[0] == 200, "a person may have all that there are"
    assert after[1]["gpus"]["budget"] == 8
    assert wrong[0] == 400


def test_what_grows_waits_for_the_gpus_of_what_shrinks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async def scenario() -> list[str]:
        one = supervisor(tmp_path)
        started: list[str] = []

        async def live(_: object, worker: LocalWorker, __: object) -> None:
            started.append(worker.name)

        monkeypatch.setattr(one, "_live", live)
        one.scale({"VllmPrefillWorker": 1, "VllmDecodeWorker": 3}, max_gpus=4)
        one._free_gpus = list(range(7))  # a worker that drains still holds one
        for pool in one.pools.values():
            one._grow(pool, cast("Surroundings", None))
        await asyncio.sleep(0)
        assert started == ["vllmprefillworker-1", "vllmdecodeworker-1", "vllmdecodeworker-2"]
        one._free_gpus.append(7)
        for pool in one.pools.values():
            one._grow(pool, cast("Surroundings", None))
        await asyncio.sleep(0)
        assert started[3:] == ["vllmdecodeworker-3"]
        return [worker.reason for worker in one.workers()]

    assert "needs 1 GPUs, 0 of 4 are free" in asyncio.run(scenario())[-1]


def test_a_graph_that_starts_above_its_budget_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="take 2 GPUs; expected at most 1"):
        supervisor(tmp_path, gpus=1)
