"""What a decode table with the engine's own clock says of the front end: how many tokens it streams at most.

An API server is one process: beyond so many tokens per second it falls behind the engine, and clients see what it
manages, not what the engine takes. The table then holds two things, each simple: an iteration of the engine, and a
limit on tokens per second.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from profiler.csvfile import Samples

#: ITL at the client this much above the engine's own is the front end's; below, the two clocks just differ.
BEHIND = 1.15
#: Without the engine's clock, a row this near to the limit cannot be told to be the engine's.
NEAR = 0.8


def streaming_limit(rows: Samples) -> float | None:
    """Tokens per ms that the front end streams where it is what limits; None where no row shows that.

    The median over the rows whose ITL at the client exceeds the engine's own.

    Args:
        rows: a decode table.
    """
    behind = _behind(rows)
    return float(np.median(rows["batch"][behind] / rows["itl_ms"][behind])) if behind.any() else None


def engine_itl_ms(rows: Samples, limit: float | None) -> NDArray[np.float64]:
    """ITL of each row by the engine, ms, shape (rows,): at the client, but where the front end fell behind.

    nan where the front end may have been behind and the engine's clock was not read.

    Args:
        rows: a decode table.
        limit: of streaming, tokens per ms; None for none.
    """
    itl = rows["itl_ms"].copy()
    if limit is None:
        return itl
    behind = _behind(rows)
    itl[behind] = rows["server_itl_ms"][behind]
    unknown = ~np.isfinite(rows["server_itl_ms"]) & (rows["batch"] / rows["itl_ms"] > NEAR * limit)
    itl[unknown] = np.nan
    return itl


def _behind(rows: Samples) -> NDArray[np.bool_]:
    if "server_itl_ms" not in rows:
        return np.zeros(len(rows["batch"]), dtype=np.bool_)
    # Comparisons with nan are false.
    behind = np.asarray(rows["itl_ms"] > BEHIND * rows["server_itl_ms"])
    # Nothing falls behind one request at a time: where the clocks differ there, they are not of the same time.
    fewest = rows["batch"] == rows["batch"].min()
    return np.zeros_like(behind) if behind[fewest].any() else behind
