"""`planner whatif --disturb`: disturbed runs beside the undisturbed one."""

import json
from pathlib import Path

import pytest
from typer.testing import CliRunner, Result

from planner.cli import app
from profiler.errors import InputError
from tests.unit.cli.conftest import PROFILES, TRACE


def whatif(*arguments: object, catch: bool = True) -> Result:
    base = ["--trace", TRACE, "--profile", PROFILES, "--max-gpus", 8, "--jobs", 1, "--ttft-ms", 200, "--itl-ms", 10]
    words = [str(word) for word in ("whatif", *base, *arguments)]
    return CliRunner().invoke(app, words, catch_exceptions=catch, env={"COLUMNS": "80"})


def test_every_policy_is_replayed_undisturbed_and_disturbed() -> None:
    names = ("drifting-lengths:isl=3,osl=1", "missing-metrics:at_s=20")
    options = [word for name in names for word in ("--disturb", name)]
    policies = ("--policy", "static:1p1d", "--policy", "planner")
    ended = whatif(*policies, *options, "--attainment", "0.9", "--output", "json")
    assert ended.exit_code == 0, ended.output
    answer = json.loads(ended.stdout)["policies"]
    assert [(one["policy"], one["disturbance"]) for one in answer] == [
        (policy, name) for policy in ("static:1p1d", "planner") for name in (None, *names)
    ]
    plain, longer, blind = answer[:3]
    assert longer["ttft_ms"]["mean"] > 1.2 * plain["ttft_ms"]["mean"]
    # A fixed fleet does not look at metrics.
    assert blind["ttft_ms"] == plain["ttft_ms"]


def test_the_table_loses_no_figure() -> None:
    ended = whatif("--policy", "static:1p1d", "--disturb", "slow-workers:share=1,factor=2", "--attainment", "0.5")
    assert ended.exit_code == 0, ended.output
    row = next(line for line in ended.stdout.splitlines() if "slow-workers" in line)
    assert row.rstrip().endswith("0/0")
    assert "+0.0 %" in row
    for word in ("static:1p1d", "none", "points", "downs", "change"):
        assert word in ended.stdout


def test_gpu_hours_stand_beside_the_undisturbed_bound() -> None:
    words = ("--policy", "static:1p1d", "--policy", "clairvoyant", "--disturb", "drifting-lengths:isl=3,osl=3")
    told = json.loads(whatif(*words, "--output", "json").stdout)["policies"]
    bound = next(one for one in told if (one["policy"], one["disturbance"]) == ("clairvoyant", None))
    assert len(told) == 4
    for one in told:
        assert one["gpu_hours_over_bound"] == pytest.approx(one["gpu_hours"] / bound["gpu_hours"])
    table = whatif(*words).stdout
    assert "x bound" in table
    rows = [line.split() for line in table.splitlines() if "drifting-lengths" in line]
    assert [row[-1] for row in rows] == [
        f"{told[1]['gpu_hours_over_bound']:.2f}",
        f"{told[3]['gpu_hours_over_bound']:.2f}",
    ]
    alone = whatif(*words[:2], *words[4:])
    assert "x bound" not in alone.stdout


def test_page_and_records_tell_of_the_disturbed_run(tmp_path: Path) -> None:
    page, journal = tmp_path / "page.html", tmp_path / "records.jsonl"
    gap = ("--disturb", "missing-metrics:at_s=14,for_s=20")
    ended = whatif("--policy", "planner", *gap, "--report", page, "--journal", journal)
    assert ended.exit_code in {0, 1}, ended.output
    assert "missing-metrics:at_s=14,for_s=20" in page.read_text()
    records = [json.loads(line) for line in journal.read_text().splitlines()]
    unknown = [record["observation"]["arrivals"]["state"] == "unknown" for record in records]
    assert unknown[:3] == [True, True, False]
    assert not any(unknown[2:])


@pytest.mark.parametrize(
    ("options", "field"),
    [
        (("--disturb", "all", "--report", "page.html"), "--report"),
        (("--disturb", "optimistic-profile", "--journal", "records.jsonl"), "--journal"),
        (("--disturb", "missing-metrics"), "--disturb"),
        (("--disturb", "failing-starts", "--startup-s", "0"), "--disturb"),
        (("--disturb", "rain"), "--disturb"),
    ],
)
def test_what_does_not_go_together_is_refused(
    options: tuple[str, ...], field: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(InputError) as error:
        whatif("--policy", "planner", *options, catch=False)
    assert error.value.field == field
    assert list(tmp_path.iterdir()) == []
