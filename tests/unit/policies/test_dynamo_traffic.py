"""Traffic of an interval, its forecast, and the Kalman filter of Dynamo 1.6."""

import pytest

from planner.whatif.policies.dynamo_kalman import Kalman
from planner.whatif.policies.dynamo_traffic import Forecaster, Meter


def forecasts(predictor, values):
    out = []
    for value in values:
        predictor.add(float(value))
        out.append(predictor.next())
    return out


class TestKalman:
    def test_it_is_the_last_value_until_the_fifth(self):
        assert forecasts(Kalman(), [3, 1, 4, 1]) == [3, 1, 4, 1]

    def test_two_steps_by_hand(self):
        kalman = Kalman()
        kalman.add(100.0)
        kalman.add(110.0)
        # variance of the level 1000 + 1000 + 1, of level and trend 1000; gain 2001/2011 and 1000/2011
        assert kalman._state == pytest.approx([100 + 10 * 2001 / 2011, 10 * 1000 / 2011])

    def test_a_forecast_does_not_advance_it_twice(self):
        asked, not_asked = Kalman(), Kalman()
        for value in (10, 12, 15, 19, 24, 30):
            asked.add(value)
            asked.next()
            asked.next()
            not_asked.add(value)
        assert asked.next() == not_asked.next()

    def test_it_follows_a_line_and_is_never_negative(self):
        assert forecasts(Kalman(), range(100, 1300, 100))[-1] == pytest.approx(1300, rel=0.01)
        assert min(forecasts(Kalman(), [1000, 800, 600, 400, 200, 0, 0])) == 0.0


class TestMeter:
    def test_means_are_of_requests_not_of_looks(self, observe):
        meter = Meter()
        one = observe(None, arrivals=3, isl=1000, osl=100, interval_s=5.0)
        meter.add(one)
        meter.add(observe(None, arrivals=4, isl=None, interval_s=5.0))
        meter.add(observe(None, arrivals=5, isl=4000, osl=400, interval_s=5.0))
        traffic = meter.take()
        assert (traffic.requests, traffic.span_s) == (12, 15.0)
        assert (traffic.lengths.isl, traffic.lengths.osl, traffic.lengths.hit_rate) == (2500.0, 250.0, 0.0)
        assert meter.take().requests == 0


class TestForecaster:
    def test_an_idle_interval_repeats_the_lengths_and_counts_no_request(self, observe):
        meter, forecaster = Meter(), Forecaster("constant")
        for seen in (observe(None, arrivals=90, isl=700), observe(None, arrivals=0, isl=None)):
            meter.add(seen)
            forecaster.add(meter.take())
        requests, shape = forecaster.next(0.0)
        assert (requests, shape.isl, shape.osl) == (0.0, 700.0, 200.0)

    def test_requests_of_which_none_completed_leave_the_lengths_as_they_were(self, observe):
        meter, forecaster = Meter(), Forecaster("constant")
        for seen in (observe(None, arrivals=90, isl=700), observe(None, arrivals=50, isl=None)):
            meter.add(seen)
            forecaster.add(meter.take())
        requests, shape = forecaster.next(0.0)
        assert (requests, shape.isl) == (50.0, 700.0)
