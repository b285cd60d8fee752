"""Who wins a comparison, in words: pure, without HTML."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from planner.core.types import Sla
from planner.whatif.outcome import Outcome

#: Names that policies carry in an outcome.
OURS, CLAIRVOYANT, STATIC = "planner", "clairvoyant", "static:"

#: Other policies than static ones that are drawn over time; more lines than these cannot be told apart.
_MOST_DRAWN = 6


@dataclass(frozen=True)
class Verdict:
    """The parts that a comparison is told with.

    Attributes:
        target: share of requests that must attain.
        ranked: all outcomes, those that reach the target first, then by GPU-hours.
        winner: reaches the target at the fewest GPU-hours; the clairvoyant policy, which no one can run, does not
            compete. None if none reaches it.
        ours: our planner's.
        static: the cheapest fixed fleet that reaches the target, or else the fixed fleet that attains most.
        bound: the clairvoyant policy's.
    """

    target: float
    ranked: tuple[Outcome, ...]
    winner: Outcome | None
    ours: Outcome | None
    static: Outcome | None
    bound: Outcome | None

    def reaches(self, outcome: Outcome) -> bool:
        """Whether an outcome meets the target."""
        return outcome.attainment >= self.target

    @property
    def drawn(self) -> tuple[Outcome, ...]:
        """The outcomes worth drawing over time: ours, the best fixed fleet, then the other policies."""
        first = [outcome for outcome in (self.ours, self.static) if outcome is not None]
        others = [o for o in self.ranked if not is_static(o) and o not in first]
        return (*first, *others[:_MOST_DRAWN])

    @property
    def headline(self) -> str:
        """The answer in a sentence."""
        winner, ours = self.winner, self.ours
        if winner is None:
            reached = self.bound is not None and self.reaches(self.bound)
            return "No policy meets the SLA" + (", except the clairvoyant bound" if reached else "")
        if winner is ours:
            return f"{OURS} meets the SLA at the fewest GPU-hours"
        words = f"{winner.policy} meets the SLA at the fewest GPU-hours"
        if ours is None:
            return words
        if self.reaches(ours):
            how = _compared(ours.gpu_hours, winner.gpu_hours)
            return f"{words}; {OURS} meets it too, with {how} GPU-hours"
        return f"{words}; {OURS} misses it"

    @property
    def details(self) -> tuple[str, ...]:
        """The numbers behind the headline, a sentence each."""
        said = []
        ours, winner = self.ours, self.winner
        if winner is None:
            closest = max(self.ranked, key=lambda o: (o.attainment, -o.gpu_hours))
            said.append(
                f"The closest is {closest.policy}: {percent(closest.attainment)} of requests attain, "
                f"{wanted(self.target)} are wanted, with {closest.gpu_hours:.2f} GPU-hours."
            )
        if ours is not None:
            rest = "meets" if self.reaches(ours) else "misses"
            said.append(
                f"{OURS} {rest} the target of {wanted(self.target)}: {percent(ours.attainment)} attain "
                f"with {ours.gpu_hours:.2f} GPU-hours and at most {ours.peak_gpus} GPUs at once."
            )
        elif winner is not None:
            said.append(f"{winner.policy} attains {percent(winner.attainment)} with {winner.gpu_hours:.2f} GPU-hours.")
        said.extend(self._beside())
        return tuple(said)

    def _beside(self) -> list[str]:
        """The cheapest fixed fleet and the bound, beside ours."""
        said = []
        for other, reaching, missing in (
            (self.static, "the cheapest fixed fleet that meets it", "the fixed fleet that attains most"),
            (self.bound, "the bound, which knows the trace", "the bound, which knows the trace"),
        ):
            if other is None:
                continue
            ok = self.reaches(other)
            words = f"{other.policy}, {reaching if ok else missing}, "
            words += f"takes {other.gpu_hours:.2f} GPU-hours"
            words += "" if ok else f" and falls short with {percent(other.attainment)}"
            if self.ours is not None and ok:
                words += f"; {OURS} takes {_compared(self.ours.gpu_hours, other.gpu_hours)}"
            said.append(words + ".")
        return said


def verdict(outcomes: Sequence[Outcome], sla: Sla) -> Verdict:
    """Rank outcomes and pick those that the report compares."""
    target = sla.attainment
    ranked = sorted(outcomes, key=lambda o: (o.attainment < target, o.gpu_hours, -o.attainment, o.policy))
    reaching = [o for o in ranked if o.attainment >= target]
    statics = [o for o in ranked if is_static(o)]
    best_static = next(iter(o for o in reaching if is_static(o)), None)
    if best_static is None and statics:
        best_static = max(statics, key=lambda o: (o.attainment, -o.gpu_hours))
    return Verdict(
        target=target,
        ranked=tuple(ranked),
        winner=next((o for o in reaching if o.policy != CLAIRVOYANT), None),
        ours=_named(ranked, OURS),
        static=best_static,
        bound=_named(ranked, CLAIRVOYANT),
    )


def is_static(outcome: Outcome) -> bool:
    """Whether it is of a fixed fleet."""
    return outcome.policy.startswith(STATIC)


def _named(outcomes: Sequence[Outcome], name: str) -> Outcome | None:
    return next((o for o in outcomes if o.policy == name), None)


def _compared(ours: float, other: float) -> str:
    """How much more or fewer, in words."""
    change = ours / other - 1.0 if other > 0 else 0.0
    if abs(change) < 0.005:
        return "as many"
    return f"{abs(change):.0%} {'more' if change > 0 else 'fewer'}".replace("%", " %")


def wanted(share: float) -> str:
    """A target as it was asked for, without zeros."""
    return f"{100 * share:.6g} %"


def percent(share: float) -> str:
    """A share with two decimals, rounded down: 94.999 % must not read as the 95 % that it misses."""
    if not math.isfinite(share):
        return "—"
    # The tiny addition keeps a share that a float holds a hair too low, such as 0.29, from losing a digit.
    return f"{math.floor(share * 1e4 + 1e-7) / 100:.2f} %"
