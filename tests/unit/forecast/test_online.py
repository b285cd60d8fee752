"""The state from bin to bin: residuals by hand, unknown bins, gaps, resets, and what `predict` says."""

from __future__ import annotations

import subprocess
import sys
from dataclasses import replace

import numpy as np
import pytest
from pydantic import TypeAdapter

from planner.core.forecast import Forecast, ForecastSettings, ForecastState, backtest, broken_off, predict, update
from planner.core.forecast.candidates import Forecaster
from planner.core.forecast.candidates.autoregressive import Autoregressive
from planner.core.forecast.candidates.base import Fit
from planner.core.forecast.history import History, known_history
from planner.core.forecast.online import _refit
from planner.core.forecast.quantiles import candidate_quantiles
from planner.core.types import Unknown

LEVELS = (0.5, 0.9, 0.95)
SETTINGS = ForecastSettings()
SMALL = ForecastSettings(last_value_bins=1, scored_steps=(1, 2), history_bins=12)


def fed(
    rates: list[float | None], settings: ForecastSettings = SETTINGS, state: ForecastState | None = None
) -> ForecastState:
    state = state or ForecastState.empty()
    for rate in rates:
        at_s = 10.0 if state.at_s is None else state.at_s + 10.0
        state = update(settings, state, rate, 10.0, at_s)
    return state


def bursty(n: int, seed: int = 0, mean: float = 60.0) -> list[float | None]:
    rng = np.random.default_rng(seed)
    rates: list[float | None] = (rng.poisson(mean * (1 + 0.3 * np.sin(np.arange(n) / 40))) / 10.0).tolist()
    return rates


def forecast(settings: ForecastSettings, state: ForecastState, steps: int = 4) -> Forecast:
    found = predict(settings, state, steps, LEVELS, 1.0)
    assert isinstance(found, Forecast)
    return found


def test_nothing_known_is_no_forecast_rather_than_zero() -> None:
    assert isinstance(predict(SETTINGS, ForecastState.empty(), 4, LEVELS, 1.0), Unknown)
    assert isinstance(predict(SETTINGS, fed([None, None]), 4, LEVELS, 1.0), Unknown)


def test_one_bin_gives_the_last_value_with_the_prior_of_counting() -> None:
    found = forecast(SETTINGS, fed([0.9]), steps=2)
    assert found.chosen == "last_value"
    assert found.bins_known == 1
    # 9 requests; p50 is 9; p90 is (3 + 1.28155 * sqrt(4/3) / 2)^2 = 13.987
    assert found.rates_rps[0] == pytest.approx((0.9, 0.9))
    assert found.rates_rps[1] == pytest.approx((1.39869, 1.39869), rel=1e-4)


def test_what_was_forecast_across_a_break_counts_nowhere() -> None:
    calm = fed([0.4, 0.4, 0.4], SMALL)
    crowd = fed([1.6], SMALL, calm)
    # roots of counts 2, then 4: both steps are 2 off, and the step of two will be so once more
    assert crowd.candidates[0].residuals == ((0, 0, 2000), (0, 2000))
    broken = broken_off(crowd, calm)
    assert broken.rates_rps == crowd.rates_rps
    assert broken.candidates[0].residuals == ((0, 0), (0,))
    assert broken.candidates[0].losses == calm.candidates[0].losses
    after = fed([1.6, 2.5], SMALL, broken).candidates[0]
    # forecasts made from the crowd's first bin on are scored as ever: 0 and 1 off, and 1 off two steps ahead
    assert after.residuals == ((0, 0, 0, 1000), (0, 1000))
    assert fed([1.6, 2.5], SMALL, crowd).candidates[0].residuals == ((0, 0, 2000, 0, 1000), (0, 2000, 2000, 1000))


def test_where_the_history_begins_afresh_there_is_no_break() -> None:
    before = fed([0.4] * 5, SMALL)
    afresh = update(SMALL, before, 9.0, 10.0, 1e6)
    assert broken_off(afresh, before) == afresh


