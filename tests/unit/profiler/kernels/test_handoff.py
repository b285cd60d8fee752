"""From measured copies to hand-off and offload times."""

from typing import Any

import pytest

from profiler.errors import InputError
from profiler.kernels.handoff import handoff_estimate_ms, offload_estimate_ms, rank_bytes
from profiler.kernels.micro import CopyPoint, CopyResult
from tests.unit.profiler.kernels.made_up import SHAPE, timed


def point(operation: Any, gb_per_s: float, method: Any = "triton", **more: Any) -> CopyPoint:
    fields = {"pattern": "scattered", "checked": True} | more
    size = 1 << 30
    time = timed(size / gb_per_s / 1e6)
    return CopyPoint(operation=operation, method=method, why="", bytes=size, time=time, **fields)


COPIES = CopyResult(
    gpu="x",
    blocks=512,
    block_bytes=1 << 21,
    points=(
        point("gather", 1000.0),
        point("gather", 100.0, "index"),
        point("gather", 9000.0, pattern="contiguous"),
        point("gather", 9000.0, "per_block", checked=False),
        point("scatter", 500.0),
        point("permute", 250.0, detail="tp1 to tp2"),
        point("offload", 50.0, detail="staged"),
    ),
)


def test_whole_blocks_of_a_prompt_move() -> None:
    assert rank_bytes(SHAPE, 1000) == 1008 * 131072
    assert rank_bytes(SHAPE, 1000, tp=4) == 1008 * 131072 / 4
    assert rank_bytes(SHAPE, 1000, tp=16) == 1008 * 131072 / 8  # replicas of 8 KV heads


def test_hand_off_is_gather_link_and_scatter_of_the_fastest_checked_methods() -> None:
    size = 1024 * 131072
    expected = size / 1e6 * (1 / 1000 + 1 / 50 + 1 / 500)
    assert handoff_estimate_ms(SHAPE, 1024, COPIES, 50.0) == pytest.approx(expected)


def test_a_permutation_takes_the_place_of_the_gather() -> None:
    size = 1024 * 131072
    expected = size / 1e6 * (1 / 250 + 1 / 50 + 1 / 500)
    assert handoff_estimate_ms(SHAPE, 1024, COPIES, 50.0, permute="tp1 to tp2") == pytest.approx(expected)


def test_offload_at_the_measured_rate() -> None:
    assert offload_estimate_ms(SHAPE, 1024, COPIES) == pytest.approx(1024 * 131072 / 50e6)


def test_what_was_not_measured_is_refused() -> None:
    with pytest.raises(InputError, match="restore of scattered blocks was not measured"):
        offload_estimate_ms(SHAPE, 1024, COPIES, restore=True)
    with pytest.raises(InputError, match="permute tp2 to tp4"):
        handoff_estimate_ms(SHAPE, 1024, COPIES, 50.0, permute="tp2 to tp4")
    with pytest.raises(InputError, match="link_gb_per_s"):
        handoff_estimate_ms(SHAPE, 1024, COPIES, 0.0)
