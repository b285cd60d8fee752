"""Dynamo 1.6's GPU ceiling (`core/budget.py`): in which order proposals are clamped, and how.

A proposal of both pools passes, in this order, the ceiling fit that keeps its direction (throughput, and load where a
floor of throughput lifted it), the guard, and the last clamp. The order is theirs: the throughput fit shares what is
left between the pools, while the guard and the clamp scale prefill by the ratio and give decode the rest. Its floor on
GPUs (`min_gpu_budget`, off by default) is left out.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from itertools import product


@dataclass(frozen=True, slots=True)
class Ceiling:
    """What bounds two pools: GPUs of one worker of each, least workers of each (`min_endpoint`), most GPUs of both."""

    gpus: tuple[int, int]
    least: tuple[int, int]
    max_gpus: int

    def total(self, counts: tuple[int, int]) -> int:
        """GPUs of so many workers."""
        return counts[0] * self.gpus[0] + counts[1] * self.gpus[1]

    def at_least(self, counts: tuple[int, int]) -> tuple[int, int]:
        """With the least of each."""
        return max(counts[0], self.least[0]), max(counts[1], self.least[1])


def clamp_pair(wanted: tuple[int, int], ceiling: Ceiling) -> tuple[int, int]:
    """Prefill scaled by budget over total and rounded down, decode gets the rest.

    Decode may get more than was wanted of it: that is their rule, which the guard then refuses. (0, 0) where not even
    the least fits.
    """
    total = ceiling.total(wanted)
    if total <= ceiling.max_gpus:
        return wanted
    if ceiling.total(ceiling.least) > ceiling.max_gpus:
        return 0, 0
    most = (ceiling.max_gpus - ceiling.least[1] * ceiling.gpus[1]) // ceiling.gpus[0]
    prefill = max(ceiling.least[0], min(most, math.floor(wanted[0] * (ceiling.max_gpus / total))))
    rest = ceiling.max_gpus - prefill * ceiling.gpus[0]
    return prefill, max(ceiling.least[1], rest // ceiling.gpus[1])


def clamp_single(wanted: int, gpus: int, least: int, max_gpus: int) -> int:
    """As many workers as fit; 0 where not even the least does."""
    if wanted * gpus <= max_gpus:
        return wanted
    return 0 if least * gpus > max_gpus else max(least, max_gpus // gpus)


def fit_directional(current: tuple[int, int], wanted: tuple[int, int], ceiling: Ceiling) -> tuple[int, int]:
    """The counts between `current` and `wanted` nearest to `wanted` that fit.

    Where one pool gives and the other takes, both move or neither. Of equally near ones: the one whose two moves are
    most in proportion to the wanted ones, then the one that moves more, then the one with less prefill.
    """
    if ceiling.at_least(wanted) == wanted and ceiling.total(wanted) <= ceiling.max_gpus:
        return wanted
    asked = abs(wanted[0] - current[0]), abs(wanted[1] - current[1])
    rebalance = (wanted[0] - current[0]) * (wanted[1] - current[1]) < 0
    ranges = []
    for now, then, least in zip(current, wanted, ceiling.least, strict=True):
        ranges.append(range(max(min(now, then), least), max(now, then) + 1))
    best: tuple[tuple[int, ...], tuple[int, int]] | None = None
    for prefill, decode in product(*ranges):
        moved = abs(prefill - current[0]), abs(decode - current[1])
        if ceiling.total((prefill, decode)) > ceiling.max_gpus:
            continue
        if rebalance and (moved[0] == 0) != (moved[1] == 0):
            continue
        score = (
            abs(wanted[0] - prefill) + abs(wanted[1] - decode),
            abs(moved[0] * asked[1] - moved[1] * asked[0]),
            -(moved[0] + moved[1]),
            prefill,
            decode,
        )
        if best is None or score < best[0]:
            best = score, (prefill, decode)
    return current if best is None else best[1]


def fit_throughput(current: tuple[int, int], wanted: tuple[int, int], ceiling: Ceiling) -> tuple[int, int]:
    """The ceiling fit of a throughput proposal; a pool below its least is mended first, whatever direction that is."""
    if ceiling.at_least(current) != current:
        return clamp_pair(ceiling.at_least(wanted), ceiling)
    return fit_directional(current, wanted, ceiling)


def guard_pair(current: tuple[int, int], wanted: tuple[int, int], ceiling: Ceiling) -> tuple[int, int]:
    """A proposal for the pair under the ceiling, in its direction or not at all.

    Above the ceiling already, the present counts are clamped and the proposal does not matter. At it, nothing is added,
    except where one pool gives what the other takes. Below it, the clamp must neither turn a move nor enlarge it.
    """
    if ceiling.at_least(current) != current:
        return clamp_pair(ceiling.at_least(wanted), ceiling)
    total = ceiling.total(current)
    if total > ceiling.max_gpus:
        return clamp_pair(current, ceiling)
    moves = wanted[0] - current[0], wanted[1] - current[1]
    if total == ceiling.max_gpus and max(moves) > 0:
        return fit_directional(current, wanted, ceiling) if moves[0] * moves[1] < 0 else current
    clamped = clamp_pair(wanted, ceiling)
    between = all(
        min(now, then) <= end <= max(now, then) for now, then, end in zip(current, wanted, clamped, strict=True)
    )
    return clamped if between else current


def guard_single(current: int, wanted: int, gpus: int, least: int, max_gpus: int) -> int:
    """The same of a lone pool."""
    if current * gpus > max_gpus:
        return clamp_single(current, gpus, least, max_gpus)
    if current * gpus == max_gpus and wanted > current:
        return current
    clamped = clamp_single(wanted, gpus, least, max_gpus)
    return clamped if min(current, wanted) <= clamped <= max(current, wanted) else current
