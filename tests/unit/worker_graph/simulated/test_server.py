"""The simulated engine over HTTP, in this process and much faster than real time."""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

import pytest
from aiohttp import ClientSession, web
from aiohttp.test_utils import TestClient, TestServer, unused_port
from prometheus_client.parser import text_string_to_metric_families

from profiler.timing import EngineTiming
from tests.engines import engine, transfer
from worker_graph.simulated.engine import Engine
from worker_graph.simulated.server import Server, drain
from worker_graph.simulated.timing import WorkerTiming

#: A prompt of 100 tokens takes 11 ms, an iteration 5 ms; simulated.
TIMING = engine(fixed_ms=10.0, token_ms=0.01, step_ms=5.0, request_ms=0.0, kv_ms=0.0, capacity=16_000)
FAST = 500.0
Client = TestClient[web.Request, web.Application]


@contextlib.asynccontextmanager
async def running(
    role: str = "aggregated", timing: EngineTiming = TIMING, speed_up: float = FAST, **options: Any
) -> AsyncIterator[tuple[Client, Server]]:
    table = WorkerTiming.of(timing, transfer(post_ms=0.3), role=role, max_model_len=4096, kv_bytes_per_token=131_072.0)
    server = Server(Engine(table, "tiny", speed_up=speed_up, flush_ms=2.0, **options), "127.0.0.1", 0)
    async with TestClient(TestServer(server.application())) as client:
        server.port = client.port or 0
        yield client, server


def run(scenario: Callable[[], Awaitable[None]]) -> None:
    async def limited() -> None:
        async with asyncio.timeout(30):
            await scenario()

    asyncio.run(limited())


async def scrape(client: Client) -> dict[str, float]:
    """Samples by name, with the values of labels other than the engine's behind it."""
    text = await (await client.get("/metrics")).text()
    samples = {}
    for family in text_string_to_metric_families(text):
        for sample in family.samples:
            extra = [v for k, v in sorted(sample.labels.items()) if k not in ("engine", "model_name")]
            samples[":".join([sample.name.removeprefix("vllm:"), *extra])] = sample.value
    return samples


async def settled(client: Client, name: str, value: float) -> dict[str, float]:
    """Scrape until a metric has a value; what another engine or a cut connection causes takes a moment."""
    while (samples := await scrape(client))[name] != value:
        await asyncio.sleep(0.01)
    return samples


def chunks(text: str) -> list[dict[str, Any]]:
    lines = [line for line in text.split("\n\n") if line]
    assert lines[-1] == "data: [DONE]"
    return [json.loads(line.removeprefix("data: ")) for line in lines[:-1]]


async def post(client: Client | ClientSession, body: dict[str, Any], url: str = "/v1/completions") -> tuple[int, Any]:
    async with client.post(url, json=body) as answer:
        return answer.status, await answer.json()


@pytest.mark.parametrize("osl", [1, 2, 2000])
def test_a_stream_ends_properly_though_its_last_token_waits_in_the_front_end(osl: int) -> None:
    # The loop is done long before the front end is: between them all tokens are there, and the end is not.
    slow = engine(
        fixed_ms=10.0, token_ms=0.01, step_ms=5.0, request_ms=0.0, kv_ms=0.0, capacity=16_000, front_ms=20_000.0
    )

    async def scenario() -> None:
        async with running(timing=slow) as (client, _):
            body = {"prompt": "a b c", "max_tokens": osl, "stream": True}
            parts = chunks(await (await client.post("/v1/completions", json=body)).text())
            reasons = [part["choices"][0]["finish_reason"] for part in parts]
            assert reasons == [None] * (len(parts) - 1) + ["length"]
            assert len("".join(part["choices"][0]["text"] for part in parts).split()) == osl

    run(scenario)


