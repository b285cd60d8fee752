"""A graph of real vLLM workers that the planner scales by itself, 1p1d to 2p2d and back, while requests run.

The files are those of docs/how-to/local-vllm.md. Workers are paced, so that one of each saturates at three requests a
second and two do not, and so that a machine of two cores has time left for starting two more. A start takes from half a
minute to minutes there; phases of the load therefore end when the graph has changed, not by the clock.
"""

from __future__ import annotations

import asyncio
import socket
import subprocess
import sys
import urllib.parse
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest

from profiler.load import Counting, Load, Outcome, Result
from tests.integration.vllm_cpu.pacing import Pace
from tests.integration.vllm_cpu.scaling import (
    Watcher,
    graph,
    planner,
    processes_of,
    requests_until,
)
from tests.integration.vllm_cpu.workers import Process, free_port
from tests.servers import wait_until
from worker_graph.local.client import Client
from worker_graph.local.up import running

PROGRAM = [sys.executable, "-m", "planner"]

#: A prompt of 224 tokens takes 0.4 s of prefill; a decode step with 2 requests 70 ms, with 10 190 ms.
PACE = Pace(base_ms=40, us_per_prefill_token=1500, us_per_decode_request=15_000)
WORDS, OSL = 60, 20
#: After the peak streams last longer than the time between two requests to one decode worker: whichever leaves, leaves
#: with one at least under way.
LONG_OSL = 80
#: Far from what one worker of each does at the calm rate (0.45 s, 60 ms), since a busy machine makes starts longer, the
#: horizon with them, and the forecast's upper quantiles high; and out of reach for one worker of each at the peak.
SLA = {"ttft_ms": 4000, "itl_ms": 250}
CALM_RPS, PEAK_RPS = 0.4, 3.0
START_S = 600.0


@dataclass
class Run:
    """What was seen.

    Attributes:
        before, peak, after: results of the phases.
        at_peak: prompt tokens of all decode workers by source, when the requests of `before` and `peak` had ended.
        watcher: all along.
        addresses: host:port of everything that listened.
        planner_code, down_code: exit codes.
    """

    before: list[Result]
    peak: list[Result]
    after: list[Result]
    at_peak: list[dict[str, float]]
    watcher: Watcher
    addresses: set[str]
    planner_code: int
    down_code: int

    @property
    def results(self) -> list[Result]:
        return [*self.before, *self.peak, *self.after]


@pytest.fixture(scope="module")
def run(
    vllm_env: Path, tiny_model: Path, tmp_path_factory: pytest.TempPathFactory, start_process: Callable[..., Process]
) -> Run:
    folder = tmp_path_factory.mktemp("graph")
    run_dir, file = folder / "run", folder / "graph.yaml"
    file.write_text(graph(tiny_model, PACE, folder / "cache"), encoding="utf-8")
    words = ["--vllm-command", str(vllm_env / "bin" / "vllm"), "--port", "0", "--run-dir", str(run_dir)]
    up = start_process("graph", [*PROGRAM, "graph", "up", str(file), *words, "--routing", "round-robin"])
    wait_until(lambda: up.check() and running(run_dir) is not None, "the supervisor is up")
    client = Client(running(run_dir)["control_url"], timeout_s=30.0)
    watcher = Watcher(client)

    def serving() -> bool:
        watcher.look()
        return up.check() and watcher.ready == (1, 1)

    wait_until(serving, "one worker of each", START_S, 0.5)
    PACE.save_profiles(folder / "profiles")
    port = free_port()
    config = folder / "planner.yaml"
    config.write_text(planner(client.url, folder / "profiles", SLA, port), encoding="utf-8")
    service = start_process("planner", [*PROGRAM, "run", "--config", str(config)])
    service.wait_for(f"http://127.0.0.1:{port}/readyz", 120.0)

    status = client.status()
    listening = {urllib.parse.urlsplit(url).netloc for url in (client.url, status["gateway"]["url"])}
    url = status["gateway"]["url"]
    with watcher.watching():
        before = offer(url, 1, CALM_RPS, OSL, lambda: True, then_s=15.0)
        peak = offer(url, 2, PEAK_RPS, OSL, lambda: watcher.whole and watcher.ready == (2, 2), then_s=15.0)
        watcher.look()
        at_peak = [dict(tokens) for tokens in watcher.tokens.values()]
        after = offer(url, 3, CALM_RPS, LONG_OSL, lambda: watcher.whole and watcher.ready == (1, 1), then_s=15.0)
    planner_code = service.terminate(60.0)
    down = subprocess.run([*PROGRAM, "graph", "down", str(file), "--run-dir", str(run_dir)], check=False, timeout=120)
    watcher.sessions |= {service.pid, up.pid}
    addresses = {*watcher.addresses, *listening, status["gateway"]["metrics"], f"127.0.0.1:{port}"}
    return Run(before, peak, after, at_peak, watcher, addresses, planner_code, down.returncode)


def offer(url: str, seed: int, rate_rps: float, osl: int, over: Callable[[], bool], *, then_s: float) -> list[Result]:
    """Results of fresh requests at a rate, until something is true and a while longer."""
    load = Load(url, "chat", seed=seed, timeout_s=300.0, counting=Counting.IDS)
    return asyncio.run(load.run_open(requests_until(over, rate_rps, WORDS, osl, at_most_s=START_S, then_s=then_s)))


def test_planner_scales_up_and_down(run: Run) -> None:
    asked = run.watcher.asked
    assert asked[0] == asked[-1] == (1, 1)
    assert (2, 2) in asked
    assert all(sum(counts) <= 4 for counts in asked)
    assert run.watcher.ready == (1, 1)
    assert run.watcher.whole
    assert run.watcher.holders <= {"planner", ""}
    assert "planner" in run.watcher.holders


def test_every_token_of_every_request_arrives(run: Run) -> None:
    lost = [(one.outcome, one.error) for one in run.results if one.outcome is not Outcome.COMPLETED]
    assert lost == []
    assert all(one.completion_tokens == one.counted_tokens == one.osl for one in run.results)


def test_kv_goes_over_to_every_decode_worker(run: Run) -> None:
    prompts = sum(one.prompt_tokens for one in [*run.before, *run.peak])
    assert len(run.at_peak) >= 2
    assert sum(tokens["external_kv_transfer"] for tokens in run.at_peak) == prompts
    # Up to their last words, of the one that left, too.
    assert len(run.watcher.tokens) >= 2
    for tokens in [*run.at_peak, *run.watcher.tokens.values()]:
        assert tokens["external_kv_transfer"] > 0
        assert (tokens["local_compute"], tokens["local_cache_hit"]) == (0, 0)


def test_nothing_is_left(run: Run) -> None:
    assert (run.planner_code, run.down_code) == (0, 0)
    assert processes_of(run.watcher.sessions) == []
    for address in run.addresses:
        host, port = address.rsplit(":", 1)
        with socket.socket() as probe:
            assert probe.connect_ex((host, int(port))) != 0, address
