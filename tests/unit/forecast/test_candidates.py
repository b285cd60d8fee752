"""Each forecaster on numbers that can be checked on paper."""

from __future__ import annotations

import warnings

import numpy as np
import pytest
from statsmodels.tsa.ar_model import AutoReg
from statsmodels.tsa.holtwinters import Holt

from planner.core.forecast import ForecastSettings
from planner.core.forecast.candidates import forecasters
from planner.core.forecast.candidates.autoregressive import Autoregressive
from planner.core.forecast.candidates.base import guarded
from planner.core.forecast.candidates.exponential import DampedTrend
from planner.core.forecast.candidates.last_value import LastValue
from planner.core.forecast.candidates.seasonal_naive import SeasonalNaive
from planner.core.forecast.history import FloatArray, History


def history(rates: list[float] | FloatArray, coarse: list[float] | None = None, at_s: float = 0.0) -> History:
    return History(
        rates_rps=np.array(rates, dtype=float),
        bin_s=10.0,
        at_s=at_s,
        coarse_rps=np.array(coarse or [], dtype=float),
        coarse_end_s=at_s,
        coarse_bin_s=10.0,
    )


def bursty(n: int = 360, seed: int = 0) -> FloatArray:
    rng = np.random.default_rng(seed)
    return rng.poisson(60 * (1 + 0.3 * np.sin(np.arange(n) / 40))) / 10.0


def test_names_are_unique() -> None:
    names = [f.name for f in forecasters(ForecastSettings())]
    assert names == ["last_value", "seasonal_naive", "damped_trend", "autoregressive"]


def test_last_value_is_the_mean_of_the_last_bins() -> None:
    assert LastValue(3).point(history([9, 1, 2, 6]), 2, None).tolist() == [3.0, 3.0]
    assert LastValue(3).point(history([5]), 1, None).tolist() == [5.0]


def test_seasonal_naive_is_the_season_before_scaled_by_the_recent_level() -> None:
    # a season is 4 bins, coarse bins are as wide as fine ones; the last two bins are twice those a season ago
    model = SeasonalNaive(season_s=40.0, level_s=20.0, scale_limit=4.0)
    past = history([0, 0, 2, 4], coarse=[1, 2, 3, 5, 99, 99, 2, 4], at_s=80.0)
    # bins a season before the last two: positions 2, 3 of coarse are 3 and 5, mean 4; the last two: mean 3
    point = model.point(past, 2, None)
    assert point is not None
    assert point.tolist() == pytest.approx([99 * 0.75, 99 * 0.75])


def test_seasonal_naive_joins_coarse_bins_by_straight_lines() -> None:
    model = SeasonalNaive(season_s=40.0, level_s=10.0, scale_limit=4.0)
    past = History(np.array([3.0]), 5.0, 80.0, np.array([1.0, 2.0, 4.0, 8.0, 0, 0, 0, 0]), 80.0, 10.0)
    # centres 5, 15, 25, 35, ...; the last bin's middle 77.5 - 40 = 37.5: 8 + (0 - 8) / 4 = 6; next
    # 42.5: 8/4 = 2
    point = model.point(past, 1, None)
    assert point is not None
    assert point.tolist() == pytest.approx([2.0 * 3.0 / 6.0])


def test_seasonal_naive_is_unavailable_before_a_season_and_over_unknown_bins() -> None:
    model = SeasonalNaive(season_s=40.0, level_s=20.0, scale_limit=4.0)
    assert model.point(history([1, 2, 3]), 1, None) is None
    assert model.point(history([1, 2, 3], coarse=[1, 2, 3], at_s=30.0), 1, None) is None
    unknown = history([1] * 8, coarse=[1, 1, 1, 1, float("nan"), 1, 1, 1], at_s=80.0)
    assert model.point(unknown, 1, None) is None


def test_seasonal_naive_scale_is_bounded_and_a_silent_season_says_nothing() -> None:
    model = SeasonalNaive(season_s=40.0, level_s=20.0, scale_limit=4.0)
    busy = model.point(history([100] * 4, coarse=[1, 1, 1, 1, 7, 1, 1, 1], at_s=80.0), 1, None)
    assert busy is not None
    assert busy.tolist() == [28.0]
    silent = [0.0, 0, 0, 0, 7, 0, 0, 0]
    assert model.point(history([100] * 4, coarse=silent, at_s=80.0), 1, None) is None


def test_damped_trend_by_hand() -> None:
    # ten bins of 4 start the level at root 2 and keep it; then one bin of 16, root 4, with a=.5, b=.5, f=.5:
    # level 2 + .5 * 2 = 3, trend .5 * 1 = .5; ahead 3 + .5 * .5 = 3.25, then 3 + .5 * .75 = 3.375
    # (the start is the mean of the first ten bins)
    point = DampedTrend(8).point(history([4.0] * 10 + [16.0]), 2, (0.5, 0.5, 0.5))
    assert point is not None
    assert point.tolist() == pytest.approx([3.25**2, 3.375**2])


