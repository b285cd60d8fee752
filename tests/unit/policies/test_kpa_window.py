"""Knative's windows against the figures of its own tests of the aggregation package."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from planner.whatif.policies.kpa_window import AverageWindow, DelayWindow


def filled(seconds, values, *, weighted=False):
    """A window with one value a second, from second 100 on."""
    window = AverageWindow(seconds, weighted)
    for place, value in enumerate(values):
        window.record(100.0 + place, value)
    return window


class TestLinear:
    def test_a_short_history_is_averaged_over_itself(self):
        # one value in a window of five seconds is that value, not a fifth of it
        assert filled(5, [1.0]).average(100.0) == 1.0
        assert filled(5, [1.0, 2.0, 3.0]).average(102.0) == 2.0

    def test_a_full_window(self):
        assert filled(5, [1.0, 2.0, 3.0, 4.0, 5.0]).average(104.0) == 15.0 / 5
        assert filled(5, [1.0, 2.0, 3.0, 4.0, 5.0, 6.0]).average(105.0) == 20.0 / 5

    def test_seconds_after_the_last_value_do_not_count(self):
        # two seconds later 1 and 2 have left the window, and three seconds of it hold something
        window = filled(5, [1.0, 2.0, 3.0, 4.0, 5.0])
        assert window.average(106.0) == (15.0 - 1 - 2) / (5 - 2)
        assert window.average(110.0) == 0.0

    def test_a_hole_between_values_counts_as_zeroes(self):
        window = filled(5, [1.0, 2.0, 3.0, 4.0, 5.0])
        window.record(106.0, 91.0)
        assert window.average(106.0) == (15.0 - 1 - 2 + 91) / 5

    def test_a_window_that_ran_empty_begins_anew(self):
        window = filled(5, [1.0, 2.0, 3.0, 4.0, 5.0])
        window.record(166.0, 1984.0)
        assert window.average(166.0) == 1984.0

    def test_what_is_recorded_within_a_second_adds_up(self):
        window = AverageWindow(5)
        for value in (1.0, 2.0, 3.0):
            window.record(100.25, value)
        assert window.average(100.75) == 6.0

    def test_it_is_rounded_down_to_six_decimals(self):
        assert filled(3, [1.0, 0.0, 1.0]).average(102.0) == 0.666666
        assert filled(1, [3.6e-17]).average(100.0) == 0.0

    def test_it_is_empty_only_beyond_its_length(self):
        window = filled(5, [1.0])
        assert AverageWindow(5).empty(0.0)
        assert not window.empty(105.0)
        assert window.average(105.0) == 0.0
        assert window.empty(106.0)

    @given(st.lists(st.floats(0.0, 1e4), min_size=1, max_size=40), st.integers(1, 10))
    def test_it_lies_between_the_least_and_the_most_of_the_window(self, values, seconds):
        average = filled(seconds, values).average(100.0 + len(values) - 1)
        assert min(values[-seconds:]) - 1e-5 <= average <= max(values[-seconds:]) + 1e-9


class TestWeighted:
    def test_the_latest_counts_most(self):
        # window of 4: the decay is 1 - 0.0001 ** (1/4) = 0.9; 0.9 * (5 + 5 * 0.1 + 10 * 0.01 + 10 * 0.001)
        assert filled(4, [10.0, 10.0, 5.0, 5.0], weighted=True).average(103.0) == pytest.approx(5.049)
        assert filled(4, [5.0, 5.0, 10.0, 10.0], weighted=True).average(103.0) == pytest.approx(9.9495)

    def test_a_long_window_decays_by_a_fifth_at_least(self):
        # a minute: 1 - 0.0001 ** (1/60) = 0.142, below the least decay of 0.2
        assert filled(60, [10.0], weighted=True).average(100.0) == pytest.approx(2.0)
        assert filled(60, [10.0, 10.0], weighted=True).average(101.0) == pytest.approx(2.0 + 1.6)

    def test_seconds_without_a_value_count_as_zero(self):
        assert filled(60, [10.0], weighted=True).average(101.0) == pytest.approx(1.6)


class TestDelay:
    def test_a_lower_count_waits_for_the_whole_delay(self):
        # five minutes in ticks of two seconds: 4 at second 2 holds at second 300 and no longer at second 302
        window = DelayWindow(300.0, 2.0)
        assert window.largest(2.0, 4) == 4
        assert window.largest(300.0, 0) == 4
        assert window.largest(302.0, 0) == 0

    def test_it_falls_step_by_step(self):
        window = DelayWindow(300.0, 2.0)
        seen = [window.largest(minute * 60.0, count) for minute, count in [(9, 4), (10, 3), (11, 0), (14, 0), (15, 0)]]
        assert seen == [4, 4, 4, 3, 0]