def test_residuals_by_hand() -> None:
    state = fed([0.4, 0.9, 1.6], SMALL)
    # last value, roots of counts 2, 3, 4: one step ahead 3-2 and 4-3, two steps ahead 4-2
    assert state.candidates[0].name == "last_value"
    assert state.candidates[0].residuals == ((1000, 1000), (2000,))
    assert [loss.outcomes for loss in state.candidates[0].losses] == [2, 1]


def test_the_loss_by_hand() -> None:
    settings = SMALL.model_copy(update={"scored_levels": (0.5,), "loss_half_life_bins": 1.0})
    state = fed([0.4, 0.9, 1.6], settings)
    # the median is the point at first: pinball .5 * |.9 - .4| = .25, which is halved one outcome later. Then
    # one residual of 1 against a prior of 0 worth 10: q = 1/11, and (3 + 1/11)^2 / 10 = .955372 costs
    # .5 * (1.6 - .955372) = .322314
    assert state.candidates[0].losses[0].own_rps == pytest.approx(0.125 + 0.322314, abs=1e-6)


def test_unknown_bins_leave_no_residuals_and_are_not_zero() -> None:
    state = fed([0.9, None, None, 0.9], SMALL)
    # nothing was forecast from the unknown bins, and what was forecast for them is dropped
    assert state.candidates[0].residuals == ((), ())
    assert state.rates_rps == (0.9, None, None, 0.9)
    state = fed([1.6], SMALL, state)
    assert state.candidates[0].residuals == ((1000,), ())
    assert forecast(SMALL, fed([0.9, None])).rates_rps[0][0] == pytest.approx(0.9)


def test_missed_ticks_are_unknown_bins() -> None:
    told = fed([0.9, None, None, 0.9, 1.6], SMALL)
    state = update(SMALL, ForecastState.empty(), 0.9, 10.0, 10.0)
    state = update(SMALL, state, 0.9, 10.0, 41.0)  # a late tick still is bin 4
    state = update(SMALL, state, 1.6, 10.0, 50.0)
    assert state == told


def test_forecasts_carry_on_over_unknown_bins_with_wider_quantiles() -> None:
    state = fed(bursty(200))
    fresh, stale = forecast(SETTINGS, state), forecast(SETTINGS, fed([None] * 5, state=state))
    assert (fresh.bins_stale, stale.bins_stale) == (0, 5)
    assert stale.bins_known == fresh.bins_known
    # after five unknown bins, the next four are steps six to nine, for every candidate
    last = candidate_quantiles(SETTINGS, state, 9, LEVELS, 1.0)
    carried = candidate_quantiles(SETTINGS, fed([None] * 5, state=state), 4, LEVELS, 1.0)
    assert set(carried) == {"last_value", "damped_trend", "autoregressive"}
    for name, quantiles in carried.items():
        assert quantiles.tolist() == last[name][:, 5:].tolist()


def test_unknown_bins_between_known_ones_are_joined_by_a_straight_line() -> None:
    known = known_history(SETTINGS, fed([None, 1.0, None, None, 4.0, None]))
    assert known is not None
    past, stale = known
    assert past.rates_rps.tolist() == [1.0, 2.0, 3.0, 4.0]
    assert (past.at_s, stale) == (50.0, 1)


def test_a_repeated_tick_changes_nothing_and_an_early_one_is_a_bin() -> None:
    state = fed([1.0, 2.0])
    assert update(SETTINGS, state, 9.0, 10.0, 20.0) is state
    assert update(SETTINGS, state, 9.0, 10.0, 5.0) is state
    assert update(SETTINGS, state, 9.0, 10.0, 22.9) is state
    early = update(SETTINGS, state, 9.0, 10.0, 23.0)
    assert (early.rates_rps, early.at_s) == ((1.0, 2.0, 9.0), 23.0)
    # The next one is a bin later than that, and none is missing in between.
    assert update(SETTINGS, early, 9.0, 10.0, 33.0).rates_rps == (1.0, 2.0, 9.0, 9.0)


