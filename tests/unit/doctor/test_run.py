"""How checks are carried out and shown: no traceback, no secret, no waiting for ever; table, JSON and exit code."""

from __future__ import annotations

import io
import json
import threading
from collections.abc import Iterable
from pathlib import Path

import pytest
from rich.console import Console
from typer.testing import CliRunner

from planner.cli import app
from planner.connectors.kubernetes.errors import ForbiddenError, UnreachableError
from planner.doctor import host
from planner.doctor.base import Check, Group, SkipError, Verdict, failed, passed, redacted, skipped, some, warned
from planner.doctor.run import PROBES, Report, examine, look
from planner.doctor.scene import Scene
from planner.doctor.table import as_json, as_table
from profiler.errors import InputError

PROBE = "host:gpus"


def saying(monkeypatch: pytest.MonkeyPatch, probe: object) -> None:
    monkeypatch.setattr(host, "gpus", probe)


@pytest.mark.parametrize(
    ("error", "verdict", "words"),
    [
        (SkipError("not here", "put it there"), Verdict.SKIP, "not here"),
        (ForbiddenError("cannot list nodes: 403"), Verdict.SKIP, "403"),
        (UnreachableError("cannot list pods: timed out"), Verdict.FAIL, "timed out"),
        (InputError("is wrong", field="profiles"), Verdict.FAIL, "field profiles"),
        (KeyError("metadata"), Verdict.FAIL, "the check itself failed: KeyError: 'metadata'"),
        (AssertionError(), Verdict.FAIL, "AssertionError"),
    ],
)
def test_an_error_of_a_check_is_an_answer(
    monkeypatch: pytest.MonkeyPatch, error: Exception, verdict: Verdict, words: str
) -> None:
    def probe(_: Scene) -> Iterable[Check]:
        yield passed("first", "was seen before")
        raise error

    saying(monkeypatch, probe)
    first, last = look(PROBE, Scene(), 5.0)
    assert first.verdict is Verdict.PASS
    assert (last.name, last.verdict) == ("gpus", verdict)
    assert words in last.found
    assert last.fix or verdict is Verdict.SKIP


def test_a_check_that_hangs_fails_and_the_others_go_on(monkeypatch: pytest.MonkeyPatch) -> None:
    release = threading.Event()

    def probe(_: Scene) -> Iterable[Check]:
        yield passed("first", "was seen before")
        release.wait(30.0)

    saying(monkeypatch, probe)
    try:
        found = look(PROBE, Scene(), 0.05)
    finally:
        release.set()
    assert [(one.name, one.verdict) for one in found] == [("first", Verdict.PASS), ("gpus", Verdict.FAIL)]
    assert found[1].found == "no answer within 0.05 s"


def test_every_probe_that_is_listed_is_there() -> None:
    for named in (one for names in PROBES.values() for one in names):
        module, name = named.split(":")
        assert callable(getattr(__import__(f"planner.doctor.{module}", fromlist=[name]), name)), named


def test_without_a_cluster_one_line_says_so_for_each_group() -> None:
    report = examine(Scene(no_cluster="no kubeconfig"), [Group.CLUSTER, Group.CRDS, Group.RIGHTS])
    assert [(one.group.value, one.verdict) for one in report.checks] == [
        ("cluster", Verdict.SKIP),
        ("crds", Verdict.SKIP),
        ("rights", Verdict.SKIP),
    ]
    assert report.exit_code == 3


@pytest.mark.parametrize(
    ("checks", "code"),
    [
        ((passed("a", "x"), warned("b", "x", "y"), skipped("c", "x")), 0),
        ((passed("a", "x"), failed("b", "x", "y")), 1),
        ((failed("a", "x", "y"),), 1),
        ((failed("a", "x", "y", blind=True), skipped("b", "x")), 3),
        ((failed("a", "x", "y", blind=True), passed("b", "x")), 1),
        ((skipped("a", "x"),), 3),
        ((), 3),
    ],
)
def test_exit_codes(checks: tuple[Check, ...], code: int) -> None:
    assert Report(checks).exit_code == code


