"""What prompts add to an iteration that decodes, from a table of measured mixed iterations.

On GPUs an iteration of n prompt tokens and b decoding requests was seen to take what the b requests take alone, plus a
part that the prompt tokens decide, plus a part for each of the b requests: attention over prompts and single tokens
together is slower for the latter. The first two tables know; the parts of n and b are fitted here.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import combinations

import numpy as np
from numpy.typing import ArrayLike, NDArray

from profiler.csvfile import Samples

Array = NDArray[np.float64]

#: Prompt tokens closer than this ratio are one node: the largest prompts leave room for the batch they run beside.
SAME_TOKENS = 1.05


@dataclass(frozen=True)
class MixedFit:
    """What prompts add to an iteration of decodes.

    Attributes:
        tokens: of prompts, increasing; shape (N,).
        added_ms: by that many, attention left out; shape (N,), not decreasing.
        per_request_ms: added for each decoding request.
    """

    tokens: Array
    added_ms: Array
    per_request_ms: float

    def along(self, tokens: ArrayLike, alone_ms: Array) -> Array:
        """Added by prompts of so many tokens, ms, shape (M,); nothing for none, and never less for more.

        An iteration takes what its kernels take to launch or to compute, whichever is longer. The launches step up
        where CUDA graphs end, as the time of lone prompts does: so the difference of the two is interpolated between
        the nodes, and held beyond the first and the last: what a lone prompt of hardly any tokens takes was not
        measured. The arithmetic rises evenly, along the line from node to node.

        Args:
            tokens: increasing from 0, shape (M,).
            alone_ms: what prompts of so many tokens take by themselves, attention left out, ms; shape (M,).
        """
        wanted = np.asarray(tokens, dtype=np.float64)
        at_nodes = np.interp(self.tokens, wanted, alone_ms) - self.added_ms
        launched = alone_ms - np.interp(wanted, self.tokens, at_nodes)
        computed = np.interp(wanted, np.append(0.0, self.tokens), np.append(0.0, self.added_ms))
        added = np.where(wanted > 0, np.maximum(launched, computed), 0.0)
        return np.asarray(np.maximum.accumulate(added))


def fit_mixed(rows: Samples, decode_ms: Array, attention_ms_per_token2: float) -> MixedFit | None:
    """Fit both parts; None where none was measured.

    The part of a request is the median of the slopes between any two points of the same prompt tokens (Theil and Sen),
    not below 0; that of the tokens the median of what is left at each of their nodes. Medians keep one odd point from
    deciding. A point itself is the mean of its repeats, however they differ: where launches take now one time and now
    another, requests that wait or decode are held up by the mean of both.

    Args:
        rows: a mixed table.
        decode_ms: of each row, what its decodes take alone; shape (rows,).
        attention_ms_per_token2: of the prompts.
    """
    mixed = (rows["prefill_tokens"] > 0) & (rows["batch"] > 0)
    at = np.column_stack([rows[name][mixed] for name in ("prefill_tokens", "batch")] + [decode_ms[mixed]])
    if len(at) == 0:
        return None
    points, index = np.unique(at, axis=0, return_inverse=True)
    repeats = np.bincount(index.ravel())
    measured = np.bincount(index.ravel(), weights=rows["iteration_ms"][mixed]) / repeats
    tokens, batch, decode = points.T
    added = measured - decode - attention_ms_per_token2 * tokens**2
    nodes = _nodes(tokens)
    slopes = [
        (added[i] - added[j]) / (batch[i] - batch[j])
        for i, j in combinations(range(len(points)), 2)
        if nodes[i] == nodes[j] and batch[i] != batch[j]
    ]
    per_request = max(0.0, float(np.median(slopes))) if slopes else 0.0
    groups = [nodes == node for node in range(int(nodes.max()) + 1)]
    at_node = np.array([np.median(tokens[group]) for group in groups])
    left = np.array([np.median((added - per_request * batch)[group]) for group in groups])
    return MixedFit(at_node, np.maximum.accumulate(np.maximum(left, 0.0)), per_request)


def _nodes(tokens: Array) -> NDArray[np.int64]:
    """The node of each, numbered from the fewest tokens on."""
    order = np.argsort(tokens)
    steps = tokens[order][1:] > SAME_TOKENS * tokens[order][:-1]
    numbers = np.empty(len(tokens), dtype=np.int64)
    numbers[order] = np.concatenate([[0], np.cumsum(steps)])
    return numbers
