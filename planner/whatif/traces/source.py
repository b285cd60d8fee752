"""Where a trace comes from: a file or a generator, by one name on the command line."""

from __future__ import annotations

from pathlib import Path

from planner.whatif.traces.generate import GeneratedTrace
from planner.whatif.traces.presets import PREFIX, parse_generator
from planner.whatif.traces.readers import open_file
from planner.whatif.traces.trace import Trace
from profiler.errors import InputError


def open_trace(path: str | Path, *, prefix_cache_tokens: int | None = None) -> Trace:
    """Opens a trace; nothing but its first lines is read until its chunks are.

    Args:
        path: a file (plain CSV, Azure CSV or Mooncake JSON Lines, known by its content; gzip is unpacked), or
            a workload such as `generate:conversation` or
            `generate:conversation,rps=20,duration_s=1800,seed=7`.
        prefix_cache_tokens: 0 for no prefix hits, whatever the source. Otherwise the size of the fleet-wide
            prefix cache that traces with block hashes (Mooncake) are run through, None for no limit; traces
            that state their hits keep them.

    Raises:
        InputError: the file cannot be read or is of no known format, the workload is unknown, or the size of
            the cache is negative. Later lines of a file are checked while its chunks are read.
    """
    if prefix_cache_tokens is not None and prefix_cache_tokens < 0:
        raise InputError(
            f"found {prefix_cache_tokens}",
            expected="a number of tokens, at least 0",
            field="prefix_cache_tokens",
        )
    text = str(path)
    if text.startswith(PREFIX):
        spec = parse_generator(text)
        if prefix_cache_tokens == 0:
            spec = spec.model_copy(update={"prefix_hit_share": 0.0})
        return GeneratedTrace(spec)
    return open_file(Path(path), prefix_cache_tokens=prefix_cache_tokens)
