"""How fast this device's memory is, and what the least of kernels costs."""

from __future__ import annotations

import torch

from profiler.kernels.clock import Clock, free_bytes

#: Large enough that the ends of the copy do not count, on any GPU of the day.
_COPY_BYTES = 2 << 30


def memory_gb_per_s(clock: Clock) -> float:
    """Bytes read plus bytes written by a copy of one large buffer, over its median time, GB/s."""
    size = min(_COPY_BYTES, free_bytes(clock.device) // 8)
    source = torch.randint(0, 2**62, (size // 8,), dtype=torch.int64, device=clock.device)
    target = torch.empty_like(source)
    time = clock.measure([lambda: target.copy_(source)], "memory", graph=False)
    return float(2 * source.numel() * 8 / time.median_ms / 1e6)


def launch_ms(clock: Clock) -> float:
    """Time of a kernel over one row of numbers, in a graph with many like it."""
    row = torch.randn(4096, device=clock.device)
    return clock.measure([lambda: row.mul_(1.0)] * 64, "launch").median_ms
