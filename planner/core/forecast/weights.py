"""How much each candidate counts, from its recent pinball loss.

A candidate's score is its discounted loss over the last value's on the same outcomes, averaged over the
scored steps that the forecast spans. The weight is (best score / score)^power: free of the scale of the load,
smooth (two equal candidates share, so the forecast does not jump between them), and close to best-only when
one dominates. Candidates under a cut of the best weight are left out altogether.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Collection, Sequence

from planner.core.forecast.settings import ForecastSettings
from planner.core.forecast.state import CandidateState, Loss

#: Requests/s added to both losses of a ratio, so that two perfect forecasts of no traffic compare as equal.
_TINY_RPS = 1e-9


def spanned(scored_steps: Sequence[int], steps: int) -> slice:
    """Scored steps that a forecast of `steps` bins spans: all up to the first that is at least `steps`."""
    return slice(0, bisect_left(scored_steps, steps) + 1)


def score(settings: ForecastSettings, losses: Sequence[Loss]) -> float | None:
    """Mean over the steps of loss relative to the last value's; None with too few outcomes to tell."""
    ratios = [
        (loss.own_rps + _TINY_RPS) / (loss.reference_rps + _TINY_RPS)
        for loss in losses
        if loss.outcomes >= settings.min_outcomes
    ]
    return sum(ratios) / len(ratios) if ratios else None


def weights(
    settings: ForecastSettings,
    candidates: Sequence[CandidateState],
    available: Collection[str],
    steps: int,
) -> dict[str, float]:
    """Weight by candidate name, summing to 1; 0 for those that are unavailable, unproven or cut.

    The first candidate is the reference: it must be available, and holds all the weight until one is proven.
    """
    span = spanned(settings.scored_steps, steps)
    scores = {
        c.name: value
        for c in candidates
        if c.name in available and (value := score(settings, c.losses[span])) is not None
    }
    if not scores:
        return {c.name: float(i == 0) for i, c in enumerate(candidates)}
    best = min(scores.values())
    raw = {name: (best / value) ** settings.weight_power for name, value in scores.items()}
    kept = {name: weight for name, weight in raw.items() if weight >= settings.weight_cut}
    total = sum(kept.values())
    return {c.name: kept.get(c.name, 0.0) / total for c in candidates}
