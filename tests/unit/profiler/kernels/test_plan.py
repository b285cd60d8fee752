"""What is measured, in which order, and within which budget."""

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from profiler.errors import InputError
from profiler.kernels.plan import Budget, coarse_first, decode_points, rank_shape
from tests.unit.profiler.kernels.made_up import SHAPE


def test_products_of_llama_8b() -> None:
    one, four = rank_shape(SHAPE, 1), rank_shape(SHAPE, 4)
    assert one.products["qkv"] == (6144, 4096)
    assert one.products["gate_up"] == (28672, 4096)
    assert one.products["down"] == (4096, 14336)
    assert four.products == {
        "qkv": (1536, 4096),
        "o": (4096, 1024),
        "gate_up": (7168, 4096),
        "down": (4096, 3584),
        "lm_head": (32064, 4096),
    }
    weights = sum(n * k for name, (n, k) in one.products.items() if name != "lm_head") * 32
    assert weights == 32 * 4096 * (128 * 2 * 40 + 3 * 14336)


def test_more_ranks_than_kv_heads_hold_a_copy_each() -> None:
    assert rank_shape(SHAPE, 16).kv_heads == 1


@pytest.mark.parametrize("tp", [3, 64])
def test_sizes_that_do_not_divide_are_refused(tp: int) -> None:
    with pytest.raises(InputError, match="field tp"):
        rank_shape(SHAPE, tp)


def test_a_mixture_of_experts_is_refused() -> None:
    experts = SHAPE.model_copy(update={"experts": 8, "experts_per_token": 2, "moe_intermediate_size": 64})
    with pytest.raises(InputError, match="field experts"):
        rank_shape(experts, 1)


@given(st.lists(st.integers(), unique=True, min_size=1))
def test_coarse_first_keeps_all_and_starts_with_the_ends(values: list[int]) -> None:
    order = coarse_first(values)
    assert sorted(order) == sorted(values)
    assert order[0] == values[0]
    assert order[1:2] == values[1:][-1:]


def test_decode_points_fit_in_memory_and_begin_with_the_corners() -> None:
    points = decode_points(4096, 1e9)
    assert all(b * c * 4096 <= 1e9 for b, c in points)
    assert (256, 32768) not in points
    assert points[:2] == [(1, 128), (1, 32768)] or set(points[:3]) >= {(1, 128), (1, 32768), (256, 128)}
    assert len(points) == len(set(points))


def test_the_budget_refuses_what_comes_after_it_and_says_so() -> None:
    now = 0.0
    budget = Budget(10.0, clock=lambda: now)
    assert budget.allows("a")
    now = 4.0
    until = budget.part(0.5)
    assert until == 7.0
    assert budget.allows("b", until)
    now = 7.0
    assert not budget.allows("c", until)
    assert budget.allows("d")
    now = 11.0
    assert not budget.allows("e")
    assert budget.left == 0.0
    assert [line.partition(":")[0] for line in budget.skipped] == ["c", "e"]
    assert math.isclose(budget.spent, 11.0)
