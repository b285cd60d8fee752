"""The load that layouts are chosen for: lengths with a mean and a spread, or those of a trace."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from planner.core.demand import Lengths
from planner.whatif.traces import collect, open_trace
from profiler.errors import InputError

#: Requests that stand for a distribution: as many as the planner keeps of a running graph.
SAMPLE = 1024


def drawn_lengths(isl: float, osl: float, isl_cv: float, osl_cv: float) -> Lengths:
    """Lognormal lengths, independent of each other, without prefix hits.

    The sample is of evenly spaced quantiles in a shuffled order, so that it is the same every time and has the asked
    means.

    Args:
        isl: mean input length, tokens.
        osl: mean output length, tokens.
        isl_cv: standard deviation over mean of input lengths; 0 for equal ones.
        osl_cv: the same of output lengths.
    """
    order = np.random.default_rng(0).permutation(SAMPLE)
    return Lengths(isl=_lognormal(isl, isl_cv), osl=_lognormal(osl, osl_cv)[order], hit=np.zeros(SAMPLE))


def _lognormal(mean: float, cv: float) -> NDArray[np.float64]:
    from scipy.special import ndtri  # noqa: PLC0415 - only where lengths are drawn

    sigma = math.sqrt(math.log1p(cv**2))
    shares = (np.arange(SAMPLE) + 0.5) / SAMPLE
    tokens = np.exp(sigma * ndtri(shares))
    # Quantiles cut the tail off; the mean is what was asked for.
    return np.asarray(np.maximum(1.0, np.rint(mean * tokens / tokens.mean())), dtype=np.float64)


def trace_lengths(trace: str) -> Lengths:
    """Lengths and prefix hits of a trace, evenly spaced over it.

    Args:
        trace: a file, or `generate:NAME`, as `planner whatif --trace`.

    Raises:
        InputError: it cannot be read, or holds no request.
    """
    requests = collect(open_trace(trace if trace.startswith("generate:") else Path(trace)))
    if len(requests) == 0:
        raise InputError("holds no request", expected="a trace with requests", field="--trace")
    rows = np.unique(np.linspace(0, len(requests) - 1, min(len(requests), 4 * SAMPLE)).astype(np.intp))
    isl, osl, hit = (a[rows].astype(np.float64) for a in (requests.isl, requests.osl, requests.prefix_hit_tokens))
    return Lengths(isl=isl, osl=osl, hit=hit)
