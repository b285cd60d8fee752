"""`planner explain` and `planner replay` on the journal of a small replay."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from planner.core.record import from_line, to_line
from planner.explain import LIMITS
from tests.unit.cli.conftest import PROFILES, Command, refused

Record = dict[str, Any]


def records(path: Path) -> list[Record]:
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


def write(path: Path, rows: list[Record]) -> Path:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return path


def changes(record: Record) -> bool:
    decision = record["decision"]
    return bool(decision["plan"] != decision["current"])


# -- explain -----------------------------------------------------------------------------------------------------------


def test_the_last_change_is_explained_unless_asked_otherwise(command: Command, journal: Path) -> None:
    rows = records(journal)
    expected = [row for row in rows if changes(row)][-1]
    assert expected != rows[-1]
    ended = command("explain", journal, "--output", "json")
    assert ended.code == 0
    assert ended.json == expected
    # Where nothing changed, the last one.
    quiet = write(journal.with_name("quiet.jsonl"), [row for row in rows if not changes(row)])
    assert command("explain", quiet, "--output", "json").json == records(quiet)[-1]


def test_at_and_line_choose_a_decision(command: Command, journal: Path) -> None:
    rows = records(journal)
    for at, number in ((10, 1), (19.9, 1), (20, 2), (1e9, len(rows))):
        assert command("explain", journal, "--at", at, "--output", "json").json == rows[number - 1]
    for number in (1, 3, len(rows)):
        assert command("explain", journal, "--line", number, "--output", "json").json == rows[number - 1]


def test_lines_are_those_of_the_file(command: Command, journal: Path) -> None:
    first, second = records(journal)[:2]
    journal.write_text(f"{json.dumps(first)}\n\n  \n{json.dumps(second)}\r\n")
    assert command("explain", journal, "--line", 4, "--output", "json").json == second
    refused(command("explain", journal, "--line", 2), "--line", "a line with a record, 1 to 4")


def test_the_page_says_what_was_decided_and_why(command: Command, journal: Path) -> None:
    rows = records(journal)
    number = next(n for n, row in enumerate(rows, start=1) if changes(row) and row["decision"]["runner_up"])
    decision = rows[number - 1]["decision"]
    ended = command("explain", journal, "--line", number)
    assert ended.code == 0
    page = ended.out
    assert f"{decision['at_s']:g} s, step" in page
    assert "model" in page
    for pool, count in decision["plan"].items():
        before = decision["current"][pool]
        assert (f"{pool} {before} -> {count}" if before != count else f"{pool} {count}") in page
    assert ", ".join(decision["reasons"]) in page
    assert LIMITS[decision["limit"]] in page
    assert "TTFT 200 ms, ITL 10 ms, 95.0% of requests" in page
    seen = rows[number - 1]["observation"]
    assert f"arrivals {seen['arrivals']['value']} in {seen['interval_s']:g} s" in page
    for level in decision["forecast"]["levels"]:
        assert f"{level:.0%} " in page
    assert f"{decision['demand']['rate_rps']:.1f} requests/s" in page
    chosen, second = ("".join(f"{n}{role[0]}" for role, n in decision[key]["workers"].items())
                      for key in ("chosen", "runner_up"))  # fmt: skip
    assert next(line for line in page.splitlines() if "chosen" in line).split()[1] == chosen
    assert f"runner-up {second}: {decision['why_not_runner_up']}" in page
    for clamp in decision["clamps"]:
        assert clamp in page


def test_unknown_readings_are_shown_with_their_reason(command: Command, journal: Path) -> None:
    row = records(journal)[0]
    unknown = {"reason": "[/b] the exporter is down", "age_s": None, "state": "unknown"}
    for name in ("arrivals", "ttft_ms", "itl_ms", "attainment"):
        row["observation"][name] = unknown
    row["decision"].update(level="hold", forecast=unknown, limit="unknown_demand", demand=None, plan={}, candidates=[])
    page = command("explain", write(journal, [row])).out
    for name in ("arrivals", "TTFT", "ITL", "attainment"):
        assert f"{name} unknown ([/b] the exporter is down)" in page
    assert "none: [/b] the exporter is down" in page
    assert "nothing is asked for" in page
    assert "hold" in page
    assert "demand is unknown: nothing is lowered" in page


def test_text_of_a_record_is_no_markup_and_no_control_code(command: Command, journal: Path) -> None:
    row = records(journal)[0]
    row.update(graph="[/x][red]\ud800\x1b[2J", time="[link]")
    row["decision"]["clamps"] = ["[/] clamped"]
    page = command("explain", write(journal, [row])).out
    assert "[link], [/x][red]\\ud800\\x1b[2J" in page
    assert "[/] clamped" in page


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--at", "5"], "is 5; expected 10 or later"),
        (["--at", "nan"], "is nan"),
        (["--at", "soon"], "--at"),
        (["--line", "0"], "is 0; expected a line with a record, 1 to"),
        (["--line", "-1"], "is -1"),
        (["--line", "999"], "is 999"),
        (["--line", "1", "--at", "20"], "goes without --line"),
        (["--output", "yaml"], "--output"),
    ],
)
def test_choices_that_there_are_not(command: Command, journal: Path, words: list[str], said: str) -> None:
    refused(command("explain", journal, *words), said)


@pytest.mark.parametrize("verb", ["explain", "replay"])
def test_files_that_are_no_journals(command: Command, tmp_path: Path, journal: Path, verb: str) -> None:
    refused(command(verb), "FILE.jsonl")
    refused(command(verb, tmp_path / "none"), "none", "cannot be read")
    refused(command(verb, tmp_path), "cannot be read")
    bad = tmp_path / "bad.jsonl"
    good = journal.read_text()
    for content, said in (
        (b"", "holds no record"),
        (b"\n \n", "holds no record"),
        (b"\x80\x81", "is not text (byte 0)"),
        (b"{", "line 1: is not JSON"),
        (b"[" * 100_000, "line 1: is not JSON"),
        (b"9" * 5000, "line 1: is not JSON"),
        (b"null", "line 1"),
        (b"[]", "line 1"),
        (b"{}", "line 1, field time"),
        ((good + "nonsense\n").encode(), f"line {len(good.splitlines()) + 1}: is not JSON"),
        (good.replace('"version":1', '"version":2', 1).encode(), "line 1, field version"),
        (good.replace('"at_s":10.0', '"at_s":"x"', 1).encode(), "line 1, field decision.at_s"),
        (good.replace('"role":"prefill"', '"role":"decode"', 1).encode(), "line 1, field settings.pools"),
    ):
        bad.write_bytes(content)
        refused(command(verb, bad), "bad.jsonl", said)


# -- replay ------------------------------------------------------------------------------------------------------------


def test_every_decision_is_the_same_bit_for_bit(command: Command, journal: Path) -> None:
    count = len(records(journal))
    assert count >= 12
    assert sum(map(changes, records(journal))) >= 1
    ended = command("replay", journal, "--output", "json")
    assert (ended.code, ended.json) == (0, {"records": count, "differing": []})
    assert f"{count} records, every decision the same" in command("replay", journal).out


def test_records_survive_being_read_and_written(journal: Path) -> None:
    for line in journal.read_text().splitlines():
        assert to_line(from_line(line, source="j", number=1)) == line


@pytest.mark.parametrize("capacity", ["closed-form", "simulator"])
@pytest.mark.parametrize("start", ["1p1d", "1a"])
def test_replay_has_the_graph_the_model_and_the_routing_of_the_record(
    command: Command, tmp_path: Path, capacity: str, start: str
) -> None:
    journal = tmp_path / "j.jsonl"
    trace = "generate:conversation,rps=30,duration_s=25,seed=1"
    words = [
        "--trace",
        trace,
        "--profile",
        PROFILES,
        "--ttft-ms",
        200,
        "--itl-ms",
        10,
        "--max-gpus",
        6,
        "--start",
        start,
    ]
    words += [
        "--policy",
        f"planner:capacity={capacity},interval_s=10",
        "--routing",
        "round_robin",
        "--journal",
        journal,
    ]
    assert command("whatif", *words).code in {0, 1}
    ended = command("replay", journal, "--output", "json")
    assert (ended.code, ended.json["differing"]) == (0, [])


def _arrivals(row: Record) -> None:
    row["observation"]["arrivals"]["value"] *= 10


def _plan(row: Record) -> None:
    row["decision"]["plan"]["decode"] += 1


def _sla(row: Record) -> None:
    row["settings"]["sla"]["itl_ms"] = 4.0


def _a_bit(row: Record) -> None:
    row["decision"]["predicted_attainment"] *= 1 + 2**-52


@pytest.mark.parametrize(
    ("tamper", "field"), [(_arrivals, None), (_plan, "plan"), (_sla, None), (_a_bit, "predicted_attainment")]
)
def test_what_was_tampered_with_differs(
    command: Command, journal: Path, tamper: Callable[[Record], None], field: str | None
) -> None:
    rows = records(journal)
    tamper(rows[4])
    ended = command("replay", write(journal, rows), "--output", "json")
    assert ended.code == 1
    assert ended.json["records"] == len(rows)
    assert [one["line"] for one in ended.json["differing"]] == [5]
    assert field in {None, ended.json["differing"][0]["field"]}
    if tamper is _plan:
        said = command("replay", journal)
        assert said.code == 1
        assert f"1 of {len(rows)} differ; the first in line 5, plan" in said.out


def test_a_state_that_no_planner_can_be_in_is_refused(command: Command, journal: Path) -> None:
    rows = records(journal)
    rows[3]["state"]["forecast"]["candidates"][0]["residuals"] = []
    refused(command("replay", write(journal, rows)), "line 4: cannot be decided again")


def test_a_profile_that_changed_since_is_refused(command: Command, tmp_path: Path) -> None:
    profiles, journal = tmp_path / "profiles", tmp_path / "j.jsonl"
    shutil.copytree(PROFILES, profiles)
    trace = "generate:conversation,rps=4,duration_s=25,seed=1"
    words = ["--trace", trace, "--profile", profiles, "--ttft-ms", 200, "--itl-ms", 10, "--journal", journal]
    assert command("whatif", *words, "--policy", "planner").code == 0
    assert command("replay", journal).code == 0
    meta = next(profiles.rglob("decode-*/profile.json"))
    meta.write_text(
        meta.read_text().replace('"warnings"', '"driver": "999",\n  "warnings"').replace('"driver": null,', "")
    )
    refused(command("replay", journal), str(meta.parent), "has changed since the decision")
    # What was decided can still be explained.
    assert command("explain", journal).code == 0
    shutil.rmtree(profiles)
    refused(command("replay", journal), "is not a folder")
