"""A model, and micro-benchmarks of it whose times follow simple rules, so that sums can be done by hand."""

from __future__ import annotations

from profiler.kernels.micro import DecodePoint, GemmPoint, Micro, PrefillPoint, ReducePoint, Timed
from profiler.kernels.plan import rank_shape
from profiler.schema import ModelShape

SHAPE = ModelShape(
    hidden_size=4096,
    layers=32,
    heads=32,
    kv_heads=8,
    head_dim=128,
    intermediate_size=14336,
    vocab_size=128256,
    weight_bytes_per_param=2,
    kv_bytes_per_element=2,
)


def timed(ms: float) -> Timed:
    return Timed(median_ms=ms, low_ms=ms, high_ms=ms, repeats=5)


def gemm_ms(m: int) -> float:
    return 0.01 + 0.0001 * m


def decode_attention_ms(batch: int, context: int) -> float:
    return 0.002 + 1e-6 * batch * context


def prefill_attention_ms(tokens: int) -> float:
    return 1e-8 * tokens**2


def reduce_ms(size: int) -> float:
    return 0.01 + size * 1e-8


def made_up(tp: int = 1, shape: ModelShape = SHAPE, gpu: str = "NVIDIA H100 80GB HBM3") -> Micro:
    rank = rank_shape(shape, tp)
    sizes = (1, 8, 64, 256, 1024, 8192)
    return Micro(
        model="llama",
        dtype="bfloat16",
        shape=shape,
        tp=tp,
        gpu=gpu,
        torch="2.11.0",
        memory_gb_per_s=3000.0,
        launch_ms=0.001,
        gemm=tuple(
            GemmPoint(name=name, m=m, n=n, k=k, backend="torch.mm", time=timed(gemm_ms(m)))
            for name, (n, k) in rank.products.items()
            for m in sizes
        ),
        prefill=tuple(
            PrefillPoint(tokens=t, backend="flash", time=timed(prefill_attention_ms(t)))
            for t in (128, 512, 2048, 8192, 16384)
        ),
        decode=tuple(
            DecodePoint(batch=b, context=c, backend="flash", time=timed(decode_attention_ms(b, c)))
            for b in (1, 8, 64, 256)
            for c in (128, 2048, 32768)
        ),
        all_reduce=tuple(
            ReducePoint(ranks=tp, bytes=2**i, backend="nccl", time=timed(reduce_ms(2**i))) for i in (13, 20, 28)
        )
        if tp > 1
        else (),
    )
