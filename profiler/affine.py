"""Non-negative affine cost: what stands in for a roofline where the model's shape is not known.

A step of an engine costs a constant (reading weights, launching kernels), something per request (sampling,
scheduling, arithmetic) and something per token held (reading its keys and values). None of them is negative,
so the fitted cost never falls in any argument, and physics can give each a floor.
"""

from __future__ import annotations

from itertools import product

import numpy as np
from numpy.typing import ArrayLike, NDArray


def fit_cost(
    columns: NDArray[np.float64], values: NDArray[np.float64], floors: ArrayLike | None = None
) -> NDArray[np.float64]:
    """Coefficients (constant first) of the affine cost of least relative error, none below its floor.

    With at most four coefficients every set of those held at their floor is tried, which is exact and needs
    no solver: the optimum of the bounded problem is the best of these that respects the floors.

    Args:
        columns: shape (n, k), non-negative.
        values: shape (n,), positive.
        floors: shape (k + 1,), constant first; zeros when None.
    """
    matrix = np.column_stack([np.ones(len(values)), columns])
    low = np.zeros(matrix.shape[1]) if floors is None else np.asarray(floors, dtype=np.float64)
    # Each row is divided by its value (errors are relative), each column by its largest entry (tokens and
    # requests differ by orders of magnitude).
    weighted = matrix / values[:, None]
    size = weighted.max(axis=0)
    size[size == 0] = 1.0
    weighted = weighted / size
    best, least = low, float(np.sum((matrix @ low / values - 1) ** 2))
    for free in product((True, False), repeat=len(low)):
        chosen = np.array(free)
        if not chosen.any():
            continue
        rest = 1 - weighted[:, ~chosen] @ (low * size)[~chosen]
        solved = np.linalg.lstsq(weighted[:, chosen], rest, rcond=None)[0]
        candidate = low.copy()
        candidate[chosen] = solved / size[chosen]
        loss = float(np.sum((matrix @ candidate / values - 1) ** 2))
        if np.isfinite(candidate).all() and (candidate >= low).all() and loss < least:
            best, least = candidate, loss
    return best
