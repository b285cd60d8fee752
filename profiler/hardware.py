"""Published peak figures of GPUs: dense FLOP/s by number format, memory bandwidth and memory."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType


@dataclass(frozen=True, slots=True)
class Gpu:
    """What a GPU can do at most.

    Attributes:
        name: the short name that folders and commands use.
        peak_flops: dense (no sparsity) FLOP/s by number format, `bf16` (also fp16) and `fp8` where it has it.
        bandwidth: bytes per second of its memory.
        memory_gib: memory that the driver shows, in GiB.
        aliases: patterns of other spellings, such as the driver's.
    """

    name: str
    peak_flops: Mapping[str, float]
    bandwidth: float
    memory_gib: float
    aliases: tuple[str, ...]

    def peak_for(self, dtype: str) -> float:
        """FLOP/s for a model's number format; weight-only formats (int4, awq) compute in bf16."""
        key = "fp8" if "fp8" in dtype.lower() or "float8" in dtype.lower() else "bf16"
        return self.peak_flops.get(key, self.peak_flops["bf16"])


def _gpu(name: str, bf16: float, fp8: float | None, bandwidth: float, memory_gib: float, *aliases: str) -> Gpu:
    peaks = {"bf16": bf16 * 1e12} | ({"fp8": fp8 * 1e12} if fp8 is not None else {})
    return Gpu(name, MappingProxyType(peaks), bandwidth * 1e12, memory_gib, aliases)


# TFLOP/s without sparsity and TB/s from NVIDIA's data sheets (H100 and H200 Tensor Core GPU, A100 80GB SXM,
# L40S, HGX B200); where a sheet prints the figure with sparsity, half of it. GiB as nvidia-smi reports the
# total.
GPUS: tuple[Gpu, ...] = (
    _gpu("h100-sxm", 989.4, 1978.9, 3.35, 79.6, r"h100( 80gb)?( hbm3| sxm5?)*"),
    _gpu("h200-sxm", 989.4, 1978.9, 4.8, 140.4, r"h200( sxm5?| 141gb)*"),
    _gpu("a100-80gb", 312.0, None, 2.039, 80.0, r"a100( sxm4?)? 80gb", r"a100 80gb( sxm4?)?"),
    _gpu("l40s", 362.05, 733.0, 0.864, 45.0, r"l40s( 48gb)?"),
    _gpu("b200", 2250.0, 4500.0, 8.0, 179.0, r"b200( sxm)?( 180gb)?"),
)


def find_gpu(name: str) -> Gpu | None:
    """A GPU by its short name or the driver's ("NVIDIA H100 80GB HBM3"); None when not known."""
    plain = re.sub(r"[\s_-]+", " ", name.lower()).removeprefix("nvidia ").strip()
    for gpu in GPUS:
        if plain == gpu.name.replace("-", " ") or any(re.fullmatch(alias, plain) for alias in gpu.aliases):
            return gpu
    return None
