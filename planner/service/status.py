"""`/api/state`: what the planner is, sees and does now, as one JSON object without secrets."""

from __future__ import annotations

import json
from dataclasses import asdict
from urllib.parse import urlsplit, urlunsplit

from planner.core.readings import usable
from planner.core.types import Known, LengthSample, Observation, Unknown
from planner.service.config import ServiceConfig
from planner.service.loop import Loop
from planner.service.summary import Json

_READINGS = ("arrivals", "dispersion", "ttft_ms", "itl_ms", "attainment", "mean_ttft_ms", "mean_itl_ms")


def state_of(loop: Loop) -> dict[str, Json]:
    """The state; `last` is null before the first tick."""
    config, clock, snapshot = loop.config, loop.clock, loop.snapshot
    wall_s = clock.wall()
    settings = snapshot.settings if snapshot is not None else loop.model.settings
    return {
        "identity": config.service.identity,
        "graph": config.graph,
        "model": config.model,
        "config": _config(config, loop),
        "clock": {"time": clock.iso(wall_s), "now_s": clock.planner_s(wall_s), "speed_up": clock.speed_up},
        "uptime_s": wall_s - loop.started_wall_s,
        "settings": {
            "sla": asdict(settings.sla),
            "pools": [asdict(pool) for pool in settings.pools],
            "max_gpus": settings.max_gpus,
            "interval_s": settings.interval_s,
            "lead_time_s": settings.lead_time_s,
            "lead_time_measured": snapshot is not None and snapshot.lead_time_measured,
        },
        "lease": asdict(snapshot.lease) if snapshot is not None and snapshot.lease is not None else None,
        "level": snapshot.record.decision.level if snapshot is not None and snapshot.record is not None else None,
        "last": _last(loop),
        "errors": {stage: asdict(fault) for stage, fault in loop.faults.last.items()},
        "notices": list(snapshot.notices) if snapshot is not None else [],
        "history": {
            "entries": len(loop.history),
            "oldest_id": loop.history.oldest,
            "complete": loop.history.complete,
            "pending_records": loop.journal.pending,
            "lost_records": loop.journal.lost,
        },
    }


def _last(loop: Loop) -> Json:
    snapshot, newest = loop.snapshot, loop.history.newest
    if snapshot is None or snapshot.record is None:
        return None
    return {
        "observation": observation_of(snapshot.record.observation, snapshot.settings.stale_after_s),
        "decision": None if newest is None else json.loads(newest.json),
        "forecast_error": snapshot.forecast_error,
    }


def observation_of(observation: Observation, stale_after_s: float) -> dict[str, Json]:
    """Readings as {value, age_s}, or {unknown: reason}; lengths as their number and means."""

    def reading(of: Known[Json] | Unknown) -> Json:
        fresh = usable(of, stale_after_s)
        return {"unknown": fresh.reason} if isinstance(fresh, Unknown) else {"value": fresh.value, "age_s": of.age_s}

    lengths = observation.lengths
    shown: Json = {"unknown": lengths.reason} if isinstance(lengths, Unknown) else _lengths(lengths)
    pools: Json = {"unknown": observation.pools.reason} if isinstance(observation.pools, Unknown) else None
    if isinstance(observation.pools, Known):
        pools = {
            name: {
                "desired": pool.desired,
                "ready": pool.ready,
                "starting": pool.starting,
                "terminating": pool.terminating,
                "unschedulable": pool.unschedulable,
                "failing": pool.failing,
                "trouble": pool.trouble,
                "waiting_requests": reading(pool.waiting_requests),
                "running_requests": reading(pool.running_requests),
                "kv_usage": reading(pool.kv_usage),
            }
            for name, pool in observation.pools.value.items()
        }
    return {
        "interval_s": observation.interval_s,
        **{name: reading(getattr(observation, name)) for name in _READINGS},
        "lengths": shown,
        "pools": pools,
        "gaps": observation.gaps,
    }


def _lengths(lengths: Known[LengthSample]) -> Json:
    n = len(lengths.value)
    means = {
        f"mean_{name}": sum(getattr(lengths.value, name)) / n if n else None
        for name in ("isl", "osl", "prefix_hit_tokens")
    }
    return {"requests": n, "age_s": lengths.age_s, **means}


def _config(config: ServiceConfig, loop: Loop) -> Json:
    connector, server = config.connector, config.metrics.prometheus
    return {
        "connector": connector.kind,
        "control_url": without_credentials(connector.local.control_url) if connector.local is not None else None,
        "source": config.metrics.source,
        "prometheus_url": without_credentials(server.url) if server is not None else None,
        "engine": config.metrics.engine,
        "gateway": config.metrics.gateway,
        "capacity": loop.model.capacity.name,
        "profiles": [{"path": one.path, "fingerprint": one.fingerprint} for one in loop.model.profiles],
        "profile_errors": loop.model.errors,
        "profile_warnings": loop.model.warnings,
        "journal": str(config.service.journal),
        "checkpoint": loop.checkpoint,
        "history_hours": config.service.history_hours,
        "lease_s": config.service.lease_s,
    }


def without_credentials(url: str) -> str:
    """A URL without user, password and query, which may hold a token."""
    parts = urlsplit(url)
    host = parts.netloc.rpartition("@")[2]
    return urlunsplit((parts.scheme, host, parts.path, "", ""))
