"""`planner run`: clockwork, HTTP server and signals around the loop."""

from __future__ import annotations

import asyncio
import datetime as dt
import math
import signal
import threading
from collections.abc import Callable
from pathlib import Path

import numpy as np
from aiohttp import web
from apscheduler.events import EVENT_JOB_MAX_INSTANCES, EVENT_JOB_MISSED, JobEvent
from apscheduler.executors.pool import ThreadPoolExecutor
from apscheduler.schedulers.background import BackgroundScheduler
from apscheduler.triggers.interval import IntervalTrigger
from prometheus_client import disable_created_metrics

from planner.core.forecast.candidates import forecasters
from planner.core.forecast.history import History as RateHistory
from planner.core.forecast.settings import ForecastSettings
from planner.service.api import Explainer, make_app
from planner.service.clock import Clock
from planner.service.faults import Stage
from planner.service.load import load_config
from planner.service.logs import log, logging_to_stderr
from planner.service.loop import Loop
from planner.service.model import load_model
from planner.service.registry import make_connector, make_keeper, make_observer
from planner.service.validate import Finding, validate
from profiler.errors import DependencyError

__all__ = ["Finding", "run", "validate"]

#: Share of an interval by which a tick may begin late, but at least a second, the scheduler's unit; one that would be
#: later is left to the next. Ticks then stay on their grid, and every one is a bin of the forecast.
MOST_LATE = 0.25

#: Glances between ticks are at least so many seconds of wall time apart: one costs a query of the metrics, and a tick
#: that comes sooner by less is not worth it.
LEAST_GLANCE_S = 1.0

TICK = "tick"

_RUN = {"stage": "run"}


def run(path: Path, explainer: Explainer, *, on_started: Callable[[str], None] | None = None) -> None:
    """Plan until SIGTERM or SIGINT; returns when the last tick has ended and the lease is given back.

    Args:
        path: the configuration.
        explainer: renders a decision record for people.
        on_started: receives the address of the HTTP interface once it listens.

    Raises:
        InputError: the configuration or a profile is wrong.
        DependencyError: the port is taken.
    """
    config = load_config(path)
    model = load_model(config, path)
    # Times of creation double the page and tell nothing that a restart's own counters do not.
    disable_created_metrics()  # type: ignore[no-untyped-call]
    with logging_to_stderr():
        for warning in model.warnings:
            log.warning("profile: %s", warning, extra=_RUN)
        observer = make_observer(config, model.settings)
        loop = Loop(
            config,
            model,
            make_connector(config, model.settings.pools),
            observer,
            Clock(config.speed_up),
            make_keeper(config),
        )
        try:
            asyncio.run(_serve(loop, explainer, on_started))
        finally:
            loop.close()
            log.info("ended", extra=_RUN)


async def _serve(loop: Loop, explainer: Explainer, on_started: Callable[[str], None] | None) -> None:
    config = loop.config
    stopping = asyncio.Event()
    for name in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(name, stopping.set)
    runner = web.AppRunner(make_app(loop, explainer), access_log=None, handle_signals=False)
    await runner.setup()
    try:
        address = await _listen(runner, config.service.host, config.service.port)
        _in_background("warm up", lambda: warm_up(config.tuning.forecast))
        _in_background("history", lambda: _preload(loop))
        scheduler = clockwork(loop)
        scheduler.start()
        text = "planning graph %s every %g s of wall time; %s"
        log.info(text, config.graph, config.wall_interval_s, address, extra=_RUN)
        if on_started is not None:
            on_started(address)
        try:
            await stopping.wait()
        finally:
            log.info("ending after the tick that runs", extra=_RUN)
            # From now on another signal ends the process at once.
            for name in (signal.SIGTERM, signal.SIGINT):
                asyncio.get_running_loop().remove_signal_handler(name)
            await asyncio.to_thread(scheduler.shutdown)
    finally:
        await runner.cleanup()


async def _listen(runner: web.AppRunner, host: str, port: int) -> str:
    try:
        await web.TCPSite(runner, host, port).start()
    except OSError as error:
        raise DependencyError(f"{host}:{port}: cannot listen: {error.strerror or error}") from None
    bound = runner.addresses[0]
    shown = f"[{bound[0]}]" if ":" in bound[0] else bound[0]
    return f"http://{shown}:{bound[1]}"


def clockwork(loop: Loop) -> BackgroundScheduler:
    """A scheduler, not started yet, that ticks on whole multiples of the interval, one tick at a time.

    A surge that is seen between two ticks has the next one come at once; from there they are an interval apart again.
    """
    interval_s = loop.config.wall_interval_s
    scheduler = BackgroundScheduler(executors={"default": ThreadPoolExecutor(1)}, timezone=dt.UTC, daemon=True)
    first = math.ceil(loop.clock.wall() / interval_s) * interval_s

    def every(seconds: float, work: Callable[[], None], name: str) -> None:
        trigger = IntervalTrigger(seconds=seconds, start_date=dt.datetime.fromtimestamp(first, dt.UTC), timezone=dt.UTC)
        late_s = max(1, int(MOST_LATE * seconds))
        scheduler.add_job(work, trigger, id=name, max_instances=1, coalesce=True, misfire_grace_time=late_s)

    def glance() -> None:
        if loop.glance():
            scheduler.modify_job(TICK, next_run_time=dt.datetime.now(dt.UTC))

    every(interval_s, loop.tick, TICK)
    glance_s = interval_s / (loop.config.tuning.glances + 1)
    if loop.config.tuning.glances > 0 and glance_s >= LEAST_GLANCE_S:
        every(glance_s, glance, "glance")

    def left_out(event: JobEvent) -> None:
        if event.job_id == TICK:
            loop.metrics.count_missed()

    scheduler.add_listener(left_out, EVENT_JOB_MAX_INSTANCES | EVENT_JOB_MISSED)
    return scheduler


def warm_up(settings: ForecastSettings) -> None:
    """Fit every forecaster once: the first fit imports its library, for seconds that no tick has."""
    rates = 10.0 + np.sin(np.arange(max(64, settings.min_fit_bins)))
    history = RateHistory(rates, 15.0, 0.0, np.array([]), 0.0, settings.coarse_bin_s)
    for forecaster in forecasters(settings):
        forecaster.fit(history)


def _preload(loop: Loop) -> None:
    with loop.faults.stage(Stage.JOURNAL):
        loop.journal.open()
        loop.history.preload(loop.journal, loop.config.graph, loop.clock.wall())


def _in_background(name: str, work: Callable[[], None]) -> None:
    def careful() -> None:
        try:
            work()
        except Exception:  # noqa: BLE001 - the planner works without either
            log.exception("%s failed", name, extra=_RUN)

    threading.Thread(target=careful, name=name, daemon=True).start()
