"""The backtest has the known answer on series whose answer is known, and runs the very code of the planner."""

import json
import math
from pathlib import Path

import numpy as np
import pytest
from scipy import stats
from typer.testing import CliRunner

from planner.cli import app
from planner.core.decide import Planner
from planner.core.forecast import ENSEMBLE, ForecastSettings
from planner.core.forecast import backtest as core_backtest
from planner.core.settings import PlannerSettings
from planner.core.state import PlannerState
from planner.core.types import Known, Observation, Sla, Unknown
from planner.whatif.backtest import LEVELS, Issued, Series, Target, evaluate, scores_of, series_of
from planner.whatif.backtest.evaluate import smoothed
from planner.whatif.backtest.score import LAST_VALUE, SEASONAL_NAIVE
from planner.whatif.backtest.series import Floats
from planner.whatif.replay import replay
from profiler.errors import InputError
from tests.engines import HandTrace, aggregated, engine
from tests.unit.whatif.test_replay import Scripted, setting_of

SETTINGS = ForecastSettings()


def series(rates: Floats, interval_s: float = 10.0) -> Series:
    """Of which nothing but the rates is known."""
    return Series(
        interval_s, rates, np.full(len(rates), np.nan), int(rates.sum() * interval_s), len(rates) * interval_s
    )


def by_hand(outcomes: Floats, quantiles: Floats) -> Issued:
    """Outcomes (W, S) and one forecaster's quantiles (L,), the same in every window and bin."""
    windows, steps = outcomes.shape
    stated = np.broadcast_to(quantiles[None, :, None], (windows, len(quantiles), steps))
    return Issued(steps, np.arange(windows, dtype=np.float64), outcomes, {LAST_VALUE: stated}, {})


def test_quantiles_of_poisson_cover_what_they_say_and_their_powers_cover_the_worst() -> None:
    # Binomial: 4 standard deviations of W windows. The worst of S independent bins is at or below q with F(q)^S.
    windows, steps, mean = 4000, 5, 90.0
    law = stats.poisson(mean)
    outcomes = np.random.default_rng(5).poisson(mean, (windows, steps)).astype(np.float64)
    stated = np.array([law.ppf(level) for level in LEVELS])
    issued = by_hand(outcomes, stated)
    for target, truth in ((Target.LAST, law.cdf(stated)), (Target.WORST, law.cdf(stated) ** steps)):
        score = scores_of(issued, LEVELS, target)[LAST_VALUE]
        for seen, p in zip(score.coverage, truth, strict=True):
            assert seen == pytest.approx(p, abs=4 * math.sqrt(p * (1 - p) / windows)), target
    total = stats.poisson(mean * steps)
    mean_score = scores_of(issued, LEVELS, Target.MEAN)[LAST_VALUE]
    for seen, p in zip(mean_score.coverage, total.cdf(stated * steps), strict=True):
        assert seen == pytest.approx(p, abs=4 * math.sqrt(p * (1 - p) / windows) + 1e-9)


def test_pinball_loss_by_hand() -> None:
    # One window, 10 came. 8 at p10 is 2 short: 0.1 x 2; 13 at p95 is 3 over: 0.05 x 3; the median is met.
    score = scores_of(by_hand(np.array([[10.0]]), np.array([8.0, 9.0, 10.0, 11.0, 12.0, 13.0])), LEVELS, Target.LAST)
    found = score[LAST_VALUE]
    assert found.pinball_rps == pytest.approx((0.2, 0.25, 0.0, 0.25, 0.2, 0.15))
    assert found.loss_rps == pytest.approx(1.05 / 6)
    assert found.coverage == (0.0, 0.0, 1.0, 1.0, 1.0, 1.0)
    assert found.bias_rps == 0.0
    assert found.against_last_value == 1.0
    assert found.against_seasonal_naive is None


