"""What a supervisor says of its graph: for people, for the planner, for Prometheus."""

from __future__ import annotations

import time
from typing import Any

from worker_graph.local.lease import Lease
from worker_graph.local.supervisor import LocalPool, Supervisor
from worker_graph.local.worker import LocalWorker, State


def status(supervisor: Supervisor, lease: Lease) -> dict[str, Any]:
    """The whole graph as plain data."""
    options = supervisor.options
    return {
        "graph": supervisor.spec.name,
        "file": str(supervisor.spec.source),
        "run_dir": str(options.run_dir),
        "engine": options.engine,
        "gateway": {
            "name": options.gateway,
            "url": f"http://{options.host}:{supervisor.port}",
            "metrics": f"{options.host}:{supervisor.metrics_port}",
            "ready": supervisor.gateway_ready,
            "restarts": supervisor.gateway_restarts,
            "pid": supervisor.gateway_pid,
        },
        "gpus": {"budget": supervisor.max_gpus, "held": supervisor.gpus_held(), "held_s": supervisor.gpu_seconds()},
        "lease": {"holder": lease.holder, "expires_in_s": lease.expires_in_s},
        "pools": {name: _pool(pool) for name, pool in supervisor.pools.items()},
        "workers": [_worker(worker, options.host) for worker in supervisor.workers()],
        "events": [{"at_s": at, "text": text} for at, text in list(supervisor.events)[-50:]],
    }


def _pool(pool: LocalPool) -> dict[str, Any]:
    role = pool.component.role
    return {
        "role": role.value if role is not None else "",
        "gpus_per_worker": pool.component.gpus_per_worker,
        "desired": pool.desired,
        "ready": pool.count(State.READY),
        # Asked for and not serving yet, for whatever reason.
        "starting": pool.count(State.PENDING, State.STARTING),
        "draining": pool.count(State.DRAINING),
        "failures": pool.failures,
        "last_failure": pool.last_failure,
        "startup_s": list(pool.startup_s),
    }


def _worker(worker: LocalWorker, host: str) -> dict[str, Any]:
    return {
        "name": worker.name,
        "pool": worker.pool,
        "state": worker.state.value,
        "address": f"{host}:{worker.port}" if worker.port else "",
        "pid": worker.process.pid if worker.process is not None else None,
        "gpus": list(worker.gpus),
        "age_s": round(time.monotonic() - worker.asked_at, 1),
        "reason": worker.reason,
    }


def targets(supervisor: Supervisor) -> list[dict[str, Any]]:
    """Scrape targets in the form of Prometheus' file and HTTP service discovery."""
    host, graph = supervisor.options.host, supervisor.spec.name
    serving = (State.READY, State.DRAINING)
    found = [
        {
            "targets": [f"{host}:{worker.port}"],
            "labels": {"graph": graph, "pool": worker.pool, "worker": worker.name},
        }
        for worker in supervisor.workers()
        if worker.state in serving
    ]
    gateway = {"targets": [f"{host}:{supervisor.metrics_port}"], "labels": {"graph": graph, "pool": "gateway"}}
    return [gateway, *found]
