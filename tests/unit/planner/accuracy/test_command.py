"""`planner accuracy` and `planner slice-trace` as commands."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path

import pytest
import typer
from typer.testing import CliRunner, Result

from planner.accuracy.replay import Replay
from planner.cli.accuracy import accuracy, slice_trace
from profiler.errors import InputError
from profiler.record import Recording, TraceSchedule
from profiler.record.schedule import requests_of
from tests.unit.planner.accuracy.recorded import PROFILES, meta, write_run

app = typer.Typer()
app.command()(accuracy)
app.command()(slice_trace)


def run(*arguments: str | Path) -> Result:
    return CliRunner().invoke(app, list(map(str, arguments)))


def test_a_folder_of_runs(tmp_path: Path) -> None:
    def slow(_: Recording, truth: Replay) -> Replay:
        return replace(truth, itl_ms=truth.itl_ms * 1.5)

    write_run(tmp_path / "runs" / "1a" / "low.csv", meta())
    write_run(tmp_path / "runs" / "1p1d" / "low.csv", meta(pair=True))
    good = run("accuracy", "--runs", tmp_path / "runs", "--profiles", PROFILES, "--output", "json")
    assert good.exit_code == 0
    answer = json.loads(good.stdout)
    assert [one["run"] for one in answer["runs"]] == ["1a/low", "1p1d/low"]
    assert answer["missed"] == 0
    write_run(tmp_path / "runs" / "1a" / "slow.csv", meta(), slow)
    bad = run(
        "accuracy", "--runs", tmp_path / "runs", "--profiles", PROFILES, "--diagnose", "--plot", tmp_path / "p.html"
    )
    assert bad.exit_code == 1
    assert "-33.3%" in bad.stdout
    assert "share of TTFT that is waiting" in bad.stdout
    assert (tmp_path / "p.html").stat().st_size > 100_000
    one = run("accuracy", "--run", tmp_path / "runs" / "1a" / "slow.csv", "--profile", PROFILES, "--output", "json")
    assert json.loads(one.stdout)["runs"][0]["missed"] == ["itl_mean", "itl_p50", "itl_p90"]


def test_profiles_of_a_runs_own_machine_come_first(tmp_path: Path) -> None:
    # The run lies in the middle of three folders; the profiles beside the second are of its machine.
    runs, profiles = tmp_path / "all" / "runs", tmp_path / "all"
    write_run(runs / "first" / "1a" / "low.csv", meta())
    write_run(runs / "first" / "1p1d" / "low.csv", meta(pair=True))
    write_run(runs / "1a" / "low.csv", meta())
    shutil.copytree(PROFILES, profiles / "tables")
    own = runs / "first" / "profiles"
    shutil.copytree(PROFILES / "decode-tp1-dp1", own / "decode-tp1-dp1")

    def used(*arguments: str | Path) -> dict[str, tuple[list[str], list[str]]]:
        ended = run("accuracy", *arguments, "--profiles", profiles, "--output", "json")
        assert ended.exit_code == 0, ended.output
        found = json.loads(ended.stdout)["runs"]
        return {one["file"]: (one["profiles"], one["notes"]) for one in found}

    general = [str(profiles / "tables" / name) for name in ("prefill-tp1-dp1", "decode-tp1-dp1")]
    pair = [general[0], str(own / "decode-tp1-dp1")]
    note = ["replayed with decode-tp1-dp1 of its own machine"]
    # An aggregated worker needs both tables of one machine; a pair takes each where it is.
    assert used("--runs", runs) == {
        str(runs / "1a" / "low.csv"): (general, []),
        str(runs / "first" / "1a" / "low.csv"): (general, []),
        str(runs / "first" / "1p1d" / "low.csv"): (pair, note),
    }
    # For a run by itself only its own folder is looked into.
    alone = runs / "first" / "1p1d" / "low.csv"
    shutil.copytree(own, alone.parent / "profiles")
    beside = str(alone.parent / "profiles" / "decode-tp1-dp1")
    shutil.rmtree(own)
    assert used("--run", alone) == {str(alone): ([general[0], beside], note)}
    # Those of other runs are none of this one's, and a CSV beside profiles is no run.
    (alone.parent / "profiles" / "x.csv").write_text("")
    (alone.parent / "profiles" / "x.json").write_text("")
    assert used("--run", runs / "1a" / "low.csv") == {str(runs / "1a" / "low.csv"): (general, [])}
    assert len(used("--runs", runs)) == 3
    # Named by hand, what lies beside the run is left aside.
    named = run("accuracy", "--run", alone, "--profile", profiles / "tables", "--output", "json")
    assert json.loads(named.stdout)["runs"][0]["profiles"] == general


def test_a_folder_of_profiles_may_have_any_name(tmp_path: Path) -> None:
    write_run(tmp_path / "profiles" / "runs" / "low.csv", meta())
    shutil.copytree(PROFILES, tmp_path / "profiles" / "profiles")
    ended = run("accuracy", "--runs", tmp_path / "profiles" / "runs", "--profiles", tmp_path / "profiles")
    assert ended.exit_code == 0, ended.output
    # Whoever names the profiles of another run wants them.
    write_run(tmp_path / "a" / "1" / "low.csv", meta())
    shutil.copytree(PROFILES, tmp_path / "a" / "2" / "profiles")
    ended = run("accuracy", "--runs", tmp_path / "a", "--profiles", tmp_path / "a" / "2" / "profiles")
    assert ended.exit_code == 0, ended.output


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--profiles", str(PROFILES)], "--run"),
        (["--runs", str(PROFILES), "--profiles", str(PROFILES)], "holds no recorded run"),
        (["--run", "none.csv", "--profiles", str(PROFILES)], "none.json"),
        (["--run", "none.csv"], "--profile"),
        (["--run", "none.csv", "--profiles", str(PROFILES), "--warmup-s", "nan"], "--warmup-s"),
    ],
)
def test_wrong_use(arguments: list[str], words: str) -> None:
    ended = run("accuracy", *arguments)
    assert isinstance(ended.exception, InputError)
    assert words in str(ended.exception)


def test_a_slice_of_a_trace_is_what_a_recording_reads(tmp_path: Path) -> None:
    source = tmp_path / "trace.csv"
    rows = [(place * 0.5, 100 + place, 1 + place % 7, 10) for place in range(400)]
    lines = [",".join(map(str, row)) for row in rows]
    source.write_text("\n".join(["arrival_s,isl,osl,prefix_hit_tokens", *lines]) + "\n")
    to = tmp_path / "slice.csv"
    ended = run("slice-trace", "--trace", source, "--to", to, "--start-s", "20", "--duration-s", "60")
    assert ended.exit_code == 0, ended.output
    read = requests_of(TraceSchedule(file=to), None)
    wanted = [(at - 20, isl, osl) for at, isl, osl, _ in rows if 20 <= at < 80]
    assert [(one.at_s, one.isl, one.osl) for one in read] == wanted
    more = run("slice-trace", "--trace", source, "--to", to, "--duration-s", "60", "--rate-scale", "3")
    assert more.exit_code == 0
    assert len(requests_of(TraceSchedule(file=to), None)) == 360
    none = run("slice-trace", "--trace", source, "--to", to, "--start-s", "2000")
    assert isinstance(none.exception, InputError)
    assert not to.exists()
