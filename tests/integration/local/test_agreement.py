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
from profiler.load import Counting, Load, Outcome, Result
from tests.engines import finish
from tests.integration.local.graphs import DECODE, MANIFESTS, MODEL, PREFILL, backends, eventually, graph, simulated
from tests.servers import needs_smg

pytestmark = needs_smg

PERCENTILES = (50, 90, 99)

#: Two requests a second and pair of workers: about 70 % of what a pair takes for long before decoding runs out of KV.
RPS_PER_PAIR = 2.0


def _percentiles(values: Sequence[float] | NDArray[np.float64]) -> NDArray[np.float64]:
    return np.asarray(np.nanpercentile(values, PERCENTILES))


def _live(tmp_path: Path, trace: str, pairs: int, speed_up: float) -> list[Result]:
    options = (*simulated(speed_up=speed_up), "--routing", "round-robin")
    with graph(MANIFESTS / "disagg.yaml", tmp_path, *options) as one:
        one.settled()
        one.client.scale({PREFILL: pairs, DECODE: pairs})
        one.settled()
        eventually(lambda: len(backends(one.url())) == 2 * pairs, "the gateway sends requests to all")
        load = Load(one.url(), MODEL, speed_up=speed_up, counting=Counting.WORDS)
        return asyncio.run(load.run_open(schedule(trace)))


def _offline(trace: str, pairs: int) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    engines = build_graph(load_profiles([bundled_profiles()]), aggregated=False, max_gpus=8).engines
    rows = [(one.at_s * 1000.0, one.isl, one.osl, 0) for one in schedule(trace)]
    run = finish(engines, rows, {Role.PREFILL: pairs, Role.DECODE: pairs}, routing="round_robin")
    return run.ttft, run.itl


@pytest.mark.parametrize("pairs", [1, 2])
@pytest.mark.parametrize(("speed_up", "duration_s", "ttft_within"), [(1.0, 60.0, 0.05), (5.0, 150.0, None)])
def test_latencies_agree(
    tmp_path: Path, pairs: int, speed_up: float, duration_s: float, ttft_within: float | None
) -> None:
    trace = f"generate:documents,duration_s={duration_s:g},flash_factor=1,rps={RPS_PER_PAIR * pairs:g},seed=3"
    ttft, itl = _offline(trace, pairs)
    results = _live(tmp_path, trace, pairs, speed_up)
    assert all(one.outcome is Outcome.COMPLETED for one in results)
    assert len(results) == len(ttft)
    live = [
        _percentiles([one.ttft_ms or np.nan for one in results]),
        _percentiles([one.itl_ms or np.nan for one in results]),
    ]
    offline = [_percentiles(ttft), _percentiles(itl)]
    extra_ms = np.median([(one.ttft_ms or np.nan) - alone for one, alone in zip(results, ttft, strict=True)]) / speed_up
    print(f"\n{pairs}p{pairs}d, speed-up {speed_up:g}, {len(results)} requests, load {os.getloadavg()[0]:.1f}:")
    for name, got, wanted in zip(("TTFT", "ITL"), live, offline, strict=True):
        cells = (
            f"p{p} {a:.1f} / {b:.1f} ms ({a / b - 1:+.1%})" for p, a, b in zip(PERCENTILES, got, wanted, strict=True)
        )
        print(f"  {name} live / offline: {', '.join(cells)}")
    late = max(one.late_ms for one in results) / speed_up
    print(f"  added to a TTFT: {extra_ms:.1f} ms of wall time, median; the client was late by {late:.0f} ms at most")
    np.testing.assert_allclose(live[1], offline[1], rtol=0.05)
    if ttft_within is not None:
        np.testing.assert_allclose(live[0], offline[0], rtol=ttft_within)
