"""Sizing on attainments made by hand."""

from __future__ import annotations

import math

import pytest

from planner.core.sizing import Sizing, size
from planner.core.types import Pool, Role, Sla
from tests.unit.core.cases import (
    AGGREGATED,
    DECODE,
    PREFILL,
    SLA,
    Row,
    Table,
    demand,
    h200,
    h200_aggregated,
    pair,
    single,
)


def counts(found: Sizing) -> tuple[int, ...]:
    return tuple(found.chosen.workers.values())


def meets(*pairs: tuple[int, int]) -> Table:
    """Attains 0.96 where the counts are at least those of one of the pairs, 0.5 elsewhere."""
    return Table(lambda p, d: 0.96 if any(p >= a and d >= b for a, b in pairs) else 0.5)


def test_cheapest_step_of_the_staircase_wins() -> None:
    table = meets((2, 7), (3, 4), (5, 3))
    found = size(table, pair(), SLA, 64, {PREFILL: 1, DECODE: 1})
    assert counts(found) == (3, 4)
    assert found.chosen.gpus == 7
    assert found.reached
    assert found.reachable
    assert found.nearest is None


def test_gpus_per_worker_move_the_choice() -> None:
    table = meets((2, 7), (3, 4), (5, 3))
    dear_decode = size(table, pair(decode_gpus=4), SLA, 64, {})
    assert counts(dear_decode) == (5, 3)  # 5 + 12 = 17 against 3 + 16 = 19
    dear_prefill = size(table, pair(prefill_gpus=4), SLA, 64, {})
    assert counts(dear_prefill) == (2, 7)  # 8 + 7 = 15 against 12 + 4 = 16


@pytest.mark.parametrize(("current", "expected"), [((2, 5), (2, 5)), ((4, 3), (4, 3)), ((5, 2), (4, 3))])
def test_equals_go_to_the_fewest_changes(current: tuple[int, int], expected: tuple[int, int]) -> None:
    table = meets((2, 5), (4, 3))
    found = size(table, pair(), SLA, 64, dict(zip((PREFILL, DECODE), current, strict=True)))
    assert counts(found) == expected
    assert found.runner_up is not None
    assert found.runner_up.gpus == 7
    assert found.why_not_runner_up == "costs the same GPUs with more changes"


def test_runner_up_that_costs_more() -> None:
    found = size(meets((2, 4), (3, 2)), pair(), SLA, 64, {})
    assert counts(found) == (3, 2)
    assert found.runner_up is not None
    assert found.runner_up.workers == {PREFILL: 2, DECODE: 4}
    assert found.why_not_runner_up == "needs 1 GPU more for the same target"


def test_runner_up_that_attains_too_little() -> None:
    table = Table(lambda n: min(1.0, 0.3 * n), roles=(AGGREGATED,))
    found = size(table, single(gpus=2), SLA, 64, {})
    assert counts(found) == (4,)
    assert found.runner_up is not None
    assert found.runner_up.workers == {AGGREGATED: 3}
    assert found.why_not_runner_up == "saves 2 GPUs but attains 90.0% of the wanted 95.0%"


def test_no_runner_up_at_the_minimum() -> None:
    found = size(Table(lambda _: 1.0, roles=(AGGREGATED,)), single(), SLA, 64, {})
    assert counts(found) == (1,)
    assert found.runner_up is None
    assert found.why_not_runner_up == "no pool can be smaller"
    assert found.limit == "min_workers"


def test_limit_names_the_latency_that_one_worker_fewer_would_lose() -> None:
    def ttft(p: int, d: int) -> Row:
        return (0.96, 0.96, 1.0, 0.5) if p >= 4 else (0.6, 0.6, 1.0, 0.5)

    def itl(p: int, d: int) -> Row:
        return (0.96, 1.0, 0.96, 0.5) if d >= 4 else (0.6, 1.0, 0.6, 0.5)

    assert size(Table(ttft), pair(), SLA, 64, {}).limit == "ttft"
    assert size(Table(itl), pair(), SLA, 64, {}).limit == "itl"


def test_limit_budget_and_the_best_within_it() -> None:
    # 4 GPUs: (1, 3), (2, 2), (3, 1); prefill counts twice, decode once.
    table = Table(lambda p, d: min(1.0, 0.2 * p + 0.1 * d))
    found = size(table, pair(), SLA, 4, {})
    assert counts(found) == (3, 1)
    assert found.chosen.attainment == pytest.approx(0.7)
    assert found.limit == "budget"
    assert found.reachable
    assert not found.reached
    assert found.runner_up is not None
    assert found.runner_up.attainment < found.chosen.attainment


def test_limit_max_workers() -> None:
    table = Table(lambda p, d: min(1.0, 0.2 * p + 0.1 * d))
    found = size(table, pair(most=2), SLA, 64, {})
    assert counts(found) == (2, 2)
    assert found.limit == "max_workers"
    assert not found.reached


def test_minima_above_the_budget_stay() -> None:
    found = size(meets((2, 2)), pair(least=4), SLA, 4, {})
    assert counts(found) == (4, 4)
    assert found.limit == "budget"


