"""Recorded runs whose truth is known: the simulator's own answer, changed as a test likes."""

from __future__ import annotations

import datetime as dt
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np

from planner.accuracy.match import match
from planner.accuracy.replay import Replay, replay
from profiler.folders import load_profiles
from profiler.load import Outcome, Result
from profiler.record import (
    Client,
    PoissonSchedule,
    Recording,
    RunMeta,
    Schedule,
    Worker,
    read_recording,
    write_recording,
)
from profiler.record.schedule import requests_of

MODEL, GPU = "llama-3.1-8b-instruct-fp8", "h200-sxm"
PROFILES = Path(__file__).parents[4] / "profiling_results" / MODEL / GPU / "vllm-unknown"
Change = Callable[[Recording, Replay], Replay]


def meta(pair: bool = False, **changes: object) -> RunMeta:
    roles = ("prefill", "decode") if pair else ("aggregated",)
    fields: dict[str, object] = {
        "name": "low",
        "mode": "disaggregated" if pair else "aggregated",
        "model": MODEL,
        "gpu": GPU,
        "served_model": "m",
        "workers": tuple(Worker(role=role, tp=1) for role in roles),
        "schedule": {},
        "prompt_seed": 0,
        "date": dt.datetime(2026, 1, 1, tzinfo=dt.UTC),
        "command": "",
        "versions": {},
        "duration_s": 60.0,
        "rate_rps": 6.0,
        "outcomes": {},
        "client": Client(cpu_share=0.1, late_p50_ms=0.1, late_p99_ms=0.2, late_max_ms=0.3),
        **changes,
    }
    return RunMeta.model_validate(fields)


def write_run(
    path: Path,
    about: RunMeta,
    change: Change = lambda _, truth: truth,
    *,
    lost: Callable[[int], bool] = lambda _: False,
    rate: float = 6.0,
    isl: float = 1000.0,
    schedule: Schedule | None = None,
    max_model_len: int = 32_768,
) -> Recording:
    """A run whose measured latencies are the replay's, changed; requests that `lost` names did not complete."""
    poisson = PoissonSchedule(rate=rate, duration_s=60, isl=isl, isl_cv=0.6, osl=80, osl_cv=0.5, seed=3)
    sends = requests_of(schedule or poisson, max_model_len)
    blank = [Result(one.at_s, one.isl, one.osl, Outcome.COMPLETED, 1.0, 1.0) for one in sends]
    write_recording(path, about, blank)
    recording = read_recording(path)
    matched = match(recording, load_profiles([PROFILES], field="test"), by_name=True)
    truth = change(recording, replay(recording, matched.engines, matched.counts))
    results = [
        replace(one, outcome=Outcome.TIMEOUT, ttft_ms=None, itl_ms=None)
        if lost(place)
        else replace(one, ttft_ms=float(truth.ttft_ms[place]), itl_ms=_or_none(float(truth.itl_ms[place])))
        for place, one in enumerate(blank)
    ]
    write_recording(path, about, results)
    return read_recording(path)


def _or_none(value: float) -> float | None:
    return None if np.isnan(value) else value
