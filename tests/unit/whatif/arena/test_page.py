"""The page, the tables and the object: what they must hold, and what they must not let through."""

import json
import re
from collections.abc import Callable
from io import StringIO

from rich.console import Console

from planner.whatif.arena.page import page
from planner.whatif.arena.results import Results, as_json
from planner.whatif.arena.table import markdown, ours_in_words, tables
from tests.unit.whatif.arena.conftest import make_run

Make = Callable[..., Results]


def some(results: Make) -> Results:
    return results(
        *(make_run("planner", seed, 0.955 + seed / 1000, 1.2) for seed in range(3)),
        *(make_run("hpa", seed, 0.9505, 1.6) for seed in range(3)),
        *(make_run("kpa", seed, 0.2, 0.7) for seed in range(2)),
        make_run("kpa", 2, 0, 0, error="ValueError: <b>no</b>"),
        *(make_run("clairvoyant", seed, 0.951, 1.0) for seed in range(3)),
        about="A <i>case</i>.",
    )


def figures(text: str) -> dict[str, dict]:
    found = re.findall(r'<script type="application/json" data-for="([^"]+)">(.*?)</script>', text, re.DOTALL)
    return {name: json.loads(code) for name, code in found}


def test_the_page_has_every_picture_and_loads_nothing(results: Make) -> None:
    text = page(some(results))
    drawn = figures(text)
    assert set(drawn) == {"front-one", "time-one"}
    names = [trace.get("name") for trace in drawn["front-one"]["data"]]
    assert {"planner", "hpa", "kpa", "clairvoyant", "target 95 %", "front: not dominated"} <= set(names)
    (ours,) = (trace for trace in drawn["front-one"]["data"] if trace.get("name") == "planner")
    # Deviation of 0.955, 0.956, 0.957 is 0.001; 4.3027 standard errors.
    assert abs(ours["error_y"]["array"][0] - 4.3027 * 0.001 / 3**0.5) < 1e-6
    titles = [note["text"] for note in drawn["time-one"]["layout"]["annotations"]]
    assert [re.sub(r"</?b>", "", title).split()[0] for title in titles] == ["planner", "clairvoyant", "hpa", "kpa"]
    assert "Content-Security-Policy" in text
    assert not re.search(r'<(script|link|img)[^>]+(src|href)="http', text)


def test_what_a_person_named_is_escaped(results: Make) -> None:
    text = page(some(results))
    assert "A &lt;i&gt;case&lt;/i&gt;." in text
    assert "ValueError: &lt;b&gt;no&lt;/b&gt;" in text
    assert "<b>no</b>" not in text


def test_the_dominated_are_marked_everywhere(results: Make) -> None:
    told = some(results)
    (row,) = (line for line in markdown(told).splitlines() if line.startswith("| hpa | 95.05"))
    assert row.endswith("| planner |")
    assert "1.60 ±0.00" in row
    out = StringIO()
    for table in tables(told):
        Console(file=out, width=150).print(table)
    assert re.search(r"hpa\s+95\.05 % ±0\.0\s+1\.60 ±0\.00\s+1\.60 ±0\.00.*planner", out.getvalue())
    assert ours_in_words(told) == (
        "planner reaches the target in 1 of 1 cases in which the bound reaches it, at 1.20 times the bound's GPU-hours "
        "on average (at worst 1.20, one); it is dominated in 0 of 1."
    )


def test_the_object_holds_cases_standings_and_runs(results: Make) -> None:
    answer = json.loads(json.dumps(as_json(some(results)), allow_nan=False))
    (case,) = answer["cases"]
    rows = {row["policy"]: row for row in case["policies"]}
    assert rows["hpa"]["dominated_by"] == ["planner"]
    assert (rows["hpa"]["dominated"], rows["planner"]["dominated"], rows["clairvoyant"]["bound"]) == (True, False, True)
    assert (rows["planner"]["target_met"], rows["kpa"]["target_met"], rows["kpa"]["failed"]) == (True, False, 1)
    assert rows["planner"]["ratio"]["mean"] == 1.2
    assert case["substituted"] is False
    assert len(case["runs"]) == 12
    assert all("timeline" not in run.get("figures", {}) for run in case["runs"])


def test_a_policy_none_of_whose_runs_was_done_has_no_figures(results: Make) -> None:
    told = results(make_run("planner", 0, 0, 0, error="ValueError: x"), make_run("hpa", 0, 0.99, 1.0))
    (case,) = json.loads(json.dumps(as_json(told), allow_nan=False))["cases"]
    assert case["policies"][0]["attainment"] is None
    assert case["policies"][0]["decisions_s"] is None
    assert "failed: ValueError: x" in markdown(told)
    assert set(figures(page(told))) == {"front-one", "time-one"}
