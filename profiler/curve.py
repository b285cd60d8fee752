"""One-dimensional tables: TTFT against prompt length, and hand-off time against tokens handed off.

Between measured lengths the curve is straight. On the H200 profile in this repository (17 points, one sample
each) the leave-one-out error of the interior points decides for it: see `tests/unit/profiler/test_h200.py`,
which measures both against a monotone cubic (PCHIP).
"""

from __future__ import annotations

from collections.abc import Callable
from functools import cached_property
from typing import Self

import numpy as np
from numpy.typing import ArrayLike, NDArray

from profiler.estimate import Estimate, LeaveOneOut, Where, leave_one_out
from profiler.monotone import isotonic
from profiler.roofline import Roofline


class Curve:
    """Milliseconds against tokens: non-decreasing, exact at measured points that agree with that.

    Repeats of a length are reduced to their median. Below the smallest and above the largest length the curve
    keeps the efficiency of its end, T(n) = T(end) * light(n) / light(end), where light is the speed of light.
    Without one it is constant below and keeps the tokens per second of the end above: cost per token of a
    prompt does not fall as the prompt grows, so less than proportional growth would be a guess to the low
    side.

    Args:
        tokens: shape (n,), positive; repeats of a length in any order.
        values_ms: shape (n,), positive.
        light: speed of light in milliseconds against tokens, non-decreasing and positive; None when not
            known.
        step_at: tokens after which the curve steps up, since an engine does something else from there on (it leaves its
            CUDA graphs); neither side is interpolated across it. None for none.

    Raises:
        ValueError: no points, different lengths, or something is not finite and positive.
    """

    def __init__(
        self,
        tokens: ArrayLike,
        values_ms: ArrayLike,
        light: Callable[[ArrayLike], NDArray[np.float64]] | None = None,
        step_at: float | None = None,
    ) -> None:
        x, y = (np.asarray(a, dtype=np.float64).ravel() for a in (tokens, values_ms))
        if len(x) != len(y) or len(x) == 0:
            raise ValueError(f"a curve needs as many values as lengths and at least one, got {len(x)} and {len(y)}")
        if not (np.isfinite(x).all() and np.isfinite(y).all() and (x > 0).all() and (y > 0).all()):
            raise ValueError("lengths and times must be finite and positive")
        self._light = light
        #: measured lengths, increasing.
        self.tokens: NDArray[np.float64] = np.unique(x)
        self._samples = [y[x == length] for length in self.tokens]
        #: median of the repeats of each length.
        self.medians_ms = np.array([float(np.median(sample)) for sample in self._samples])
        #: the medians made non-decreasing; what the curve goes through.
        self.knots_ms = isotonic(self.medians_ms)
        left = self.tokens <= (np.inf if step_at is None else step_at)
        self._step_at = step_at if step_at is not None and left.any() and not left.all() else None
        self._left = left

    def ms(self, tokens: ArrayLike) -> NDArray[np.float64]:
        """Milliseconds for `tokens` (any shape); nan stays nan."""
        x = np.asarray(tokens, dtype=np.float64)
        first, last = self.tokens[0], self.tokens[-1]
        inside = np.interp(x, self.tokens, self.knots_ms)
        if self._step_at is not None:
            sides = [np.interp(x, self.tokens[side], self.knots_ms[side]) for side in (self._left, ~self._left)]
            inside = np.where(x <= self._step_at, *sides)
        if self._light is None:
            return np.asarray(inside * np.maximum(x / last, 1.0))
        end = np.clip(x, first, last)
        beyond = (x < first) | (x > last)
        return np.where(beyond, inside * self._light(x) / self._light(end), inside)

    def where(self, tokens: float) -> Where:
        """Where a length lies among the measured ones."""
        x = self.tokens
        if self._step_at is not None:
            x = x[self._left] if tokens <= self._step_at else x[~self._left]
        if not x[0] <= tokens <= x[-1]:
            return Where.OUTSIDE
        # With three points or fewer there is no interval between two checked points; np.clip keeps that an
        # edge.
        if len(x) > 3 and x[1] <= tokens <= x[-2]:
            return Where.INSIDE
        if len(x) == 3 and tokens == x[1]:
            return Where.INSIDE
        return Where.EDGE

    def at(self, tokens: float) -> Estimate:
        """Value, place and expected error at one length."""
        where = self.where(tokens)
        # Ratios of lengths, not differences, say how far a length is from another.
        distance = np.abs(np.log(self.tokens) - np.log(max(tokens, 1e-9)))
        error = self.leave_one_out.local(distance, where, nearest=2)
        return Estimate(float(self.ms(tokens)), where, error)

    @cached_property
    def leave_one_out(self) -> LeaveOneOut:
        """Error at each measured length with that length left out; computed on first use."""

        def without(i: int) -> tuple[float, Where]:
            keep = np.arange(len(self.tokens)) != i
            lengths = np.concatenate([np.full(len(s), x) for x, s in zip(self.tokens, self._samples, strict=True)])
            values = np.concatenate(self._samples)
            kept = np.isin(lengths, self.tokens[keep])
            rest = self._rebuild(lengths[kept], values[kept])
            return float(rest.ms(self.tokens[i])), rest.where(float(self.tokens[i]))

        return leave_one_out(self._samples, without)

    def _rebuild(self, tokens: NDArray[np.float64], values_ms: NDArray[np.float64]) -> Self:
        other = object.__new__(type(self))
        Curve.__init__(other, tokens, values_ms, self._light, self._step_at)
        return other


class PrefillCurve(Curve):
    """TTFT of a prompt that has the engine to itself, against its length.

    Args:
        isl: shape (n,), tokens; repeats in any order.
        ttft_ms: shape (n,).
        roofline: speed of light of the worker; None when the model's shape or the GPU is not known.
        graph_tokens: tokens of an iteration up to which the engine replays CUDA graphs; launching kernels one by one
            beyond them takes longer at once. None when not known.
    """

    def __init__(
        self,
        isl: ArrayLike,
        ttft_ms: ArrayLike,
        roofline: Roofline | None = None,
        graph_tokens: float | None = None,
    ) -> None:
        super().__init__(isl, ttft_ms, None if roofline is None else roofline.prefill_ms, graph_tokens)

    def ttft_ms(self, isl: ArrayLike) -> NDArray[np.float64]:
        """TTFT in milliseconds for prompts of `isl` tokens that have to be computed (any shape)."""
        return self.ms(isl)


class TransferCurve(Curve):
    """Time to hand a prompt's KV cache from prefill to decode, end to end, against its tokens."""

    def __init__(self, tokens: ArrayLike, transfer_ms: ArrayLike) -> None:
        super().__init__(tokens, transfer_ms)

    def transfer_ms(self, tokens: ArrayLike) -> NDArray[np.float64]:
        """Milliseconds from the end of prefill until decode can start (any shape)."""
        return self.ms(tokens)
