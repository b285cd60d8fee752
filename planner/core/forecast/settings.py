"""What can be set about the forecasts; each field says its unit and why its default is what it is."""

from __future__ import annotations

import itertools
from typing import Annotated, Self

from pydantic import BaseModel, ConfigDict, Field, model_validator

Level = Annotated[float, Field(gt=0, lt=1)]
Step = Annotated[int, Field(ge=1)]


class ForecastSettings(BaseModel):
    """Settings of history, candidates, conformal residuals and weights."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    history_bins: int = Field(default=360, ge=12)
    """Fine bins kept. One hour of 10 s bins: enough for six lags and a trend, few enough to be fast."""

    coarse_bin_s: float = Field(default=300.0, gt=0)
    """Width of a coarse bin in seconds. Daily shapes move over minutes; finer would only store noise."""

    coarse_bins: int = Field(default=576, ge=0)
    """Coarse bins kept. Two days of 5 min, so one missed morning does not end seasonality. 0 turns it off."""

    season_s: float = Field(default=86_400.0, gt=0)
    """Length of the season in seconds. Request rates follow the day before they follow anything else."""

    season_level_s: float = Field(default=1_800.0, gt=0)
    """Span in seconds over which today is compared with the last season to scale it."""

    season_scale_limit: float = Field(default=4.0, ge=1)
    """The season is scaled by at most this factor, or its inverse: beyond it, it is another kind of day."""

    last_value_bins: int = Field(default=3, ge=1)
    """Known bins averaged by the last-value forecaster: fewer is noise of counting, more is lag."""

    autoregressive_lags: int = Field(default=6, ge=1)
    """Lags in bins. One minute of 10 s bins: the memory that bursts show; more lags fit noise in one hour."""

    refit_every: int = Field(default=12, ge=1)
    """Bins between two fits of a candidate's parameters; they move slowly and a fit costs milliseconds."""

    min_fit_bins: int = Field(default=30, ge=8)
    """Bins of history before a candidate is fitted: five per autoregressive lag."""

    scored_steps: tuple[Step, ...] = (1, 4, 12)
    """Steps ahead, in bins, at which forecasts are scored and residuals kept; others are interpolated.

    Chosen to bracket cold starts of 30 s to 2 min with 10 s bins. Every step costs `residuals` numbers per
    candidate.
    """

    scored_levels: tuple[Level, ...] = (0.5, 0.9, 0.95)
    """Quantile levels whose pinball loss ranks the candidates: the centre, and the tail that sizing buys."""

    residuals: int = Field(default=120, ge=10)
    """Residuals kept per candidate and scored step: 20 min of 10 s bins, so that a p95 rests on six."""

    prior_strength: float = Field(default=10.0, gt=0)
    """Weight of the prior in residuals: with this many known, prior and experience count the same."""

    prior_dispersion: float = Field(default=1.0, ge=0)
    """Variance over mean assumed while scoring, where the live one is not at hand. 1 is Poisson."""

    loss_half_life_bins: float = Field(default=60.0, gt=0)
    """Outcomes after which a loss counts half: ten minutes of 10 s bins, several cold starts."""

    min_outcomes: int = Field(default=6, ge=1)
    """Scored outcomes before a candidate may carry weight; until then the last value does. 1 min at 10 s."""

    weight_power: float = Field(default=12.0, ge=0)
    """Weight is loss to minus this power: 10 % worse leaves a third of the weight, 30 % worse 4 %."""

    weight_cut: float = Field(default=0.05, ge=0, lt=1)
    """Candidates below this share of the best weight are left out: a dominant one stands alone."""

    @model_validator(mode="after")
    def _ordered(self) -> Self:
        for name in ("scored_steps", "scored_levels"):
            values = getattr(self, name)
            if not values or any(b <= a for a, b in itertools.pairwise(values)):
                raise ValueError(f"{name} must be given, in strictly increasing order: {values}")
        return self
