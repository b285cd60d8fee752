"""KV-aware routing by the KV events of real vLLM: requests go to the worker that has their prefix in its cache.

Each conversation's prefix is put into one worker's cache directly, past the router; only that worker's KV events can
tell a router of it. Workers are warmed in the order 0 0 1 1 0 0 1 1 …, so that going round, whichever comes first,
meets exactly half of them.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from profiler.load.prompts import Kind, Prompts
from tests.integration.vllm_cpu.workers import MODEL_NAME, Process, Worker, free_port, metric_at
from tests.servers import get, needs_smg, post, wait_until
from worker_graph.local.gateway import executable

CONVERSATIONS, BLOCK = 16, 32
WARM = [index // 2 % 2 for index in range(CONVERSATIONS)]
HITS = "vllm:prefix_cache_hits_total"


@dataclass
class Publisher:
    """A worker that publishes its KV events."""

    worker: Worker
    events_port: int
    replay_port: int


def publish(start: Callable[..., Worker], name: str, *arguments: str) -> Publisher:
    """`vllm serve` with KV events; with a `*` for the host, or vLLM connects instead of listening."""
    events, replay = free_port(), free_port()
    config = {"enable_kv_cache_events": True, "publisher": "zmq"}
    endpoints = {"endpoint": f"tcp://*:{events}", "replay_endpoint": f"tcp://*:{replay}"}
    worker = start(name, "--kv-events-config", json.dumps(config | endpoints), *arguments)
    return Publisher(worker, events, replay)


def ask(url: str, prompt: str | list[int]) -> dict[str, Any]:
    """The usage of a short answer."""
    body = {"model": MODEL_NAME, "prompt": prompt, "max_tokens": 2, "temperature": 0, "ignore_eos": True}
    usage: dict[str, Any] = json.loads(post(f"{url}/v1/completions", body, 60.0))["usage"]
    return usage


def pieces(kind: Kind, seed: int, length: int) -> list[Any]:
    """Two pieces for each conversation that no other prompt here has: what it begins with, and what it goes on with."""
    prompts = Prompts(kind, seed)
    return [json.loads(prompts.as_json(number, length)) for number in range(2 * CONVERSATIONS)]


class TestVllmRouter:
    """HTTP workers behind vLLM's own router, which knows the blocks of prompts that are given as token ids."""

    PREFIX = 5 * BLOCK

    @pytest.fixture(scope="class")
    @classmethod
    def workers(cls, start_vllm: Callable[..., Worker]) -> list[Publisher]:
        both = [publish(start_vllm, f"http-{index}") for index in range(2)]
        for one in both:
            one.worker.wait_until_ready()
        return both

    @pytest.fixture
    def route(
        self, vllm_env: Path, workers: list[Publisher], start_process: Callable[..., Process]
    ) -> Callable[..., str]:
        """Start a router with a policy and return its address."""

        def start(policy: str, *arguments: str) -> str:
            port, metrics = free_port(), free_port()
            command = [str(vllm_env / "bin" / "vllm-router"), "--host", "127.0.0.1", "--port", str(port)]
            command += ["--prometheus-port", str(metrics), "--policy", policy, *arguments]
            command += ["--worker-urls", *(one.worker.url for one in workers)]
            start_process(f"router-{policy}-{port}", command).wait_for(f"http://127.0.0.1:{port}/readiness", 60.0)
            return f"http://127.0.0.1:{port}"

        return start

    def events(self, workers: list[Publisher]) -> list[str]:
        """What tells the router where KV events are."""
        found = ["--kv-event-block-size", str(BLOCK), "--kv-event-model", MODEL_NAME]
        for one in workers:
            found += ["--kv-event-source", f"{one.worker.url}=tcp://127.0.0.1:{one.events_port}"]
            found += ["--kv-event-replay-source", f"{one.worker.url}=tcp://127.0.0.1:{one.replay_port}"]
        return found

    def hits(self, workers: list[Publisher], url: str, seed: int) -> list[float]:
        """Prompt tokens that each worker found in its cache, of conversations that went on through the router."""
        said = pieces(Kind.IDS, seed, self.PREFIX)
        for number, where in enumerate(WARM):
            ask(workers[where].worker.url, said[number])
        before = [one.worker.metric(HITS) for one in workers]
        for number in range(CONVERSATIONS):
            ask(url, said[number] + said[CONVERSATIONS + number])
        return [one.worker.metric(HITS) - hits for one, hits in zip(workers, before, strict=True)]

    def test_requests_follow_the_cache(self, workers: list[Publisher], route: Callable[..., str]) -> None:
        every = self.PREFIX * CONVERSATIONS
        assert self.hits(workers, route("kv_aware", *self.events(workers)), seed=1) == [every / 2, every / 2]
        assert sum(self.hits(workers, route("round_robin"), seed=2)) == every / 2

    def test_without_events_they_do_not(self, workers: list[Publisher], route: Callable[..., str]) -> None:
        assert sum(self.hits(workers, route("kv_aware"), seed=3)) < self.PREFIX * CONVERSATIONS


