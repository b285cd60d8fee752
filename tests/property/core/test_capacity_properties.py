"""The closed form moves one way with load, workers and limits, whatever the engine and the lengths."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

from hypothesis import given, settings
from hypothesis import strategies as st

from planner.core.capacity import Prediction, UncertainRate
from planner.core.closed_form import ClosedForm, ClosedFormEvaluator
from planner.core.demand import Demand, Lengths
from planner.core.types import LengthSample, Role, Sla
from tests.property.core.strategies import dispersions, lengths, models, rates, slas

#: Rounding of sums over samples.
ROUNDING = 1e-9

counts = st.tuples(st.integers(1, 40), st.integers(1, 40))
factors = st.one_of(st.just(1.0), st.floats(1.0, 1.001), st.floats(1.0, 100.0))

quick = settings(deadline=None, max_examples=60)


@dataclass(frozen=True)
class Case:
    """A graph, a load, an SLA and workers: the first count for prefill or aggregated, the second for decode."""

    model: ClosedForm
    sample: LengthSample
    rate: float
    dispersion: float
    sla: Sla
    workers: tuple[int, int]

    @property
    def by_role(self) -> dict[Role, int]:
        return dict(zip(self.model.roles, self.workers, strict=False))

    @property
    def evaluator(self) -> ClosedFormEvaluator:
        return self.model.evaluator(Demand(self.rate, self.dispersion, Lengths.of(self.sample)), self.sla)

    def predict(self) -> Prediction:
        return self.evaluator.predict(self.by_role)


@st.composite
def fitting(draw: st.DrawFn) -> Case:
    """Load and limits that fit the engine: most searches then end between idle and overload."""
    model, sample, workers = draw(models), draw(lengths), draw(counts)
    slow = model.evaluator(Demand(1e-4, 1.0, Lengths.of(sample)), Sla(1.0, 1.0))
    one = 1e-4 / max(slow.predict(dict.fromkeys(model.roles, 1)).utilisation.values())
    ttft, itl = (float(alone.max()) for alone in slow.facts.alone)
    limits = st.one_of(st.floats(1.1, 4.0), st.floats(0.8, 1.5))
    return Case(
        model,
        sample,
        draw(st.floats(0.05, 1.5)) * one * min(workers[: len(model.roles)]),
        draw(dispersions),
        Sla(ttft * draw(limits), max(itl, 1.0) * draw(limits)),
        workers,
    )


cases = st.one_of(fitting(), fitting(), st.builds(Case, models, lengths, rates, dispersions, slas, counts))


def assert_no_better(worse: Prediction, better: Prediction) -> None:
    assert worse.attainment <= better.attainment + ROUNDING
    assert worse.ttft_attainment <= better.ttft_attainment + ROUNDING
    assert worse.itl_attainment <= better.itl_attainment + ROUNDING


@quick
@given(cases, factors)
def test_more_load_never_attains_more(case: Case, factor: float) -> None:
    less, more = case.predict(), replace(case, rate=case.rate * factor).predict()
    assert_no_better(more, less)
    for role, use in less.utilisation.items():
        assert more.utilisation[role] >= use - ROUNDING


@quick
@given(cases, st.tuples(st.integers(0, 20), st.integers(0, 20)))
def test_more_workers_never_attain_less(case: Case, added: tuple[int, int]) -> None:
    fewer = case.predict()
    more = replace(case, workers=(case.workers[0] + added[0], case.workers[1] + added[1])).predict()
    assert_no_better(fewer, more)
    for role, use in more.utilisation.items():
        assert use <= fewer.utilisation[role] + ROUNDING


@quick
@given(cases, st.floats(0.0, 20.0))
def test_burstier_arrivals_never_keep_the_itl_of_more_requests(case: Case, added: float) -> None:
    # Not so for TTFT: bursts make few requests wait long where an even flow makes many wait a little.
    calm, burst = case.predict(), replace(case, dispersion=case.dispersion + added).predict()
    assert burst.itl_attainment <= calm.itl_attainment + ROUNDING


@quick
@given(cases, factors, factors)
def test_looser_limits_never_attain_less(case: Case, ttft: float, itl: float) -> None:
    looser = replace(case.sla, ttft_ms=case.sla.ttft_ms * ttft, itl_ms=case.sla.itl_ms * itl)
    assert_no_better(case.predict(), replace(case, sla=looser).predict())


@quick
@given(cases)
def test_shares_are_shares_and_never_above_the_ceiling(case: Case) -> None:
    found = case.predict()
    assert_no_better(found, case.evaluator.ceiling())
    assert 0.0 <= found.attainment <= min(found.ttft_attainment, found.itl_attainment) + ROUNDING
    assert max(found.ttft_attainment, found.itl_attainment) <= 1.0 + ROUNDING
    for use in found.utilisation.values():
        assert use >= 0.0
        assert math.isfinite(use)
    if max(found.utilisation.values()) >= 1.0:
        assert found.attainment == 0.0
    assert not math.isnan(found.ttft_ms)
    assert not math.isnan(found.itl_ms)


@quick
@given(cases)
def test_the_nearest_sla_is_no_tighter_and_within_reach(case: Case) -> None:
    near = case.evaluator.nearest()
    assert near.ttft_ms >= case.sla.ttft_ms
    assert near.itl_ms >= case.sla.itl_ms
    assert near.attainment == case.sla.attainment
    assert replace(case, sla=near).evaluator.ceiling().attainment >= case.sla.attainment
    reachable = case.evaluator.ceiling().attainment >= case.sla.attainment
    assert (near == case.sla) == reachable


@quick
@given(cases, st.lists(rates, min_size=1, max_size=5))
def test_an_uncertain_rate_lies_between_its_rates(case: Case, drawn: list[float]) -> None:
    found = UncertainRate(case.evaluator, drawn).predict(case.by_role).attainment
    assert replace(case, rate=max(drawn)).predict().attainment <= found + ROUNDING
    assert found <= replace(case, rate=min(drawn)).predict().attainment + ROUNDING


@quick
@given(cases, st.lists(rates, min_size=1, max_size=5), st.floats(1.0, 10.0))
def test_an_uncertain_rate_that_grows_in_proportion_never_attains_more(
    case: Case, drawn: list[float], factor: float
) -> None:
    less = UncertainRate(case.evaluator, drawn).predict(case.by_role)
    more = UncertainRate(case.evaluator, [rate * factor for rate in drawn]).predict(case.by_role)
    assert more.attainment <= less.attainment + ROUNDING


@quick
@given(cases)
def test_many_workers_come_close_to_the_ceiling(case: Case) -> None:
    # Apart from samples whose limit lies between the step at their own context and the one at the mean context.
    evaluator, sla = replace(case, rate=1e-6).evaluator, case.sla
    facts = evaluator.facts
    mean_step = float(facts.running[1][0])
    ttft = facts.prompt_ms + (0.0 if Role.AGGREGATED in case.model.roles else facts.transfer_ms + mean_step)
    ttft_alone, itl_alone = facts.alone
    clear = (ttft <= sla.ttft_ms * 0.999) & (mean_step <= sla.itl_ms * 0.99)
    sure = clear & (ttft_alone <= sla.ttft_ms) & (itl_alone <= sla.itl_ms)
    found = evaluator.predict(dict.fromkeys(case.model.roles, 40))
    assert found.attainment >= float(sure.mean()) - 1e-3


def test_the_strategies_reach_all_regimes() -> None:
    # A search that only ever sees overload or idleness proves nothing. What is drawn depends a little on which modules
    # are loaded, so that there is room to the bounds.
    seen = {"none": 0, "some": 0, "all": 0}

    @settings(deadline=None, max_examples=300, database=None, derandomize=True)
    @given(cases)
    def look(case: Case) -> None:
        share = case.predict().attainment
        seen["none" if share == 0 else "all" if share > 0.999 else "some"] += 1

    look()
    assert min(seen.values()) >= 10, seen
