"""From measured copies to the time of a hand-off or an offload; no torch."""

from __future__ import annotations

from profiler.errors import InputError
from profiler.kernels.micro import CopyPoint, CopyResult, Operation
from profiler.roofline import kv_bytes_per_token
from profiler.schema import ModelShape


def rank_bytes(shape: ModelShape, tokens: int, tp: int = 1, block_size: int = 16) -> float:
    """Keys and values of a prompt on one rank, in bytes; blocks move whole, the last one too."""
    blocks = -(-tokens // block_size)
    return blocks * block_size * kv_bytes_per_token(shape) / min(tp, shape.kv_heads)


def handoff_estimate_ms(
    shape: ModelShape,
    tokens: int,
    copy: CopyResult,
    link_gb_per_s: float,
    *,
    tp: int = 1,
    block_size: int = 16,
    permute: str | None = None,
) -> float:
    """Milliseconds to hand a prompt's KV from one worker to another: gather, link, scatter, one after the other.

    Ranks work side by side, each over a link of its own. An engine that overlaps the three needs no more than the sum
    and no less than the longest of them; an engine's own notifications and queues come on top.

    Args:
        shape: the model.
        tokens: of the prompt.
        copy: measured copies; of each step the fastest checked method for scattered blocks counts.
        link_gb_per_s: payload of one rank's link, GB/s.
        tp: ranks of the worker that has the fewer; its ranks have the most to move.
        block_size: tokens of a block.
        permute: the `detail` of a measured permutation ("tp2 to tp4") where the TP sizes differ; it takes the place
            of the gather.

    Raises:
        InputError: a needed copy was not measured, or the link's rate is not positive.
    """
    if not link_gb_per_s > 0:
        raise InputError(f"is {link_gb_per_s!r}", expected="a positive rate", field="link_gb_per_s")
    size = rank_bytes(shape, tokens, tp, block_size)
    first = _needed(copy, "permute", permute) if permute is not None else _needed(copy, "gather")
    rates = (first.gb_per_s, link_gb_per_s, _needed(copy, "scatter").gb_per_s)
    return sum(size / rate / 1e6 for rate in rates)


def offload_estimate_ms(
    shape: ModelShape, tokens: int, copy: CopyResult, *, restore: bool = False, tp: int = 1, block_size: int = 16
) -> float:
    """Milliseconds to move a prompt's KV to the host, or back when `restore`; ranks work side by side.

    Raises:
        InputError: the direction was not measured.
    """
    point = _needed(copy, "restore" if restore else "offload")
    return rank_bytes(shape, tokens, tp, block_size) / point.gb_per_s / 1e6


def _needed(copy: CopyResult, operation: Operation, detail: str | None = None) -> CopyPoint:
    point = copy.best(operation, detail=detail)
    if point is None:
        what = operation if detail is None else f"{operation} {detail}"
        raise InputError(f"{what} of scattered blocks was not measured", expected="a copy benchmark that has it")
    return point
