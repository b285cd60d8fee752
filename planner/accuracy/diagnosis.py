"""Where a replay is off: by prompt length, by load, over time, and how much of TTFT is waiting."""

from __future__ import annotations

import itertools
from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from planner.accuracy.compare import Comparison

#: Groups of equal size that requests are put into.
GROUPS = 5
#: Spans that a run is cut into.
SPANS = 12

_Floats = NDArray[np.float64]
#: Measured and simulated, by kind.
_Series = Mapping[str, tuple[_Floats, _Floats]]


def in_flight(sent_s: _Floats, ttft_ms: _Floats, itl_ms: _Floats, osl: NDArray[np.int64]) -> _Floats:
    """Other requests under way when each was sent; shape (requests,). A lost one, without a TTFT, counts as none."""
    end_s = sent_s + np.nan_to_num((ttft_ms + np.nan_to_num(itl_ms) * (osl - 1)) / 1000.0)
    begun = np.searchsorted(np.sort(sent_s), sent_s, side="left")
    ended = np.searchsorted(np.sort(end_s), sent_s, side="left")
    # A lost one ends as it is sent; among several of one instant it could count before it began.
    return np.maximum(0.0, (begun - ended).astype(np.float64))


def diagnose(comparison: Comparison) -> dict[str, Any]:
    """What helps to find the cause of an error; times in ms, errors simulated / measured - 1.

    `by_isl` and `by_in_flight` are groups of requests of about one size; `over_time` are spans of the run. `queueing`
    is the share of all TTFT that a lone request would not have had, measured (against the simulated lone TTFT) and
    simulated. `offset` fits measured minus simulated TTFT by a constant, the prompt's length and the requests in
    flight: a constant is overhead, a slope over the length is a wrong table or chunking, one over the load is
    scheduling or queueing. `parts` splits the mean TTFT of a pair into prefill and what follows it. `engine` are means
    of the engines' own counters over the run, all requests.
    """
    recording, replayed, kept = comparison.recording, comparison.replayed, comparison.compared
    load = in_flight(recording.sent_s, recording.ttft_ms, recording.itl_ms, recording.osl)[kept]
    sent, isl = recording.sent_s[kept], recording.isl[kept].astype(np.float64)
    measured, simulated, lone = recording.ttft_ms[kept], replayed.ttft_ms[kept], replayed.lone_ttft_ms[kept]
    series = {"ttft": (measured, simulated), "itl": (recording.itl_ms[kept], replayed.itl_ms[kept])}
    edges = np.linspace(sent.min(), sent.max() + 1e-9, SPANS + 1)
    alone = load == 0
    return {
        "by_isl": _groups(isl, "isl", series),
        "by_in_flight": _groups(load, "in_flight", series),
        "over_time": _split(sent, edges, "sent_s", series, load),
        "queueing": {
            "measured": float(np.mean(measured - lone) / np.mean(measured)),
            "simulated": float(np.mean(simulated - lone) / np.mean(simulated)),
        },
        "alone": {"requests": int(alone.sum()), "median_offset_ms": _median(measured[alone] - simulated[alone])},
        "offset": _fit(measured - simulated, isl, load),
        "parts": _parts(recording.prefill_ms[kept], replayed.prefill_ms[kept], measured, simulated),
        "engine": {
            f"{worker.role} {place}": _engine_means(worker.counters)
            for place, worker in enumerate(recording.meta.workers)
        },
    }


def _parts(
    measured: _Floats, simulated: _Floats, measured_ttft: _Floats, simulated_ttft: _Floats
) -> dict[str, dict[str, float | None]]:
    """Mean ms of the prefill request, and from its end to the first token; None for aggregated workers."""
    after = (measured_ttft - measured, simulated_ttft - simulated)
    return {
        "prefill": {"measured_ms": _mean(measured), "simulated_ms": _mean(simulated)},
        "hand_off": {"measured_ms": _mean(after[0]), "simulated_ms": _mean(after[1])},
    }


def _groups(by: _Floats, name: str, series: _Series) -> list[dict[str, Any]]:
    edges = np.unique(np.quantile(by, np.linspace(0.0, 1.0, GROUPS + 1)))
    if len(edges) == 1:
        edges = np.array([edges[0], edges[0]])
    edges[-1] = np.nextafter(edges[-1], np.inf)
    return _split(by, edges, name, series)


def _split(
    by: _Floats, edges: _Floats, name: str, series: _Series, load: _Floats | None = None
) -> list[dict[str, Any]]:
    rows = []
    for low, high in itertools.pairwise(edges):
        mine = (by >= low) & (by < high)
        if not mine.any():
            continue
        row: dict[str, Any] = {name: [float(by[mine].min()), float(by[mine].max())], "requests": int(mine.sum())}
        if load is not None:
            row["in_flight"] = float(load[mine].mean())
        for kind, (measured, simulated) in series.items():
            one, other = _mean(measured[mine]), _mean(simulated[mine])
            error = other / one - 1.0 if one and other is not None else None
            row[kind] = {"measured_ms": one, "simulated_ms": other, "error": error}
        rows.append(row)
    return rows


def _fit(residual: _Floats, isl: _Floats, load: _Floats) -> dict[str, float]:
    """Least squares of the residual, ms; with few requests the slopes say little."""
    columns = np.column_stack([np.ones(len(residual)), isl / 1000.0, load])
    constant, by_isl, by_load = np.linalg.lstsq(columns, residual, rcond=None)[0]
    return {
        "constant_ms": float(constant),
        "ms_per_1000_prompt_tokens": float(by_isl),
        "ms_per_request_in_flight": float(by_load),
        "median_ms": float(np.median(residual)),
    }


def _engine_means(counters: dict[str, float]) -> dict[str, float]:
    """Means of the engine's own histograms, in ms, and totals that tell of trouble."""
    found: dict[str, float] = {}
    for name in ("time_to_first_token", "request_queue_time", "request_prefill_time", "e2e_request_latency"):
        count = counters.get(f"vllm:{name}_seconds_count", 0.0)
        if count:
            found[f"{name}_ms"] = 1000.0 * counters.get(f"vllm:{name}_seconds_sum", 0.0) / count
    for name in ("num_preemptions_total", "prefix_cache_hits_total"):
        found[name] = counters.get(f"vllm:{name}", 0.0)
    return found


def _mean(values: _Floats) -> float | None:
    good = values[np.isfinite(values)]
    return float(good.mean()) if len(good) else None


def _median(values: _Floats) -> float | None:
    good = values[np.isfinite(values)]
    return float(np.median(good)) if len(good) else None
