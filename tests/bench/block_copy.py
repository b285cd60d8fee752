"""Sizes inside the block copy, for whoever tunes it: `python -m tests.bench.block_copy [--device cuda]`.

Bytes that one program of the kernel moves, and bytes of the buffer that copies to the host go over; GB/s of payload.
The defaults in `profiler.kernels` should be near the best of each row.
"""

from __future__ import annotations

import argparse
import random

import torch

from profiler.kernels.block_copy import Copier
from profiler.kernels.caches import Ids
from profiler.kernels.clock import Clock
from profiler.kernels.copy_bench import make_cache
from profiler.kernels.layout import KvLayout
from profiler.kernels.triton_copy import Kernel

PIECES = tuple(1 << i for i in range(11, 17))
STAGES = tuple(1 << i for i in range(22, 29, 2))


def main() -> None:
    """Print both rows."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--layers", type=int, default=32)
    parser.add_argument("--kv-heads", type=int, default=8)
    parser.add_argument("--blocks", type=int, default=512, help="moved; the cache has twice as many")
    chosen = parser.parse_args()
    device = torch.device(chosen.device, 0) if chosen.device == "cuda" else torch.device(chosen.device)
    layout = KvLayout(chosen.layers, 2 * chosen.blocks, 16, chosen.kv_heads, 128, "bfloat16", 2, "kv_first")
    cache = make_cache(layout, torch.bfloat16, device)
    numbers = random.Random(0).sample(range(layout.blocks), chosen.blocks)  # noqa: S311 - an order
    ids = Ids.of(numbers, cache, distinct=True)
    clock = Clock(device)
    size = chosen.blocks * layout.block_bytes
    out = torch.empty(layout.buffer_shape(chosen.blocks), dtype=torch.bfloat16, device=device)
    for piece in PIECES:
        kernel = Kernel(piece)
        gather = clock.measure([lambda k=kernel: k.gather(cache, ids, out)], graph=False).median_ms
        scatter = clock.measure([lambda k=kernel: k.scatter(out, cache, ids)], graph=False).median_ms
        print(f"piece {piece:7,} B: gather {size / gather / 1e6:8.1f}, scatter {size / scatter / 1e6:8.1f} GB/s")
    host = torch.empty(out.shape, dtype=torch.bfloat16, pin_memory=device.type == "cuda")
    for stage in STAGES:
        copier = Copier(device, stage_bytes=stage)
        there = clock.measure([lambda c=copier: c.offload(cache, ids, host)], graph=False).median_ms
        back = clock.measure([lambda c=copier: c.restore(host, cache, ids)], graph=False).median_ms
        print(f"stage {stage:11,} B: offload {size / there / 1e6:6.1f}, restore {size / back / 1e6:6.1f} GB/s")


if __name__ == "__main__":
    main()
