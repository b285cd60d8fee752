from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest

from planner.core.forecast import Forecast
from planner.core.sizing import Candidate
from planner.core.state import Decision, DemandUsed
from planner.core.types import Level, Role, Sla
from planner.whatif.outcome import BUCKET_S, Outcome, Timeline
from planner.whatif.replay import Tick
from planner.whatif.report import Report

SPAN_S = 600.0


def make_outcome(
    policy: str,
    attainment: float = 0.97,
    gpu_hours: float = 2.0,
    *,
    span_s: float = SPAN_S,
    completed: bool = True,
    interval_s: float = 10.0,
) -> Outcome:
    """100 requests every 10 s, the same share of each attaining; nothing completes if not `completed`."""
    buckets = int(span_s / BUCKET_S) + 1
    per_bucket = 100 if completed else 0
    nothing = np.full(buckets, np.nan)
    ticks = tuple(
        Tick(
            at_s=(i + 1) * interval_s,
            arrivals=int(10 * interval_s) if (i + 1) * interval_s <= span_s else 0,
            interval_s=interval_s,
            plan={"prefill": 1 + (i > 3), "decode": 2},
            ready={"prefill": 1 + (i > 6), "decode": 2},
            starting={"prefill": int(3 < i <= 6), "decode": 0},
            draining={"prefill": 0, "decode": 0},
        )
        for i in range(int(span_s / interval_s) + 3)
    )
    requests = int(10 * span_s)
    summary = {"mean": 60.0, "p50": 51.25, "p90": 90.0, "p99": 1234.5}
    return Outcome(
        policy=policy,
        requests=requests,
        completed=requests if completed else 0,
        failed=0,
        unfinished=0 if completed else requests,
        preempted=0,
        attained=int(requests * attainment),
        attainment=attainment,
        ttft_attainment=min(1.0, attainment + 0.01),
        itl_attainment=min(1.0, attainment + 0.02),
        ttft_ms=summary if completed else dict.fromkeys(summary),
        itl_ms={**summary, "p50": 7.5, "p99": 12.25} if completed else dict.fromkeys(summary),
        span_s=span_s,
        gpu_hours=gpu_hours,
        peak_gpus=7,
        scale_ups=3,
        scale_downs=2,
        wall_s=1.0,
        timeline=Timeline(
            start_s=np.arange(buckets, dtype=np.float64) * BUCKET_S,
            completed=np.full(buckets, per_bucket),
            attained=np.full(buckets, int(per_bucket * attainment)),
            ttft_p95_ms=np.full(buckets, 110.0) if completed else nothing,
            itl_p95_ms=np.full(buckets, 8.0) if completed else nothing,
        ),
        ticks=ticks,
    )


def make_decision(at_s: float, current: int, wanted: int) -> Decision:
    """Prefill from `current` to `wanted`, sized for 30 requests/s, three bins ahead."""
    candidate = Candidate({Role.PREFILL: wanted, Role.DECODE: 2}, wanted + 2, 0.97, 0.98, 0.99)
    return Decision(
        at_s=at_s,
        level=Level.MODEL,
        plan={"prefill": wanted, "decode": 2},
        current={"prefill": current, "decode": 2},
        wanted={"prefill": wanted, "decode": 2},
        reasons=("sized_for_ttft", "prefill:scale_up"),
        limit="ttft",
        predicted_attainment=0.97,
        forecast=Forecast((0.5, 0.9), ((10.0, 11.0, 12.0), (15.0, 16.0, 17.0)), {}, {}, "last", 9, 0, {}),
        demand=DemandUsed(30.0, 12.0, 1.0, 1.0, 500.0, 100.0, 0.0, 99),
        candidates=(candidate,),
        chosen=candidate,
        runner_up=replace(candidate, attainment=0.9),
        why_not_runner_up="saves 1 GPUs but attains <90 %>",
        clamps=("prefill: 4 wanted, 3 by <window>",),
    )


@pytest.fixture
def outcome() -> Callable[..., Outcome]:
    return make_outcome


@pytest.fixture
def decision() -> Callable[..., Decision]:
    return make_decision


@pytest.fixture
def report() -> Callable[..., Report]:
    def make(*outcomes: Outcome, decisions: tuple[Decision, ...] = (), **changes: object) -> Report:
        plain = Report(
            title="A replay",
            trace_name="trace.csv",
            requests=6000,
            span_s=SPAN_S,
            sla=Sla(200.0, 10.0, 0.95),
            settings=[("seed", "1")],
            outcomes=outcomes,
            decisions=decisions,
            notes=(),
        )
        return replace(plain, **changes)  # type: ignore[arg-type]

    return make
