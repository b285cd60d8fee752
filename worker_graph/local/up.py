"""`planner graph up`: a supervisor and its interface, until a signal or `down` ends them."""

from __future__ import annotations

import asyncio
import contextlib
import fcntl
import json
import os
import signal
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from aiohttp import web

from profiler.atomic import write_atomic
from profiler.errors import DependencyError, InputError
from worker_graph.local.api import make_app
from worker_graph.local.options import LocalOptions
from worker_graph.local.ports import check_free, free_ports
from worker_graph.local.status import targets
from worker_graph.local.supervisor import Supervisor
from worker_graph.spec import GraphSpec

_STATE = "supervisor.json"


def default_run_dir(graph: str) -> Path:
    """Where a graph's logs and state lie unless something else is asked for."""
    base = os.environ.get("XDG_STATE_HOME") or str(Path.home() / ".local" / "state")
    return Path(base) / "plimsoll" / "graphs" / graph


def running(run_dir: Path) -> dict[str, Any] | None:
    """What `up` wrote about the graph that runs from this folder: control_url and pid; None when none runs."""
    try:
        with (run_dir / "lock").open("r", encoding="utf-8") as lock:
            fcntl.flock(lock, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except (FileNotFoundError, NotADirectoryError):
        return None
    except BlockingIOError:
        try:
            found: dict[str, Any] = json.loads((run_dir / _STATE).read_text(encoding="utf-8"))
        except (OSError, ValueError):
            # It has the lock and is still on its way up.
            return None
        return found
    return None


def up(spec: GraphSpec, options: LocalOptions, say: Callable[[str], None], on_started: Callable[[str], None]) -> None:
    """Run a graph until SIGINT, SIGTERM, the end of its terminal or `down`.

    Args:
        spec: the graph.
        options: how it runs.
        say: receives one line for each thing that happens.
        on_started: receives the address of the control interface once the gateway serves.

    Raises:
        InputError: the graph cannot be run so.
        DependencyError: it is running already, a port is taken, or the gateway cannot be started.
    """
    try:
        options.run_dir.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise InputError(f"{options.run_dir} cannot be made: {error.strerror}", field="--run-dir") from None
    with _locked(options.run_dir, spec.name):
        # One that was killed has left its own behind.
        (options.run_dir / _STATE).unlink(missing_ok=True)
        try:
            asyncio.run(_up(spec, options, say, on_started))
        finally:
            (options.run_dir / _STATE).unlink(missing_ok=True)


def already_running(graph: str, run_dir: Path) -> DependencyError:
    """Why it is not started once more."""
    return DependencyError(f"graph {graph} is running already from {run_dir}; end it with: down")


@contextlib.contextmanager
def _locked(run_dir: Path, graph: str) -> Iterator[None]:
    """Hold the folder; the lock goes with the process, however that ends."""
    try:
        lock = (run_dir / "lock").open("w", encoding="utf-8")
    except OSError as error:
        raise InputError(f"{run_dir} cannot be written: {error.strerror}", field="--run-dir") from None
    with lock:
        # `running` holds it for an instant, too.
        for last in (False, False, False, True):
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError:
                if last:
                    raise already_running(graph, run_dir) from None
                time.sleep(0.05)
        yield


async def _up(
    spec: GraphSpec, options: LocalOptions, say: Callable[[str], None], on_started: Callable[[str], None]
) -> None:
    supervisor = Supervisor(spec, options, say)
    check_free(options.host, options.control_port, "control interface")
    port = options.control_port or free_ports(options.host, 1)[0]
    loop = asyncio.get_running_loop()
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        # Started with nohup, it is meant to outlive its terminal.
        if number is not signal.SIGHUP or signal.getsignal(number) is not signal.SIG_IGN:
            loop.add_signal_handler(number, supervisor.stop)
    runner = web.AppRunner(make_app(supervisor), access_log=None, shutdown_timeout=1.0)
    await runner.setup()
    scraped = asyncio.create_task(_write_targets(supervisor))
    try:
        await web.TCPSite(runner, options.host, port).start()
        url = f"http://{options.host}:{port}"

        def started() -> None:
            state = {"graph": spec.name, "control_url": url, "pid": os.getpid()}
            (options.run_dir / _STATE).write_text(json.dumps(state), encoding="utf-8")
            on_started(url)

        await supervisor.run(started)
    finally:
        scraped.cancel()
        await runner.cleanup()


async def _write_targets(supervisor: Supervisor) -> None:
    """Keep the scrape targets beside the logs, for Prometheus' file service discovery."""
    path, last = supervisor.options.run_dir / "targets.json", ""
    while True:
        text = json.dumps(targets(supervisor), indent=1)
        if text != last and supervisor.metrics_port:
            write_atomic(path, text)
            last = text
        await asyncio.sleep(0.2)
