"""Runs without their trace's rows give the same comparison, and say so where the trace is not there."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import typer
from typer.testing import CliRunner, Result

from planner.accuracy.derived import MissingTraceError, read_run
from planner.cli.accuracy import accuracy, slice_trace, strip_run
from profiler.errors import InputError
from profiler.record import TraceSchedule, find_runs, read_recording
from tests.unit.planner.accuracy.recorded import PROFILES, meta, write_run

app = typer.Typer()
for command in (accuracy, slice_trace, strip_run):
    app.command()(command)

SLICE = ("--start-s", "20", "--duration-s", "40", "--rate-scale", "1.5", "--seed", "4")
LIMIT = 2_000


def run(*arguments: str | Path) -> Result:
    return CliRunner().invoke(app, list(map(str, arguments)))


def failure(*arguments: str | Path) -> str:
    ended = run(*arguments)
    assert isinstance(ended.exception, InputError), ended.output
    return str(ended.exception)


@pytest.fixture
def recorded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A run from a slice of `traces/some/trace.csv`, some of whose prompts are longer than the engine takes."""
    traces = tmp_path / "traces" / "some"
    traces.mkdir(parents=True)
    rows = [f"{place * 0.31:.7f},{5 + 37 * place % 2700},{1 + place % 90}" for place in range(300)]
    (traces / "trace.csv").write_text("\n".join(["arrival_s,isl,osl", *rows]) + "\n")
    ended = run("slice-trace", "--trace", traces / "trace.csv", "--to", tmp_path / "slice.csv", *SLICE)
    assert ended.exit_code == 0, ended.output
    monkeypatch.setenv("PLIMSOLL_TRACES", str(tmp_path / "traces"))
    worker = meta().workers[0].model_copy(update={"max_model_len": LIMIT})
    about = meta(name="trace", workers=(worker,), schedule={"kind": "trace", "file": "slice.csv"})
    path = tmp_path / "recorded" / "1a" / "trace.csv"
    write_run(path, about, schedule=TraceSchedule(file=tmp_path / "slice.csv"), max_model_len=LIMIT)
    return path


def strip(path: Path, *options: str | Path) -> tuple[str | Path, ...]:
    return ("strip-run", "--run", path, "--trace", "some/trace.csv", "--to", path.parents[2] / "runs" / "1a", *options)


def test_a_stripped_run_reads_as_it_was(recorded: Path, tmp_path: Path) -> None:
    ended = run(*strip(recorded, *SLICE))
    assert ended.exit_code == 0, ended.output
    to = tmp_path / "runs" / "1a" / "trace.csv"
    header, first, *_ = to.read_text().splitlines()
    assert header == "row,outcome,ttft_ms,itl_ms,late_ms,prefill_ms"
    assert first.startswith("0,completed,")
    assert "slice.csv" not in to.with_suffix(".json").read_text()
    was, now = read_recording(recorded), read_run(to)
    assert now.isl.max() + now.osl[now.isl.argmax()] == LIMIT
    for name in ("sent_s", "isl", "osl", "hit", "completed", "ttft_ms", "itl_ms", "prefill_ms"):
        np.testing.assert_allclose(getattr(now, name), getattr(was, name), rtol=1e-15, err_msg=name)
    assert now.meta.model_copy(update={"schedule": was.meta.schedule}) == was.meta
    with pytest.raises(InputError, match="names rows of a trace"):
        read_recording(to)


def test_rows_keep_their_numbers(recorded: Path, tmp_path: Path) -> None:
    run(*strip(recorded, *SLICE))
    to = tmp_path / "runs" / "1a" / "trace.csv"
    whole, lines = read_run(to), to.read_text().splitlines(keepends=True)
    to.write_text("".join([lines[0], *lines[3:]]))
    np.testing.assert_array_equal(read_run(to).isl, whole.isl[2:])
    for wrong in (str(len(lines) - 1), "-1", "0.5", ""):
        to.write_text("".join([*lines[:2], wrong + lines[2][1:], *lines[3:]]))
        with pytest.raises(InputError, match="line 3, field row"):
            read_run(to)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ((*SLICE[:-1], "5"), "line 2: is "),
        (("--start-s", "20", "--duration-s", "0"), "duration_s"),
        (("--start-s", "9000"), "requests; expected 0, as many as the slice"),
        ((*SLICE, "--trace", "../trace.csv"), "field trace"),
        ((*SLICE, "--trace", "other.csv"), "which is not in PLIMSOLL_TRACES"),
    ],
)
def test_only_the_slice_that_was_sent_is_left_out(recorded: Path, options: tuple[str, ...], words: str) -> None:
    assert words in failure(*strip(recorded, *options))
    assert not (recorded.parents[2] / "runs").exists()


def test_a_run_of_fewer_requests_than_its_slice_is_refused(recorded: Path) -> None:
    lines = recorded.read_text().splitlines(keepends=True)
    recorded.write_text("".join(lines[:-1]))
    assert f"holds {len(lines) - 2} requests; expected {len(lines) - 1}" in failure(*strip(recorded, *SLICE))
    assert "--to" in failure(*strip(recorded, *SLICE, "--to", recorded.parent))


def test_without_its_trace_a_run_is_skipped(recorded: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run(*strip(recorded, *SLICE))
    runs = tmp_path / "runs"
    stripped = find_runs(runs)[0]
    write_run(runs / "1a" / "low.csv", meta())

    def compared() -> list[str]:
        ended = run("accuracy", "--runs", runs, "--profiles", PROFILES, "--output", "json")
        assert ended.exit_code == 0, ended.output
        return [one["run"] for one in json.loads(ended.stdout)["runs"]]

    assert compared() == ["1a/low", "1a/trace"]
    for unset, words in ((True, "PLIMSOLL_TRACES is not set"), (False, "not in PLIMSOLL_TRACES")):
        if unset:
            monkeypatch.delenv("PLIMSOLL_TRACES")
        else:
            monkeypatch.setenv("PLIMSOLL_TRACES", str(runs))
        assert compared() == ["1a/low"]
        with pytest.raises(MissingTraceError, match=words):
            read_run(stripped)
        assert words in failure("accuracy", "--run", stripped, "--runs", runs, "--profiles", PROFILES)
    (runs / "1a" / "low.csv").unlink()
    assert compared() == []


def test_another_trace_of_the_same_name_is_refused(recorded: Path, tmp_path: Path) -> None:
    run(*strip(recorded, *SLICE))
    trace = tmp_path / "traces" / "some" / "trace.csv"
    lines = trace.read_text().splitlines(keepends=True)
    trace.write_text("".join([*lines[:100], lines[100].replace(",", ",1", 1), *lines[101:]]))
    words = failure("accuracy", "--runs", tmp_path / "runs", "--profiles", PROFILES)
    assert "gives other rows than were recorded" in words