@pytest.mark.parametrize(
    ("path", "body"),
    [
        ("/v1/completions", {"prompt": "a b c", "max_tokens": 7}),
        ("/v1/completions", {"prompt": ["a b c"], "max_tokens": 7, "min_tokens": 7, "ignore_eos": True}),
        ("/v1/completions", {"prompt": [11, 12, 13], "max_tokens": 7}),
        ("/v1/chat/completions", {"messages": [{"role": "user", "content": "a b c"}], "max_completion_tokens": 7}),
        ("/v1/chat/completions", {"messages": [{"role": "user", "content": [{"text": "a b c"}]}], "max_tokens": 7}),
    ],
)
@pytest.mark.parametrize("stream", [False, True])
def test_a_text_has_the_tokens_that_were_asked_for(path: str, body: dict[str, Any], stream: bool) -> None:
    async def scenario() -> None:
        async with running() as (client, server):
            options = {"stream": True, "stream_options": {"include_usage": True}} if stream else {}
            answer = await client.post(path, json={"model": "tiny", **body, **options})
            assert answer.status == 200
            if stream:
                parts = chunks(await answer.text())
                usage, texts = parts.pop(), []
                assert usage["choices"] == []
                for part in parts:
                    choice = part["choices"][0]
                    texts.append(choice["delta"]["content"] if "chat" in path else choice["text"])
                reasons = [part["choices"][0]["finish_reason"] for part in parts]
                assert reasons == [None] * (len(parts) - 1) + ["length"]
                text = "".join(texts)
            else:
                usage = await answer.json()
                choice = usage["choices"][0]
                text = choice["message"]["content"] if "chat" in path else choice["text"]
                assert choice["finish_reason"] == "length"
            assert len(text.split()) == 7
            assert (usage["usage"]["prompt_tokens"], usage["usage"]["completion_tokens"]) == (3, 7)
            assert usage["usage"]["total_tokens"] == 10
            assert server.engine.scheduler.blocks == 0

    run(scenario)


def test_metrics_are_in_simulated_time_and_of_vllms_names() -> None:
    async def scenario() -> None:
        async with running() as (client, _):
            await asyncio.gather(*(post(client, {"prompt": list(range(100)), "max_tokens": 11}) for _ in range(3)))
            samples = await scrape(client)
        assert samples["request_success_total:length"] == samples["time_to_first_token_seconds_count"] == 3
        assert samples["prompt_tokens_total"] == samples["prompt_tokens_by_source_total:local_compute"] == 300
        assert samples["generation_tokens_total"] == 33
        assert samples["inter_token_latency_seconds_count"] == 30
        assert samples["inter_token_latency_seconds_bucket:0.01"] + 2 >= 30  # all but those behind another's prompt
        assert samples["request_decode_time_seconds_sum"] == pytest.approx(
            samples["inter_token_latency_seconds_sum"], rel=1e-9
        )
        assert samples["num_requests_running"] == samples["kv_cache_usage_perc"] == 0
        assert samples["prefix_cache_hits_total"] == 0
        assert not [name for name in samples if name.startswith("nixl")]

    run(scenario)


def test_a_scrape_sees_what_is_running_and_half_done() -> None:
    async def scenario() -> None:
        async with running(speed_up=1.0) as (client, server):
            # 4000 iterations of 5 ms: this test is over long before.
            tasks = [asyncio.create_task(post(client, {"prompt": [1] * 90, "max_tokens": 4000})) for _ in range(2)]
            samples = await settled(client, "num_requests_running", 2)
            while (samples := await scrape(client))["generation_tokens_total"] < 10:
                await asyncio.sleep(0.01)
            assert samples["inter_token_latency_seconds_count"] == samples["generation_tokens_total"] - 2
            blocks = server.engine.scheduler.limits.capacity_blocks
            assert 0 < samples["kv_cache_usage_perc"] == pytest.approx(server.engine.scheduler.blocks / blocks, rel=0.2)
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
            samples = await settled(client, "num_requests_running", 0)
            assert samples["request_success_total:abort"] == 2
            assert samples["kv_cache_usage_perc"] == 0

    run(scenario)


def test_a_client_that_leaves_a_stream_frees_its_blocks() -> None:
    async def scenario() -> None:
        async with running(speed_up=1.0) as (client, server):
            answer = await client.post("/v1/completions", json={"prompt": "a", "max_tokens": 4000, "stream": True})
            await answer.content.readuntil(b"\n\n")
            answer.close()
            await settled(client, "num_requests_running", 0)
            assert server.engine.scheduler.blocks == 0

    run(scenario)


async def hand_off(client: Client, tokens: int = 100) -> dict[str, Any]:
    params = {"do_remote_decode": True, "do_remote_prefill": False}
    body = {"prompt": [1] * tokens, "max_tokens": 1, "kv_transfer_params": params}
    status, answer = await post(client, body)
    assert status == 200
    assert answer["usage"]["completion_tokens"] == 1
    assert answer["kv_transfer_params"]["do_remote_prefill"]
    return {"prompt": body["prompt"], "kv_transfer_params": answer["kv_transfer_params"]}


