"""The process: it ends when it is told to, gives its lease back, and refuses a port that is taken before it ticks."""

import datetime as dt
import os
import signal
import socket
import threading
import urllib.request
from pathlib import Path

import pytest
import yaml

from planner.core.forecast.settings import ForecastSettings
from planner.explain import explained
from planner.service import run as module
from planner.service.run import clockwork, run, warm_up
from profiler.errors import DependencyError
from tests.unit.service.conftest import FakeEyes, FakeGraph, Rigging, Time, settings


@pytest.fixture
def config(tmp_path: Path) -> Path:
    path = tmp_path / "planner.yaml"
    path.write_text(yaml.safe_dump(settings(service={"port": 0}, tuning={"interval_s": 0.1})))
    return path


@pytest.mark.parametrize("sign", [signal.SIGTERM, signal.SIGINT])
def test_it_plans_until_it_is_told_to_end(
    config: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], sign: signal.Signals
) -> None:
    graph, eyes = FakeGraph(Time()), FakeEyes()
    monkeypatch.setattr(module, "make_connector", lambda _, __: graph)
    monkeypatch.setattr(module, "make_observer", lambda *_: eyes)
    before, said, ticked = threading.active_count(), [], threading.Event()
    lease = graph.lease

    def leased(holder: str, duration_s: float) -> object:
        if len(eyes.spans_s) >= 3:
            ticked.set()
        return lease(holder, duration_s)

    monkeypatch.setattr(graph, "lease", leased)

    def meanwhile(address: str) -> None:
        ticked.wait(30.0)
        with urllib.request.urlopen(f"{address}/readyz") as answer:  # noqa: S310 - an address of our own
            said.append(answer.read())
        os.kill(os.getpid(), sign)

    run(config, explained, on_started=lambda address: threading.Thread(target=meanwhile, args=(address,)).start())
    assert said == [b"ok\n"]
    assert graph.holder == ""
    assert eyes.closed
    lines = (config.parent / "planner-journal.jsonl").read_text().splitlines()
    assert len(lines) >= 2
    assert (config.parent / "planner-checkpoint.json").exists()
    assert threading.active_count() <= before + 2  # warming up may still be at it
    err = capsys.readouterr().err
    assert 'stage=run msg="ended"' in err
    assert all(line.startswith("time=") for line in err.splitlines())


def test_a_port_that_is_taken_is_named_before_anything_ticks(config: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    graph, eyes = FakeGraph(Time()), FakeEyes()
    monkeypatch.setattr(module, "make_connector", lambda _, __: graph)
    monkeypatch.setattr(module, "make_observer", lambda *_: eyes)
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        config.write_text(config.read_text().replace("port: 0", f"port: {port}"))
        with pytest.raises(DependencyError, match=rf"127\.0\.0\.1:{port}: cannot listen"):
            run(config, explained)
    assert eyes.spans_s == []
    assert eyes.closed


def test_ticks_lie_on_multiples_of_the_interval_and_never_overlap(rig: Rigging) -> None:
    made = rig()
    made.time.wall_s += 7.3
    job = next(job for job in clockwork(made.loop).get_jobs() if job.id == "tick")
    assert job.trigger.start_date.timestamp() % 15.0 == 0.0
    assert (job.max_instances, job.coalesce, job.misfire_grace_time) == (1, True, 3)


def test_glances_lie_between_ticks_where_there_is_time_for_them(rig: Rigging) -> None:
    jobs = {job.id: job for job in clockwork(rig().loop).get_jobs()}
    assert jobs.keys() == {"tick", "glance"}
    assert jobs["glance"].trigger.interval.total_seconds() == 5.0
    assert jobs["glance"].trigger.start_date == jobs["tick"].trigger.start_date
    assert [job.id for job in clockwork(rig("none", tuning={"glances": 0}).loop).get_jobs()] == ["tick"]
    assert [job.id for job in clockwork(rig("fast", speed_up=10.0).loop).get_jobs()] == ["tick"]


def test_a_hurried_tick_comes_at_once_and_the_next_an_interval_later(
    rig: Rigging, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = rig()
    scheduler = clockwork(made.loop)
    scheduler.start(paused=True)
    try:
        due = scheduler.get_job("tick").next_run_time
        for hurries in (False, True):
            monkeypatch.setattr(made.loop, "glance", lambda hurries=hurries: hurries)
            before = dt.datetime.now(dt.UTC)
            scheduler.get_job("glance").func()
            job = scheduler.get_job("tick")
            if not hurries:
                assert job.next_run_time == due
        assert before <= job.next_run_time <= dt.datetime.now(dt.UTC)
        then = job.trigger.get_next_fire_time(job.next_run_time, job.next_run_time)
        assert then - job.next_run_time == dt.timedelta(seconds=15.0)
    finally:
        scheduler.shutdown(wait=False)


def test_warming_up_fits_every_forecaster() -> None:
    warm_up(ForecastSettings())
