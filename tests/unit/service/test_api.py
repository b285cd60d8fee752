"""The HTTP interface: what it answers, and what it never shows."""

import asyncio
import json
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest
from aiohttp.test_utils import TestClient, TestServer

from planner.core.types import Unknown
from planner.explain import explained
from planner.service import static
from planner.service.api import make_app
from planner.service.metrics import reason_code
from tests.unit.service.conftest import DOWN, FakeEyes, Rig, Rigging

Client = TestClient[Any, Any]


def ask(made: Rig, questions: Callable[[Client], Awaitable[None]]) -> None:
    async def go() -> None:
        async with TestClient(TestServer(make_app(made.loop, explained))) as client:
            await questions(client)

    asyncio.run(go())


def test_health_follows_the_clockwork(rig: Rigging) -> None:
    made = rig()

    async def questions(client: Client) -> None:
        async def status(path: str) -> int:
            async with client.get(path) as answer:
                return answer.status

        assert (await status("/healthz"), await status("/readyz")) == (200, 503)
        made.ticks(1)
        assert (await status("/healthz"), await status("/readyz")) == (200, 200)
        made.time.wall_s += 46.0
        assert (await status("/healthz"), await status("/readyz")) == (503, 200)
        made.ticks(1)
        assert await status("/healthz") == 200
        for path in ("/api/decisions/1", "/nothing", "/../pyproject.toml", "/api/decisions/x"):
            assert await status(path) == 404
        async with client.post("/api/state") as answer:
            assert answer.status == 405

    ask(made, questions)


def test_state_names_values_and_what_is_unknown(rig: Rigging) -> None:
    made = rig(service={"identity": "me"})

    async def questions(client: Client) -> None:
        before = await (await client.get("/api/state")).json()
        assert before["last"] is None
        made.graph.startup_s = {"decode": (10.0, 20.0, 30.0)}
        made.ticks(2)
        made.graph.fails["apply"] = DOWN
        made.ticks(1)
        answer = await client.get("/api/state")
        state = await answer.json()
        assert (state["identity"], state["graph"], state["model"], state["level"]) == ("me", "chat", "llama", "model")
        assert state["clock"]["speed_up"] == 1.0
        assert state["lease"]["held"] is True
        assert state["settings"]["lead_time_s"] == 28.0
        assert state["settings"]["lead_time_measured"] is True
        assert [pool["name"] for pool in state["settings"]["pools"]] == ["prefill", "decode"]
        seen = state["last"]["observation"]
        assert seen["ttft_ms"] == {"value": 120.0, "age_s": 0.0}
        assert seen["itl_ms"] == {"unknown": "no metrics"}
        assert seen["lengths"]["mean_isl"] == 1200.0
        assert seen["pools"]["decode"]["waiting_requests"] == {"unknown": "not measured"}
        assert state["last"]["decision"]["plan"] == made.decision.plan
        assert state["errors"]["apply"]["text"] == "the supervisor is down"
        assert state["errors"]["apply"]["active"] is True
        policy = answer.headers["Content-Security-Policy"]
        assert "script-src 'self';" in policy
        assert "default-src 'none'" in policy
        assert "Access-Control-Allow-Origin" not in answer.headers

    ask(made, questions)


def test_secrets_are_not_shown(rig: Rigging, tmp_path: Path) -> None:
    (tmp_path / "token").write_text("s3cret")
    server = {"url": "http://user:pa55@prom:9090/base?key=k3y", "token_file": str(tmp_path / "token")}
    made = rig(metrics={"source": "prometheus", "prometheus": server}).ticks(1)

    async def questions(client: Client) -> None:
        for path in ("/api/state", "/metrics", "/api/decisions"):
            text = await (await client.get(path)).text()
            assert not any(word in text for word in ("pa55", "s3cret", "k3y", "user:"))
        state = await (await client.get("/api/state")).json()
        assert state["config"]["prometheus_url"] == "http://prom:9090/base"

    ask(made, questions)


def test_decisions_by_pages_in_full_and_explained(rig: Rigging) -> None:
    made = rig(eyes=FakeEyes(rate_rps=40.0)).ticks(6)

    async def questions(client: Client) -> None:
        async def get(query: str) -> Any:
            return await (await client.get(f"/api/decisions{query}")).json()

        every = (await get(""))["decisions"]
        ids = [one["id"] for one in every]
        assert ids == sorted(ids)
        assert len(ids) == 6
        page = await get(f"?since={ids[1]}&limit=2")
        assert [one["id"] for one in page["decisions"]] == ids[2:4]
        assert page["last_id"] == ids[3]
        assert (await get(f"?since={ids[-1]}"))["decisions"] == []
        last = every[-1]
        assert last["arrivals_rps"] == pytest.approx(40.0)
        assert last["itl_ms"] is None
        assert last["forecast"]["for_s"] == pytest.approx(last["at_s"] + 5 * 15.0)
        assert last["forecast"]["high_rps"] >= last["forecast"]["median_rps"] > 0
        assert last["demand"]["rate_rps"] > 0
        assert last["outcome"].keys() == {"prefill", "decode"}
        full = await get(f"/{ids[-1]}")
        assert full["decision"]["plan"] == last["plan"]
        assert full["settings"]["sla"]["ttft_ms"] == 200
        text = await (await client.get(f"/api/decisions/{ids[-1]}/explanation")).text()
        assert "plans considered" in text
        assert "SLA" in text
        assert "\x1b" not in text
        for query in ("?since=-1", "?limit=0", "?limit=1e3", "?limit=99999999", "?sinc=1"):
            async with client.get(f"/api/decisions{query}") as answer:
                assert answer.status == 400

    ask(made, questions)


