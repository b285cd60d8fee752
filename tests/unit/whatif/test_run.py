"""Jobs of a what-if: what each gives, in one process or in several, and what an error leaves behind."""

import contextlib
import csv
import io
import os
import pickle
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from rich.console import Console

from planner.core.record import from_line
from planner.core.types import Sla
from planner.whatif import run as runs
from planner.whatif.policies import Setting, expand
from planner.whatif.requests import HEADER, RequestWriter
from planner.whatif.run import Job, run_all, run_job, warm_up
from planner.whatif.simulator.simulation import Finished
from planner.whatif.table import outcome_table
from planner.whatif.traces import open_trace
from profiler.errors import DependencyError, InputError
from tests.bench.common import setting_for

SHORT = "generate:conversation,rps=4,duration_s=30,seed=3"


def short() -> Setting:
    return setting_for(open_trace(SHORT), max_gpus=8)


def test_a_job_of_ours_gives_decisions_and_records_when_asked() -> None:
    setting = short()
    plain, kept = run_job(Job(setting, "planner")), run_job(Job(setting, "planner", records=True))
    assert plain.records == ()
    assert plain.decisions == kept.decisions
    assert len(plain.decisions) == len(kept.records) == len(plain.outcome.ticks) >= 2
    # What the page does not show is not held for a whole trace; records have it.
    assert all(decision.candidates == () for decision in plain.decisions)
    back = [from_line(line, source="job", number=n) for n, line in enumerate(kept.records, start=1)]
    assert [replace(record.decision, candidates=()) for record in back] == list(plain.decisions)
    assert any(record.decision.candidates for record in back)
    assert {Path(ref.path).name for ref in back[0].profiles} == {"prefill-tp1-dp1", "decode-tp1-dp1"}
    assert len({record.settings_hash for record in back}) == 1


def test_the_hash_of_the_settings_changes_with_them() -> None:
    specs = ("planner", "planner:confidence=0.9", "planner:lead_time_s=31")
    results = [run_job(Job(short(), spec, records=True)) for spec in specs]
    hashes = [from_line(result.records[0], source="", number=1).settings_hash for result in results]
    assert len(set(hashes)) == 3
    assert all(len(text) == 12 for text in hashes)


def test_other_policies_have_no_decisions() -> None:
    result = run_job(Job(short(), "static:1p2d", records=True))
    assert (result.spec, result.outcome.policy, result.decisions, result.records) == ("static:1p2d",) * 2 + ((), ())


def _killed(job: Job) -> None:
    os._exit(9)


def test_a_process_that_is_killed_is_a_dependency_that_failed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(runs, "run_job", _killed)
    setting = short()
    with pytest.raises(DependencyError, match="ended from outside"):
        list(run_all([Job(setting, "planner"), Job(setting, "hpa")], 2))


def test_an_error_travels_between_processes_as_it_is() -> None:
    error = InputError("is wrong", expected="better", source="file", line=3, field="x")
    back = pickle.loads(pickle.dumps(error))  # noqa: S301 - its own
    assert str(back) == str(error) == "file, line 3, field x: is wrong; expected better"
    assert (back.line, back.field, back.exit_code) == (3, "x", 2)


def test_warming_up_runs_every_graph() -> None:
    warm_up(short())
    warm_up(setting_for(open_trace(SHORT), start="1a", max_gpus=2))


def test_layouts_of_ranges() -> None:
    pools = short().pools
    assert expand("static:1p1d..2p2d", pools) == [f"static:{p}p{d}d" for p in (1, 2) for d in (1, 2)]
    assert expand("static:2p3d..2p3d", pools) == ["static:2p3d"]
    assert expand("planner:confidence=0.9", pools) == ["planner:confidence=0.9"]
    assert len(expand("static:1p1d..10p100d", pools)) == 1000
    with pytest.raises(InputError, match="1,010 layouts"):
        expand("static:1p1d..10p101d", pools)
    aggregated = setting_for(open_trace(SHORT), start="1a").pools
    assert expand("static:1a..3a", aggregated) == ["static:1a", "static:2a", "static:3a"]


# -- the file of requests ----------------------------------------------------------------------------------------------


def finished(ttft: list[float], itl: list[float]) -> Finished:
    n = len(ttft)
    lengths = np.full(n, 7, dtype=np.int64)
    return Finished(
        np.arange(n, dtype=np.float64) * 1500.0, lengths, lengths, lengths * 0, np.array(ttft), np.array(itl)
    )


def test_requests_as_csv(tmp_path: Path) -> None:
    path = tmp_path / "r.csv"
    with RequestWriter(path, Sla(100.0, 10.0)) as writer:
        assert not path.exists()
        writer.add(finished([100.0, 100.1, 50.0], [10.0, 5.0, 10.1]))
        writer.add(finished([99.0], [np.nan]))
    rows = list(csv.reader(path.read_text().splitlines()))
    assert tuple(rows[0]) == HEADER
    assert rows[1] == ["0.000000", "7", "7", "100.000", "10.0000", "1"]
    assert [row[-1] for row in rows[1:]] == ["1", "0", "0", "1"]
    assert rows[2][0] == "1.500000"
    assert rows[4][4] == ""


def test_an_error_keeps_the_old_file(tmp_path: Path) -> None:
    path = tmp_path / "r.csv"
    path.write_text("old")
    with contextlib.suppress(ZeroDivisionError), RequestWriter(path, Sla(100.0, 10.0)) as writer:
        writer.add(finished([1.0], [1.0]))
        1 / 0  # noqa: B018 - what goes wrong amid the work
    assert path.read_text() == "old"
    assert [f.name for f in tmp_path.iterdir()] == ["r.csv"]
    with pytest.raises(InputError, match="--requests-out"), RequestWriter(tmp_path / "no" / "r.csv", Sla(1.0, 1.0)):
        pass


# -- the table ---------------------------------------------------------------------------------------------------------


def test_the_table_fits_eighty_columns_and_loses_none() -> None:
    outcome = run_job(Job(short(), "static:1p1d")).outcome
    wide = replace(
        outcome, policy="dynamo-classic", ttft_ms={"p99": 123_456.0}, itl_ms={"p99": 1234.5}, gpu_hours=1234.56,
        peak_gpus=1024, scale_ups=123, scale_downs=122,
    )  # fmt: skip
    none = replace(outcome, policy="x", ttft_ms={"p99": None}, itl_ms={"p99": None}, attainment=0.949999)
    page = io.StringIO()
    Console(file=page, width=80).print(outcome_table([outcome, wide, none], Sla(200.0, 10.0)), crop=False)
    rows = {line.split()[0]: line for line in page.getvalue().splitlines() if line.strip()}
    assert rows["dynamo-classic"].split()[-5:] == ["123456", "1234.5", "1234.56", "1024", "123/122"]
    assert len(rows["static:1p1d"]) <= 84
    assert "94.99 %" in rows["x"]  # a miss never reads as the target
    assert rows["x"].split()[-5:-3] == ["-", "-"]