def test_a_gap_longer_than_the_history_starts_afresh_but_keeps_the_season() -> None:
    settings = ForecastSettings(coarse_bin_s=100.0, history_bins=60)
    state = fed(bursty(100), settings)
    assert state.at_s == 1000.0
    after = update(settings, state, 7.0, 10.0, 1000.0 + 61 * 10.0)
    assert after.rates_rps == (7.0,)
    assert all(c.params is None and not any(c.residuals) for c in after.candidates)
    assert after.coarse_rps[: len(state.coarse_rps)] == state.coarse_rps
    assert after.coarse_rps[-5:] == (None,) * 5
    just_fits = update(settings, state, 7.0, 10.0, 1000.0 + 60 * 10.0)
    assert just_fits.candidates[0].residuals == state.candidates[0].residuals


def test_another_bin_width_or_other_scored_steps_start_afresh() -> None:
    state = fed(bursty(100))
    assert update(SETTINGS, state, 7.0, 20.0, 1020.0).rates_rps == (7.0,)
    other = SETTINGS.model_copy(update={"scored_steps": (1, 3)})
    assert not any(update(other, state, 7.0, 10.0, 1010.0).candidates[0].residuals)


def test_coarse_bins_by_hand() -> None:
    settings = ForecastSettings(coarse_bin_s=30.0, coarse_bins=3)
    state = fed([1.0, 2.0, 6.0, None, 4.0, None, None, None, None, 5.0], settings)
    assert state.coarse_rps == (3.0, 4.0, None)
    assert (state.coarse_sum_rps, state.coarse_known) == (5.0, 1)
    assert fed([1.0] * 90, SETTINGS.model_copy(update={"coarse_bins": 0})).coarse_rps == ()


def test_the_state_stays_bounded_and_small() -> None:
    settings = ForecastSettings(coarse_bin_s=20.0, refit_every=300)
    state = fed(bursty(1300, mean=6e5), settings)
    assert len(state.rates_rps) == settings.history_bins
    assert len(state.coarse_rps) == settings.coarse_bins
    assert all(len(ring) == settings.residuals for c in state.candidates[::2] for ring in c.residuals[:1] if ring)
    assert [len(queue) for queue in state.issued] == list(settings.scored_steps)
    poisson = fed(bursty(1300), settings)
    assert len(TypeAdapter(ForecastState).dump_json(poisson)) < 15_000


def test_json_round_trip_gives_the_same_next_forecast() -> None:
    adapter = TypeAdapter(ForecastState)
    state = fed([*bursty(80), None, 3.3, None])
    again = adapter.validate_json(adapter.dump_json(state))
    assert again == state
    for rate in bursty(30, seed=1):
        state, again = fed([rate], state=state), fed([rate], state=again)
        assert forecast(SETTINGS, state) == forecast(SETTINGS, again)


def test_the_better_candidate_wins() -> None:
    # alternating rates: an autoregression knows the next one, the mean of the last three does not
    noise = np.random.default_rng(0).uniform(-0.2, 0.2, 120)
    found = forecast(SETTINGS, fed((np.tile([2.0, 8.0], 60) + noise).tolist()))
    assert found.chosen == "autoregressive"
    assert found.weights["last_value"] == 0.0
    assert found.loss["last_value"] == 1.0
    assert found.rates_rps[0] == pytest.approx((2.0, 8.0, 2.0, 8.0), rel=0.1)


def test_the_season_wins_where_the_day_repeats() -> None:
    settings = ForecastSettings(season_s=6000.0, season_level_s=600.0, coarse_bin_s=50.0, refit_every=50)
    # levels that nothing but the day before tells: twenty bins each
    day = np.repeat(np.random.default_rng(0).uniform(2, 20, 30), 20).tolist()
    found = forecast(settings, fed([*day, *day, *day[:10]], settings), steps=12)
    assert found.chosen == "seasonal_naive"
    np.testing.assert_allclose(found.rates_rps[0][:5], day[10:15], rtol=0.1)


