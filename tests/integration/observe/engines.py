"""Engines for the gateway to send requests to: they wait as long as they are told and count as vLLM does."""

from __future__ import annotations

import asyncio
import json
import threading
import time
from collections.abc import Callable
from typing import Any

from aiohttp import web
from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest

from tests.servers import free_port

SECONDS = (0.001, 0.005, 0.01, 0.02, 0.04, 0.06, 0.08, 0.1, 0.15, 0.2, 0.3, 0.4, 0.5, 0.75, 1.0)
TOKENS = (1, 2, 5, 10, 20, 50, 100, 200, 500, 1000)


class Metrics:
    """The metrics of one vLLM engine."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        labels = {"labelnames": ("model_name", "engine"), "registry": self.registry}

        def of(kind: Any, name: str, **options: Any) -> Any:
            return kind(name, name, **labels, **options).labels("m", "0")

        self.waiting = of(Gauge, "vllm:num_requests_waiting")
        self.running = of(Gauge, "vllm:num_requests_running")
        self.kv_usage = of(Gauge, "vllm:kv_cache_usage_perc")
        self.isl = of(Histogram, "vllm:request_prompt_tokens", buckets=TOKENS)
        self.osl = of(Histogram, "vllm:request_generation_tokens", buckets=TOKENS)
        self.ttft = of(Histogram, "vllm:time_to_first_token_seconds", buckets=SECONDS)
        self.request_itl = of(Histogram, "vllm:request_time_per_output_token_seconds", buckets=SECONDS)
        self.token_itl = of(Histogram, "vllm:inter_token_latency_seconds", buckets=SECONDS)
        self.queries = of(Counter, "vllm:prefix_cache_queries")
        self.hits = of(Counter, "vllm:prefix_cache_hits")
        started = Gauge("process_start_time_seconds", "Start of the process", registry=self.registry)
        started.set(time.time())


class Engine:
    """One engine in a thread of its own.

    Attributes:
        first_s: seconds from a request to its first token, by the request's number; the answer's head goes at once.
        gap_s: seconds between tokens.
        failing: answer 500 instead.
    """

    def __init__(self, first_s: Callable[[int], float], gap_s: float = 0.005) -> None:
        self.metrics = Metrics()
        self.first_s = first_s
        self.gap_s = gap_s
        self.failing = False
        self.requests = 0
        self.port = free_port()
        self.address = f"127.0.0.1:{self.port}"
        self.url = f"http://{self.address}"
        self._loop = asyncio.new_event_loop()
        self._started = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()
        assert self._started.wait(10)

    def stop(self) -> None:
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()

    def _run(self) -> None:
        asyncio.set_event_loop(self._loop)
        app = web.Application()
        app.router.add_post("/v1/completions", self._complete)
        app.router.add_get("/metrics", self._page)
        app.router.add_get("/v1/models", self._models)
        app.router.add_get("/version", self._version)
        app.router.add_get("/health", self._health)
        runner = web.AppRunner(app, shutdown_timeout=0.1)
        self._loop.run_until_complete(runner.setup())
        self._loop.run_until_complete(web.TCPSite(runner, "127.0.0.1", self.port).start())
        self._started.set()
        self._loop.run_forever()
        self._loop.run_until_complete(runner.cleanup())

    async def _complete(self, request: web.Request) -> web.StreamResponse:
        body = await request.json()
        number, self.requests = self.requests, self.requests + 1
        if self.failing:
            return web.Response(status=500, text="out of order")
        metrics, arrived = self.metrics, time.monotonic()
        prompt, tokens = len(str(body["prompt"]).split()), int(body.get("max_tokens", 16))
        metrics.running.inc()
        response = web.StreamResponse(headers={"content-type": "text/event-stream"})
        if body.get("stream"):
            await response.prepare(request)
        await asyncio.sleep(self.first_s(number))
        first = last = time.monotonic()
        metrics.ttft.observe(first - arrived)
        for index in range(tokens):
            if index:
                await asyncio.sleep(self.gap_s)
                now = time.monotonic()
                metrics.token_itl.observe(now - last)
                last = now
            if body.get("stream"):
                await response.write(f"data: {json.dumps(_chunk(index == tokens - 1))}\n\n".encode())
        metrics.running.dec()
        metrics.request_itl.observe((last - first) / (tokens - 1) if tokens > 1 else 0.0)
        metrics.isl.observe(prompt)
        metrics.osl.observe(tokens)
        metrics.queries.inc(prompt)
        metrics.hits.inc(prompt // 2)
        if body.get("stream"):
            await response.write(b"data: [DONE]\n\n")
            return response
        answer = _chunk(True) | {"usage": {"prompt_tokens": prompt, "completion_tokens": tokens, "total_tokens": 0}}
        if body.get("kv_transfer_params"):
            answer["kv_transfer_params"] = {"do_remote_prefill": True, "remote_engine_id": "e", "remote_block_ids": [1]}
            answer["kv_transfer_params"] |= {"do_remote_decode": False, "remote_host": "127.0.0.1", "remote_port": 1}
        return web.json_response(answer)

    async def _page(self, _: web.Request) -> web.Response:
        return web.Response(body=generate_latest(self.metrics.registry), headers={"content-type": "text/plain"})

    async def _models(self, _: web.Request) -> web.Response:
        model = {"id": "m", "object": "model", "created": 1, "owned_by": "vllm", "root": "m", "max_model_len": 32768}
        return web.json_response({"object": "list", "data": [model]})

    async def _version(self, _: web.Request) -> web.Response:
        return web.json_response({"version": "0.32.0"})

    async def _health(self, _: web.Request) -> web.Response:
        return web.Response()


def _chunk(last: bool) -> dict[str, Any]:
    choice = {"index": 0, "text": " a", "finish_reason": "length" if last else None}
    return {"id": "x", "object": "text_completion", "model": "m", "created": 1, "choices": [choice]}
