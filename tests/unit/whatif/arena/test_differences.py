"""Differences from a reference: by hand, where runs are missing, and as tables."""

from collections.abc import Callable
from io import StringIO

import pytest
from rich.console import Console

from planner.whatif.arena.cases import ArenaSpec, cases_of, find_set, load_set
from planner.whatif.arena.differences import Difference, as_json, differences
from planner.whatif.arena.page import page
from planner.whatif.arena.results import Results, gather
from planner.whatif.arena.table import least_width, markdown, tables
from planner.whatif.policies.ablation import PARTS
from tests.unit.whatif.arena.conftest import make_run


def near(points: float, percent: float) -> Difference:
    return Difference(pytest.approx(points), pytest.approx(percent))  # type: ignore[arg-type]


def test_seeds_are_paired_and_every_case_counts_the_same() -> None:
    one = [
        make_run("planner", 0, 0.95, 10.0), make_run("planner", 1, 0.90, 20.0),
        make_run("planner:x", 0, 0.94, 11.0), make_run("planner:x", 1, 0.92, 24.0),
    ]  # fmt: skip
    other = [make_run("planner", 0, 0.5, 1.0), make_run("planner:x", 0, 0.6, 0.5)]
    (found,) = differences("planner", ["planner", "planner:x"], [("one", one), ("other", other)])
    assert found.policy == "planner:x"
    assert found.by_case == {"one": near(0.5, 15.0), "other": near(10.0, -50.0)}
    assert found.mean == near(5.25, -17.5)


def test_what_has_no_run_beside_it_is_left_out() -> None:
    one = [
        make_run("planner", 0, 0.95, 10.0), make_run("planner", 1, 0.0, 0.0, error="x"),
        make_run("planner:x", 0, 0.95, 9.0), make_run("planner:x", 1, 0.1, 9.0),
    ]  # fmt: skip
    alone = [make_run("planner:x", 0, 0.9, 9.0)]
    free = [make_run("planner", 0, 0.9, 0.0), make_run("planner:x", 0, 0.9, 9.0)]
    (found,) = differences("planner", ["planner", "planner:x"], [("one", one), ("alone", alone), ("free", free)])
    assert found.by_case == {"one": near(0.0, -10.0)}
    (none,) = differences("planner", ["planner", "planner:x"], [("alone", alone)])
    assert none.mean is None
    assert as_json("planner", [none])["policies"] == [{"policy": "planner:x", "mean": None, "cases": {}}]


@pytest.fixture
def compared(results: Callable[..., Results]) -> Results:
    runs = [make_run("planner", 0, 0.95, 10.0), make_run("planner:without=surge", 0, 0.9, 8.0)]
    plain = results(*runs)
    terms = [one for case in plain.cases for one in case.terms]
    return gather("set", "about", ["planner", "planner:without=surge"], terms, runs, "planner")


def printed(results: Results, width: int | None) -> list[str]:
    console = Console(width=width or 400, file=StringIO(), record=True)
    for table in tables(results, width):
        console.print(table)
    return console.export_text().splitlines()


def test_the_differences_are_in_every_answer(compared: Results) -> None:
    text = "\n".join(printed(compared, None))
    for words in ("95.00 %, 10.00", "-5.00, -20.0 %", "Differences from planner"):
        assert words in text
        assert words in markdown(compared)
        assert words in page(compared)


def test_what_rounds_to_nothing_has_no_minus(results: Callable[..., Results]) -> None:
    runs = [make_run("planner", 0, 0.95, 10.0), make_run("planner:x", 0, 0.949999, 9.9999)]
    terms = results(*runs).cases[0].terms
    assert "+0.00, +0.0 %" in markdown(gather("set", "", ["planner", "planner:x"], terms, runs, "planner"))


def test_without_a_reference_there_are_none(results: Callable[..., Results]) -> None:
    plain = results(make_run("planner", 0, 0.95, 10.0))
    assert plain.reference == ""
    assert "Differences" not in markdown(plain) + page(plain)
    terms = plain.cases[0].terms
    assert gather("set", "", ["hpa"], terms, [make_run("hpa", 0, 0.9, 1.0)], "planner").differences == ()


@pytest.mark.parametrize("width", [80, 100, 120, 200])
def test_tables_fit_a_terminal_by_leaving_columns_out(compared: Results, width: int) -> None:
    for table in tables(compared, width):
        assert least_width(table) <= width
    lines = printed(compared, width)
    assert all(len(line) <= width for line in lines)
    text = "\n".join(lines)
    # What counts is always there.
    for words in ("attainment", "GPU-hours", "x bound", "target met", "-5.00, -20.0 %"):
        assert words in text
    everything = "\n".join(printed(compared, None))
    assert "decisions s" in everything
    assert ("decisions s" in text) == (width >= 100)


def test_cases_that_do_not_fit_go_into_further_tables(compared: Results) -> None:
    assert len(tables(compared, 200)) == 3
    assert len(tables(compared, 42)) == 4
    assert "-5.00, -20.0 %" in "\n".join(printed(compared, 42))


@pytest.mark.parametrize("name", ["ablation", "sensitivity"])
def test_the_shipped_sets_compare_variants_of_the_planner(name: str) -> None:
    spec = load_set(find_set(name))
    assert spec.reference == "planner"
    assert {policy.partition(":")[0] for policy in spec.policies} == {"planner"}
    standard = {case.name: case for case in load_set(find_set("standard")).cases}
    for case in cases_of(spec):
        like = standard[case.spec.name]
        same = {"trace", "rate_scale", "sla", "max_gpus", "profile", "graph"}
        assert case.spec.model_dump(include=same) == like.model_dump(include=same)
        assert (case.startup_s, case.spec.seeds) == (30.0, (0,))


def test_the_ablation_takes_every_part() -> None:
    spec = load_set(find_set("ablation"))
    assert set(spec.policies) == {"planner", "planner:without=all", *(f"planner:without={name}" for name in PARTS)}


def test_a_case_is_like_one_that_is_shipped() -> None:
    rest = {"policies": ["planner"], "defaults": {"max_gpus": 7, "seeds": [5]}}
    (case,) = ArenaSpec.model_validate({**rest, "cases": [{"like": "standard/drift", "seeds": 3}]}).cases
    assert (case.name, case.rate_scale, case.max_gpus, case.seeds) == ("drift", 3, 7, (3,))
    for wrong in ("standard/none", "none/drift", "drift", "", 3):
        with pytest.raises(ValueError, match="a case of a shipped set"):
            ArenaSpec.model_validate({**rest, "cases": [{"like": wrong}]})


def test_a_reference_is_one_of_the_policies() -> None:
    with pytest.raises(ValueError, match="a reference that is one of the policies"):
        ArenaSpec.model_validate({"policies": ["hpa"], "reference": "planner", "cases": [{"like": "standard/drift"}]})
