"""The command line: answers, exit codes, and that nothing is written when something is wrong."""

import json
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from profiler.cli import main

Arrays = dict[str, np.ndarray]
Write = Callable[[Arrays, Arrays], Path]


def run(monkeypatch: pytest.MonkeyPatch, *arguments: object) -> int:
    monkeypatch.setattr(sys, "argv", ["profiler", *map(str, arguments)])
    try:
        main()
    except SystemExit as end:
        return int(end.code or 0)
    return 0


def _import(monkeypatch: pytest.MonkeyPatch, source: Path, to: Path, *more: object) -> int:
    return run(monkeypatch, "import", source, "--to", to, "--model", "toy", "--gpu", "toy-gpu", *more)


def test_import_show_export(
    *, prefill: Arrays, decode: Arrays, write: Write, tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    source, to = write(prefill, decode), tmp_path / "p"
    more = ["--engine-version", "0.11.0", "--max-num-seqs", 256, "--engine-args", "--port 1 --foo 'a b'"]
    assert _import(monkeypatch, source, to, *more) == 0
    said = capsys.readouterr()
    assert said.out.split() == [str(to / "prefill-tp1-dp1"), str(to / "decode-tp1-dp1")]
    assert "warning:" in said.err

    page = tmp_path / "page.html"
    assert run(monkeypatch, "show", to, "--output", "json", "--draw", page) == 0
    said = capsys.readouterr()
    shown = json.loads(said.out)["profiles"]
    assert [one["profile"]["role"] for one in shown] == ["decode", "prefill"]
    assert shown[0]["profile"]["limits"]["max_num_seqs"] == 256
    assert shown[0]["profile"]["engine"]["arguments"] == ["--port", "1", "--foo", "a b"]
    assert shown[1]["tables"]["prefill"]["leave_one_out"]["points"] == 2
    drawn = page.read_text()
    assert "Plotly" in drawn
    assert 'src="http' not in drawn

    assert run(monkeypatch, "show", to / "decode-tp1-dp1") == 0
    assert "leave-one-out" in capsys.readouterr().out

    out = tmp_path / "out"
    assert run(monkeypatch, "export", to, "--to", out) == 0
    for file in source.rglob("*.npz"):
        assert (out / file.relative_to(source)).read_bytes() == file.read_bytes()
    assert run(monkeypatch, "export", to, "--to", tmp_path / "json", "--format", "json") == 0
    assert len(list((tmp_path / "json").iterdir())) == 2
    capsys.readouterr()


def test_a_refused_import_writes_nothing(
    *, prefill: Arrays, decode: Arrays, write: Write, tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    decode["max_kv_tokens"] = np.array([8_224])
    source = write(prefill, decode)
    assert _import(monkeypatch, source, tmp_path / "a" / "b") == 2
    said = capsys.readouterr()
    assert "8,224 tokens contradict the table" in said.err
    assert said.out == ""
    assert sorted(f.name for f in tmp_path.iterdir()) == ["dynamo"]


def test_import_replaces_only_when_asked(
    *, prefill: Arrays, decode: Arrays, write: Write, tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    source, to = write(prefill, decode), tmp_path / "p"
    (to / "decode-tp1-dp1").mkdir(parents=True)
    assert _import(monkeypatch, source, to) == 2
    assert not (to / "prefill-tp1-dp1").exists()
    (to / "decode-tp1-dp1").rmdir()
    assert _import(monkeypatch, source, to) == 0
    assert _import(monkeypatch, source, to) == 2
    assert _import(monkeypatch, source, to, "--overwrite") == 0
    capsys.readouterr()


@pytest.mark.parametrize(
    "arguments",
    [
        ["show", "nowhere"], ["show", "."], ["export", "nowhere", "--to", "out"],
        ["import", ".", "--to", "out"],
        ["import", ".", "--to", "out", "--model", "m", "--gpu", "g"], ["show", ".", "--output", "xml"],
        ["nonsense"],
        ["import", ".", "--to", "out", "--model", " ", "--gpu", "g"],
        ["import", ".", "--to", "out", "--model", "m", "--gpu", "g", "--engine-args", "'"],
        ["import", ".", "--to", "out", "--model", "m", "--gpu", "g", "--model-config", "none.json"],
        ["import", ".", "--to", "out", "--model", "m", "--gpu", "g", "--tp", "0"],
    ],
)  # fmt: skip
def test_wrong_usage_ends_with_2_and_writes_nothing(
    arguments: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    assert run(monkeypatch, *arguments) == 2
    said = capsys.readouterr()
    assert said.out == ""
    assert said.err
    assert "Traceback" not in said.err
    assert list(tmp_path.iterdir()) == []


def test_a_picture_that_cannot_be_written_ends_with_3(
    *, prefill: Arrays, decode: Arrays, write: Write, tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    assert _import(monkeypatch, write(prefill, decode), tmp_path / "p") == 0
    capsys.readouterr()
    assert run(monkeypatch, "show", tmp_path / "p", "--draw", tmp_path / "none" / "page.html") == 3
    said = capsys.readouterr()
    assert "cannot be written" in said.err
    assert said.out == ""


def test_without_arguments_it_helps(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    run(monkeypatch)
    said = capsys.readouterr()
    assert "Usage" in said.out + said.err