def test_kv_goes_from_a_prefill_to_a_decode_engine() -> None:
    async def scenario() -> None:
        async with running("prefill", hold_ms=1e9) as (prefill, source), running("decode") as (decode, _):
            body = await hand_off(prefill)
            assert source.engine.scheduler.blocks == len(body["kv_transfer_params"]["remote_block_ids"]) == 7
            answer = await decode.post("/v1/completions", json={**body, "max_tokens": 20, "stream": True})
            assert sum(len(c["choices"][0]["text"].split()) for c in chunks(await answer.text())) == 20
            samples = await settled(prefill, "kv_cache_usage_perc", 0)
            assert samples["generation_tokens_total"] == 1
            assert samples["nixl_num_kv_expired_reqs_total"] == 0
            samples = await scrape(decode)
            assert samples["prompt_tokens_by_source_total:external_kv_transfer"] == 100
            assert samples["prompt_tokens_by_source_total:local_compute"] == 0
            assert samples["nixl_xfer_time_seconds_count"] == samples["nixl_bytes_transferred_count"] == 1
            assert samples["nixl_xfer_time_seconds_sum"] == pytest.approx(0.0022)
            assert samples["nixl_post_time_seconds_count"] == 1
            assert samples["nixl_post_time_seconds_sum"] == pytest.approx(0.0003)
            assert samples["generation_tokens_total"] == 20
            assert samples["inter_token_latency_seconds_count"] == 19
            assert samples["nixl_num_failed_transfers_total"] == 0

    run(scenario)


@pytest.mark.parametrize("stream", [False, True])
def test_a_prefill_engine_that_is_gone_fails_the_request(stream: bool) -> None:
    async def scenario() -> None:
        async with running("decode") as (decode, server):
            async with running("prefill") as (prefill, _):
                body = await hand_off(prefill)
            status, answer = await post(decode, {**body, "max_tokens": 20, "stream": stream})
            assert (status, answer["error"]["code"], answer["error"]["type"]) == (500, 500, "InternalServerError")
            samples = await scrape(decode)
            assert samples["nixl_num_failed_transfers_total"] == samples["request_success_total:error"] == 1
            assert server.engine.scheduler.blocks == server.engine.scheduler.moving == 0

    run(scenario)


def test_a_prefill_engine_that_let_go_fails_the_request() -> None:
    async def scenario() -> None:
        async with running("prefill", hold_ms=1.0) as (prefill, _), running("decode") as (decode, _):
            body = await hand_off(prefill)
            samples = await settled(prefill, "nixl_num_kv_expired_reqs_total", 1)
            assert samples["kv_cache_usage_perc"] == 0
            status, _ = await post(decode, {**body, "max_tokens": 20})
            assert status == 500

    run(scenario)


def test_a_decode_engine_without_kv_computes_the_prompt() -> None:
    async def scenario() -> None:
        async with running("decode") as (decode, _):
            incomplete = {"do_remote_prefill": True, "remote_host": None, "remote_port": None}
            for params in (None, incomplete):
                status, _ = await post(decode, {"prompt": [1] * 50, "max_tokens": 2, "kv_transfer_params": params})
                assert status == 200
            assert (await scrape(decode))["prompt_tokens_by_source_total:local_compute"] == 100

    run(scenario)


def test_a_hand_off_whose_client_leaves_is_let_go_on_both_sides() -> None:
    async def scenario() -> None:
        # A transfer of minutes, so that the client leaves in the middle of it.
        async with (
            running("prefill", hold_ms=1e9) as (prefill, source),
            running("decode", speed_up=0.001) as (decode, target),
        ):
            body = await hand_off(prefill)
            task = asyncio.create_task(post(decode, {**body, "max_tokens": 20}))
            await settled(decode, "num_requests_kv_fetch_by_stage:in_progress", 1)
            assert source.engine.scheduler.held == 1
            task.cancel()
            samples = await settled(prefill, "kv_cache_usage_perc", 0)
            assert samples["nixl_num_kv_expired_reqs_total"] == 0
            await settled(decode, "num_requests_waiting", 0)
            assert target.engine.scheduler.blocks == 0

    run(scenario)


