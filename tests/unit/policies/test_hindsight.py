"""Counts chosen with knowledge of the trace."""

import pytest

from planner.whatif.policies import make_policy
from planner.whatif.policies.hindsight import counts_for_mean, counts_for_peak, counts_for_start
from planner.whatif.replay import replay
from planner.whatif.traces import open_trace
from profiler.errors import InputError
from tests.bench.common import setting_for

#: Five minutes of 20 requests a second, of which the third has five times as many.
SPIKE = "generate:step,rps=20,duration_s=300,step_at_s=120,step_duration_s=60,step_factor=5,seed=2"


def gpus(plan: dict[str, int]) -> int:
    return sum(plan.values())


def test_mean_is_less_than_peak_and_each_is_one_fleet_for_the_whole_trace() -> None:
    setting = setting_for(open_trace(SPIKE))
    mean, peak = counts_for_mean(setting), counts_for_peak(setting)
    assert gpus(mean) < gpus(peak)
    for spec, plan in (("static:mean", mean), ("static:peak", peak)):
        policy = make_policy(spec, setting)
        assert policy.start() == plan
        outcome = replay(setting, policy, spec)
        assert (outcome.scale_ups, outcome.scale_downs, outcome.peak_gpus) == (0, 0, gpus(plan))
    # A fleet for the worst minute serves the rest, too.
    assert replay(setting, make_policy("static:peak", setting), "static:peak").attainment > 0.95


def test_the_start_is_sized_for_the_first_minutes_alone() -> None:
    setting = setting_for(open_trace(SPIKE))
    assert gpus(counts_for_start(setting, 120.0)) < gpus(counts_for_start(setting, 180.0))


def test_where_nothing_comes_at_first_the_start_is_the_least() -> None:
    setting = setting_for(open_trace("generate:nights,rps=40,duration_s=600"))
    assert counts_for_start(setting, 120.0) == {"prefill": 1, "decode": 1}


def test_the_peak_stays_within_the_budget() -> None:
    setting = setting_for(open_trace(SPIKE), max_gpus=3)
    assert gpus(counts_for_peak(setting)) <= 3


def test_the_peak_is_the_minute_that_needs_most_not_the_one_with_most_requests(tmp_path) -> None:
    # A minute of 600 short prompts, then one of 300 that are fifty times as long.
    rows = [f"{i / 10},100,20" for i in range(600)] + [f"{60 + i / 5},5000,20" for i in range(300)]
    file = tmp_path / "t.csv"
    file.write_text("arrival_s,isl,osl\n" + "\n".join(rows) + "\n")
    setting = setting_for(open_trace(file))
    assert counts_for_peak(setting)["prefill"] > counts_for_start(setting, 60.0)["prefill"]


def test_other_words_are_no_layout() -> None:
    with pytest.raises(InputError, match="'median' is not a layout"):
        make_policy("static:median", setting_for(open_trace(SPIKE)))
