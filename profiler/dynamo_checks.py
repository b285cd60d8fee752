"""What a table of Dynamo must satisfy before it is believed.

Its files carry no metadata, so they are checked against themselves: the KV capacity says how many requests a
row held, and so does Little's law (requests in flight = throughput x latency). A published table of a 32B
model carried a capacity of 8,224 tokens where 502,272 was right; nothing but this comparison shows it.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from profiler.errors import InputError
from profiler.roofline import Roofline

_Array = NDArray[np.float64]

#: Usage above 1 by more than rounding of the output's mean length cannot be.
_MOST_USAGE = 1.05
#: Median disagreement between the two counts of requests that is still believed.
_LITTLE_TOLERANCE = 0.2
#: A row whose count by Little's law falls short of the nominal one by more than this did not run together.
_SATURATED = 0.1
#: Capacity above what fits beside the weights by more than this is not this model on this GPU.
_MEMORY_TOLERANCE = 0.25


def check_prefill(path: Path, isl: _Array, ttft_ms: _Array, throughput: _Array) -> None:
    """Positive values; lengths strictly increasing, as they were swept.

    Raises:
        InputError: names file, key and row.
    """
    for field, values in (
        ("prefill_isl", isl),
        ("prefill_ttft", ttft_ms),
        ("prefill_thpt_per_gpu", throughput),
    ):
        _positive(path, field, values)
    for i in range(1, len(isl)):
        if isl[i] in isl[:i]:
            raise InputError(f"{isl[i]:g} in row {i + 1} is a duplicate", source=path, field="prefill_isl")
        if isl[i] < isl[i - 1]:
            problem = f"{isl[i]:g} in row {i + 1} follows {isl[i - 1]:g}"
            raise InputError(problem, expected="increasing lengths", source=path, field="prefill_isl")


def check_decode(path: Path, usage: _Array, context: _Array, itl_ms: _Array, throughput: _Array) -> None:
    """Positive values; usage within the cache; sorted by context, then by usage, as they were swept.

    Raises:
        InputError: names file, key and row.
    """
    for field, values in (("y_context_length", context), ("z_itl", itl_ms), ("z_thpt_per_gpu", throughput)):
        _positive(path, field, values)
    for i in np.flatnonzero(~((usage >= 0) & (usage <= _MOST_USAGE))).tolist():
        problem = f"is {usage[i]:g} in row {i + 1}"
        raise InputError(problem, expected=f"0 to {_MOST_USAGE:g}", source=path, field="x_kv_usage")
    seen: set[tuple[float, float]] = set()
    for i, point in enumerate(zip(context.tolist(), usage.tolist(), strict=True)):
        if point in seen:
            problem = f"row {i + 1} is a duplicate: context {point[0]:g}, usage {point[1]:g}"
            raise InputError(problem, source=path, field="x_kv_usage")
        seen.add(point)
    for i in range(1, len(usage)):
        if context[i] < context[i - 1]:
            problem = f"{context[i]:g} in row {i + 1} follows {context[i - 1]:g}"
            raise InputError(problem, expected="rows of growing context", source=path, field="y_context_length")
        if context[i] == context[i - 1] and usage[i] < usage[i - 1]:
            problem = f"{usage[i]:g} in row {i + 1} follows {usage[i - 1]:g} at context {context[i]:g}"
            raise InputError(problem, expected="growing usage", source=path, field="x_kv_usage")


def check_capacity(
    path: Path,
    capacities: _Array,
    table: tuple[_Array, _Array, _Array, _Array],
    gpus: int,
    roofline: Roofline | None,
) -> tuple[int, str]:
    """The KV capacity, checked against the table by Little's law and against memory by arithmetic.

    Args:
        path: the file, for messages.
        capacities: `max_kv_tokens`, one value.
        table: usage, context, ITL in ms and throughput in tokens/s per GPU, each of shape (rows,).
        gpus: GPUs of one worker.
        roofline: of the worker; None skips the check against memory.

    Returns:
        The capacity in tokens, and a sentence on how it was checked.

    Raises:
        InputError: the capacity is not a positive whole number or contradicts the table or the memory.
    """
    if len(capacities) != 1 or not (capacities[0] >= 1 and float(capacities[0]).is_integer()):
        shown = ", ".join(f"{value:g}" for value in capacities)
        raise InputError(f"is {shown}", expected="one positive whole number", source=path, field="max_kv_tokens")
    capacity = int(capacities[0])
    usage, context, itl_ms, throughput = table
    nominal = usage * capacity / context
    little = throughput * gpus * itl_ms / 1e3
    ratio = float(np.median(nominal / little))
    low = int(np.argmin(nominal))
    implied = float(np.median(little * context / np.maximum(usage, 1e-12)))
    expected = f"about {implied:,.0f}, or another TP x DP than {gpus}" if usage.all() else "usage above 0"
    contradiction = f"{capacity:,} tokens contradict the table"
    if nominal[low] < 0.9:
        problem = (
            f"{contradiction}: row {low + 1} (context {context[low]:g}, usage {usage[low]:g}) would hold"
            f" {nominal[low]:.3g} requests, less than one"
        )
        raise InputError(problem, expected=expected, source=path, field="max_kv_tokens")
    if not abs(ratio - 1) <= _LITTLE_TOLERANCE:
        problem = (
            f"{contradiction}: the requests that they imply (usage x capacity / context) are {ratio:.3g}"
            " times those that throughput x ITL shows, in the median"
        )
        raise InputError(problem, expected=expected, source=path, field="max_kv_tokens")
    check = (
        f"requests implied by the capacity are {ratio:.3f} times throughput x ITL (Little's law), in the"
        f" median of {len(usage)} rows"
    )
    if roofline is None:
        return capacity, check + "; not checked against memory (model shape or GPU unknown)"
    fits = roofline.kv_capacity_that_fits()
    if capacity > fits * (1 + _MEMORY_TOLERANCE):
        problem = f"{capacity:,} tokens are more than fits beside the weights"
        expected = f"at most about {fits:,.0f} for this shape, KV format, GPU and TP"
        raise InputError(problem, expected=expected, source=path, field="max_kv_tokens")
    share = f"{capacity / fits:.3f} of the {fits:,.0f} tokens that fit beside the weights in 0.9 of memory"
    return capacity, f"{check}; {share}"


def saturated(nominal: _Array, little: _Array) -> NDArray[np.bool_]:
    """Rows in which fewer requests ran together than the sweep meant to: by Little's law over 10 % fewer."""
    return little < nominal * (1 - _SATURATED)


def _positive(path: Path, field: str, values: _Array) -> None:
    for i in np.flatnonzero(~((values >= 1e-9) & (values <= 1e15))).tolist():
        problem = f"is {values[i]:g} in row {i + 1}"
        raise InputError(problem, expected="a positive number", source=path, field=field)
