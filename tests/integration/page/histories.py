"""Made-up histories of decisions, in the form of the API's summaries and state: a seed gives the same one always."""

from __future__ import annotations

import datetime as dt
import math
import random
from collections.abc import Iterator
from typing import Any

#: JSON, as the API gives it.
Json = dict[str, Any]

INTERVAL_S, LEAD_TIME_S, MAX_GPUS = 15.0, 45.0, 24
SLA = {"ttft_ms": 200.0, "itl_ms": 10.0, "attainment": 0.95}
GPUS = {"prefill": 1, "decode": 2}


def decisions(n: int, end_unix_s: float, *, seed: int = 1, speed_up: float = 1.0) -> Iterator[Json]:
    """`n` summaries, the last at `end_unix_s`: a daily wave with bursts, pools that follow it, now and then a miss."""
    rng = random.Random(seed)  # noqa: S311 - no secret
    had = {"prefill": 2, "decode": 2}
    for i in range(n):
        wall_s = end_unix_s - (n - 1 - i) * INTERVAL_S / speed_up
        burst = 1.6 if (i // 40) % 7 == 3 else 1.0
        mean = 40 * (1 + 0.7 * math.sin(2 * math.pi * i / 960)) * burst
        rate = max(0.0, rng.gauss(mean, 3))
        plan = {"prefill": 1 + math.ceil(mean / 30), "decode": 1 + math.ceil(mean / 40)}
        strain = rate / (30 * had["prefill"])
        yield decision(
            wall_s,
            speed_up=speed_up,
            plan=plan,
            current=dict(had),
            rate=rate,
            forecast=(mean * 1.02, mean * 1.25),
            ttft_ms=90 + 120 * strain**3 + rng.random() * 20,
            itl_ms=5 + 3.5 * rate / (40 * had["decode"]) + rng.random() * 0.5,
            attainment=round(min(1.0, max(0.4, 1.01 - 0.05 * strain**2 - 0.02 * rng.random())), 4),
        )
        had = plan


def decision(
    wall_s: float,
    *,
    plan: Json,
    current: Json,
    rate: float | None,
    forecast: tuple[float, float] | None,
    ttft_ms: float | None,
    itl_ms: float | None,
    attainment: float | None,
    speed_up: float = 1.0,
    level: str = "model",
    reasons: tuple[str, ...] = (),
    **other: object,
) -> Json:
    """One summary; `other` replaces fields."""
    at_s = wall_s * speed_up
    moves = [
        f"{name}:scale_{'up' if count > current[name] else 'down'}"
        for name, count in plan.items()
        if current.get(name, count) != count
    ]
    return {
        "id": round(at_s * 1000),
        "at_s": at_s,
        "time": dt.datetime.fromtimestamp(wall_s, dt.UTC).isoformat(timespec="milliseconds"),
        "level": level,
        "plan": plan,
        "current": current,
        "wanted": plan if level == "model" else {},
        "reasons": [*(reasons or ("sized_for_itl",)), *(moves or ["no_change"])],
        "clamps": [],
        "limit": "itl" if level == "model" else "unknown_demand",
        "sla_reachable": True,
        "nearest": None,
        "target": 0.95 if level == "model" else None,
        "predicted_attainment": 0.961 if level == "model" else None,
        "demand": None if forecast is None else {"rate_rps": forecast[0] * 1.08, "median_rps": forecast[0]},
        "forecast": None
        if forecast is None
        else {
            "for_s": at_s + LEAD_TIME_S + INTERVAL_S,
            "median_rps": forecast[0],
            "high_rps": forecast[1],
            "high_level": 0.9,
        },
        "arrivals_rps": rate,
        "ttft_ms": ttft_ms,
        "itl_ms": itl_ms,
        "attainment": attainment,
        "pools": {
            name: {
                "desired": plan[name],
                "ready": min(count, plan[name]),
                "starting": max(0, plan[name] - count),
                "terminating": max(0, count - plan[name]),
                "waiting_requests": 0.0,
                "running_requests": 12.0,
                "kv_usage": 0.2,
            }
            for name, count in current.items()
        },
        "gaps": [],
        "outcome": dict.fromkeys(plan, "as asked"),
        **other,
    }


def state(rows: list[Json], now_unix_s: float, *, speed_up: float = 1.0, **other: object) -> Json:
    """The API's state after the last of these decisions; `other` replaces fields."""
    last = rows[-1] if rows else None
    return {
        "identity": "planner-a",
        "graph": "llama-chat",
        "model": "meta-llama/Llama-3.1-8B-Instruct",
        "clock": {
            "time": dt.datetime.fromtimestamp(now_unix_s, dt.UTC).isoformat(timespec="milliseconds"),
            "now_s": now_unix_s * speed_up,
            "speed_up": speed_up,
        },
        "uptime_s": 86_000.0,
        "settings": {
            "sla": SLA,
            "pools": [
                {"name": name, "role": name, "gpus_per_worker": gpus, "min_workers": 1, "max_workers": 12}
                for name, gpus in GPUS.items()
            ],
            "max_gpus": MAX_GPUS,
            "interval_s": INTERVAL_S,
            "lead_time_s": LEAD_TIME_S,
            "lead_time_measured": True,
        },
        "lease": {"holder": "planner-a", "held": True, "expires_in_s": 40.0},
        "level": last["level"] if last else None,
        "last": last and _last(last),
        "errors": {},
        "history": {
            "entries": len(rows),
            "oldest_id": rows[0]["id"] if rows else None,
            "complete": True,
            "pending_records": 0,
            "lost_records": 0,
        },
        **other,
    }


def _last(row: Json) -> Json:
    unknown = "no request completed"

    def reading(value: float | None) -> Json:
        return {"unknown": unknown} if value is None else {"value": value, "age_s": 1.0}

    rate = row["arrivals_rps"]
    why = next((reason for reason in row["reasons"] if " " in reason), unknown)
    return {
        "observation": {
            "interval_s": INTERVAL_S,
            "arrivals": {"unknown": why} if rate is None else reading(rate * INTERVAL_S),
            **{name: reading(row[name]) for name in ("ttft_ms", "itl_ms", "attainment")},
            "pools": row["pools"] or {"unknown": "the supervisor does not answer"},
            "gaps": row["gaps"],
        },
        "decision": row,
        "forecast_error": 0.04,
    }
