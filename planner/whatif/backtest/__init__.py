"""How well the planner's forecasts do on the arrivals of a trace, against the last value and the seasonal naive."""

from planner.whatif.backtest.evaluate import LEVELS, Issued, evaluate
from planner.whatif.backtest.score import Score, Target, scores_of
from planner.whatif.backtest.series import Series, series_of

__all__ = ["LEVELS", "Issued", "Score", "Series", "Target", "evaluate", "scores_of", "series_of"]