def test_damped_trend_is_never_negative_and_needs_a_fit() -> None:
    falling = history(np.linspace(100, 0, 40) ** 2)
    point = DampedTrend(8).point(falling, 50, (1.0, 1.0, 0.98))
    assert point is not None
    assert point[-1] == 0.0
    assert DampedTrend(8).point(falling, 1, None) is None
    assert DampedTrend(8).fit(history([1.0] * 7)) is None


@pytest.mark.parametrize("seed", range(4))
def test_damped_trend_fit_is_as_good_as_the_librarys(seed: int) -> None:
    past = history(bursty(seed=seed))
    roots = np.sqrt(past.rates_rps)
    fit = DampedTrend(8).fit(past)
    assert fit is not None
    assert fit.params is not None

    def model() -> Holt:
        start = float(roots[:10].mean())
        return Holt(roots, damped_trend=True, initialization_method="known", initial_level=start, initial_trend=0.0)

    def squares(a: float, b: float, f: float) -> float:
        return float(model().fit(a, b, damping_trend=f, optimized=False).sse)

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        optimum = model().fit(use_brute=False).sse
    assert squares(*fit.params) <= 1.01 * optimum
    # and our recursion is theirs
    theirs = model().fit(*fit.params[:2], damping_trend=fit.params[2], optimized=False).forecast(5)
    point = DampedTrend(8).point(past, 5, fit.params)
    assert point is not None
    np.testing.assert_allclose(point, np.square(theirs), rtol=1e-9)


def test_autoregressive_by_hand() -> None:
    # roots 2, 3; y = 1 + .5 * 3 + .25 * 2 = 3; then 1 + .5 * 3 + .25 * 3 = 3.25
    point = Autoregressive(2, 8).point(history([4, 9]), 2, (1.0, 0.5, 0.25))
    assert point is not None
    assert point.tolist() == pytest.approx([9.0, 3.25**2])


def test_autoregressive_forecasts_what_the_library_does() -> None:
    past = history(bursty())
    model = Autoregressive(6, 30)
    fit = model.fit(past)
    assert fit is not None
    assert fit.params is not None
    point = model.point(past, 8, fit.params)
    assert point is not None
    roots = np.sqrt(past.rates_rps)
    theirs = AutoReg(roots, 6, trend="c").fit().predict(len(roots), len(roots) + 7)
    np.testing.assert_allclose(point, np.square(theirs), rtol=1e-9)


def test_autoregressive_stays_between_zero_and_twice_the_highest_rate() -> None:
    model = Autoregressive(1, 8)
    up = model.point(history([4.0]), 20, (0.0, 1.5))
    down = model.point(history([4.0]), 3, (-10.0, 0.5))
    assert up is not None
    assert down is not None
    assert up[-1] == pytest.approx(8.0)
    assert down.tolist() == [0.0, 0.0, 0.0]


def test_autoregressive_refuses_a_fit_that_explodes() -> None:
    fit = Autoregressive(1, 8).fit(history([1.1**i for i in range(40)]))
    assert fit is not None
    assert fit.params is None
    assert "not stationary" in fit.note


def test_autoregressive_needs_enough_history() -> None:
    model = Autoregressive(6, 8)
    assert model.fit(history(bursty(19))) is None
    assert model.fit(history(bursty(20))) is not None
    assert model.point(history([1.0] * 5), 1, (0.0,) + (0.1,) * 6) is None
    assert model.point(history([1.0] * 9), 1, None) is None


@pytest.mark.parametrize("rate", [0.0, 0.3, 1e4])
def test_a_constant_goes_on(rate: float) -> None:
    past = history([rate] * 40)
    for model in forecasters(ForecastSettings()):
        fit = model.fit(past)
        point = model.point(past, 3, fit.params if fit else None)
        if model.name != "seasonal_naive":
            assert point is not None
            assert point.tolist() == pytest.approx([rate] * 3)


def test_a_fit_that_warns_fails_or_is_not_finite_says_so() -> None:
    def warn() -> tuple[float, ...]:
        warnings.warn("did not converge", RuntimeWarning, stacklevel=1)
        return (1.0,)

    def fail() -> tuple[float, ...]:
        raise np.linalg.LinAlgError("singular")

    for fit, word in (
        (warn, "did not converge"),
        (fail, "singular"),
        (lambda: (float("nan"),), "not finite"),
    ):
        outcome = guarded(fit)
        assert outcome.params is None
        assert word in outcome.note
        assert "previous" in outcome.note
    assert guarded(lambda: (1.0, 2.0)).params == (1.0, 2.0)