@needs_smg
class TestSmg:
    """gRPC workers behind the gateway of the local runner, which makes tokens of text by itself."""

    WORDS = 100

    @pytest.fixture(scope="class")
    @classmethod
    def workers(cls, start_vllm: Callable[..., Worker]) -> list[Publisher]:
        both = [publish(start_vllm, f"grpc-{index}", "--grpc") for index in range(2)]
        for one in both:
            # It listens before, and empties its cache after the warm-up.
            one.worker.process.wait_for_line("Planned warm-up over", 240.0)
        return both

    @pytest.fixture
    def route(self, tiny_model: Path, start_process: Callable[..., Process]) -> Callable[..., tuple[str, str]]:
        """Start a gateway with a policy in front of workers; return its address and that of its metrics."""

        def start(policy: str, workers: Sequence[Publisher]) -> tuple[str, str]:
            port, metrics = free_port(), free_port()
            url = f"http://127.0.0.1:{port}"
            command = [*executable("smg"), "launch", "--host", "127.0.0.1", "--port", str(port)]
            command += ["--prometheus-host", "127.0.0.1", "--prometheus-port", str(metrics)]
            command += ["--policy", policy, "--block-size", str(BLOCK), "--model-path", str(tiny_model)]
            command += ["--worker-urls", *(f"grpc://127.0.0.1:{one.worker.port}" for one in workers)]
            process = start_process(f"smg-{policy}-{port}", command)

            def ready() -> bool:
                process.check()
                known = json.loads(get(f"{url}/workers"))["workers"]
                return [one.get("status") for one in known] == ["ready"] * len(workers)

            wait_until(ready, f"{len(workers)} workers behind {policy}")
            return url, f"http://127.0.0.1:{metrics}"

        return start

    def met(self, route: Callable[..., tuple[str, str]], workers: list[Publisher], url: str, seed: int) -> int:
        """Conversations that went on through the gateway and met the worker that has their prefix."""
        said = pieces(Kind.WORDS, seed, self.WORDS)
        direct = [route("round_robin", [one])[0] for one in workers]
        for number, where in enumerate(WARM):
            ask(direct[where], said[number])
        usages = [ask(url, f"{said[number]} {said[CONVERSATIONS + number]}") for number in range(CONVERSATIONS)]
        return sum(usage["prompt_tokens_details"]["cached_tokens"] > self.WORDS for usage in usages)

    def test_requests_follow_the_cache(self, workers: list[Publisher], route: Callable[..., tuple[str, str]]) -> None:
        url, metrics = route("cache_aware", workers)
        assert self.met(route, workers, url, seed=4) == CONVERSATIONS
        assert metric_at(metrics, "smg_cache_aware_policy_branch_total", branch="event_hit") == CONVERSATIONS
        assert self.met(route, workers, route("round_robin", workers)[0], seed=5) == CONVERSATIONS / 2
