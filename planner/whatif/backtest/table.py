"""The backtest as tables for people and as one object for machines."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

from rich import box
from rich.table import Table

from planner.core.forecast import ENSEMBLE
from planner.whatif.backtest.evaluate import LEVELS, Issued
from planner.whatif.backtest.score import Score, Target, scores_of
from planner.whatif.backtest.series import Series

#: What each target is, for people.
WORDS: Mapping[Target, str] = {
    Target.MEAN: "mean rate over the horizon",
    Target.WORST: "busiest interval within the horizon (what is sized for)",
    Target.LAST: "last interval of the horizon (what the quantiles state)",
}

#: Levels whose coverage the table shows; the object has all.
_SHOWN = (0.1, 0.5, 0.9, 0.95)


@dataclass(frozen=True, eq=False)
class Scored:
    """A backtest's scores, by horizon in bins, then target, then forecaster."""

    series: Series
    issued: Mapping[int, Issued]
    scores: Mapping[int, Mapping[Target, Mapping[str, Score]]]

    @classmethod
    def of(cls, series: Series, issued: Mapping[int, Issued]) -> Scored:
        """Score all targets."""
        return cls(series, issued, {h: {t: scores_of(one, LEVELS, t) for t in Target} for h, one in issued.items()})


def as_json(scored: Scored) -> dict[str, Any]:
    """The object of `--output json`."""
    series = scored.series
    return {
        "trace": {"requests": series.requests, "span_s": series.span_s},
        "interval_s": series.interval_s,
        "intervals": len(series.rates_rps),
        "mean_rps": float(series.rates_rps.mean()),
        "levels": list(LEVELS),
        "horizons": [
            {
                "horizon_s": steps * series.interval_s,
                "intervals": steps,
                "mean_weight": dict(scored.issued[steps].mean_weight),
                **{
                    target.value: {name: asdict(score) for name, score in by_name.items()}
                    for target, by_name in targets.items()
                },
            }
            for steps, targets in scored.scores.items()
        ],
    }


def backtest_table(scored: Scored, target: Target) -> Table:
    """One row per horizon and forecaster."""
    table = Table(
        title=WORDS[target], title_justify="left", box=box.SIMPLE, pad_edge=False, padding=(0, 0, 0, 1), show_edge=False
    )
    table.add_column("horizon", justify="right", no_wrap=True)
    table.add_column("forecaster", no_wrap=True)
    covered = (f"≤ p{100 * level:g}" for level in _SHOWN)
    for name in ("loss\nreq/s", "of last\nvalue's", "of seasonal\nnaive's", *covered, "p10 to\np90", "bias\nreq/s"):
        table.add_column(name, justify="right", no_wrap=True)
    for steps, targets in scored.scores.items():
        for row, (name, score) in enumerate(targets[target].items()):
            horizon = f"{steps * scored.series.interval_s:g} s" if row == 0 else ""
            table.add_row(horizon, name, *figures(score), style="bold" if name == ENSEMBLE else None)
        table.add_section()
    return table


def absent(scored: Scored) -> list[str]:
    """Forecasters that had no forecast in any window, by name."""
    had = {name for issued in scored.issued.values() for name in issued.quantiles_rps}
    weighed = {name for issued in scored.issued.values() for name in issued.mean_weight}
    return sorted(weighed - had)


def figures(score: Score) -> tuple[str, ...]:
    """A row's figures, in the order of the table."""
    at = dict(zip(LEVELS, score.coverage, strict=True))
    return (
        f"{score.loss_rps:.3f}",
        _ratio(score.against_last_value),
        _ratio(score.against_seasonal_naive),
        *(f"{100 * at[level]:.0f} %" for level in _SHOWN),
        f"{100 * (at[0.9] - at[0.1]):.0f} %",
        f"{score.bias_rps:+.2f}",
    )


def _ratio(value: float | None) -> str:
    return "-" if value is None else f"{value:.2f}"