@pytest.mark.parametrize(
    "secret",
    [
        "cannot reach http://user:hunter2@prometheus:9090/api",
        "Authorization: Bearer hunter2hunter2",
        "HF_TOKEN hf_hunter2hunter2hunter2",
        "eyJhbGciOiJSUzI1NiJ9.hunter2hunter2.hunter2-sig",
        "http://prometheus/api?token=hunter2&x=1",
        "password=hunter2",
    ],
)
def test_no_secret_is_shown_wherever_it_came_from(secret: str, monkeypatch: pytest.MonkeyPatch) -> None:
    assert "hunter2" not in redacted(secret)
    saying(monkeypatch, lambda _: [failed("x", secret, secret)])
    monkeypatch.setitem(PROBES, Group.HOST, (PROBE,))
    report = examine(Scene(), [Group.HOST])
    assert "hunter2" not in json.dumps(as_json(report))


def test_ordinary_words_are_left_as_they_are() -> None:
    for text in (
        "https://127.0.0.1:6443 in 3 ms",
        "tokens=512 of KV cache",
        "kv_cache_size_tokens 4096",
        "hf_transfer",
    ):
        assert redacted(text) == text


def report() -> Report:
    long = (
        "cannot list nodes: 403: nodes is forbidden: User cannot list resource nodes in API group at the cluster scope"
    )
    checks = [passed("reachable", "https://10.0.0.1:6443 in 3 ms"), failed("GPU nodes", long, "add [GPU] nodes " * 6)]
    return Report((*checks, Check("verbs", Verdict.WARN, "x" * 90, "fix " * 30, Group.RIGHTS)))


@pytest.mark.parametrize("width", [80, 140, 40])
def test_the_table_fits_its_width_and_loses_nothing(width: int) -> None:
    console = Console(width=width, record=True, file=io.StringIO())
    console.print(as_table(report(), width))
    shown = console.export_text()
    assert max(len(line) for line in shown.splitlines()) <= width
    together = "".join(shown.split())
    for one in report().checks:
        assert one.verdict.value in shown
        if width >= 80:
            assert one.found.split()[-1][-8:] in together
    assert shown.count("[GPU]") == 6 or width < 80
    assert "1 failed, 1 warning, 1 passed, 0 skipped" in " ".join(shown.split())


def test_the_json_names_group_verdict_and_fix() -> None:
    told = as_json(report())
    assert told["exit_code"] == 1
    assert told["counts"] == {"pass": 1, "warn": 1, "fail": 1, "skip": 0}
    assert set(told["checks"][0]) == {"group", "name", "verdict", "found", "fix"}
    assert told["checks"][2]["group"] == "rights"


def test_the_first_few_of_many() -> None:
    assert some(["a", "b"]) == "a, b"
    assert some(["a", "b", "c", "d", "e"]) == "a, b, c and 2 more"


def doctor(*arguments: str) -> tuple[int, str]:
    done = CliRunner().invoke(app, ["doctor", *arguments])
    if isinstance(done.exception, InputError):
        return done.exception.exit_code, str(done.exception)
    return done.exit_code, done.output


def test_wrong_usage_is_exit_code_2(tmp_path: Path) -> None:
    assert doctor("--only", "nonsense")[0] == 2
    code, text = doctor("--only", "metrics")
    assert code == 2
    assert "--config" in text
    code, text = doctor("--config", str(tmp_path / "none.yaml"))
    assert code == 2
    assert "none.yaml" in text
    code, text = doctor("--kubeconfig", str(tmp_path / "none"))
    assert code == 2
    assert "none" in text


def test_a_host_without_gpus_is_looked_at_when_asked(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setenv("HF_TOKEN", "hf_hunter2hunter2hunter2")
    code, text = doctor("--only", "host", "--output", "json")
    assert code in {0, 1}
    checks = {one["name"]: one for one in json.loads(text)["checks"]}
    assert checks["gpus"]["verdict"] == "SKIP"
    assert checks["hub token"]["found"] == "HF_TOKEN is set"
    assert "hunter2" not in text
    assert {"shared memory", "memory", "Python", "ports"} <= set(checks)