def test_a_forecaster_is_compared_where_both_could_forecast() -> None:
    # The seasonal naive is right in the second of two windows and has none in the first, where the last value is off.
    outcomes = np.array([[100.0], [10.0]])
    last = np.full((2, len(LEVELS), 1), 12.0)
    season = np.full((2, len(LEVELS), 1), np.nan)
    season[1] = 11.0
    scores = scores_of(
        Issued(1, np.arange(2.0), outcomes, {LAST_VALUE: last, SEASONAL_NAIVE: season}, {}), LEVELS, Target.MEAN
    )
    assert scores[SEASONAL_NAIVE].windows == 1
    assert scores[SEASONAL_NAIVE].against_last_value == pytest.approx(0.5)
    assert scores[LAST_VALUE].against_seasonal_naive == pytest.approx(2.0)
    assert scores[LAST_VALUE].windows == 2


def test_a_constant_series_is_forecast_exactly() -> None:
    issued = evaluate(SETTINGS, series(np.full(70, 40.0)), [1, 4], warmup_bins=40)
    assert [len(one.made_s) for one in issued.values()] == [30, 27]
    for one in issued.values():
        for target in Target:
            for name, score in scores_of(one, LEVELS, target).items():
                assert abs(score.bias_rps) < 1e-3, name
                assert score.pinball_rps[2] == pytest.approx(0.0, abs=1e-3)
                # Narrow, but not a point: a little of the prior's width is left.
                assert score.coverage[:2] == (0.0, 0.0)
                assert score.coverage[3:] == (1.0, 1.0, 1.0)
                assert score.loss_rps < 0.4


def test_in_a_pure_season_the_seasonal_naive_wins_and_carries_the_ensemble() -> None:
    season = 60
    settings = SETTINGS.model_copy(update={"season_s": season * 10.0, "coarse_bin_s": 20.0, "season_level_s": 200.0})
    rates = 200.0 + 150.0 * np.sin(2 * np.pi * np.arange(3 * season) / season)
    issued = evaluate(settings, series(rates), [6], warmup_bins=2 * season)[6]
    scores = scores_of(issued, LEVELS, Target.LAST)
    assert (scores[SEASONAL_NAIVE].against_last_value or 1.0) < 0.5
    assert (scores[ENSEMBLE].against_last_value or 1.0) < 0.5
    assert issued.mean_weight[SEASONAL_NAIVE] > max(issued.mean_weight[LAST_VALUE], 0.3)


def test_the_ensemble_is_calibrated_on_poisson_arrivals() -> None:
    # One bin ahead, windows do not overlap. 4 standard deviations, and half a count's share of the distribution.
    windows, mean = 260, 900.0
    rates = np.random.default_rng(11).poisson(mean, windows + 61) / 10.0
    issued = evaluate(SETTINGS, series(rates), [1], warmup_bins=61)[1]
    score = scores_of(issued, LEVELS, Target.LAST)[ENSEMBLE]
    assert score.windows == windows
    for seen, p in zip(score.coverage, LEVELS, strict=True):
        assert seen == pytest.approx(p, abs=4 * math.sqrt(p * (1 - p) / windows) + 0.5 / math.sqrt(2 * math.pi * mean))


def test_it_agrees_with_the_backtest_of_the_core() -> None:
    rates = np.random.default_rng(3).poisson(300, 60) / 10.0
    for steps in (1, 4):
        core = core_backtest(SETTINGS, rates, 10.0, steps, LEVELS, warmup_bins=39)
        issued = evaluate(SETTINGS, series(rates), [steps, 6], warmup_bins=40)[steps]
        worst = scores_of(issued, LEVELS, Target.WORST)
        assert set(worst) == set(core.by_name)
        assert issued.mean_weight == pytest.approx(core.mean_weight)
        for name, theirs in core.by_name.items():
            assert worst[name].coverage == pytest.approx(theirs.peak_coverage)
            assert worst[name].windows == theirs.forecasts
            if steps == 1:
                assert worst[name].pinball_rps == pytest.approx(theirs.pinball_rps)


def test_no_forecast_knows_what_comes_after_it() -> None:
    rates = np.random.default_rng(4).poisson(300, 60) / 10.0
    other = rates.copy()
    other[50:] *= 5
    one, two = (evaluate(SETTINGS, series(r), [3], warmup_bins=35)[3] for r in (rates, other))
    made_before = one.made_s <= 500.0
    for name in one.quantiles_rps:
        np.testing.assert_array_equal(one.quantiles_rps[name][made_before], two.quantiles_rps[name][made_before])
    assert not np.array_equal(one.quantiles_rps[ENSEMBLE], two.quantiles_rps[ENSEMBLE])
    assert one.outcomes_rps[0] == pytest.approx(rates[35:38])


