"""`planner whatif`: its answer, its files and its exit code."""

import csv
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.unit.cli.conftest import PROFILES, TRACE, Command, Ended, refused

LATENCY = {"mean", "p50", "p90", "p99"}
FIELDS = {
    "policy", "requests", "completed", "failed", "attainment", "ttft_attainment", "itl_attainment", "ttft_ms", "itl_ms",
    "gpu_hours", "peak_gpus", "scale_ups", "scale_downs", "wall_s", "simulated_requests_per_s",
}  # fmt: skip
#: Beside what the contract names.
MORE = {"unfinished", "preempted", "goodput_rps"}


def timeless(ended: Ended) -> Any:
    """The answer without what a clock measured."""
    answer = ended.json
    for policy in answer["policies"]:
        del policy["wall_s"], policy["simulated_requests_per_s"]
    return answer


def test_the_object_has_the_fields_of_the_contract(whatif: Command) -> None:
    ended = whatif("--output", "json", "--policy", "static:1p1d", "--policy", "planner", "--attainment", "0.9")
    assert ended.code == 0
    answer = ended.json
    assert set(answer) == {"trace", "sla", "policies"}
    assert set(answer["trace"]) == {"requests", "span_s"}
    assert answer["sla"] == {"ttft_ms": 200.0, "itl_ms": 10.0, "attainment": 0.9}
    assert [policy["policy"] for policy in answer["policies"]] == ["static:1p1d", "planner"]
    for policy in answer["policies"]:
        assert set(policy) == FIELDS | MORE
        assert set(policy["ttft_ms"]) == set(policy["itl_ms"]) == LATENCY
        assert policy["requests"] == answer["trace"]["requests"] > 100
        assert policy["completed"] + policy["failed"] + policy["unfinished"] == policy["requests"]
        assert 0 <= policy["attainment"] <= min(policy["ttft_attainment"], policy["itl_attainment"]) <= 1
    fixed = answer["policies"][0]
    assert fixed["gpu_hours"] == pytest.approx(2 * answer["trace"]["span_s"] / 3600, rel=0.02)
    assert (fixed["peak_gpus"], fixed["scale_ups"], fixed["scale_downs"]) == (2, 0, 0)


def test_the_table_names_every_policy_and_column(whatif: Command) -> None:
    ended = whatif("--policy", "static:1p1d", "--policy", "planner:confidence=0.9")
    assert ended.code == 0
    words = ("attain", "TTFT ok", "ITL ok", "p99 ms", "hours", "peak", "downs")
    for word in ("static:1p1d", "planner:", "confidence=0.9", *words, "TTFT 200 ms, ITL 10 ms", "conversation:"):
        assert word in ended.out, word


def test_a_narrow_pipe_loses_no_column() -> None:
    ended = _process("--policy", "static:1p1d", "--jobs", "1", columns="60")
    assert ended.returncode == 0, ended.stderr
    lines = ended.stdout.splitlines()
    assert "downs" in next(line for line in lines if "attain" in line)
    assert next(line for line in lines if "static:1p1d" in line).rstrip().endswith("0/0")
    assert "…" not in ended.stdout
    assert max(map(len, lines)) <= 80


def test_exit_code_1_when_no_policy_reaches(whatif: Command) -> None:
    assert whatif("--policy", "static:1p1d", "--ttft-ms", 1).code == 1
    both = whatif("--policy", "static:0p1d", "--policy", "static:1p1d", "--output", "json")
    assert both.code == 0  # one of them does
    assert [policy["attainment"] > 0.9 for policy in both.json["policies"]] == [False, True]


def test_standard_output_holds_the_answer_only() -> None:
    ended = _process("--policy", "static:1p1d", "--policy", "planner", "--output", "json", "--jobs", "1")
    assert ended.returncode == 0, ended.stderr
    assert len(json.loads(ended.stdout)["policies"]) == 2
    assert "{" not in ended.stderr


def test_an_answer_of_no_is_still_an_answer(whatif: Command) -> None:
    ended = whatif("--policy", "static:1p1d", "--output", "json", "--itl-ms", "1")
    assert ended.code == 1
    assert ended.json["policies"][0]["itl_attainment"] < 0.1


def test_usage_errors_have_exit_code_2_in_a_process() -> None:
    for wrong in (("--no-such-flag", "1"), ("--output", "yaml"), ("--ttft-ms", "soon")):
        ended = _process(*wrong)
        assert (ended.returncode, ended.stdout) == (2, "")
        assert "Traceback" not in ended.stderr


