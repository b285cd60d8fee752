"""Live latencies move a factor on each role's times to where prediction and observation agree, and no further."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest

from planner.core.capacity import Prediction
from planner.core.demand import Demand, Lengths
from planner.core.residual import LARGEST_ERROR, ResidualSettings, corrected
from planner.core.types import Known, PoolState, Role
from tests.unit.core.cases import SLA, planner, pools, run, sample, seen

SETTINGS = ResidualSettings()
BOTH = {Role.PREFILL: 4, Role.DECODE: 4}


def predicted(ttft_ms: float = 100.0, itl_ms: float = 10.0, use: float = 0.5) -> Prediction:
    return Prediction(1.0, 1.0, 1.0, {Role.PREFILL: use, Role.DECODE: use}, itl_ms, ttft_ms)


def step(seen_ms: dict[Role, float], before: dict[Role, float] | None = None, **changes: float) -> dict[Role, float]:
    return corrected(SETTINGS, before or {}, predicted(**changes), seen_ms, 15.0)


def test_by_hand() -> None:
    # 20 % slower than predicted, 5 % of which count as none, over an eighth of the time constant.
    expected = (1.2 / 1.05) ** 0.125
    assert step({Role.PREFILL: 120.0, Role.DECODE: 12.0}) == pytest.approx(
        {Role.PREFILL: expected, Role.DECODE: expected}, abs=1e-4
    )
    assert step({Role.DECODE: 12.0}, {Role.DECODE: 1.1}) == pytest.approx({Role.DECODE: 1.1 * expected}, abs=1e-4)
    assert step({Role.DECODE: 8.0})[Role.DECODE] == pytest.approx((0.8 * 1.05) ** 0.125, abs=1e-4)
    # A longer interval than the time constant takes all of it.
    assert corrected(SETTINGS, {}, predicted(), {Role.DECODE: 12.0}, 600.0)[Role.DECODE] == pytest.approx(
        1.2 / 1.05, abs=1e-4
    )


def test_bounds() -> None:
    assert step({Role.DECODE: 10.4}) == {Role.DECODE: 1.0}, "within the deadband"
    assert step({Role.DECODE: 500.0})[Role.DECODE] == pytest.approx(LARGEST_ERROR**0.125, abs=1e-4), "an outage"
    assert step({Role.DECODE: 500.0}, {Role.DECODE: 1.59}) == {Role.DECODE: SETTINGS.most}
    assert step({Role.DECODE: 0.1}, {Role.DECODE: 0.91}) == {Role.DECODE: SETTINGS.least}


def test_nothing_is_learnt_of_what_says_nothing() -> None:
    before = {Role.DECODE: 1.2}
    assert step({}, before) == before
    assert step({Role.DECODE: 20.0}, before, use=0.9) == before, "queues of chance"
    assert step({Role.DECODE: 20.0}, before, itl_ms=math.inf) == before
    assert step({Role.DECODE: 0.0}, before) == before


# -- in the planner ----------------------------------------------------------------------------------------------------


def latencies(factors: dict[Role, float], arrivals: int, counts: dict[Role, int]) -> dict[str, object]:
    """What engines that much slower show at this load, by the model itself."""
    made = planner()
    demand = Demand(arrivals / 10.0, 1.0, Lengths.of(sample(n=8)))
    found = made.capacity.slowed(factors).evaluator(demand, SLA).predict(counts)
    return {"mean_ttft_ms": Known(found.ttft_ms), "mean_itl_ms": Known(found.itl_ms)}


def test_it_finds_by_how_much_the_engines_are_slower() -> None:
    true = {Role.PREFILL: 1.2, Role.DECODE: 1.3}
    slow = latencies(true, 1000, BOTH)
    _, state = run(planner(), [seen(1000, pools(4, 4), **slow)] * 120)
    # What remains of a latency is the deadband at most; a factor moves its latency by at least as much.
    for role, factor in true.items():
        assert factor / 1.051 <= state.residuals[role] <= factor * 1.001


def test_it_sizes_for_slower_engines_and_says_so() -> None:
    right = latencies({}, 1000, BOTH)
    slow = latencies({Role.PREFILL: 1.4, Role.DECODE: 1.4}, 1000, BOTH)
    calm, _ = run(planner(), [seen(1000, pools(4, 4), **right)] * 60)
    late, _ = run(planner(), [seen(1000, pools(4, 4), **slow)] * 60)
    assert not any("stale" in reason for reason in calm[-1].reasons)
    assert "prefill:profile_stale" in late[-1].reasons
    assert any(clamp.endswith("times as slow as its profile") for clamp in late[-1].clamps)
    assert sum(late[-1].wanted.values()) > sum(calm[-1].wanted.values())


@pytest.mark.parametrize("why", ["few", "unknown", "starting to serve", "draining", "none ready"])
def test_only_steady_intervals_teach(why: str) -> None:
    slow = latencies({Role.PREFILL: 1.4, Role.DECODE: 1.4}, 1000, BOTH)
    one = seen(1000, pools(4, 4), **slow)
    two = one
    if why == "few":
        one = two = replace(one, arrivals=Known(19))
    if why == "unknown":
        one = two = seen(1000, pools(4, 4))
    if why == "starting to serve":
        two = replace(one, pools=Known(pools(4, 5)))
    if why == "draining":
        one = two = replace(one, pools=Known({**pools(4, 4), "decode": PoolState(4, 4, terminating=1)}))
    if why == "none ready":
        one = two = replace(one, pools=Known({**pools(4, 4), "decode": PoolState(4, 0, starting=4)}))
    _, state = run(planner(), [one, two] * 6)
    assert state.residuals == {}
    _, state = run(planner(), [seen(1000, pools(4, 4), **slow)] * 3)
    assert state.residuals
