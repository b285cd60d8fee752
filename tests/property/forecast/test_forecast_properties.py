"""What holds of every history."""

from __future__ import annotations

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import TypeAdapter

from planner.core.forecast import Forecast, ForecastSettings, ForecastState, predict, update
from planner.core.forecast.candidates import forecasters
from planner.core.forecast.history import History
from planner.core.types import Unknown

SETTINGS = ForecastSettings(
    history_bins=40,
    min_fit_bins=8,
    autoregressive_lags=2,
    residuals=20,
    season_s=200.0,
    coarse_bin_s=20.0,
    season_level_s=60.0,
    refit_every=4,
    min_outcomes=2,
)
LEVELS = (0.05, 0.5, 0.9, 0.99)
ADAPTER = TypeAdapter(ForecastState)

rates = st.one_of(st.none(), st.just(0.0), st.floats(0.0, 1e4, allow_subnormal=False))
histories = st.lists(st.tuples(rates, st.sampled_from([10.0, 10.0, 10.0, 11.0, 30.0, 200.0])), max_size=60)
known = st.lists(st.floats(0.1, 1e4), min_size=20, max_size=60)
scale = st.floats(1.0, 1e3)


def fed(history: list[tuple[float | None, float]]) -> ForecastState:
    state, at_s = ForecastState.empty(), 1.7e9
    for rate, gap_s in history:
        at_s += gap_s
        state = update(SETTINGS, state, rate, 10.0, at_s)
    return state


@settings(deadline=None, max_examples=100)
@given(histories, st.integers(1, 20), st.floats(0.0, 20.0))
def test_quantiles_are_finite_non_negative_and_never_cross(
    history: list[tuple[float | None, float]], steps: int, dispersion: float
) -> None:
    state = fed(history)
    found = predict(SETTINGS, state, steps, LEVELS, dispersion)
    if state.bins_known == 0:
        assert isinstance(found, Unknown)
        return
    assert isinstance(found, Forecast)
    table = np.array(found.rates_rps)
    assert table.shape == (len(LEVELS), steps)
    assert np.isfinite(table).all()
    assert (table >= 0).all()
    assert (np.diff(table, axis=0) >= 0).all()
    assert abs(sum(found.weights.values()) - 1.0) < 1e-12
    assert found.weights[found.chosen] == max(found.weights.values())


@settings(deadline=None, max_examples=50)
@given(histories, histories)
def test_the_same_state_gives_the_same_floats_also_through_json(
    history: list[tuple[float | None, float]], more: list[tuple[float | None, float]]
) -> None:
    state = fed(history)
    assert state == fed(history)
    again = ADAPTER.validate_json(ADAPTER.dump_json(state))
    assert again == state
    at_s = 1.8e9 if state.at_s is None else state.at_s
    for rate, gap_s in more[:10]:
        at_s += gap_s
        state, again = (update(SETTINGS, s, rate, 10.0, at_s) for s in (state, again))
        assert predict(SETTINGS, state, 5, LEVELS, 1.0) == predict(SETTINGS, again, 5, LEVELS, 1.0)


@settings(deadline=None, max_examples=100)
@given(known, scale)
def test_point_forecasts_scale_with_the_history(values: list[float], k: float) -> None:
    # the parameters are those of the history in both: a fit may tip between two that are equally good
    def past(factor: float) -> History:
        fine = np.array(values) * factor
        return History(fine, 10.0, 4000.0, np.resize(fine, 40), 4000.0, 20.0)

    for model in forecasters(SETTINGS):
        fit = model.fit(past(1.0))
        params = fit.params if fit else None
        params_k = params
        if params is not None and model.name == "autoregressive":
            params_k = (params[0] * k**0.5, *params[1:])
        base, more = model.point(past(1.0), 6, params), model.point(past(k), 6, params_k)
        assert (base is None) == (more is None)
        if base is not None and more is not None:
            np.testing.assert_allclose(more, k * base, rtol=1e-6, atol=1e-9 * k)
            assert (more >= base * (1 - 1e-6) - 1e-9 * k).all()


@settings(deadline=None, max_examples=50)
@given(st.floats(0.0, 1e4), scale, st.integers(1, 60))
def test_more_constant_load_is_never_forecast_lower(rate: float, k: float, bins: int) -> None:
    found = [predict(SETTINGS, fed([(rate * factor, 10.0)] * bins), 6, LEVELS, 1.0) for factor in (1.0, k)]
    less, more = found
    assert isinstance(less, Forecast)
    assert isinstance(more, Forecast)
    low, high = np.array(less.rates_rps), np.array(more.rates_rps)
    # the state keeps six digits
    assert (high >= low * (1 - 1e-5)).all()


@settings(deadline=None, max_examples=50)
@given(histories, st.integers(1, 45))
def test_unknown_bins_leave_the_evidence_alone(history: list[tuple[float | None, float]], unknown: int) -> None:
    state = fed(history)
    later = state
    at_s = 1.8e9 if state.at_s is None else state.at_s
    for i in range(unknown):
        later = update(SETTINGS, later, None, 10.0, at_s + 10.0 * (i + 1))
    if state.candidates:
        assert later.candidates == state.candidates
    # and one later bin never scores a forecast that was made from, or for, an unknown one
    scored = update(SETTINGS, later, 1.0, 10.0, at_s + 10.0 * (unknown + 1))
    for before, after in zip(later.candidates, scored.candidates, strict=True):
        waited = [step > unknown for step in SETTINGS.scored_steps]
        changed = [a != b for a, b in zip(before.residuals, after.residuals, strict=True)]
        assert not any(c and not w for c, w in zip(changed, waited, strict=True))


@settings(deadline=None, max_examples=50)
@given(histories)
def test_the_state_is_bounded(history: list[tuple[float | None, float]]) -> None:
    state = fed(history)
    assert len(state.rates_rps) <= SETTINGS.history_bins
    assert len(state.coarse_rps) <= SETTINGS.coarse_bins
    for queue, step in zip(state.issued, SETTINGS.scored_steps, strict=False):
        assert len(queue) <= step
    assert all(len(ring) <= SETTINGS.residuals for c in state.candidates for ring in c.residuals)
