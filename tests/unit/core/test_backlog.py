"""When what waits is a backlog, by hand."""

from __future__ import annotations

import pytest

from planner.core.backlog import BacklogSettings, is_backlog


@pytest.mark.parametrize(
    ("waiting", "rate_rps", "capacity_rps", "found"),
    [
        # Workers for 30 a second work 20 a second off beside 10 that come: 40 in two seconds.
        (40.0, 10.0, 30.0, False),
        (40.1, 10.0, 30.0, True),
        # Too few for what comes: whatever waits is not worked off at all.
        (1.0, 30.0, 30.0, True),
        (0.0, 40.0, 30.0, False),
        (1.0, 0.0, 0.0, True),
        (1e6, 10.0, float("inf"), False),
    ],
)
def test_by_hand(waiting: float, rate_rps: float, capacity_rps: float, found: bool) -> None:
    assert is_backlog(BacklogSettings(), waiting, rate_rps, capacity_rps) is found


def test_the_span_is_a_setting() -> None:
    assert is_backlog(BacklogSettings(work_off_s=10.0), 199.0, 10.0, 30.0) is False
    assert is_backlog(BacklogSettings(work_off_s=1.0), 21.0, 10.0, 30.0) is True
