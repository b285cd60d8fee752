"""A decision record in a few hundred bytes: what a list or a chart of decisions shows."""

from __future__ import annotations

import json
import math
from typing import Any

#: A record or a part of one, as JSON gives it.
Json = Any


def record_id(at_s: float) -> int:
    """A decision's number: its planner time in milliseconds, so that it outlives restarts and grows with time."""
    return round(at_s * 1000.0)


def strict_json(value: Json) -> str:
    """JSON that browsers read: what is not a finite number is null."""
    return json.dumps(_finite(value), separators=(",", ":"), allow_nan=False)


def _finite(value: Json) -> Json:
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, dict):
        return {key: _finite(one) for key, one in value.items()}
    if isinstance(value, list | tuple):
        return [_finite(one) for one in value]
    return value


def summary(record: Json) -> dict[str, Json]:
    """The summary of a record in its JSON form.

    Args:
        record: as `planner.core.record.to_line` wrote it.

    Raises:
        KeyError, TypeError, ValueError: it is no record.
    """
    decision, observation, settings = record["decision"], record["observation"], record["settings"]
    interval_s = observation["interval_s"]
    arrivals = _known(observation["arrivals"])
    pools = _known(observation["pools"]) or {}
    return {
        "id": record_id(decision["at_s"]),
        "at_s": decision["at_s"],
        "time": record["time"],
        "level": decision["level"],
        "plan": decision["plan"],
        "current": decision["current"],
        "wanted": decision["wanted"],
        "reasons": decision["reasons"],
        "clamps": decision["clamps"],
        "limit": decision["limit"],
        "sla_reachable": decision["sla_reachable"],
        "nearest": decision["nearest"],
        "target": decision["target"],
        "predicted_attainment": decision["predicted_attainment"],
        "demand": decision["demand"],
        "forecast": _collapsed(decision["forecast"], decision["at_s"], settings["interval_s"]),
        "arrivals_rps": None if arrivals is None or not interval_s > 0 else arrivals / interval_s,
        "ttft_ms": _known(observation["ttft_ms"]),
        "itl_ms": _known(observation["itl_ms"]),
        "attainment": _known(observation["attainment"]),
        "pools": {
            name: {
                **{count: pool[count] for count in ("desired", "ready", "starting", "terminating")},
                # Journals of before have no such counts.
                **{count: pool.get(count, 0) for count in ("unschedulable", "failing")},
                **{load: _known(pool[load]) for load in ("waiting_requests", "running_requests", "kv_usage")},
            }
            for name, pool in pools.items()
        },
        "gaps": observation.get("gaps", []),
        "outcome": record["outcome"],
    }


def _known(reading: Json) -> Json:
    return reading["value"] if reading["state"] == "known" else None


def _collapsed(forecast: Json, at_s: float, interval_s: float) -> Json:
    """Of the last bin that the plan must hold for: its end, its median and the highest quantile's rate."""
    levels = forecast.get("levels")
    if not levels:
        return None
    rates = forecast["rates_rps"]
    return {
        "for_s": at_s + len(rates[0]) * interval_s,
        "median_rps": rates[levels.index(0.5)][-1] if 0.5 in levels else None,
        "high_rps": rates[-1][-1],
        "high_level": levels[-1],
    }
