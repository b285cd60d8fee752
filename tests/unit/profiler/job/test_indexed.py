"""A run as one pod of an indexed Job."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path

import pytest

from profiler.errors import DependencyError, InputError
from profiler.job.indexed import MOST_BYTES, layout_of, outcome, write_outcome
from profiler.job.record import LayoutRecord, RunRecord
from profiler.job.status import Status
from profiler.job.sweep import sweep
from profiler.models.layouts import Layout
from tests.unit.profiler.job.fakes import FakeEngine, FakeMeter, prepared, tools

LAYOUTS = (Layout(1), Layout(2), Layout(4))


def record(*layouts: LayoutRecord) -> RunRecord:
    return RunRecord(settings={}, machine={}, model={"name": "m"}, code=None, started="", layouts=list(layouts))


def test_each_index_has_its_layout(monkeypatch: pytest.MonkeyPatch) -> None:
    for index, layout in enumerate(LAYOUTS):
        monkeypatch.setenv("JOB_COMPLETION_INDEX", str(index))
        assert layout_of(LAYOUTS, "JOB_COMPLETION_INDEX") == layout


@pytest.mark.parametrize(
    ("value", "said"),
    [(None, "INDEX is not set; expected 0 to 2, for one layout each: tp1, tp2, tp4"),
     ("3", "INDEX is 3; expected 0 to 2"), ("-1", "INDEX is '-1'"), ("", "INDEX is ''"), ("two", "INDEX is 'two'")],
)  # fmt: skip
def test_an_index_without_a_layout(monkeypatch: pytest.MonkeyPatch, value: str | None, said: str) -> None:
    monkeypatch.delenv("INDEX", raising=False)
    if value is not None:
        monkeypatch.setenv("INDEX", value)
    with pytest.raises(InputError, match=f"^field --index-env: {said}"):
        layout_of(LAYOUTS, "INDEX")


def test_no_layouts_to_choose_from() -> None:
    with pytest.raises(InputError, match="without layouts"):
        layout_of((), "INDEX")


def test_indices_that_share_a_volume_have_runs_of_their_own(tmp_path: Path) -> None:
    told: list[Status] = []

    async def measure(layout: Layout) -> int:
        ready = await prepared(tmp_path, layouts=(layout,), part=layout.name)
        code, _ = await sweep(ready, tools(lambda *_: FakeEngine(), FakeMeter), watch=told.append)
        return code

    assert [asyncio.run(measure(layout)) for layout in (Layout(1), Layout(2))] == [0, 0]
    runs = sorted(folder.name for folder in tmp_path.glob(".run-*"))
    assert runs == [".run-llama-3.1-8b-instruct-h100-sxm-tp1", ".run-llama-3.1-8b-instruct-h100-sxm-tp2"]
    assert len(list(tmp_path.rglob("profile.json"))) == 6
    phases = list(dict.fromkeys((status.layout, status.phase) for status in told))
    assert phases[-1] == ("tp2", "done")
    assert ("tp1", "sampling") in phases


def test_the_outcome_fits_a_termination_message(tmp_path: Path) -> None:
    done = LayoutRecord(name="tp1", outcome="done", gpu_minutes=4.321, profiles=["m/g/e/prefill-tp1-dp1"])
    failed = LayoutRecord(name="tp2", outcome="failed", reason="did not get healthy within 900 s " + "x" * 9000)
    file = tmp_path / "termination-log"
    write_outcome(file, outcome(3, record(done, failed)))
    told = json.loads(file.read_text())
    assert told["layouts"][0] == {
        "layout": "tp1", "outcome": "done", "gpu_minutes": 4.32, "profiles": ["prefill-tp1-dp1"],
    }  # fmt: skip
    assert told["layouts"][1]["reason"].startswith("did not get healthy")
    many = outcome(3, record(*[LayoutRecord(name=f"tp{n}", outcome="failed", reason="y" * 900) for n in range(40)]))
    assert len(many.encode()) <= MOST_BYTES
    assert json.loads(many)["more"] > 0


def test_an_outcome_that_cannot_be_written(tmp_path: Path) -> None:
    with pytest.raises(DependencyError, match="cannot be written"):
        write_outcome(tmp_path / "no" / "file", "{}")
