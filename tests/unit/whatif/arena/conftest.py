"""Runs as they come out of a replay, made up."""

from collections.abc import Callable
from pathlib import Path

import pytest

from planner.whatif.arena.cases import Case, CaseSpec, SlaSpec
from planner.whatif.arena.record import Figures, Load, RunRecord, Timeline
from planner.whatif.arena.results import Results, gather
from planner.whatif.arena.run import Terms
from planner.whatif.arena.setting import Place
from planner.whatif.arena.source import Source

MakeRun = Callable[..., RunRecord]


def make_run(
    policy: str, seed: int, attainment: float, gpu_hours: float, *, case: str = "one", error: str = ""
) -> RunRecord:
    key = f"{case}/{policy}/{seed}"
    if error:
        return RunRecord(key=key, case=case, policy=policy, seed=seed, start={"prefill": 1}, error=error)
    line = Timeline(at_s=(10.0, 20.0), ready={"prefill": (1, 2)}, held={"prefill": (2, 2)})
    figures = Figures(
        requests=100, completed=100, attainment=attainment, ttft_attainment=1.0, itl_attainment=attainment,
        ttft_p99_ms=100.0, itl_p99_ms=None, gpu_hours=gpu_hours, peak_gpus=4, scale_ups=2, scale_downs=1,
        making_s=0.0, decisions_s=0.5, replay_s=1.0, requests_per_s=100.0, timeline=line,
    )  # fmt: skip
    return RunRecord(key=key, case=case, policy=policy, seed=seed, start={"prefill": 1}, figures=figures)


@pytest.fixture
def results() -> Callable[..., Results]:
    """Results of one case from (policy, seed, attainment, GPU-hours)."""

    def make(*runs: RunRecord, about: str = "") -> Results:
        sla = SlaSpec(ttft_ms=200, itl_ms=10)
        seeds = tuple(dict.fromkeys(run.seed for run in runs))
        spec = CaseSpec(name="one", about=about, trace="generate:step", profile=("p",), sla=sla, seeds=seeds)
        source = Source("generate:step", "", "f", 1.0, 1.0)
        place = Place(Case(spec, 30.0), source, (Path("p"),), Path("set.yaml"))
        load = Load(at_s=(5.0, 15.0), rps=(1.0, 2.0))
        terms = [Terms(place, seed, {"prefill": 1}, 100, 20.0, load, "d") for seed in seeds]
        return gather("set", "about", list(dict.fromkeys(run.policy for run in runs)), terms, runs)

    return make
