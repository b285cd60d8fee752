"""The live graph, with its gateway, its HTTP and its real clock, against the offline simulator on the same requests.

The engines' scheduler and the simulator agree to many digits where both get the same arrivals (a unit test). What a
live graph adds is the way through the gateway and back, in wall time, which at a speed-up counts as many times.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from planner.core.types import Role
from planner.demo.run import schedule
from planner.demo.settings import bundled_profiles
from planner.whatif.graph import build_graph, load_profiles
from profiler.load import Counting, Load, Outcome, Result, ScheduledRequest
from tests.engines import Run, finish
from tests.integration.local.graphs import DECODE, MANIFESTS, MODEL, PREFILL, backends, eventually, graph, simulated
from tests.servers import needs_smg

pytestmark = needs_smg

PERCENTILES = (50, 90, 99)

#: Requests per second and pair of workers: about 70 % of what a pair takes for long before decoding runs out of KV.
RPS_PER_PAIR = 1.6

#: Long documents, so that a TTFT is 350 ms and more: the gateway and HTTP add some 12 ms, below 5 % of that.
#: With prompts of a thousand words, whose TTFT is 50 ms, they would add a fifth.
SHORTEST_WORDS, THEIR_SHARE = 8_000, 0.62

#: A client that sent nothing later than this, in ms of wall time, had a machine that was quiet enough to measure on.
QUIET_MS = 15.0

#: Other programs on the machine disturb a run; a disagreement of the code is there each time.
ATTEMPTS = 3


def _documents(pairs: int, duration_s: float) -> list[ScheduledRequest]:
    rps = RPS_PER_PAIR * pairs / THEIR_SHARE
    trace = f"generate:documents,duration_s={duration_s:g},flash_factor=1,rps={rps:g},seed=3"
    return [one for one in schedule(trace) if one.isl >= SHORTEST_WORDS]


def _live(tmp_path: Path, requests: Sequence[ScheduledRequest], pairs: int, speed_up: float) -> list[Result]:
    options = (*simulated(speed_up=speed_up), "--routing", "round-robin")
    with graph(MANIFESTS / "disagg.yaml", tmp_path, *options) as one:
        one.settled()
        one.client.scale({PREFILL: pairs, DECODE: pairs})
        one.settled()
        eventually(lambda: len(backends(one.url())) == 2 * pairs, "the gateway sends requests to all")
        load = Load(one.url(), MODEL, speed_up=speed_up, counting=Counting.WORDS)
        return asyncio.run(load.run_open(requests))


def _offline(requests: Sequence[ScheduledRequest], pairs: int) -> Run:
    engines = build_graph(load_profiles([bundled_profiles()]), aggregated=False, max_gpus=8).engines
    rows = [(one.at_s * 1000.0, one.isl, one.osl, 0) for one in requests]
    return finish(engines, rows, {Role.PREFILL: pairs, Role.DECODE: pairs}, routing="round_robin")


@pytest.mark.parametrize("pairs", [1, 2])
@pytest.mark.parametrize(("speed_up", "duration_s"), [(1.0, 60.0), (5.0, 150.0)])
def test_latencies_agree(tmp_path: Path, pairs: int, speed_up: float, duration_s: float) -> None:
    """ITL within 5 % at both speed-ups; TTFT, too, at speed-up 1, where the way through the gateway counts once.

    At speed-up 5 that way is a tenth of a TTFT: the figures are printed, and no agreement is claimed.
    """
    requests = _documents(pairs, duration_s)
    alone = _offline(requests, pairs)
    for attempt in range(ATTEMPTS):
        (folder := tmp_path / str(attempt)).mkdir()
        problems, late_ms = _compared(_live(folder, requests, pairs, speed_up), alone, pairs, speed_up)
        if not problems:
            return
    if late_ms > QUIET_MS:
        pytest.skip(f"the client itself was late by {late_ms:.0f} ms: this machine is too busy to judge: {problems}")
    raise AssertionError("; ".join(problems))


def _compared(results: Sequence[Result], alone: Run, pairs: int, speed_up: float) -> tuple[list[str], float]:
    """What does not agree, and how late the client was at most, ms of wall time."""
    assert all(one.outcome is Outcome.COMPLETED for one in results)
    ttft = np.array([one.ttft_ms for one in results], dtype=np.float64)
    itl = np.array([one.itl_ms for one in results], dtype=np.float64)
    added_ms = float(np.median(ttft - alone.ttft)) / speed_up
    late_ms = max(one.late_ms for one in results) / speed_up
    print(f"\n{pairs}p{pairs}d, speed-up {speed_up:g}, {len(results)} requests, load {os.getloadavg()[0]:.1f}:")
    for name, live, offline in (("TTFT", ttft, alone.ttft), ("ITL", itl, alone.itl)):
        both = zip(PERCENTILES, np.percentile(live, PERCENTILES), np.percentile(offline, PERCENTILES), strict=True)
        cells = (f"p{p} {a:.1f} / {b:.1f} ms ({a / b - 1:+.1%})" for p, a, b in both)
        print(f"  {name} live / offline: {', '.join(cells)}")
    print(f"  added to a TTFT: {added_ms:.1f} ms of wall time, median; the client was late by {late_ms:.0f} ms at most")
    # The gateway picks both workers when a request comes, the simulator the decode worker at the hand-off: of several
    # decode workers each gets other neighbours, which is 5 % at the tail.
    problems = _apart("ITL", itl, alone.itl, (0.05, 0.05, 0.05 if pairs == 1 else 0.08))
    if speed_up == 1.0:
        # Of 220 requests two lie beyond the 99th percentile: one that met another queue moves it by several per cent.
        problems += _apart("TTFT", ttft, alone.ttft, (0.05, 0.05, 0.05 if pairs == 1 else 0.08))
    return problems, late_ms


def _apart(name: str, live: NDArray[np.float64], offline: NDArray[np.float64], within: Sequence[float]) -> list[str]:
    """Percentiles that are further apart than their share."""
    found = []
    for percentile, share in zip(PERCENTILES, within, strict=True):
        got, wanted = np.percentile(live, percentile), np.percentile(offline, percentile)
        if abs(got / wanted - 1.0) > share:
            found.append(f"{name} p{percentile} is {got:.2f} ms live and {wanted:.2f} ms offline, {share:.0%} allowed")
    return found
