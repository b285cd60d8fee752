"""What every policy of a set differs by from one of them: attainment in points, GPU-hours in percent.

Runs of the same case and seed are compared, so that a trace's own luck is in neither figure.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from planner.whatif.arena.record import Figures, RunRecord


@dataclass(frozen=True)
class Difference:
    """A policy less its reference.

    Attributes:
        attainment_points: of attainment, in percent of the requests.
        gpu_hours_percent: of GPU-hours, in percent of the reference's.
    """

    attainment_points: float
    gpu_hours_percent: float


@dataclass(frozen=True)
class Differences:
    """A policy in every case in which it and the reference have a seed in common.

    Attributes:
        policy: its specification.
        by_case: means over these seeds, by the case's name.
    """

    policy: str
    by_case: Mapping[str, Difference]

    @property
    def mean(self) -> Difference | None:
        """Over cases, each of which counts the same; None where there is none."""
        return _mean(list(self.by_case.values()))


def differences(
    reference: str, policies: Sequence[str], runs: Sequence[tuple[str, Sequence[RunRecord]]]
) -> list[Differences]:
    """Every other policy against the reference.

    Args:
        reference: its specification.
        policies: in the order to show them.
        runs: of each case its name and its runs.
    """
    return [
        Differences(policy, {name: one for name, of in runs if (one := _in_case(policy, reference, of)) is not None})
        for policy in policies
        if policy != reference
    ]


def _in_case(policy: str, reference: str, runs: Sequence[RunRecord]) -> Difference | None:
    mine, other = _done(policy, runs), _done(reference, runs)
    return _mean([_less(mine[seed], other[seed]) for seed in mine if seed in other and other[seed].gpu_hours > 0])


def _done(policy: str, runs: Sequence[RunRecord]) -> dict[int, Figures]:
    return {run.seed: run.figures for run in runs if run.policy == policy and run.figures is not None}


def _less(one: Figures, other: Figures) -> Difference:
    return Difference(100 * (one.attainment - other.attainment), 100 * (one.gpu_hours / other.gpu_hours - 1))


def _mean(parts: Sequence[Difference]) -> Difference | None:
    if not parts:
        return None
    points = float(np.mean([part.attainment_points for part in parts]))
    return Difference(points, float(np.mean([part.gpu_hours_percent for part in parts])))


def as_json(reference: str, found: Sequence[Differences]) -> dict[str, Any]:
    """For machines."""
    return {
        "reference": reference,
        "policies": [
            {
                "policy": one.policy,
                "mean": None if one.mean is None else vars(one.mean),
                "cases": {name: vars(part) for name, part in one.by_case.items()},
            }
            for one in found
        ],
    }
