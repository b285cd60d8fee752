"""The engine's scheduler and the offline simulator are two programs of one set of rules: on a real profile they agree.

Both get the same arrivals at exact times; neither has a network. What is left between them is the order of sums in
floating point, so whole traces agree to many digits and the percentiles with them.
"""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from planner.core.engines import Engines
from planner.core.types import Role
from planner.whatif.graph import build_graph, load_profiles
from profiler.timing import EngineTiming
from tests.engines import finish
from tests.unit.worker_graph.simulated.drive import Row, chain, serve
from worker_graph.simulated.profiles import worker_timing
from worker_graph.simulated.request import Request
from worker_graph.simulated.scheduler import Scheduler
from worker_graph.simulated.timing import WorkerTiming

H200 = Path(__file__).parents[4] / "profiling_results" / "llama-3.1-8b-instruct-fp8" / "h200-sxm"
PERCENTILES = (50, 90, 99)


def _rows(per_second: float, count: int) -> list[Row]:
    rng = np.random.default_rng(1)
    arrival = rng.exponential(1000.0 / per_second, count).cumsum()
    isl = np.clip(rng.lognormal(7.6, 1.0, count), 8, 30_000).astype(int)
    osl = np.clip(rng.lognormal(4.8, 0.9, count), 1, 2_000).astype(int)
    return [(float(a), int(i), int(o)) for a, i, o in zip(arrival, isl, osl, strict=True)]


def _agree(
    first: list[float], end: list[float], rows: list[Row], ttft: np.ndarray, itl: np.ndarray, front: np.ndarray
) -> None:
    arrival, _, osl = (np.array(column) for column in zip(*rows, strict=True))
    mine = np.array(first) - arrival + front
    many = osl > 1
    steps = (np.array(end) - np.array(first))[many] / (osl[many] - 1)
    np.testing.assert_allclose(np.percentile(mine, PERCENTILES), np.percentile(ttft, PERCENTILES), rtol=1e-6)
    np.testing.assert_allclose(np.percentile(steps, PERCENTILES), np.percentile(itl[many], PERCENTILES), rtol=1e-6)
    np.testing.assert_allclose(mine, ttft, rtol=1e-6)


def _as_ahead(timing: EngineTiming, *, exposed: bool) -> EngineTiming:
    """The same engine with all that tables of a newer one would tell."""
    ahead = replace(
        timing, behind_ms=timing.prefill_ms * 0.9, shared_ms=2.0, front_ms=5.0, front_ms_per_token=0.001, ahead=True
    )
    return replace(ahead, exposed=exposed, mixed_ms_per_request=0.07)


def _workers(role: str, timing: EngineTiming, engines: Engines) -> Scheduler:
    return Scheduler(WorkerTiming.of(timing, engines.transfer, role=role))


#: An engine that does not schedule ahead, and what tables of one that does tell of launches.
NOT_AHEAD, HIDDEN, EXPOSED = None, False, True


@pytest.mark.parametrize("per_second", [4.0, 14.0])
@pytest.mark.parametrize("ahead", [NOT_AHEAD, HIDDEN, EXPOSED])
def test_an_aggregated_worker(per_second: float, ahead: bool | None) -> None:
    rows = _rows(per_second, 1500)
    engines = build_graph(load_profiles([H200]), aggregated=True, max_gpus=8).engines
    requests = [(arrival, Request(isl, osl)) for arrival, isl, osl in rows]
    scheduler = Scheduler(worker_timing("aggregated", [H200]))
    if ahead is not None:
        engines = replace(engines, timing=tuple(_as_ahead(timing, exposed=ahead) for timing in engines.timing))
        scheduler = _workers("aggregated", engines.timing[0], engines)
    offline = finish(engines, [(*row, 0) for row in rows])
    serve(scheduler, requests)
    front = np.array([scheduler.front_end_ms(r) for _, r in requests])
    _agree([r.first_ms for _, r in requests], [r.end_ms for _, r in requests], rows, offline.ttft, offline.itl, front)


@pytest.mark.parametrize("per_second", [6.0, 20.0])
@pytest.mark.parametrize("ahead", [NOT_AHEAD, HIDDEN, EXPOSED])
def test_two_prefill_and_two_decode_workers(per_second: float, ahead: bool | None) -> None:
    rows = _rows(per_second, 1500)
    engines = build_graph(load_profiles([H200]), aggregated=False, max_gpus=8).engines
    fill, step = (Scheduler(worker_timing(role, [H200])) for role in ("prefill", "decode"))
    fills = [fill, Scheduler(fill.timing)]
    steps = [step, Scheduler(step.timing)]
    if ahead is not None:
        engines = replace(engines, timing=tuple(_as_ahead(timing, exposed=ahead) for timing in engines.timing))
        posts = replace(engines.transfer, post_ms=2.0 + 0.3 * np.arange(len(engines.transfer.transfer_ms)))
        engines = replace(engines, transfer=posts)
        fills = [_workers("prefill", engines.timing[0], engines) for _ in range(2)]
        steps = [_workers("decode", engines.timing[1], engines) for _ in range(2)]
    offline = finish(engines, [(*row, 0) for row in rows], {Role.PREFILL: 2, Role.DECODE: 2})
    pairs = chain(fills, steps, rows)
    front = np.array([fills[0].front_end_ms(p) for p, _ in pairs])
    _agree([d.first_ms for _, d in pairs], [d.end_ms for _, d in pairs], rows, offline.ttft, offline.itl, front)
