"""Means, intervals, dominance and summaries, on figures that can be worked out by hand."""

import math

import pytest

from planner.whatif.arena.statistics import Standing, dominates, spread, standings, summarise
from tests.unit.whatif.arena.conftest import make_run


def row(policy: str, attainment: float, gpu_hours: float) -> Standing:
    (one,) = standings([policy], [make_run(policy, 0, attainment, gpu_hours)])
    return one


def test_an_interval_is_students_over_the_seeds() -> None:
    # Mean 2, deviation 1, three values: t of two degrees at 97.5 % is 4.3027.
    found = spread([1.0, 2.0, 3.0])
    assert found.mean == 2
    assert found.half_width == pytest.approx(4.3027 / math.sqrt(3), rel=1e-4)
    assert spread([5.0]).half_width is None


@pytest.mark.parametrize(
    ("one", "other", "beats"),
    [
        ((0.96, 1.0), (0.95, 1.0), True),  # more for the same
        ((0.96, 1.0), (0.96, 1.1), True),  # the same for less
        ((0.96, 1.0), (0.96, 1.0), False),  # equal
        ((0.9605, 1.0), (0.96, 1.004), False),  # both within the tolerance
        ((0.97, 1.001), (0.95, 1.0), False),  # more, but not for at most as much
        ((0.95, 0.5), (0.951, 1.0), False),  # far cheaper, but attains less
    ],
)
def test_who_dominates_whom(one: tuple[float, float], other: tuple[float, float], beats: bool) -> None:
    assert dominates(row("a", *one), row("b", *other)) is beats


def test_a_bound_dominates_nobody_and_is_not_dominated() -> None:
    runs = [make_run("clairvoyant", 0, 0.96, 1.0), make_run("clairvoyant:free", 0, 0.96, 0.9)]
    runs += [make_run("planner", 0, 0.95, 1.2), make_run("hpa", 0, 0.94, 1.3)]
    rows = {one.policy: one for one in standings(["clairvoyant", "clairvoyant:free", "planner", "hpa"], runs)}
    assert rows["planner"].dominated_by == ()
    assert rows["planner"].on_front
    assert rows["hpa"].dominated_by == ("planner",)
    assert not rows["hpa"].on_front
    assert not rows["clairvoyant"].on_front
    assert rows["clairvoyant"].dominated_by == ()


def test_ratios_are_of_the_same_seed() -> None:
    runs = [make_run("clairvoyant", 0, 0.95, 1.0), make_run("clairvoyant", 1, 0.95, 2.0)]
    runs += [make_run("planner", 0, 0.95, 1.5), make_run("planner", 1, 0.95, 2.0), make_run("planner", 2, 0.95, 9.0)]
    rows = standings(["planner"], runs)
    assert rows[0].ratio is not None
    assert rows[0].ratio.mean == pytest.approx(1.25)
    assert rows[0].seeds == 3


def test_failed_runs_are_counted_and_told_and_do_not_count_as_figures() -> None:
    runs = [make_run("hpa", 0, 0.9, 1.0), make_run("hpa", 1, 0, 0, error="ValueError: x")]
    (one,) = standings(["hpa"], runs)
    assert (one.seeds, one.failed, one.errors) == (1, 1, ("ValueError: x",))
    assert one.attainment is not None
    assert one.attainment.mean == 0.9
    (none,) = standings(["hpa"], runs[1:])
    assert none.attainment is None
    assert not none.reaches(0.0)
    assert not none.on_front


def test_a_summary_counts_cases_in_which_the_bound_reaches_the_target() -> None:
    def case(ours: float, bound: float, cost: float) -> list[Standing]:
        runs = [
            make_run("planner", 0, ours, cost),
            make_run("clairvoyant", 0, bound, 1.0),
            make_run("hpa", 0, 0.99, 1.4),
        ]
        return standings(["planner", "clairvoyant", "hpa"], runs)

    told = [
        ("won", 0.95, case(0.96, 0.95, 1.2)),
        ("beaten", 0.95, case(0.96, 0.95, 1.6)),
        ("missed", 0.95, case(0.90, 0.95, 1.1)),
        ("hopeless", 0.95, case(0.70, 0.80, 1.1)),
    ]
    found = summarise("planner", told)
    assert (found.reached, found.reachable, found.cases) == (2, 3, 4)
    assert found.missed == ("missed",)
    assert found.ratio == pytest.approx(1.4)
    assert (found.worst_ratio, found.worst_case) == (pytest.approx(1.6), "beaten")
    assert found.dominated == ("beaten",)
