"""The classic predictors: buffering as the peer does it, and ARIMA against pmdarima."""

import math

import numpy as np
import pytest

from planner.whatif.policies.dynamo_predictors import Arima, Constant, WindowedArima, kpss

#: Requests in 180 s of the Azure 2023 conversation trace at ten times its rate, and what `pmdarima.auto_arima` (2.1.1:
#: (0, 0, 0) with an intercept, on logarithms), then `update`, forecasts after each from the fifth on.
AZURE = [7843, 9353, 8505, 8976, 9557, 8686, 10436, 11482, 12157, 14074, 13932]
AZURE_PMDARIMA = [8825, 8801, 9020, 9294, 9572, 9945, 10261]


#: The same of `auto_arima` called anew on all points so far.
AZURE_WINDOWED = [8847, 8820, 9051, 9355]


def forecasts(predictor, values):
    out = []
    for value in values:
        predictor.add(float(value))
        out.append(predictor.next())
    return out


class TestBuffer:
    def test_leading_zeros_are_skipped_and_later_ones_count(self):
        predictor = Constant()
        for value in (0.0, math.nan, 0.0, 5.0, math.nan, 0.0):
            predictor.add(value)
        assert predictor.values == [5.0, 0.0, 0.0]

    def test_before_any_value_it_is_zero(self):
        assert Constant().next() == 0.0
        assert Arima().next() == 0.0

    def test_constant_is_the_last_value(self):
        assert forecasts(Constant(), [3, 1, 4]) == [3, 1, 4]


class TestArima:
    def test_it_is_the_last_value_until_the_fifth(self):
        assert forecasts(Arima(), AZURE[:4]) == AZURE[:4]

    def test_it_is_pmdarima_on_a_public_trace(self):
        assert forecasts(Arima(), AZURE)[4:] == pytest.approx(AZURE_PMDARIMA, abs=1.0)

    def test_a_constant_series_stays(self):
        assert forecasts(Arima(), [7] * 7) == [7] * 7

    def test_it_is_never_negative(self):
        assert min(forecasts(Arima(), [1000, 500, 250, 120, 60, 30, 10, 4, 1])) >= 0.0

    def test_the_order_is_chosen_once(self):
        predictor = Arima()
        forecasts(predictor, AZURE[:5])
        order = predictor._order
        forecasts(predictor, [100, 9000, 100, 9000, 100, 9000])
        assert predictor._order is order

    def test_it_follows_a_line(self):
        predicted = forecasts(Arima(), [100 + 50 * k + (-1) ** k for k in range(12)])
        assert predicted[-1] == pytest.approx(700, rel=0.2)

    def test_without_a_fit_it_is_the_last_value(self, monkeypatch):
        def fails(*_):
            raise np.linalg.LinAlgError

        monkeypatch.setattr("planner.whatif.policies.dynamo_predictors._choose", fails)
        assert forecasts(Arima(), AZURE) == AZURE


class TestWindowedArima:
    def test_it_is_pmdarima_on_a_public_trace(self):
        assert forecasts(WindowedArima(), AZURE[:8])[4:] == pytest.approx(AZURE_WINDOWED, abs=1.0)

    def test_it_forgets_what_is_older_than_50_points(self):
        predictor = WindowedArima()
        for value in range(1, 61):
            predictor.add(float(value))
        assert predictor.values == [float(value) for value in range(11, 61)]

    def test_a_constant_series_stays_and_before_the_fifth_it_is_the_last_value(self):
        assert forecasts(WindowedArima(), [7] * 6) == [7] * 6
        assert forecasts(WindowedArima(), AZURE[:4]) == AZURE[:4]


def test_kpss_by_hand():
    # 1 2 3: e = -1 0 1, partial sums -1 -1 0: 2/9 over (2/3 + 2/3 * (1 - 1/2) * 0) = 1/3
    assert kpss(np.array([1.0, 2.0, 3.0])) == pytest.approx(1.0 / 3.0)
