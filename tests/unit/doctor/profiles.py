"""What a `profile.json` holds, in short."""

from __future__ import annotations

from pathlib import Path

from profiler.schema import Engine, GpuInfo, Limits, ModelInfo, ProfileMeta, Source

SHIPPED = Path(__file__).parents[3] / "profiling_results" / "llama-3.1-8b-instruct-fp8" / "h200-sxm" / "vllm-unknown"


def shipped() -> list[Path]:
    """Folders of a prefill and a decode profile."""
    return [SHIPPED / "prefill-tp1-dp1", SHIPPED / "decode-tp1-dp1"]


def meta(
    *,
    tp: int = 1,
    dp: int = 1,
    gpu: str = "h100-sxm",
    version: str | None = "0.26.0",
    arguments: tuple[str, ...] | None = None,
    max_num_seqs: int | None = None,
    kv: int | None = None,
) -> ProfileMeta:
    """A decode profile's, of Llama-3.1-8B."""
    return ProfileMeta(
        schema_version=1,
        model=ModelInfo(name="llama-3.1-8b", dtype="bfloat16"),
        gpu=GpuInfo(name=gpu, count_per_worker=tp * dp),
        engine=Engine(name="vllm", version=version, arguments=arguments),
        role="decode",
        tp=tp,
        dp=dp,
        kv_capacity_tokens=kv,
        limits=Limits(max_num_seqs=max_num_seqs),
        source=Source(text="a test", licence="none"),
    )