def _process(*arguments: str, columns: str = "120") -> "subprocess.CompletedProcess[str]":
    words = ["whatif", "--trace", TRACE, "--profile", str(PROFILES), "--ttft-ms", "200", "--itl-ms", "10", *arguments]
    program = [sys.executable, "-c", "from planner.cli import main; main()", *words]
    env = {**os.environ, "COLUMNS": columns, "PYTHONPATH": str(Path(__file__).parents[3])}
    return subprocess.run(program, capture_output=True, text=True, check=False, env=env, timeout=600)


def test_requests_out_agrees_with_the_answer(whatif: Command, tmp_path: Path) -> None:
    out = tmp_path / "requests.csv"
    # A limit amid the latencies, so that some requests attain and some do not.
    ended = whatif("--policy", "static:1p1d", "--ttft-ms", 60, "--output", "json", "--requests-out", out)
    policy = ended.json["policies"][0]
    with out.open(newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    assert list(rows[0]) == ["arrival_s", "isl", "osl", "ttft_ms", "itl_ms", "attained"]
    assert len(rows) == policy["completed"]
    attained = sum(int(row["attained"]) for row in rows)
    assert 0 < attained < len(rows)
    assert attained / policy["requests"] == pytest.approx(policy["attainment"], abs=1e-12)
    mean = sum(float(row["ttft_ms"]) for row in rows) / len(rows)
    assert mean == pytest.approx(policy["ttft_ms"]["mean"], rel=1e-4)
    for row in rows:
        within = float(row["ttft_ms"]) <= 60 and (row["itl_ms"] == "" or float(row["itl_ms"]) <= 10)
        assert within == (row["attained"] == "1")
        assert (row["itl_ms"] == "") == (row["osl"] == "1")
    assert [f.name for f in tmp_path.iterdir()] == ["requests.csv"]


def test_a_single_output_token_has_no_itl(whatif: Command, tmp_path: Path) -> None:
    trace, out = tmp_path / "t.csv", tmp_path / "requests.csv"
    trace.write_text("arrival_s,isl,osl\n0,100,1\n0.5,100,2\n")
    whatif("--policy", "static:1p1d", "--requests-out", out, trace=trace)
    one, two = out.read_text().splitlines()[1:]
    assert one.split(",")[4] == ""
    assert float(two.split(",")[4]) > 0


def test_report_and_journal_are_written(whatif: Command, tmp_path: Path) -> None:
    page, journal = tmp_path / "page.html", tmp_path / "j.jsonl"
    words = ("--policy", "static:1p1d", "--policy", "planner:interval_s=10", "--policy", "planner:interval_s=20")
    ended = whatif(*words, "--report", page, "--journal", journal)
    assert ended.code == 0
    text = page.read_text(encoding="utf-8")
    assert text.lstrip().lower().startswith("<!doctype html")
    assert "static:1p1d" in text
    assert page.resolve().as_uri() in ended.out
    assert f"planner explain {journal}" in ended.out
    records = [json.loads(line) for line in journal.read_text().splitlines()]
    # The first planner policy's: ticks of 10 s.
    assert [record["decision"]["at_s"] for record in records[:3]] == [10.0, 20.0, 30.0]
    assert len({record["settings_hash"] for record in records}) == 1
    assert sorted(f.name for f in tmp_path.iterdir()) == ["j.jsonl", "page.html"]


@pytest.mark.parametrize("scale", ["1", "2.5", "0.5"])
def test_the_same_seed_gives_the_same_answer(whatif: Command, scale: str) -> None:
    words = ("--policy", "planner", "--policy", "static:1p1d", "--rate-scale", scale, "--output", "json", "--seed")
    first, again, other = whatif(*words, 4), whatif(*words, 4), whatif(*words, 5)
    assert timeless(first) == timeless(again)
    assert (timeless(first) == timeless(other)) == (scale == "1")


def test_processes_do_not_change_the_answer(whatif: Command, tmp_path: Path) -> None:
    words = ("--policy", "planner", "--policy", "static:1p1d..1p2d", "--policy", "clairvoyant", "--output", "json")
    journals = tmp_path / "one", tmp_path / "two"
    one = whatif(*words, "--journal", journals[0])
    two = whatif(*words, "--journal", journals[1], "--jobs", 2)
    assert journals[0].read_text() == journals[1].read_text()
    assert timeless(one) == timeless(two)
    assert len(one.json["policies"]) == 4


def test_scales_change_the_load(whatif: Command) -> None:
    words = ("--policy", "static:1p1d", "--output", "json")
    plain = whatif(*words).json["trace"]
    more = whatif(*words, "--rate-scale", 3).json["trace"]
    quick = whatif(*words, "--time-scale", 2).json["trace"]
    assert more["requests"] == 3 * plain["requests"]
    assert more["span_s"] == pytest.approx(plain["span_s"], rel=0.05)
    assert quick["requests"] == plain["requests"]
    assert quick["span_s"] == pytest.approx(plain["span_s"] / 2)


def test_a_range_is_every_layout_in_it(whatif: Command) -> None:
    ended = whatif("--policy", "static:1p1d..2p3d", "--policy", "static:2p2d", "--output", "json")
    names = [policy["policy"] for policy in ended.json["policies"]]
    assert names == [f"static:{p}p{d}d" for p in (1, 2) for d in (1, 2, 3)]
    assert [policy["peak_gpus"] for policy in ended.json["policies"]] == [2, 3, 4, 3, 4, 5]


def test_an_aggregated_graph_from_prefill_and_decode_profiles(whatif: Command) -> None:
    words = ("--start", "1a", "--policy", "planner", "--policy", "static:1a..2a", "--policy", "hpa")
    ended = whatif(*words, "--output", "json")
    assert ended.code == 0
    by_name = {policy["policy"]: policy for policy in ended.json["policies"]}
    assert list(by_name) == ["planner", "static:1a", "static:2a", "hpa"]
    assert by_name["static:2a"]["peak_gpus"] == 2
    assert by_name["static:2a"]["gpu_hours"] == pytest.approx(2 * by_name["static:1a"]["gpu_hours"])
    assert by_name["planner"]["attainment"] > 0.9


def test_start_is_where_policies_begin(whatif: Command) -> None:
    ended = whatif("--policy", "planner", "--start", "3p4d", "--output", "json")
    policy = ended.json["policies"][0]
    assert policy["peak_gpus"] == 7
    assert policy["scale_downs"] >= 0
    assert policy["gpu_hours"] > 2 * ended.json["trace"]["span_s"] / 3600


def test_the_budget_holds_for_every_policy(whatif: Command) -> None:
    trace = "generate:flash,rps=8,duration_s=150,flash_at_s=60,flash_factor=8,seed=2"
    words = ("--policy", "planner", "--policy", "hpa", "--policy", "dynamo-classic", "--policy", "clairvoyant")
    ended = whatif(*words, "--max-gpus", 4, "--output", "json", trace=trace)
    assert {policy["policy"]: policy["peak_gpus"] <= 4 for policy in ended.json["policies"]} == dict.fromkeys(
        ("planner", "hpa", "dynamo-classic", "clairvoyant"), True
    )


def test_options_of_our_planner(whatif: Command) -> None:
    options = "confidence=0.9,interval_s=5,lead_time_s=20,down_window_s=120,capacity=closed-form"
    assert whatif("--policy", f"planner:{options}").code == 0
    short = "generate:conversation,rps=4,duration_s=20,seed=3"
    simulated = whatif("--policy", "planner:capacity=simulator", "--output", "json", trace=short)
    assert simulated.json["policies"][0]["policy"] == "planner:capacity=simulator"


def test_a_configuration_changes_the_tuning(whatif: Command, tmp_path: Path) -> None:
    config, journal = tmp_path / "tuning.yaml", tmp_path / "j.jsonl"
    config.write_text("interval_s: 20\nbehaviour:\n  down:\n    window_s: 7\n")
    assert whatif("--policy", "planner", "--config", config, "--journal", journal).code == 0
    settings = json.loads(journal.read_text().splitlines()[0])["settings"]
    assert (settings["interval_s"], settings["behaviour"]["down"]["window_s"]) == (20.0, 7.0)


def test_a_profile_by_two_names_is_one_profile(whatif: Command, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(PROFILES.parent)
    assert whatif("--policy", "static:1p1d", "--profile", PROFILES.name).code == 0


def test_names_are_shown_as_they_are(whatif: Command, tmp_path: Path) -> None:
    trace = tmp_path / "[bold]x[-].csv"
    trace.write_text("arrival_s,isl,osl\n0,100,5\n1,100,5\n")
    journal = tmp_path / "[red] j.jsonl"
    ended = whatif("--policy", "planner", "--journal", journal, trace=trace)
    assert ended.code == 0
    assert "[bold]x[-].csv: 2 requests" in ended.out
    assert f"planner explain '{journal}'" in ended.out
    broken = tmp_path / "a\udcff\x1b[31m.csv"
    broken.write_text(trace.read_text())
    ended = whatif("--policy", "planner", "--report", tmp_path / "r.html", trace=broken)
    assert ended.code == 0
    assert "a\\udcff\\x1b[31m.csv: 2 requests" in ended.out


def test_requests_out_takes_one_policy(whatif: Command, tmp_path: Path) -> None:
    out = tmp_path / "r.csv"
    refused(whatif("--policy", "static:1p1d..1p2d", "--requests-out", out), "--requests-out", "one policy, 2 given")
    assert not out.exists()
    # The same one twice is one.
    assert whatif("--policy", "static:1p1d", "--policy", "static:1p1d", "--requests-out", out).code == 0
