"""Figures over seeds, and who is beaten by whom: pure arithmetic.

Intervals are Student's t over seeds, 95 %: with three seeds they are wide, and honest about it.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from scipy.stats import t as student

from planner.whatif.arena.record import Figures, RunRecord
from planner.whatif.report_verdict import CLAIRVOYANT, OURS

#: Of the intervals.
CONFIDENCE = 0.95

#: Differences that do not count: of attainment as a share, of GPU-hours relative to the other's.
ATTAINMENT_TOLERANCE, GPU_HOURS_TOLERANCE = 0.001, 0.005


@dataclass(frozen=True)
class Spread:
    """A mean over seeds and half the width of its confidence interval; None for a single seed."""

    mean: float
    half_width: float | None

    def as_json(self) -> dict[str, float | None]:
        """For machines."""
        return {"mean": self.mean, "half_width": self.half_width}


def spread(values: Sequence[float]) -> Spread:
    """Mean and interval of at least one value."""
    mean = float(np.mean(values))
    count = len(values)
    if count < 2:
        return Spread(mean, None)
    wide = float(student.ppf(0.5 + CONFIDENCE / 2, count - 1)) * float(np.std(values, ddof=1)) / math.sqrt(count)
    return Spread(mean, wide)


@dataclass(frozen=True)
class Standing:
    """A policy in a case, over the seeds whose runs were done.

    Attributes:
        policy: its specification.
        seeds, failed: runs done, and runs that ended with an error.
        ratio: GPU-hours over the bound's of the same seed; None where the bound was not run.
        peak_gpus: the highest of all seeds; the other figures are means.
        dominated_by: real policies that attain at least as much for at most as many GPU-hours, one of them clearly.
        on_front: no real policy beats it; bounds are never on it.
        errors: of the failed runs, each once.
    """

    policy: str
    seeds: int
    failed: int
    attainment: Spread | None
    ttft_attainment: float
    itl_attainment: float
    gpu_hours: Spread | None
    ratio: Spread | None
    scale_ups: float
    scale_downs: float
    peak_gpus: int
    making_s: float
    decisions_s: float
    requests_per_s: float
    dominated_by: tuple[str, ...] = ()
    on_front: bool = False
    errors: tuple[str, ...] = ()

    @property
    def is_bound(self) -> bool:
        """Whether it knows the trace: a yardstick, not a competitor."""
        return is_bound(self.policy)

    def reaches(self, target: float) -> bool:
        """Whether its mean attainment meets the target."""
        return self.attainment is not None and self.attainment.mean >= target


def is_bound(policy: str) -> bool:
    """Whether a policy is a bound."""
    return policy.partition(":")[0] == CLAIRVOYANT


def standings(policies: Sequence[str], runs: Sequence[RunRecord]) -> list[Standing]:
    """Every policy of a case, in the order given.

    Args:
        policies: specifications.
        runs: of the case, any seeds.
    """
    bound = {run.seed: run.figures for run in runs if run.policy == CLAIRVOYANT and run.figures is not None}
    rows = [_standing(policy, [run for run in runs if run.policy == policy], bound) for policy in policies]
    real = [row for row in rows if not row.is_bound]
    beaten = {row.policy: tuple(other.policy for other in real if dominates(other, row)) for row in real}
    return [
        row
        if row.is_bound
        else _with(row, beaten[row.policy], on_front=not beaten[row.policy] and row.attainment is not None)
        for row in rows
    ]


def _with(row: Standing, dominated_by: tuple[str, ...], *, on_front: bool) -> Standing:
    return Standing(**{**vars(row), "dominated_by": dominated_by, "on_front": on_front})


def dominates(one: Standing, other: Standing) -> bool:
    """Whether one attains at least as much for at most as many GPU-hours, and one of both beyond its tolerance."""
    if one.policy == other.policy or None in (one.attainment, other.attainment):
        return False
    a, b = _point(one), _point(other)
    if a[0] < b[0] or a[1] > b[1]:
        return False
    return a[0] > b[0] + ATTAINMENT_TOLERANCE or a[1] < b[1] * (1 - GPU_HOURS_TOLERANCE)


def _point(row: Standing) -> tuple[float, float]:
    if row.attainment is None or row.gpu_hours is None:
        raise ValueError(f"{row.policy} has no run that was done")
    return row.attainment.mean, row.gpu_hours.mean


def _standing(policy: str, runs: Sequence[RunRecord], bound: Mapping[int, Figures]) -> Standing:
    done = [(run.seed, run.figures) for run in runs if run.figures is not None]
    figures = [one for _, one in done]
    ratios = [
        one.gpu_hours / bound[seed].gpu_hours for seed, one in done if seed in bound and bound[seed].gpu_hours > 0
    ]

    def mean(name: str) -> float:
        return float(np.mean([getattr(one, name) for one in figures])) if figures else math.nan

    return Standing(
        policy=policy,
        seeds=len(figures),
        failed=sum(run.error is not None for run in runs),
        attainment=spread([one.attainment for one in figures]) if figures else None,
        ttft_attainment=mean("ttft_attainment"),
        itl_attainment=mean("itl_attainment"),
        gpu_hours=spread([one.gpu_hours for one in figures]) if figures else None,
        ratio=spread(ratios) if ratios else None,
        scale_ups=mean("scale_ups"),
        scale_downs=mean("scale_downs"),
        peak_gpus=max((one.peak_gpus for one in figures), default=0),
        making_s=mean("making_s"),
        decisions_s=mean("decisions_s"),
        requests_per_s=mean("requests_per_s"),
        errors=tuple(dict.fromkeys(run.error for run in runs if run.error is not None)),
    )


@dataclass(frozen=True)
class Summary:
    """A policy over all cases.

    Attributes:
        reached, reachable: cases in which it meets the target, of those in which the bound does (of all, where the
            bound was not run).
        missed: of these, the ones that it does not meet.
        ratio, worst_ratio: mean and highest over cases of the GPU-hours over the bound's, of cases that it reached.
        dominated, cases: cases in which it is dominated, of those in which it ran.
    """

    policy: str
    reached: int
    reachable: int
    missed: tuple[str, ...]
    ratio: float | None
    worst_ratio: float | None
    worst_case: str
    dominated: tuple[str, ...]
    cases: int


def summarise(policy: str, results: Sequence[tuple[str, float, Sequence[Standing]]]) -> Summary:
    """A policy over all cases.

    Args:
        policy: its specification.
        results: of each case its name, its target and its standings.
    """
    reachable, missed, dominated = 0, [], []
    ratios: dict[str, float] = {}
    cases = 0
    for name, target, rows in results:
        mine = next((row for row in rows if row.policy == policy), None)
        if mine is None or mine.attainment is None:
            continue
        cases += 1
        bound = next((row for row in rows if row.policy == CLAIRVOYANT), None)
        dominated += [name] if mine.dominated_by else []
        if bound is not None and bound.attainment is not None and not bound.reaches(target):
            continue
        reachable += 1
        if not mine.reaches(target):
            missed.append(name)
        elif mine.ratio is not None:
            ratios[name] = mine.ratio.mean
    worst = max(ratios, key=lambda name: ratios[name], default="")
    return Summary(
        policy=policy,
        reached=reachable - len(missed),
        reachable=reachable,
        missed=tuple(missed),
        ratio=float(np.mean(list(ratios.values()))) if ratios else None,
        worst_ratio=ratios.get(worst),
        worst_case=worst,
        dominated=tuple(dominated),
        cases=cases,
    )


def is_ours(policy: str) -> bool:
    """Whether a policy is our planner, with options or without."""
    return policy.partition(":")[0] == OURS
