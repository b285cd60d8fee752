"""What is checked where torch is: `python -m tests.integration.kernels.cases NAME METHOD`, one process a case.

METHOD is what copies: `index`, `per_block`, or `triton`, which on a processor wants TRITON_INTERPRET=1.
"""

from __future__ import annotations

import random
import sys
from collections.abc import Callable

import torch

from profiler.errors import InputError
from profiler.kernels.block_copy import Copier, choose
from profiler.kernels.caches import Ids, KvCache
from profiler.kernels.clock import random_bytes
from profiler.kernels.layout import Form, KvLayout, heads_of_rank

CPU = torch.device("cpu")
DTYPES = (torch.bfloat16, torch.float8_e4m3fn, torch.uint8, torch.float32)
#: layers, blocks, block_size, kv_heads, head_dim: one as in models, the others odd.
SIZES = ((3, 12, 16, 4, 32), (1, 5, 3, 1, 7), (2, 9, 5, 6, 10))
FORMS: tuple[Form, ...] = ("kv_first", "block_first")


def layout_of(sizes: tuple[int, ...], dtype: torch.dtype, form: Form, kv_heads: int | None = None) -> KvLayout:
    layers, blocks, block_size, heads, head_dim = sizes
    name = str(dtype).removeprefix("torch.")
    return KvLayout(layers, blocks, block_size, kv_heads or heads, head_dim, name, dtype.itemsize, form)


def cache_of(layout: KvLayout, dtype: torch.dtype) -> KvCache:
    return KvCache.of([random_bytes(layout.layer_shape, dtype, CPU) for _ in range(layout.layers)], layout.form)


def raw(tensor: torch.Tensor) -> torch.Tensor:
    return tensor.contiguous().view(torch.uint8)


def block(cache: KvCache, layer: int, half: int, number: int) -> torch.Tensor:
    """Plain indexing, written out for each form."""
    tensor = cache.tensors[layer]
    return raw(tensor[half, number] if cache.layout.form == "kv_first" else tensor[number, half])


def snapshot(cache: KvCache) -> KvCache:
    return KvCache.of([t.clone() for t in cache.tensors], cache.layout.form)


def everything() -> list[tuple[tuple[int, ...], torch.dtype, Form]]:
    return [(sizes, dtype, form) for sizes in SIZES for dtype in DTYPES for form in FORMS]


def expect_same(now: KvCache, before: KvCache, changed: dict[int, Callable[[int, int], torch.Tensor]]) -> None:
    """Every block is as it was, but for those that were written, which are as `changed` says by layer and half."""
    for layer in range(now.layout.layers):
        for half in range(2):
            for number in range(now.layout.blocks):
                right = changed[number](layer, half) if number in changed else block(before, layer, half, number)
                assert torch.equal(block(now, layer, half, number), right), (layer, half, number)


def gather(copier: Copier) -> None:
    for sizes, dtype, form in everything():
        cache = cache_of(layout_of(sizes, dtype, form), dtype)
        ids = [3, 0, 4, 3]  # a source may be asked for twice
        out = random_bytes(cache.layout.buffer_shape(len(ids)), dtype, CPU)
        before = snapshot(cache)
        copier.gather(cache, Ids.of(ids, cache), out)
        for place, number in enumerate(ids):
            for layer in range(cache.layout.layers):
                for half in range(2):
                    assert torch.equal(raw(out[place, layer, half]), block(cache, layer, half, number))
        expect_same(cache, before, {})


def scatter(copier: Copier) -> None:
    for sizes, dtype, form in everything():
        cache = cache_of(layout_of(sizes, dtype, form), dtype)
        ids = [4, 1, 2]
        buffer = random_bytes(cache.layout.buffer_shape(len(ids)), dtype, CPU)
        before = snapshot(cache)
        copier.scatter(buffer, cache, Ids.of(ids, cache, distinct=True))
        written = {n: (lambda layer, half, p=p, b=buffer: raw(b[p, layer, half])) for p, n in enumerate(ids)}
        expect_same(cache, before, written)


def between(copier: Copier) -> None:
    for sizes, dtype, form in everything():
        other: Form = "block_first" if form == "kv_first" else "kv_first"
        source = cache_of(layout_of(sizes, dtype, form), dtype)
        target = cache_of(layout_of((sizes[0], sizes[1] + 3, *sizes[2:]), dtype, other), dtype)
        ids, others = [2, 2, 0], [7, 1, 3]
        before = snapshot(target)
        copier.copy(source, target, Ids.of(ids, source), Ids.of(others, target, distinct=True))
        written = {
            o: (lambda layer, half, n=n, s=source: block(s, layer, half, n)) for n, o in zip(ids, others, strict=True)
        }
        expect_same(target, before, written)


