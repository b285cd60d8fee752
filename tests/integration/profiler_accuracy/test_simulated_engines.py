"""Runs recorded from the simulated engine in real time, replayed by the simulator: the same model, so they must agree.

What remains is the way over HTTP, a few ms a request, twice for a pair; prompts are long, so that it is below 5 %.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest

from planner.accuracy.compare import Comparison, compare
from planner.accuracy.diagnosis import diagnose
from planner.accuracy.match import match
from profiler.folders import load_profiles
from profiler.load import Counting
from profiler.record import PoissonSchedule, read_recording
from profiler.record.jobs import ClientOptions, Target, run_all
from tests.servers import free_port, running

ROOT = Path(__file__).parents[3]
MODEL, GPU = "llama-3.1-8b-instruct-fp8", "h200-sxm"
PROFILES = ROOT / "profiling_results" / MODEL / GPU / "vllm-unknown"

#: Documents at about half of what the worker takes: TTFT of 150 ms and more, and a queue at times.
SCHEDULE = PoissonSchedule(rate=2.5, duration_s=30, isl=6000, isl_cv=0.5, osl=80, osl_cv=0.5, seed=5)
#: A client that was later than this had a machine that is too busy to measure on.
QUIET_MS = 15.0
#: Ways over HTTP, ms: the median request may lose so much, for one hop and for three (prefill, decode, its fetch).
HOPS_MS = {1: 10.0, 3: 25.0}


@contextlib.contextmanager
def engines(folder: Path, roles: Sequence[str]) -> Iterator[list[str]]:
    """Addresses of simulated engines in processes of their own."""
    with contextlib.ExitStack() as stack:
        urls = []
        for role in roles:
            port = free_port()
            url = f"http://127.0.0.1:{port}"
            options = ["--role", role, "--profile", str(PROFILES), "--port", str(port), "--flush-ms", "1"]
            command = [sys.executable, "-m", "worker_graph.simulated", *options]
            stack.enter_context(running(command, url, folder / f"{role}.log", f"{url}/health"))
            urls.append(url)
        yield urls


@pytest.mark.parametrize("roles", [("aggregated",), ("prefill", "decode")])
def test_the_replay_agrees(tmp_path: Path, roles: tuple[str, ...], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    with engines(tmp_path, roles) as urls:
        at = dict(zip(roles, ((url,) for url in urls), strict=True))
        none: tuple[str, ...] = ()
        target = Target(
            at.get("aggregated", none), at.get("prefill", none), at.get("decode", none), MODEL, "simulated", GPU, {}
        )
        options = ClientOptions(counting=Counting.WORDS)
        (done,) = asyncio.run(run_all(target, [SCHEDULE], tmp_path / "runs" / "medium.csv", options=options))
    recording = read_recording(done.path)
    assert recording.completed.all()
    matched = match(recording, load_profiles([PROFILES], field="test"), by_name=True)
    one = compare(recording, matched, warmup_s=0.0)
    _print(one)
    late_ms = recording.meta.client.late_p99_ms
    if late_ms > QUIET_MS:
        pytest.skip(f"the client itself was late by {late_ms:.0f} ms: this machine is too busy to judge latencies")
    assert one.missed == ()
    for name in ("itl_mean", "itl_p50", "itl_p90"):
        assert one.errors[name] == pytest.approx(0.0, abs=0.03), name
    hop_ms = HOPS_MS[1 if len(roles) == 1 else 3]
    offset = diagnose(one)["offset"]
    # Measured is never faster than the model that the engine itself runs on.
    assert -1.0 < offset["median_ms"] < hop_ms


def _print(one: Comparison) -> None:
    client = one.recording.meta.client
    print(f"\n{one.recording.meta.mode}, {int(one.compared.sum())} requests, load {os.getloadavg()[0]:.1f}:")
    for name, error in one.errors.items():
        print(f"  {name}: {one.measured_ms[name]:.2f} measured, {one.simulated_ms[name]:.2f} simulated ({error:+.2%})")
    print(f"  client: {client.cpu_share:.0%} CPU, late by {client.late_p99_ms:.1f} ms (p99)")
