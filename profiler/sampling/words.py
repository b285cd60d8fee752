"""Words that a report uses: why a point was chosen, and how a table stands."""

from __future__ import annotations

from enum import StrEnum


class Reason(StrEnum):
    """Why a point was chosen.

    grid: first pass over the coarse grid. check: batched prompts or prefix hits, which check the batching model.
    repeat: of a point that has fewer repeats than every point gets. knee: known or found place where the slope
    changes. error: middle of the interval with the largest interpolation error. row: new context between two rows of
    decode points. noise: the median is not known well enough yet.
    """

    GRID = "grid"
    CHECK = "check"
    REPEAT = "repeat"
    KNEE = "knee"
    ERROR = "error"
    ROW = "row"
    NOISE = "noise"


class Verdict(StrEnum):
    """How a table stands.

    measuring: not at its target yet. target: at its target. noise: what error is left is that of the repeats, which
    are used up. resolution: points cannot be put any closer. few: the engine holds too few points for a leave-one-out
    error. failed: nothing of it could be measured. impossible: no point of it fits the engine. budget: not at its
    target, and the time is spent.
    """

    MEASURING = "measuring"
    TARGET = "target"
    NOISE = "noise"
    RESOLUTION = "resolution"
    FEW = "few"
    FAILED = "failed"
    IMPOSSIBLE = "impossible"
    BUDGET = "budget"

    @property
    def done(self) -> bool:
        """Whether nothing more will be asked of the table."""
        return self is not Verdict.MEASURING
