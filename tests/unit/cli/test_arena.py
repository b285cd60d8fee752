"""`planner arena`: its answer, its files, what it does not do again, and its exit code."""

import json
from pathlib import Path

import pytest

from planner.whatif.policies import static
from tests.unit.cli.conftest import PROFILES, Command, Ended, refused

SET = """
policies: ["static:2p1d", "static:1p1d", clairvoyant]
cases:
  - name: small
    trace: generate:step,rps=4,duration_s=40
    profile: llama-3.1-8b-instruct-fp8
    sla: {ttft_ms: 200, itl_ms: 10}
    startup_s: [0, 5]
    max_gpus: 6
    seeds: [0, 1]
"""


@pytest.fixture
def arena(command: Command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Command:
    """Runs `planner arena` on a small set, in this process."""
    monkeypatch.delenv("PLIMSOLL_TRACES", raising=False)
    (tmp_path / "set.yaml").write_text(SET)

    def run(*arguments: object) -> Ended:
        base = [tmp_path / "set.yaml", "--out", tmp_path / "out", "--jobs", 1, "--profiles", PROFILES.parent]
        return command("arena", *base, *arguments)

    return run


def lines(folder: Path) -> list[dict]:
    return [json.loads(line) for line in (folder / "out" / "runs.jsonl").read_text().splitlines()]


def test_every_case_policy_and_seed_is_run_once_and_not_again(arena: Command, tmp_path: Path) -> None:
    first = arena("--output", "json", "--policy", "static:2p1d", "--policy", "static:1p1d")
    assert first.code == 0
    runs = lines(tmp_path)
    assert len({run["key"] for run in runs}) == len(runs) == 8
    assert {run["case"] for run in runs} == {"small@0s", "small@5s"}
    assert json.loads((tmp_path / "out" / "results.json").read_text()) == first.json
    assert "small@5s" in (tmp_path / "out" / "arena.html").read_text()
    again = arena("--output", "json", "--policy", "static:2p1d", "--policy", "static:1p1d")
    assert again.json == first.json
    assert lines(tmp_path) == runs
    # Another policy runs alone; the others' results are taken over.
    more = arena("--case", "small@5s", "--output", "json")
    assert [(run["policy"], run["seed"]) for run in lines(tmp_path)[8:]] == [("clairvoyant", 0), ("clairvoyant", 1)]
    (case,) = more.json["cases"]
    assert [row["policy"] for row in case["policies"]] == ["static:2p1d", "static:1p1d", "clairvoyant"]
    assert case["policies"][0]["ratio"]["mean"] >= 1
    fresh = arena("--case", "small@0s", "--policy", "static:1p1d", "--fresh")
    assert fresh.code == 0
    assert len(lines(tmp_path)) == 2


def test_a_run_that_fails_is_told_and_the_others_go_on(
    arena: Command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def breaks(self: static.Static, observation: object, now_s: float) -> dict[str, int]:
        raise ZeroDivisionError("on purpose")

    with monkeypatch.context() as patch:
        patch.setattr(static.Static, "decide", breaks)
        ended = arena("--case", "small@0s", "--policy", "static:1p1d", "--policy", "hpa")
    assert ended.code == 1
    assert "failed: small@0s, static:1p1d, seed 1: ZeroDivisionError: on purpose" in ended.out
    assert "hpa" in ended.out
    # What failed is tried again, what was done is not.
    assert arena("--case", "small@0s", "--policy", "static:1p1d", "--policy", "hpa").code == 0
    assert [run["policy"] for run in lines(tmp_path)] == ["static:1p1d", "hpa"] * 2 + ["static:1p1d"] * 2


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--policy", "nobody"], ("unknown policy 'nobody'", "--policy")),
        (["--policy", "hpa:speed=3"], ("hpa", "speed")),
        (["--policy", "static:1p1d..2p2d"], ("several policies",)),
        (["--policy", "clairvoyant:no-starup"], ("clairvoyant: unknown option 'no-starup'", "no-startup")),
        (["--case", "large"], ("'large' is no case", "small@0s")),
        (["--jobs", "0"], ("--jobs", "at least 1")),
        (["--profiles", "nowhere"], ("--profiles", "no folder")),
        (["--traces", "nowhere"], ("--traces", "no folder")),
    ],
)
def test_wrong_usage_is_refused_before_anything_runs(
    arena: Command, tmp_path: Path, arguments: list[str], words: tuple[str, ...]
) -> None:
    refused(arena(*arguments), *words)
    assert not (tmp_path / "out").exists()


def test_a_profile_that_is_not_there_is_named(arena: Command, tmp_path: Path) -> None:
    text = SET.replace("llama-3.1-8b-instruct-fp8", "llama-9")
    (tmp_path / "set.yaml").write_text(text)
    refused(arena(), "set.yaml", "cases.small.profile", "llama-9")