def test_metrics_leave_out_what_is_not_known(rig: Rigging) -> None:
    made = rig()

    def lines() -> dict[str, float]:
        rows = [row for row in made.loop.metrics.text().decode().splitlines() if not row.startswith("#")]
        return {name: float(value) for name, _, value in (row.rpartition(" ") for row in rows)}

    def one(name: str, labels: str = "") -> float | None:
        return lines().get(f'sla_planner_{name}{{graph="chat",{labels}model="llama"}}')

    assert one("observed_requests_per_second") is None
    assert one("profile_error_ratio") is None
    assert lines()['sla_planner_profile_error_ratio{graph="chat",model="llama",table="prefill/prefill"}'] > 0
    made.ticks(8)
    assert one("observed_requests_per_second") == 20.0
    assert one("itl_seconds") is None
    assert one("ttft_seconds") == 0.12
    assert one("level", 'level="model",') == 1.0
    assert one("level", 'level="hold",') == 0.0
    assert one("lease_held") == 1.0
    assert one("gpus_held") == sum(made.graph.counts.values())
    assert one("attainment_target_ratio") is not None
    assert one("ticks_total") == 8.0
    # Five bins ahead: the forecast of the third tick is for the eighth.
    assert one("forecast_error_ratio") == pytest.approx(0.0, abs=0.05)
    burn = one("error_budget_burn_ratio")
    assert burn == pytest.approx(0.03 / 0.05, abs=0.01)
    made.eyes.rate_rps = Unknown("Prometheus is down for 61 s")
    made.graph.fails["apply"] = DOWN
    made.ticks(1)
    assert one("observed_requests_per_second") is None
    assert one("predicted_requests_per_second") is None
    assert one("attainment_target_ratio") is None
    assert one("level", 'level="hold",') == 1.0
    assert one("actuation_failures_total") == 1.0
    made.graph.fails["read"] = DOWN
    made.ticks(1)
    assert one("gpus_held") is None
    assert not any('state="ready"' in name for name in lines())
    text = made.loop.metrics.text().decode()
    assert 'reason="arrivals_unknown"' in text
    assert not any("61" in row for row in text.splitlines() if row.startswith("sla_planner_decision_reasons_total"))


@pytest.mark.parametrize(
    ("reason", "code"),
    [
        ("sized_for_ttft", ("sized_for_ttft", "")),
        ("prefill:scale_up", ("scale_up", "prefill")),
        ("arrivals unknown: stale: 61 s old, 60 s allowed", ("arrivals_unknown", "")),
        ("no forecast: none of 17 bins", ("no_forecast", "")),
        ("supply unknown: 10.0.0.1:80 refused", ("supply_unknown", "")),
        ("no request has completed yet", ("no_request_has_completed_yet", "")),
        ("123", ("other", "")),
    ],
)
def test_reasons_have_few_values(reason: str, code: tuple[str, str]) -> None:
    assert reason_code(reason, ["prefill", "decode"]) == code


def test_the_page_is_a_fixed_list_of_files(rig: Rigging, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("index.html", "page.js", "secret.txt"):
        (tmp_path / name).write_text(f"this is {name}")
    monkeypatch.setattr(static, "FOLDER", tmp_path)
    made = rig().ticks(1)

    async def questions(client: Client) -> None:
        async def get(path: str) -> tuple[int, str]:
            async with client.get(path) as answer:
                return answer.status, (await answer.text())[:40]

        assert await get("/") == (200, "this is index.html")
        assert await get("/page.js") == (200, "this is page.js")
        assert (await get("/page.css"))[0] == 404
        assert (await get("/secret.txt"))[0] == 404
        assert (await get("/plotly.min.js"))[0] == 200

    ask(made, questions)


def test_numbers_that_json_has_not_are_null(rig: Rigging) -> None:
    made = rig(eyes=FakeEyes(rate_rps=20.0)).ticks(1)
    journal, newest = made.loop.journal, made.loop.history.newest
    assert newest is not None
    record = json.loads(journal.read(newest.number) or "")
    record["decision"]["predicted_attainment"] = float("nan")
    journal.append(newest.number, json.dumps(record))

    async def questions(client: Client) -> None:
        text = await (await client.get(f"/api/decisions/{newest.number}")).text()
        assert "NaN" not in text
        assert json.loads(text)["decision"]["predicted_attainment"] is None

    ask(made, questions)
