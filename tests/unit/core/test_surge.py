"""A rise beyond the noise of counting is followed as far as workers take to come; everything else is left alone."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from planner.core.state import PlannerState
from planner.core.surge import SurgeSettings, is_early_surge, surge_rps
from planner.core.types import Known, PoolState, Unknown
from tests.unit.core.cases import planner, run, seen, settle

SETTINGS = SurgeSettings()


def surge(*rates_rps: float | None, dispersion: float = 1.0, ahead_s: float = 20.0, **changes: float) -> float:
    return surge_rps(SurgeSettings(**changes), rates_rps, 10.0, dispersion, ahead_s)  # type: ignore[arg-type]


def test_by_hand() -> None:
    # 10 requests/s over 10 s: 10 in square roots of counts, with a deviation of 0.5. Six make 13, 16.9 a second.
    assert surge(10.0, 10.0, 10.0, 16.8) == 0.0
    # From 10 to 17 in 10 s, 20 s ahead: 17 + 0.7 * 20.
    assert surge(10.0, 10.0, 10.0, 17.0) == pytest.approx(31.0)
    # At most twice the newest.
    assert surge(10.0, 10.0, 10.0, 17.0, ahead_s=60.0) == pytest.approx(34.0)
    assert surge(10.0, 10.0, 10.0, 17.0, ahead_s=60.0, most=1.0) == pytest.approx(17.0)
    # Arrivals that come in bursts have more noise: 1.5, and (10 + 9)^2 is 361 in 10 s.
    assert surge(10.0, 10.0, 10.0, 36.0, dispersion=9.0) == 0.0
    assert surge(10.0, 10.0, 10.0, 36.2, dispersion=9.0) > 0.0
    # What has stopped rising goes no further: the mean of 10, 10 and 40 is 20, and sqrt(400) is 5.9 above sqrt(200).
    assert surge(10.0, 10.0, 40.0, 40.0) == 40.0


def test_where_traffic_jumps_all_the_time_a_jump_is_none() -> None:
    calm, wild = [10.0] * 12, [10.0, 10.0, 10.0, 14.0] * 3
    # The third of wild's jumps is from a mean of 10 to 14: 1.8 in square roots, the others at most 0.6 beyond them.
    assert surge(*calm, 10.0, 24.0) > 0.0
    assert surge(*wild, 10.0, 24.0) == 0.0
    assert surge(*wild, 10.0, 60.0) > 0.0


def test_from_nothing() -> None:
    # One request in an interval is the least: 1 + 6 * 0.5 is 4, 16 requests.
    assert surge(0.0, 0.0, 0.0, 1.5) == 0.0
    assert surge(0.0, 0.0, 0.0, 1.7) == pytest.approx(3.4)


def test_what_is_not_known_is_no_surge() -> None:
    assert surge(10.0, 10.0, 90.0) == 0.0, "too little to compare with"
    assert surge(10.0, 10.0, 10.0, None) == 0.0
    assert surge(10.0, 10.0, None, 90.0) == 0.0, "no slope is known"
    assert surge(10.0, None, 10.0, 90.0) == 0.0
    assert surge(10.0, None, 10.0, 10.0, 90.0) > 0.0


@given(
    before=st.lists(st.floats(0.0, 100.0), min_size=3, max_size=6),
    newest=st.floats(0.0, 1000.0),
    more=st.floats(0.0, 100.0),
    dispersion=st.floats(1.0, 50.0),
    ahead_s=st.floats(0.0, 600.0),
)
def test_more_in_the_newest_interval_never_leads_to_less(
    before: list[float], newest: float, more: float, dispersion: float, ahead_s: float
) -> None:
    low = surge(*before, newest, dispersion=dispersion, ahead_s=ahead_s)
    high = surge(*before, newest + more, dispersion=dispersion, ahead_s=ahead_s)
    assert low <= high + 1e-9
    for found, last in ((low, newest), (high, newest + more)):
        assert found == 0.0 or last <= found <= SETTINGS.most * last


def test_early_by_hand() -> None:
    def early(count: float, span_s: float, *rates_rps: float | None, dispersion: float = 1.0) -> bool:
        return is_early_surge(SETTINGS, rates_rps or (10.0, 10.0, 10.0), 10.0, count, span_s, dispersion)

    # 100 in 10 s are 25 in 2.5 s, 5 in square roots: six deviations of 0.5 make 8, 64 requests.
    calm = (10.0, 10.0, 10.0, 10.0)
    assert early(64.0, 2.5, *calm)
    assert not early(63.9, 2.5, *calm)
    # 5 + 9 with bursts.
    assert early(196.0, 2.5, *calm, dispersion=9.0)
    assert not early(195.9, 2.5, *calm, dispersion=9.0)
    # The same 64 in 5 s are what 50 bring by chance.
    assert not early(64.0, 5.0, *calm)
    assert not early(1e6, 2.5, 10.0, 10.0, 10.0), "too little to compare with"
    assert not early(1e6, 2.5, *calm, None)


def test_where_traffic_jumps_all_the_time_nothing_is_early() -> None:
    wild = [10.0, 10.0, 10.0, 14.0] * 3
    assert is_early_surge(SETTINGS, [*[10.0] * 12], 10.0, 70.0, 2.5, 1.0)
    assert not is_early_surge(SETTINGS, wild, 10.0, 70.0, 2.5, 1.0)


def test_the_planner_hurries_for_it_and_for_nothing_else() -> None:
    made = planner()
    _, state = run(made, [seen(1000)] * 8)
    assert made.hurries(state, seen(700, interval_s=4.0))
    assert not made.hurries(state, seen(450, interval_s=4.0))
    assert not made.hurries(state, seen(Unknown("gone"), interval_s=4.0))
    assert not made.hurries(state, seen(Known(700, age_s=61.0), interval_s=4.0))
    assert not made.hurries(state, seen(700, interval_s=0.0))
    assert not made.hurries(PlannerState(), seen(700, interval_s=4.0))


def test_the_planner_sizes_for_it_and_says_so() -> None:
    steady = [seen(1000)] * 8
    calm, _ = run(planner(), [*steady, seen(1050)])
    rising, _ = run(planner(), [*steady, seen(3000)])
    late, _ = run(planner(surge=SurgeSettings(deviations=1e6)), [*steady, seen(3000)])
    for decisions, reasoned in ((calm, False), (rising, True), (late, False)):
        assert ("surge" in decisions[-1].reasons) is reasoned
    demands = [decisions[-1].demand for decisions in (calm, rising, late)]
    assert all(demand is not None for demand in demands)
    assert [demand is not None and demand.surge_rps for demand in demands] == [0.0, pytest.approx(600.0), 0.0]
    assert demands[1] is not None
    assert demands[1].rate_rps == pytest.approx(600.0)
    wanted = [sum(decisions[-1].wanted.values()) for decisions in (calm, late, rising)]
    assert wanted == sorted(wanted)
    assert wanted[1] < wanted[2]


def test_the_forecast_after_it_is_as_sure_as_before() -> None:
    observations = [seen(1000)] * 12 + [seen(3000)] * 8
    spread = []
    for made in (planner(), planner(surge=SurgeSettings(deviations=1e6))):
        decisions, _ = run(made, observations)
        demand = decisions[-1].demand
        assert demand is not None
        spread.append(demand.rate_rps - demand.median_rps)
    assert spread[0] < 10.0 < spread[1]


def test_what_it_asks_for_beyond_what_has_come_is_not_kept_when_it_ends() -> None:
    made = planner()
    _, state, supply, now = settle(made, 1000)
    counts = []
    for k in (1, 2):
        decision, state = made.decide(state, seen(3000, supply), now + k * made.settings.interval_s)
        supply = {name: PoolState(count, count) for name, count in decision.plan.items()}
        counts.append(sum(decision.plan.values()))
    # Twice what came, then what came: the down window of a minute knows nothing of the first.
    assert counts[1] < 0.7 * counts[0]
