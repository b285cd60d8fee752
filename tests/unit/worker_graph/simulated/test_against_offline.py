"""The engine's scheduler and the offline simulator are two programs of one set of rules: on a real profile they agree.

Both get the same arrivals at exact times; neither has a network. What is left between them is the order of sums in
floating point, so whole traces agree to many digits and the percentiles with them.
"""

from pathlib import Path

import numpy as np
import pytest

from planner.core.types import Role
from planner.whatif.graph import build_graph, load_profiles
from tests.engines import finish
from tests.unit.worker_graph.simulated.drive import Row, chain, serve
from worker_graph.simulated.profiles import worker_timing
from worker_graph.simulated.request import Request
from worker_graph.simulated.scheduler import Scheduler

H200 = Path(__file__).parents[4] / "profiling_results" / "llama-3.1-8b-instruct-fp8" / "h200-sxm"
PERCENTILES = (50, 90, 99)


def _rows(per_second: float, count: int) -> list[Row]:
    rng = np.random.default_rng(1)
    arrival = rng.exponential(1000.0 / per_second, count).cumsum()
    isl = np.clip(rng.lognormal(7.6, 1.0, count), 8, 30_000).astype(int)
    osl = np.clip(rng.lognormal(4.8, 0.9, count), 1, 2_000).astype(int)
    return [(float(a), int(i), int(o)) for a, i, o in zip(arrival, isl, osl, strict=True)]


def _agree(first: list[float], end: list[float], rows: list[Row], ttft: np.ndarray, itl: np.ndarray) -> None:
    arrival, _, osl = (np.array(column) for column in zip(*rows, strict=True))
    mine = np.array(first) - arrival
    many = osl > 1
    steps = (np.array(end) - np.array(first))[many] / (osl[many] - 1)
    np.testing.assert_allclose(np.percentile(mine, PERCENTILES), np.percentile(ttft, PERCENTILES), rtol=1e-6)
    np.testing.assert_allclose(np.percentile(steps, PERCENTILES), np.percentile(itl[many], PERCENTILES), rtol=1e-6)
    np.testing.assert_allclose(mine, ttft, rtol=1e-6)


@pytest.mark.parametrize("per_second", [4.0, 14.0])
def test_an_aggregated_worker(per_second: float) -> None:
    rows = _rows(per_second, 1500)
    graph = build_graph(load_profiles([H200]), aggregated=True, max_gpus=8)
    offline = finish(graph.engines, [(*row, 0) for row in rows])
    requests = [(arrival, Request(isl, osl)) for arrival, isl, osl in rows]
    serve(Scheduler(worker_timing("aggregated", [H200])), requests)
    _agree([r.first_ms for _, r in requests], [r.end_ms for _, r in requests], rows, offline.ttft, offline.itl)


@pytest.mark.parametrize("per_second", [6.0, 20.0])
def test_two_prefill_and_two_decode_workers(per_second: float) -> None:
    rows = _rows(per_second, 1500)
    graph = build_graph(load_profiles([H200]), aggregated=False, max_gpus=8)
    offline = finish(graph.engines, [(*row, 0) for row in rows], {Role.PREFILL: 2, Role.DECODE: 2})
    fill, step = worker_timing("prefill", [H200]), worker_timing("decode", [H200])
    pairs = chain([Scheduler(fill) for _ in range(2)], [Scheduler(step) for _ in range(2)], rows)
    _agree([d.first_ms for _, d in pairs], [d.end_ms for _, d in pairs], rows, offline.ttft, offline.itl)
