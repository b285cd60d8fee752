"""Who wins, and how it is said."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from planner.core.types import Sla
from planner.whatif.outcome import Outcome
from planner.whatif.report_verdict import percent, verdict

Make = Callable[..., Outcome]
SLA = Sla(200.0, 10.0, 0.95)


def test_ours_wins(outcome: Make) -> None:
    found = verdict([outcome("static:3p3d", 0.96, 4.0), outcome("planner", 0.97, 3.0)], SLA)
    assert found.headline == "planner meets the SLA at the fewest GPU-hours"
    assert "planner takes 25 % fewer" in " ".join(found.details)


def test_another_wins_and_ours_meets_it_too(outcome: Make) -> None:
    found = verdict([outcome("static:3p3d", 0.96, 2.0), outcome("planner", 0.97, 3.0)], SLA)
    assert found.headline == (
        "static:3p3d meets the SLA at the fewest GPU-hours; planner meets it too, with 50 % more GPU-hours"
    )


def test_another_wins_and_ours_misses(outcome: Make) -> None:
    found = verdict([outcome("hpa", 0.96, 5.0), outcome("planner", 0.94, 3.0)], SLA)
    assert found.headline == "hpa meets the SLA at the fewest GPU-hours; planner misses it"
    assert "planner misses the target of 95 %: 94.00 % attain" in " ".join(found.details)


def test_nobody_wins(outcome: Make) -> None:
    found = verdict([outcome("static:3p3d", 0.90, 2.0), outcome("planner", 0.94, 3.0)], SLA)
    assert found.winner is None
    assert found.headline == "No policy meets the SLA"
    assert found.details[0].startswith("The closest is planner: 94.00 % of requests attain, 95 % are wanted")
    assert found.static is not None
    assert "falls short with 90.00 %" in " ".join(found.details)


def test_the_clairvoyant_does_not_compete(outcome: Make) -> None:
    bound = outcome("clairvoyant", 0.99, 1.0)
    found = verdict([bound, outcome("planner", 0.96, 3.0)], SLA)
    assert found.winner is found.ours
    assert found.bound is bound
    alone = verdict([bound, outcome("planner", 0.90, 3.0)], SLA)
    assert alone.headline == "No policy meets the SLA, except the clairvoyant bound"


def test_the_best_fixed_fleet_is_the_cheapest_that_reaches_or_else_the_closest(outcome: Make) -> None:
    fleets = [outcome("static:9p9d", 1.0, 9.0), outcome("static:3p3d", 0.95, 3.0), outcome("static:1p1d", 0.2, 1.0)]
    assert verdict(fleets, SLA).static is fleets[1]
    assert verdict([fleets[2], outcome("static:2p1d", 0.4, 2.0)], SLA).static != fleets[2]


def test_drawn_are_ours_the_best_fleet_and_the_others(outcome: Make) -> None:
    everyone = [outcome("static:1p1d", 0.2), outcome("hpa"), outcome("static:3p3d"), outcome("planner")]
    assert [o.policy for o in verdict(everyone, SLA).drawn] == ["planner", "static:3p3d", "hpa"]


@pytest.mark.parametrize(
    ("share", "text"),
    [
        (0.9499999, "94.99 %"),
        (0.95, "95.00 %"),
        (0.29, "29.00 %"),
        (1.0, "100.00 %"),
        (0.99999, "99.99 %"),
        (0, "0.00 %"),
    ],
)
def test_shares_are_rounded_down(share: float, text: str) -> None:
    assert percent(share) == text
