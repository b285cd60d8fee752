"""A prefill and a decode worker of real vLLM behind the real gateway: KV goes over, and no token is lost on the way."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass

import aiohttp
import pytest

from profiler.load import Counting, Kind, Load, Outcome, Result, ScheduledRequest
from tests.integration.vllm_cpu.workers import MODEL_NAME, Process, Worker, free_port, nixl
from worker_graph.local.gateway import SmgGateway, wait_until_ready
from worker_graph.spec import Role

BY_SOURCE = "vllm:prompt_tokens_by_source_total"
#: Lengths of the six prompts in words, of 3.7 tokens each: from less than one KV block to near the longest.
WORDS = [2, 40, 150, 300, 600, 1000]
OSL = 40


@dataclass
class Pair:
    prefill: Worker
    decode: Worker
    gateway_url: str


@pytest.fixture(scope="module")
def pair(start_vllm: Callable[..., Worker], start_process: Callable[..., Process]) -> Pair:
    prefill = start_vllm("prefill", *nixl("kv_producer"))
    decode = start_vllm("decode", *nixl("kv_consumer"))
    prefill.wait_until_ready()
    decode.wait_until_ready()
    port = free_port()
    url = f"http://127.0.0.1:{port}"

    async def register() -> None:
        async with aiohttp.ClientSession() as session:
            gateway = SmgGateway(session, "127.0.0.1", port)
            command = gateway.command("127.0.0.1", port, free_port(), disaggregated=True, routing="round-robin")
            process = start_process("gateway", list(command))
            assert await wait_until_ready(gateway, 30.0), process.tail()
            await gateway.add(prefill.url, Role.PREFILL)
            await gateway.add(decode.url, Role.DECODE)
            async with asyncio.timeout(30.0):
                while sum(backend.healthy for backend in await gateway.backends()) < 2:
                    await asyncio.sleep(0.1)

    asyncio.run(register())
    return Pair(prefill, decode, url)


def answers(url: str, *, seed: int, counting: Counting = Counting.CHUNKS) -> list[Result]:
    """Results of the six prompts, offered half a second apart."""
    load = Load(url, MODEL_NAME, prompt=Kind.WORDS, counting=counting, seed=seed, timeout_s=60.0, keep_text=True)
    schedule = [ScheduledRequest(0.5 * index, words, OSL) for index, words in enumerate(WORDS)]
    return asyncio.run(load.run_open(schedule))


@pytest.fixture(scope="module")
def through_gateway(pair: Pair) -> list[Result]:
    return answers(pair.gateway_url, seed=1)


def test_every_token_arrives(through_gateway: list[Result]) -> None:
    assert [(one.outcome, one.error) for one in through_gateway] == [(Outcome.COMPLETED, "")] * len(WORDS)
    assert [one.completion_tokens for one in through_gateway] == [OSL] * len(WORDS)


def test_decode_computes_no_prompt(pair: Pair, through_gateway: list[Result]) -> None:
    prompt_tokens = sum(one.prompt_tokens or 0 for one in through_gateway)
    sources = ["external_kv_transfer", "local_compute", "local_cache_hit"]
    at_decode = {source: pair.decode.metric(BY_SOURCE, source=source) for source in sources}
    at_prefill = {source: pair.prefill.metric(BY_SOURCE, source=source) for source in sources}
    assert at_decode == {"external_kv_transfer": prompt_tokens, "local_compute": 0, "local_cache_hit": 0}
    assert at_prefill == {"external_kv_transfer": 0, "local_compute": prompt_tokens, "local_cache_hit": 0}


def test_answers_equal_those_of_one_worker(pair: Pair, through_gateway: list[Result]) -> None:
    alone = answers(pair.prefill.url, seed=1)
    assert [one.text for one in through_gateway] == [one.text for one in alone]
    # Else equality would say nothing about the KV that the answers were computed from.
    assert len({one.text for one in alone}) == len(WORDS)
    assert all(len(set(one.text)) > 10 for one in alone)
