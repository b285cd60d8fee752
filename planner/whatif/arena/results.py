"""The results of an arena: per case the standings of all policies, over all cases a summary of each."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from planner.whatif.arena import statistics
from planner.whatif.arena.differences import Differences, differences
from planner.whatif.arena.differences import as_json as compared_as_json
from planner.whatif.arena.record import RunRecord
from planner.whatif.arena.run import Terms
from planner.whatif.arena.setting import Place
from planner.whatif.arena.statistics import Spread, Standing, Summary, standings, summarise


@dataclass(frozen=True)
class CaseResult:
    """A case and what came of it.

    Attributes:
        place: the case, its trace and its profiles.
        terms: of each seed.
        rows: of each policy.
        runs: all of them.
    """

    place: Place
    terms: tuple[Terms, ...]
    rows: tuple[Standing, ...]
    runs: tuple[RunRecord, ...]

    @property
    def name(self) -> str:
        """The case's."""
        return self.place.case.name

    @property
    def target(self) -> float:
        """Share of requests that must attain."""
        return self.place.case.sla.attainment


@dataclass(frozen=True)
class Results:
    """All of it.

    Attributes:
        name, about: of the set.
        cases: in the order of the set.
        summaries: of each policy, in the order of the set.
        reference: the policy that others are compared with; empty for none.
        differences: of each other policy from it.
    """

    name: str
    about: str
    cases: tuple[CaseResult, ...]
    summaries: tuple[Summary, ...]
    reference: str = ""
    differences: tuple[Differences, ...] = ()

    @property
    def failures(self) -> list[RunRecord]:
        """Runs that ended with an error."""
        return [run for case in self.cases for run in case.runs if run.error is not None]


def gather(
    name: str,
    about: str,
    policies: Sequence[str],
    terms: Sequence[Terms],
    runs: Iterable[RunRecord],
    reference: str = "",
) -> Results:
    """Results from runs.

    Args:
        name: of the set.
        about: what the set is for.
        policies: in the order to show them.
        terms: of every case and seed, a case's seeds together.
        runs: of these terms and policies.
        reference: the policy that the others are compared with; none where it is not among them.
    """
    by_case: dict[str, list[Terms]] = {}
    for one in terms:
        by_case.setdefault(one.place.case.name, []).append(one)
    by_name: dict[str, list[RunRecord]] = {}
    for run in runs:
        by_name.setdefault(run.case, []).append(run)
    cases = tuple(
        CaseResult(mine[0].place, tuple(mine), tuple(standings(mine[0].place.case.policies(policies), of)), tuple(of))
        for case, mine in by_case.items()
        for of in [sorted(by_name.get(case, []), key=lambda run: run.seed)]
    )
    told = [(case.name, case.target, case.rows) for case in cases]
    summaries = tuple(summarise(policy, told) for policy in policies)
    if reference not in policies:
        return Results(name, about, cases, summaries)
    compared = differences(reference, policies, [(case.name, case.runs) for case in cases])
    return Results(name, about, cases, summaries, reference, tuple(compared))


def as_json(results: Results) -> dict[str, Any]:
    """The object of `--output json` and of results.json; timelines are in runs.jsonl."""
    return {
        "set": results.name,
        "statistics": {
            "interval": "Student's t over seeds",
            "confidence": statistics.CONFIDENCE,
            "dominance_tolerance": {
                "attainment": statistics.ATTAINMENT_TOLERANCE,
                "gpu_hours_relative": statistics.GPU_HOURS_TOLERANCE,
            },
        },
        "cases": [_case(case) for case in results.cases],
        "summary": [_summary(summary) for summary in results.summaries],
        **({"differences": compared_as_json(results.reference, results.differences)} if results.reference else {}),
    }


def _case(case: CaseResult) -> dict[str, Any]:
    spec, place = case.place.case.spec, case.place
    return {
        "case": case.name,
        "about": spec.about,
        "trace": place.source.words,
        "substituted": bool(place.source.substitutes),
        "profile": list(spec.profile),
        "graph": spec.graph,
        "sla": spec.sla.model_dump(),
        "startup_s": place.case.startup_s,
        "max_gpus": spec.max_gpus,
        "routing": spec.routing,
        "seeds": [
            {"seed": t.seed, "requests": t.requests, "span_s": t.span_s, "start": dict(t.start)} for t in case.terms
        ],
        "policies": [_standing(row, case.target) for row in case.rows],
        "runs": [
            run.model_dump(mode="json", exclude={"version": True, "figures": {"timeline"}}, exclude_none=True)
            for run in case.runs
        ],
    }


def _standing(row: Standing, target: float) -> dict[str, Any]:
    whole = {
        name: value.as_json() if isinstance(value, Spread) else list(value) if isinstance(value, tuple) else value
        for name, value in vars(row).items()
    }
    # What no run measured is no number; NaN is not JSON.
    known = {name: None if isinstance(value, float) and math.isnan(value) else value for name, value in whole.items()}
    return known | {"bound": row.is_bound, "target_met": row.reaches(target), "dominated": bool(row.dominated_by)}


def _summary(summary: Summary) -> dict[str, Any]:
    return {name: list(value) if isinstance(value, tuple) else value for name, value in vars(summary).items()}
