"""Measured decode points as rows of about equal context, and what lies between and beyond them."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from profiler.estimate import Where
from profiler.step_cost import StepCost

#: Points whose contexts differ by less than this share are one row; sweeps reach the same context to a token
#: or so.
_SAME_CONTEXT = 0.05


class Rows:
    """Points grouped by context (KV tokens per request), shortest context first.

    Args:
        batch: shape (n,).
        kv_tokens: shape (n,).
        itl_ms: shape (n,).
        cost: cost of a step, used as a shape: ratios of it carry values beyond the measured ones.
    """

    def __init__(
        self,
        batch: NDArray[np.float64],
        kv_tokens: NDArray[np.float64],
        itl_ms: NDArray[np.float64],
        cost: StepCost,
    ) -> None:
        self._cost = cost
        context = kv_tokens / batch
        order = np.argsort(context, kind="stable")
        start = 0
        contexts, rows = [], []
        for end in range(1, len(order) + 1):
            if end < len(order) and context[order[end]] <= context[order[start]] * (1 + _SAME_CONTEXT):
                continue
            members = order[start:end]
            kv = np.unique(kv_tokens[members])
            values = np.array([itl_ms[members][kv_tokens[members] == k].mean() for k in kv])
            contexts.append(float(context[members].mean()))
            rows.append((kv, values))
            start = end
        #: mean context of each row, increasing.
        self.contexts = np.array(contexts)
        self._rows = rows
        self._range = float(context.min()), float(context.max())

    def along(self, row: int, kv: NDArray[np.float64]) -> NDArray[np.float64]:
        """ITL along a row: straight between its points, beyond them its end's ratio to the cost is kept."""
        knots, values = self._rows[row]
        held = np.clip(kv, knots[0], knots[-1])
        context = self.contexts[row]
        ratio = self._cost.ms(kv / context, kv) / self._cost.ms(held / context, held)
        return np.asarray(np.interp(kv, knots, values) * np.where(held == kv, 1.0, ratio))

    def fill(self, batches: NDArray[np.float64], kv: NDArray[np.float64]) -> NDArray[np.float64]:
        """ITL at each node of a grid, shape (len(batches), len(kv)).

        Between rows: linear in batch at equal KV (that is, in 1/context). Contexts longer than any measured
        keep the value of the longest row at equal KV, shorter ones that of the shortest row at equal batch,
        each times the ratio of costs.
        """
        nodes = np.empty((len(batches), len(kv)))
        order = np.arange(len(self.contexts))[::-1]  # at equal KV the batch grows as the context shrinks
        table = np.array([self.along(int(row), kv) for row in order])
        short = self.along(0, batches * self.contexts[0])
        short_cost = self._cost.ms(batches, batches * self.contexts[0])
        for j, tokens in enumerate(kv):
            at = tokens / self.contexts[order]
            column = np.interp(batches, at, table[:, j])
            node_cost = self._cost.ms(batches, tokens)
            column = np.where(batches < at[0], table[0, j] * node_cost / self._cost.ms(at[0], tokens), column)
            nodes[:, j] = np.where(batches > at[-1], short * node_cost / short_cost, column)
        return nodes

    def where(self, batch: float, kv_tokens: float) -> Where:
        """Outside the measured contexts or beyond their KV is outside; a first or last interval is an edge.

        Between two rows the ends of KV are taken linear in 1/context, like the values.
        """
        if not (batch > 0 and kv_tokens > 0):
            return Where.OUTSIDE
        context = kv_tokens / batch
        if not self._range[0] * (1 - 1e-9) <= context <= self._range[1] * (1 + 1e-9):
            return Where.OUTSIDE
        inverse = 1 / self.contexts[::-1]  # np.interp needs growing positions
        ends = np.array([_ends(kv) for kv, _ in self._rows])[::-1]
        first, second, last_but_one, last = (np.interp(1 / context, inverse, ends[:, k]) for k in range(4))
        if not first * (1 - 1e-9) <= kv_tokens <= last * (1 + 1e-9):
            return Where.OUTSIDE
        on_a_row = bool(np.any(np.abs(self.contexts / context - 1) <= _SAME_CONTEXT))
        between_inner = bool(len(self.contexts) > 3 and self.contexts[1] <= context <= self.contexts[-2])
        if (on_a_row or between_inner) and second * (1 - 1e-9) <= kv_tokens <= last_but_one * (1 + 1e-9):
            return Where.INSIDE
        return Where.EDGE


def _ends(kv: NDArray[np.float64]) -> tuple[float, float, float, float]:
    """First, second, last but one and last KV of a row."""
    return float(kv[0]), float(kv[min(1, len(kv) - 1)]), float(kv[max(len(kv) - 2, 0)]), float(kv[-1])
