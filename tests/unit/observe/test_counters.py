"""Increases: resets, instances that come and go, windows that abut."""

from __future__ import annotations

import math

import pytest

from planner.observe.base import Series
from planner.observe.dialects.base import Selector
from planner.observe.series import Instance, Window, by_instance
from planner.observe.windows import Windows

C = Selector("c")


def instance(at_s: list[float], values: list[float], **others: tuple[list[float], list[float]]) -> Instance:
    series = {"c": [Series("c", {}, tuple(at_s), tuple(values))]}
    series |= {name: [Series(name, {}, tuple(at), tuple(v))] for name, (at, v) in others.items()}
    return Instance("a", series, "started", read_from_s=0.0)


def window(start: float, end: float) -> Window:
    return Window(start, end, fresh=True)


def test_a_reset_counts_what_was_counted_since() -> None:
    one = instance([0, 1, 2, 3], [100, 110, 4, 9])
    assert one.increase(C, window(0, 3)) == 19
    assert one.increase(C, window(1, 2)) == 4


def test_the_first_sample_of_an_old_process_is_its_base() -> None:
    assert instance([5, 6], [1000, 1003]).increase(C, window(0, 6)) == 3


def test_a_counter_exported_from_its_first_count_on_starts_at_zero() -> None:
    one = instance([5, 6], [7, 9], up=([3, 4, 5, 6], [1, 1, 1, 1]))
    assert one.increase(C, window(4, 6)) == 9
    # A scrape that failed does not show that it was not there.
    assert instance([5, 6], [7, 9], up=([3, 4, 5, 6], [0, 0, 1, 1])).increase(C, window(4, 6)) == 2


def test_a_process_that_says_it_started_in_the_span_counts_from_zero() -> None:
    young = instance([5, 6], [7, 9], started=([5, 6], [3.5, 3.5]))
    old = instance([5, 6], [7, 9], started=([5, 6], [-50.0, -50.0]))
    for one, expected in ((young, 9), (old, 2)):
        windows = Windows()
        found = windows.advance(one, 10.0)
        assert found is not None
        assert one.increase(C, found) == expected
    # One scrape is enough for it.
    only = instance([5], [7], started=([5], [3.5]))
    found = Windows().advance(only, 10.0)
    assert found == Window(3.5, 5, fresh=True)
    assert only.increase(C, found) == 7
    assert Windows().advance(instance([5], [7]), 10.0) is None


def test_a_counter_that_ends_is_used_up_to_its_end() -> None:
    one = instance([0, 1, 2], [5, 6, 8], up=([0, 1, 2, 3], [1, 1, 1, 0]))
    assert one.newest_s == 2
    assert one.increase(C, window(1, 9)) == 2


def test_values_that_are_no_counts_are_left_out_and_named() -> None:
    one = instance([0, 1, 2, 3], [5, math.nan, -1, 8])
    assert one.increase(C, window(0, 3)) == 3
    assert one.flaws == ["c of a is nan", "c of a is -1"]
    # Not a number at first does not make it young.
    assert instance([0, 1, 2], [math.nan, 1000, 1001]).increase(C, window(0, 2)) == 1


def test_windows_abut_whatever_the_ticks() -> None:
    windows, ends, total = Windows(), [], 0.0
    at = [float(k) * 0.7 for k in range(60)]
    values = [float(k * k) for k in range(60)]
    for tick in range(10, 41, 3):
        upto = sum(one <= tick for one in at)
        seen = instance(at[:upto], values[:upto])
        found = windows.advance(seen, 3.0)
        assert found is not None
        if ends:
            assert found.start_s == ends[-1]
            total += seen.increase(C, found) or 0.0
        ends.append(found.end_s)
    first, last = at.index(ends[0]), at.index(ends[-1])
    assert total == values[last] - values[first]


def test_a_window_without_a_new_scrape_is_the_last_one_again() -> None:
    windows = Windows()
    one = instance([0, 10, 20], [0, 10, 30])
    assert windows.advance(one, 10.0) == Window(10, 20, fresh=True)
    assert windows.advance(one, 10.0) == Window(10, 20, fresh=False)
    assert windows.advance(instance([0, 10, 20, 50], [0, 10, 30, 60]), 10.0) == Window(20, 50, fresh=True)


def test_after_an_outage_only_the_last_two_intervals_count() -> None:
    windows = Windows()
    assert windows.advance(instance([0, 1], [0, 1]), 5.0) == Window(0, 1, fresh=True)
    at = [0.0, 1.0, *range(60, 101)]
    assert windows.advance(instance(at, at), 5.0) == Window(90, 100, fresh=True)


def test_one_of_several_copies_of_a_target_is_kept() -> None:
    rows = [
        Series("c", {"instance": "a", "prometheus_replica": "one"}, (0.0, 1.0), (5.0, 6.0)),
        Series("c", {"instance": "a", "prometheus_replica": "two"}, (0.5, 1.5), (5.0, 7.0)),
        Series("c", {"instance": "b"}, (0.5,), (5.0,)),
    ]
    found = by_instance(rows, {"a"}.__contains__, started="", from_s=0.0)
    assert list(found) == ["a"]
    assert found["a"].increase(C, window(0.5, 1.5)) == 2


@pytest.mark.parametrize("value", [math.nan, -1.0, math.inf])
def test_a_gauge_that_is_no_number_is_none(value: float) -> None:
    one = instance([0, 1], [1, value])
    assert one.newest("c") is None
    assert one.flaws == [f"c of a is {value:g}"]


def test_a_gauge_is_that_of_the_newest_scrape_over_all_engines() -> None:
    rows = [Series("g", {"engine": str(k)}, (0.0, 1.0), (5.0, float(k))) for k in (2, 4)]
    rows.append(Series("g", {"engine": "9"}, (0.0,), (100.0,)))
    one = Instance("a", {"g": rows})
    assert one.newest("g") == 6
    assert one.mean("g") == 3
    assert one.newest("absent") is None
