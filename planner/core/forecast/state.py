"""The explicit, immutable state of the forecasts: plain tuples and numbers that survive JSON unchanged."""

from __future__ import annotations

from dataclasses import dataclass

#: Residuals are kept as whole thousandths of a square root of a count: four characters instead of twenty in
#: JSON, at a resolution two hundred times finer than the residual of a Poisson count (standard deviation
#: 0.5).
RESIDUAL_UNIT = 1e-3


def rounded(value: float) -> float:
    """`value` to six significant digits: keeps the stored state small."""
    return float(f"{value:.6g}")


@dataclass(frozen=True, slots=True)
class Loss:
    """Discounted pinball loss of a candidate at one scored step, and of the last value on the same outcomes.

    Attributes:
        own_rps: discounted sum of the candidate's pinball loss, mean over the scored levels, requests/s.
        reference_rps: the last value's, over the outcomes that the candidate forecast too, so that a
            candidate which joins late is compared on its own outcomes only.
        outcomes: outcomes scored, not discounted.
    """

    own_rps: float = 0.0
    reference_rps: float = 0.0
    outcomes: int = 0


@dataclass(frozen=True, slots=True)
class CandidateState:
    """What is remembered of one forecaster.

    Attributes:
        name: of the forecaster.
        params: of the last fit that succeeded; None before it, or for a forecaster that has none.
        fit_note: how the last fit ended, for people; empty when it succeeded or none was due.
        residuals: per scored step, oldest first, sqrt(count seen) - sqrt(count forecast) in `RESIDUAL_UNIT`.
        losses: per scored step.
    """

    name: str
    params: tuple[float, ...] | None = None
    fit_note: str = ""
    residuals: tuple[tuple[int, ...], ...] = ()
    losses: tuple[Loss, ...] = ()


#: Points forecast from one bin at one scored step, by position in `ForecastState.candidates`; None as a
#: point: that candidate had none; None as a whole: nothing was forecast there, because the bin was unknown.
Issued = tuple[float | None, ...] | None


@dataclass(frozen=True, slots=True)
class ForecastState:
    """Everything the next forecast depends on.

    Attributes:
        at_s: end of the last bin; None before the first.
        bin_s: width of the fine bins, s; 0 before the first.
        bins: bins since the start or the last reset; paces the refits.
        rates_rps: fine bins, oldest first, requests/s; None is an unknown bin.
        coarse_rps: finished coarse bins, oldest first, requests/s; None where nothing was known.
        coarse_index: floor(time / coarse width) of the coarse bin being filled.
        coarse_sum_rps, coarse_known: sum and number of the known fine bins in it.
        scored_steps: the steps that `issued`, `residuals` and `losses` are for.
        issued: per scored step, the forecasts still waiting for their outcome, oldest first.
        candidates: by forecaster, in the order of the registry.
    """

    at_s: float | None = None
    bin_s: float = 0.0
    bins: int = 0
    rates_rps: tuple[float | None, ...] = ()
    coarse_rps: tuple[float | None, ...] = ()
    coarse_index: int = 0
    coarse_sum_rps: float = 0.0
    coarse_known: int = 0
    scored_steps: tuple[int, ...] = ()
    issued: tuple[tuple[Issued, ...], ...] = ()
    candidates: tuple[CandidateState, ...] = ()

    @classmethod
    def empty(cls) -> ForecastState:
        """The state before anything was seen."""
        return cls()

    @property
    def bins_known(self) -> int:
        """Fine bins kept whose rate is known."""
        return sum(rate is not None for rate in self.rates_rps)