@pytest.mark.parametrize(
    ("status", "param", "body"),
    [
        (404, "model", {"model": "other", "prompt": "a"}),
        (400, "n", {"prompt": "a", "n": 2}),
        (400, "prompt", {}),
        (400, "prompt", {"prompt": ["a", "b"]}),
        (400, "prompt", {"prompt": ""}),
        (400, "prompt", {"prompt": [1, "a"]}),
        (400, "input_tokens", {"prompt": [1] * 4096}),
        (400, "max_tokens", {"prompt": [1] * 4000, "max_tokens": 97}),
        (400, "max_tokens", {"prompt": "a", "max_tokens": 0}),
        (400, "max_tokens", {"prompt": "a", "max_tokens": "many"}),
        (400, None, {"prompt": "a", "max_tokens": 3, "min_tokens": 4}),
        (400, "stream_options", {"prompt": "a", "stream_options": {"include_usage": True}}),
        (400, "stream", {"prompt": "a", "stream": "yes"}),
        (400, "kv_transfer_params", {"prompt": "a", "kv_transfer_params": []}),
        (400, None, [1]),
    ],
)
def test_what_vllm_refuses_is_refused_in_its_form(status: int, param: str | None, body: dict[str, Any]) -> None:
    async def scenario() -> None:
        async with running() as (client, _):
            got, answer = await post(client, body)
            assert (got, answer["error"]["code"], answer["error"]["param"]) == (status, status, param)
            assert answer["error"]["message"]

    run(scenario)


def test_bodies_that_are_not_json_and_paths_that_are_not_there() -> None:
    async def scenario() -> None:
        async with running() as (client, _):
            for path in ("/v1/completions", "/v1/chat/completions", "/tokenize", "/simulated/pull"):
                answer = await client.post(path, data=b"{")
                assert answer.status == 400
            assert (await client.get("/v1/completions")).status == 405
            assert (await client.get("/nowhere")).status == 404

    run(scenario)


def test_the_small_endpoints() -> None:
    async def scenario() -> None:
        async with running() as (client, _):
            for path in ("/health", "/ping"):
                assert (await client.get(path)).status == 200
            assert "version" in await (await client.get("/version")).json()
            assert await (await client.get("/load")).json() == {"server_load": 0}
            (model,) = (await (await client.get("/v1/models")).json())["data"]
            assert (model["id"], model["max_model_len"]) == ("tiny", 4096)
            _, tokens = await post(client, {"prompt": "one two one"}, "/tokenize")
            assert tokens["count"] == len(tokens["tokens"]) == 3
            assert tokens["tokens"][0] == tokens["tokens"][2] != tokens["tokens"][1]

    run(scenario)


def test_a_draining_engine_ends_its_streams_and_takes_nothing_new() -> None:
    async def scenario() -> None:
        async with running(speed_up=20.0) as (client, server):
            running_one = asyncio.create_task(post(client, {"prompt": "a", "max_tokens": 400}))
            await settled(client, "num_requests_running", 1)
            draining = asyncio.create_task(drain(server, 20.0))
            await asyncio.sleep(0)
            assert (await client.get("/health")).status == 200
            status, answer = await post(client, {"prompt": "a"})
            assert (status, answer["choices"][0]["finish_reason"], answer["usage"]["completion_tokens"]) == (
                200,
                "abort",
                0,
            )
            answer = await client.post("/v1/completions", json={"prompt": "a", "stream": True})
            assert chunks(await answer.text()) == []
            await draining
            assert (await running_one)[1]["usage"]["completion_tokens"] == 400

    run(scenario)


def test_draining_gives_up_at_its_timeout() -> None:
    async def scenario() -> None:
        async with running(speed_up=1.0) as (client, server):
            task = asyncio.create_task(post(client, {"prompt": "a", "max_tokens": 4000}))
            await settled(client, "num_requests_running", 1)
            await drain(server, 0.01)
            assert server.engine.load == 1
            task.cancel()

    run(scenario)


def test_a_port_that_nobody_listens_on_is_a_failed_hand_off() -> None:
    async def scenario() -> None:
        async with running("decode") as (decode, _):
            params = {
                "do_remote_prefill": True,
                "remote_engine_id": "x",
                "remote_request_id": "y",
                "remote_block_ids": [1],
                "remote_host": "127.0.0.1",
                "remote_port": str(unused_port()),
            }
            status, _ = await post(decode, {"prompt": "a b", "max_tokens": 2, "kv_transfer_params": params})
            assert status == 500

    run(scenario)
