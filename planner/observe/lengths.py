"""A sample of requests' lengths from what engines export.

Engines export how many prompt tokens and how many output tokens requests had, each for itself. The joint distribution
is not exported: the two are coupled here as if independent, by a low-discrepancy shuffle that is the same every time.
Prefix hits are exported as tokens in all, so every request gets the same share of its prompt.
"""

from __future__ import annotations

import numpy as np

from planner.core.types import LengthSample
from planner.observe.histogram import Histogram

#: Requests in a sample: as many as completed, up to this.
MOST_REQUESTS = 512

#: Fractional parts of its multiples fill 0 to 1 most evenly.
GOLDEN = (5**0.5 - 1) / 2


def sample_lengths(isl: Histogram, osl: Histogram, hit_share: float) -> LengthSample:
    """Up to 512 requests with these marginal distributions; both need a value.

    Args:
        isl: prompt tokens of the requests that completed.
        osl: their output tokens.
        hit_share: prompt tokens found in the prefix cache over prompt tokens, 0 to 1.
    """
    n = int(min(MOST_REQUESTS, max(1.0, round(min(isl.n, osl.n)))))
    order = np.argsort(np.arange(1, n + 1) * GOLDEN % 1.0)
    prompts = np.maximum(1, np.rint(isl.sample(n))).astype(np.int64)
    outputs = np.maximum(1, np.rint(osl.sample(n))).astype(np.int64)[order]
    # The last prompt token is always computed: its logits give the first output token.
    hits = np.minimum(np.floor(prompts * min(max(hit_share, 0.0), 1.0)).astype(np.int64), prompts - 1)
    # Neither column sorted, so that any part of the sample stands for the whole.
    mixed = np.argsort(np.arange(1, n + 1) * (2**0.5) % 1.0)
    return LengthSample(
        isl=tuple(int(value) for value in prompts[mixed]),
        osl=tuple(int(value) for value in outputs[mixed]),
        prefix_hit_tokens=tuple(int(value) for value in hits[mixed]),
    )