@pytest.mark.parametrize("interval_s", [7.5, 10.0])
def test_the_series_is_what_a_replay_observes(interval_s: float) -> None:
    rng = np.random.default_rng(1)
    arrivals = np.concatenate([[0.0], np.sort(rng.uniform(0, 45_000, 300)), np.sort(rng.uniform(75_000, 95_000, 200))])
    trace = HandTrace([(float(at), 50, 2, 0) for at in arrivals], size=64)
    found = series_of(trace, interval_s)
    policy = Scripted([{"agg": 4}], interval_s)
    setting = setting_of(aggregated(engine()), [(float(at), 50, 2, 0) for at in arrivals], {"agg": 4}, 8)
    replay(setting, policy, "watching")
    assert len(found.rates_rps) == int(arrivals[-1] / 1000 / interval_s)
    assert found.requests == len(arrivals)
    for rate, dispersion, seen in zip(found.rates_rps, found.dispersion, policy.seen, strict=False):
        assert isinstance(seen.arrivals, Known)
        assert rate * interval_s == pytest.approx(seen.arrivals.value)
        if isinstance(seen.dispersion, Known):
            assert dispersion == pytest.approx(seen.dispersion.value)
        else:
            assert np.isnan(dispersion)


def test_the_dispersion_is_smoothed_as_the_planner_does() -> None:
    engines = aggregated(engine())
    setting = setting_of(engines, [], {"agg": 1}, 8)
    settings = PlannerSettings(sla=Sla(500.0, 50.0), pools=tuple(setting.pools.values()), max_gpus=8)
    planner, state, ours = Planner(settings, engines.closed_form), PlannerState(), None
    none = Unknown("nothing")
    for tick, seen in enumerate((2.5, math.nan, 0.3, 9.0), start=1):
        dispersion = none if math.isnan(seen) else Known(seen)
        _, state = planner.decide(state, Observation(15.0, Known(10), dispersion, none, none), 15.0 * tick)
        ours = smoothed(ours, seen)
        assert ours == pytest.approx(state.dispersion, abs=1e-5)


def test_the_command_answers_with_an_object_and_a_page_that_loads_nothing(tmp_path: Path) -> None:
    page = tmp_path / "page.html"
    trace = "generate:conversation,duration_s=700,rps=20,seed=3"
    options = ("--trace", trace, "--interval-s", "10", "--horizon-s", "15,40", "--warmup-s", "450")
    ended = CliRunner().invoke(app, ["backtest", *options, "--output", "json", "--report", str(page)])
    assert ended.exit_code == 0, ended.output
    answer = json.loads(ended.stdout)
    assert [one["horizon_s"] for one in answer["horizons"]] == [20.0, 40.0]
    assert answer["levels"] == list(LEVELS)
    for one in answer["horizons"]:
        for target in Target:
            assert (
                set(one[target][ENSEMBLE]["coverage"]) <= {c / 30 for c in range(31)}
                or one[target][ENSEMBLE]["windows"]
            )
            assert len(one[target][ENSEMBLE]["pinball_rps"]) == len(LEVELS)
        assert sum(one["mean_weight"].values()) == pytest.approx(1.0)
    text = page.read_text()
    assert "40 s ahead" in text
    assert "default-src 'none'" in text
    assert 'src="http' not in text


@pytest.mark.parametrize(
    ("options", "field"),
    [
        (("--horizon-s", "30,no"), "--horizon-s"),
        (("--horizon-s", "0"), "--horizon-s"),
        (("--interval-s", "0"), "--interval-s"),
        (("--warmup-s", "-1"), "--warmup-s"),
        (("--warmup-s", "3600"), "--trace"),
        (("--report", "/nowhere/page.html"), "--report"),
    ],
)
def test_what_is_wrong_is_named(options: tuple[str, str], field: str) -> None:
    with pytest.raises(InputError) as error:
        CliRunner().invoke(
            app, ["backtest", "--trace", "generate:conversation,duration_s=600", *options], catch_exceptions=False
        )
    assert error.value.field == field
