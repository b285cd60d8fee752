"""Hand-offs between two simulated engines, over HTTP: what they count comes back in the sample."""

from __future__ import annotations

import asyncio
import contextlib

import pytest
from aiohttp.test_utils import TestClient, TestServer

from profiler.measure import PairMeter, Point, Sample, read_facts
from tests.engines import engine, transfer
from worker_graph.simulated.engine import Engine
from worker_graph.simulated.server import Server
from worker_graph.simulated.timing import WorkerTiming

ENGINE = engine(step_ms=5.0, request_ms=0.0, kv_ms=0.0, capacity=16_000)
HANDOFF = transfer(20.0, 0.01, post_ms=1.5, post_token_ms=0.004)


async def _measured(*lengths: float) -> list[Sample]:
    async with contextlib.AsyncExitStack() as stack:
        facts = []
        for role in ("prefill", "decode"):
            timing = WorkerTiming.of(ENGINE, HANDOFF, role=role, max_model_len=4096, kv_bytes_per_token=131_072.0)
            server = Server(Engine(timing, "tiny", speed_up=20.0, flush_ms=2.0), "127.0.0.1", 0)
            client = await stack.enter_async_context(TestClient(TestServer(server.application())))
            server.port = client.port or 0
            facts.append(await read_facts(f"http://127.0.0.1:{client.port}"))
        meter = PairMeter(*facts)
        stack.push_async_callback(meter.close)
        return [await meter.measure(Point("transfer", (tokens,))) for tokens in lengths]


def test_the_post_of_each_sample_is_what_the_decode_engine_spent() -> None:
    short, long = asyncio.run(_measured(256.0, 1000.0))
    # Exact, whatever the clock of the test's machine: the engine's own count in its own time.
    assert short.values["post_ms"] == pytest.approx(1.5 + 0.004 * 256)
    assert long.values["post_ms"] == pytest.approx(1.5 + 0.004 * 1000)
    assert short.values["tokens"] == 256.0