def test_every_bound_is_kept_by_every_candidate() -> None:
    found = size(meets((2, 7), (3, 4), (5, 3)), pair(least=2, most=6), SLA, 64, {})
    assert all(0 <= n <= 6 for candidate in found.candidates for n in candidate.workers.values())
    assert counts(found) == (3, 4)
    assert [c.gpus for c in found.candidates] == sorted(c.gpus for c in found.candidates)


def test_target_above_the_slas_stops_short_of_the_ceiling() -> None:
    table = Table(lambda n: min(0.97, 0.9 + 0.01 * n), roles=(AGGREGATED,), best=0.97)
    assert counts(size(table, single(), SLA, 64, {}, target=0.999)) == (6,)  # max(0.95, 0.98 x 0.97 = 0.9506)
    assert counts(size(table, single(), SLA, 64, {}, target=0.93)) == (3,)
    assert size(table, single(), SLA, 64, {}, target=0.93).reached


# -- out of reach ------------------------------------------------------------------------------------------------------


def test_unreachable_is_said_and_sized_for_most_of_the_ceiling() -> None:
    near = Sla(700.0, 50.0)
    table = Table(lambda n: min(0.8, 0.2 * n - 0.01), roles=(AGGREGATED,), best=0.8, near=near)
    found = size(table, single(), SLA, 64, {})
    assert counts(found) == (4,)  # 0.79 of 0.98 x 0.8 = 0.784
    assert found.limit == "sla"
    assert not found.reachable
    assert not found.reached
    assert found.nearest == near


def test_unreachable_limit_does_not_let_go_of_the_other_nor_of_the_load() -> None:
    # No TTFT attains, ever; ITL attains from 3 workers; 2 keep up.
    def row(n: int) -> Row:
        return (0.0, 0.0, 1.0 if n >= 3 else 0.2, 1.8 / n)

    table = Table(row, roles=(AGGREGATED,), best=(0.0, 0.0, 1.0, 0.0))
    found = size(table, single(), SLA, 64, {})
    assert counts(found) == (3,)
    assert found.limit == "sla"
    assert found.why_not_runner_up == "saves 1 GPU but does not keep up, or keeps one limit less often"
    neither = Table(lambda n: (0.0, 0.0, 0.0, 1.8 / n), roles=(AGGREGATED,), best=(0.0, 0.0, 0.0, 0.0))
    assert counts(size(neither, single(), SLA, 64, {})) == (2,)


@pytest.mark.parametrize("attains", [0.0, 1e-12])
def test_overload_of_all_plans_takes_the_one_that_keeps_up_best(attains: float) -> None:
    # 16 + 8 GPUs of work: nothing attains; the cheapest of equals would be the minimum, which is the worst.
    def row(p: int, d: int) -> Row:
        return (attains, attains, attains, max(16 / p, 8 / d))

    assert counts(size(Table(row), pair(most=8), SLA, 64, {})) == (8, 8)
    assert counts(size(Table(row), pair(most=16), SLA, 12, {})) == (8, 4)
    alone = Table(lambda n: (attains, attains, attains, 20 / n), roles=(AGGREGATED,))
    assert counts(size(alone, single(most=8), SLA, 64, {})) == (8,)
    assert counts(size(alone, single(most=8), SLA, 5, {})) == (5,)


@pytest.mark.parametrize("rate", [1000.0, 1e5])
def test_overload_of_the_closed_form(rate: float) -> None:
    agg = size(h200_aggregated().evaluator(demand(rate), SLA), single(most=8), SLA, 64, {})
    assert counts(agg) == (8,)
    assert math.isfinite(agg.prediction.utilisation[AGGREGATED])
    both = size(h200().evaluator(demand(rate), SLA), pair(most=8), SLA, 64, {})
    assert counts(both) == (8, 8)


def test_ttft_out_of_reach_on_the_shipped_profile() -> None:
    # A lone prompt takes about 19 ms: no TTFT of 10 ms, but 50 requests/s still need workers, and keep their ITL.
    wanted = Sla(10.0, 40.0)
    found = size(h200().evaluator(demand(100.0), wanted), pair(), wanted, 64, {})
    assert not found.reachable
    assert found.nearest is not None
    assert found.nearest.ttft_ms > 10.0
    assert found.nearest.itl_ms == 40.0
    assert max(found.prediction.utilisation.values()) < 1.0
    assert found.prediction.itl_attainment >= 0.95
    # The nearest one can be met, by enough workers.
    top = h200().evaluator(demand(100.0), found.nearest)
    assert top.ceiling().attainment >= 0.95


def test_one_role_uses_one_prediction_per_count() -> None:
    asked: list[int] = []

    def row(n: int) -> float:
        asked.append(n)
        return min(1.0, n / 40)

    size(Table(row, roles=(AGGREGATED,)), {Role.AGGREGATED: Pool("a", AGGREGATED, 1, 1, 1000)}, SLA, 1000, {})
    assert len(asked) == len(set(asked)) < 20