def test_fits_that_fail_keep_the_previous_parameters_and_say_so() -> None:
    class Stubborn(Autoregressive):
        def fit(self, history: History) -> Fit | None:  # noqa: ARG002 - part of the interface
            return Fit(None, "did not converge")

    state = fed(bursty(100))
    before = state.candidates[3]
    assert before.params is not None
    model: Forecaster = Stubborn(6, 30)
    past = History(np.ones(9), 10.0, 0.0, np.array([]), 0.0, 300.0)
    (after,) = _refit(SETTINGS, replace(state, candidates=(before,), bins=120), past, 1, (model,))
    assert after.params == before.params
    assert after.fit_note == "did not converge"
    noted = replace(state, candidates=(*state.candidates[:3], after))
    assert forecast(SETTINGS, noted).notes == {"autoregressive": "did not converge"}


def test_an_explosive_ramp_is_noted_in_the_forecast() -> None:
    found = forecast(SETTINGS, fed([1.1**i for i in range(60)]))
    assert "not stationary" in found.notes["autoregressive"]


@pytest.mark.parametrize("rate", [-1.0, float("nan"), float("inf")])
def test_a_rate_that_is_none_is_an_error(rate: float) -> None:
    with pytest.raises(ValueError, match="rate_rps"):
        update(SETTINGS, ForecastState.empty(), rate, 10.0, 10.0)


def test_arguments_are_checked() -> None:
    state = fed([1.0])
    for bin_s, at_s in ((0.0, 1.0), (10.0, float("nan"))):
        with pytest.raises(ValueError, match="bin_s"):
            update(SETTINGS, state, 1.0, bin_s, at_s)
    for steps, levels, dispersion in (
        (0, LEVELS, 1.0),
        (1, LEVELS, -1.0),
        (1, (), 1.0),
        (1, (0.9, 0.5), 1.0),
    ):
        with pytest.raises(ValueError, match="must"):
            predict(SETTINGS, state, steps, levels, dispersion)


def test_backtest_scores_what_was_issued() -> None:
    # constant rates: the median is right every time; the p90 lies above and pays .1 of the distance
    settings = SMALL.model_copy(update={"residuals": 10})
    result = backtest(settings, np.full(40, 0.9), 10.0, 2, (0.5, 0.9))
    last = result.by_name["last_value"]
    assert last.forecasts == 38
    assert last.coverage == (1.0, 1.0)
    assert last.pinball_rps[0] == 0.0
    assert last.pinball_rps[1] > 0.0
    assert "ensemble" in result.by_name
    assert sum(result.mean_weight.values()) == pytest.approx(1.0)


def test_backtest_passes_over_unknown_outcomes() -> None:
    rates = np.array([1.0, 1.0, np.nan, 1.0, 1.0, 1.0])
    # windows of two after bins 0, 1, 2, 3; those after 0 and 1 hold the unknown bin
    assert backtest(SMALL, rates, 10.0, 2, (0.5,)).by_name["last_value"].forecasts == 2
    assert backtest(SMALL, np.full(3, np.nan), 10.0, 1, (0.5,)).by_name == {}


def test_coverage_and_loss_on_poisson_arrivals() -> None:
    rates = np.array(bursty(600, seed=3), dtype=float)
    result = backtest(SETTINGS, rates, 10.0, 4, LEVELS, warmup_bins=60)
    ensemble = result.by_name["ensemble"]
    np.testing.assert_allclose(ensemble.coverage, LEVELS, atol=0.05)
    best = min(sum(b.pinball_rps) for name, b in result.by_name.items() if name != "ensemble")
    assert sum(ensemble.pinball_rps) <= 1.05 * best


def test_importing_the_forecasts_does_not_import_statsmodels() -> None:
    code = "import sys, planner.core.forecast; sys.exit('statsmodels' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
