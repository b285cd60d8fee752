"""Queueing formulas of the closed form, each with its source. Scalars in, scalars out; time in any one unit."""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray


def erlang_c(servers: int, offered: float) -> float:
    """Probability that all servers are busy in M/M/c (Erlang 1917), through the stable recursion of Erlang B.

    Args:
        servers: c, at least 1.
        offered: arrival rate x mean service time; at c and above the answer is 1.
    """
    if offered >= servers:
        return 1.0
    if offered <= 0:
        return 0.0
    blocking = 1.0
    for k in range(1, servers + 1):
        blocking = offered * blocking / (k + offered * blocking)
    return blocking / (1.0 - (offered / servers) * (1.0 - blocking))


def gated_cycle(rate: float, fixed: float, marginal: float) -> tuple[float, float]:
    """Mean cycle and batch of a server that takes all that waits into its next batch (gated service).

    A batch of n takes fixed + n * marginal. The next batch is what came during this one, or, where nothing came, the
    one request that ends the idle time: n = rate C + exp(-rate C) and C = fixed + n * marginal. (Takagi, Analysis of
    Polling Systems, 1986, for the single queue; here the server waits instead of switching over.)

    Returns:
        (C, n); (inf, inf) where rate * marginal >= 1 and no cycle length is stationary.
    """
    if rate * marginal >= 1.0:
        return math.inf, math.inf
    alone = fixed + marginal
    if rate <= 0:
        return alone, 1.0
    # The fixed point lies between one request alone and the cycle with an always-filled batch.
    low, high = alone, alone + fixed / (1.0 - rate * marginal) + marginal / (1.0 - rate * marginal)
    for _ in range(48):
        cycle = 0.5 * (low + high)
        if fixed + marginal * _mean_batch(rate * cycle) > cycle:
            low = cycle
        else:
            high = cycle
    cycle = 0.5 * (low + high)
    return cycle, _mean_batch(rate * cycle)


def _mean_batch(came: float) -> float:
    """Mean batch when `came` requests come in a cycle on average: a Poisson count, and one where it is zero."""
    return came + math.exp(-came)


def busy_share(rate: float, cycle: float) -> float:
    """Share of time that a gated server is busy: it idles for 1/rate after a cycle in which nothing came."""
    if rate <= 0:
        return 0.0
    if math.isinf(cycle):
        return 1.0
    idle = math.exp(-rate * cycle) / rate
    return cycle / (cycle + idle)


def average_of_process(spans: NDArray[np.float64]) -> NDArray[np.float64]:
    """Variance that is left when an exponentially correlated process is averaged, as a share of its own.

    2 (x - 1 + e^-x) / x^2 for a window of x correlation times (Ornstein-Uhlenbeck); 1 at x = 0.
    """
    x = np.maximum(spans, 1e-4)
    return np.asarray(2.0 * (x - 1.0 + np.exp(-x)) / x**2)