def permute(copier: Copier) -> None:
    pairs = ((1, 2), (2, 1), (2, 4), (4, 2), (1, 4), (4, 1), (8, 2), (2, 8), (4, 8))
    for dtype in (torch.bfloat16, torch.uint8):
        for kv_heads, head_dim in ((4, 16), (2, 5)):
            for source_tp, target_tp in pairs:
                sizes = (2, 6, 3, kv_heads, head_dim)
                whole = cache_of(layout_of(sizes, dtype, "kv_first"), dtype)
                sources = []
                for rank in range(source_tp):
                    mine = heads_of_rank(kv_heads, source_tp, rank)
                    parts = [t[:, :, :, mine.start : mine.stop].clone() for t in whole.tensors]
                    sources.append(KvCache.of(parts, "kv_first"))
                each = len(heads_of_rank(kv_heads, target_tp, 0))
                targets = [cache_of(layout_of(sizes, dtype, "block_first", each), dtype) for _ in range(target_tp)]
                before = [snapshot(t) for t in targets]
                ids, others = [5, 2, 1], [0, 4, 2]
                copier.permute(
                    sources, targets, Ids.of(ids, whole), Ids.of(others, targets[0], distinct=True), kv_heads
                )
                for rank, target in enumerate(targets):
                    mine = heads_of_rank(kv_heads, target_tp, rank)
                    written = {
                        o: (
                            lambda layer, half, n=n, m=mine, w=whole: raw(
                                w.tensors[layer][half, n][:, m.start : m.stop]
                            )
                        )
                        for n, o in zip(ids, others, strict=True)
                    }
                    expect_same(target, before[rank], written)


def host(copier: Copier) -> None:
    for sizes, dtype, form in everything():
        layout = layout_of(sizes, dtype, form)
        # Chunks of two blocks, so that the last one is shorter.
        small = Copier(CPU, copier.choice.method, stage_bytes=2 * layout.block_bytes)
        cache = cache_of(layout, dtype)
        ids = random.Random(1).sample(range(layout.blocks), 5)  # noqa: S311 - an order
        there = random_bytes(layout.buffer_shape(5), dtype, CPU)
        small.offload(cache, Ids.of(ids, cache), there)
        for place, number in enumerate(ids):
            for layer in range(layout.layers):
                for half in range(2):
                    assert torch.equal(raw(there[place, layer, half]), block(cache, layer, half, number))
        there = random_bytes(layout.buffer_shape(5), dtype, CPU)
        before = snapshot(cache)
        small.restore(there, cache, Ids.of(ids, cache, distinct=True))
        written = {n: (lambda layer, half, p=p, t=there: raw(t[p, layer, half])) for p, n in enumerate(ids)}
        expect_same(cache, before, written)


def refused(words: str, call: Callable[[], object]) -> None:
    """The environment with torch need not have pytest."""
    found = ""
    try:
        call()
    except InputError as error:
        found = str(error)
    assert words in found, (words, found)


def refusals(copier: Copier) -> None:
    sizes, dtype = SIZES[0], torch.bfloat16
    cache = cache_of(layout_of(sizes, dtype, "kv_first"), dtype)
    fewer = cache_of(layout_of((2, *sizes[1:]), dtype, "kv_first"), dtype)
    wider = cache_of(layout_of(sizes, torch.float32, "kv_first"), torch.float32)
    short = cache_of(layout_of((3, 4, *sizes[2:]), dtype, "kv_first"), dtype)
    ids = Ids.of([0, 11], cache, distinct=True)
    loose = Ids.of([0, 11], cache)
    out = random_bytes(cache.layout.buffer_shape(2), dtype, CPU)
    refused("layers is 3 and 2", lambda: copier.copy(cache, fewer, ids, ids))
    refused("dtype is bfloat16 and float32", lambda: copier.copy(cache, wider, ids, ids))
    refused("checked against a cache of 12 blocks", lambda: copier.gather(short, ids, out))
    refused("not checked for duplicates", lambda: copier.scatter(out, cache, loose))
    refused("block 12 at position 1", lambda: Ids.of([0, 12], cache))
    refused("block 5 is there twice", lambda: Ids.of([5, 5], cache, distinct=True))
    refused("has shape", lambda: copier.gather(cache, ids, out[:1]))
    refused("has dtype", lambda: copier.gather(cache, ids, out.view(torch.float16)))
    refused("not contiguous", lambda: copier.gather(cache, ids, out.transpose(0, 1).contiguous().transpose(0, 1)))
    refused("has no layers", lambda: KvCache.of([], "kv_first"))
    refused("axis 1 has length 2", lambda: KvCache.of(cache.tensors, "block_first"))
    refused("layer 1 has shape", lambda: KvCache.of([cache.tensors[0], short.tensors[0]], "kv_first"))
    refused("back to back", lambda: KvCache.of([t.transpose(2, 3) for t in cache.tensors], "kv_first"))
    refused("1 blocks; expected 2", lambda: copier.copy(cache, cache, ids, Ids.of([3], cache, distinct=True)))
    refused("holds 4 KV heads of 4; expected 2", lambda: copier.permute([cache] * 2, [cache], ids, ids, 4))
    refused("4 KV heads on 3 ranks", lambda: copier.permute([cache] * 3, [cache], ids, ids, 4))
    if copier.choice.method != "triton":
        refused("only the kernel", lambda: copier.offload(cache, ids, out, "mapped"))


def fallback(copier: Copier) -> None:
    """Without being asked, plain copies are taken on a processor and say why; the kernel that is asked for is not."""
    del copier
    _, choice = choose(CPU)
    assert choice.method == "index"
    assert choice.why.startswith(("no Triton", "caches on cpu")), choice.why
    refused("expected a method that runs here", lambda: choose(CPU, "triton"))


CASES: dict[str, Callable[[Copier], None]] = {
    case.__name__: case for case in (gather, scatter, between, permute, host, refusals, fallback)
}


if __name__ == "__main__":
    torch.set_num_threads(1)
    name, method = sys.argv[1:]
    CASES[name](Copier(CPU, None if method == "chosen" else method))  # type: ignore[arg-type]
    print(f"{name} by {method}: as it should be")
