"""How fast a paced worker is, and the profile that says so to the planner."""

from __future__ import annotations

import itertools
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from profiler.schema import Engine, GpuInfo, Limits, ModelInfo, ProfileMeta, Role, Source
from profiler.tables import save_profile
from tests.integration.vllm_cpu.setup import VLLM
from tests.integration.vllm_cpu.workers import MODEL_NAME


@dataclass(frozen=True)
class Pace:
    """What an engine step lasts at least (see the plugin): base + prefill tokens + decoding requests."""

    base_ms: float
    us_per_prefill_token: float
    us_per_decode_request: float

    @property
    def environment(self) -> dict[str, str]:
        """For a worker."""
        return {"VLLM_PACE": f"{self.base_ms:g},{self.us_per_prefill_token:g},{self.us_per_decode_request:g}"}

    def save_profiles(self, folder: Path) -> None:
        """A prefill and a decode profile of these steps: by their definition, without anything measured."""
        isl = np.array([1.0, 32, 128, 512, 2048, 4096])
        prefill = {"isl": isl, "ttft_ms": self.base_ms + self.us_per_prefill_token * isl / 1e3}
        save_profile(folder / "prefill", self._meta("prefill"), {"prefill": prefill})

        points = np.array(list(itertools.product([1.0, 2, 4, 8, 16, 32], [32.0, 512, 4096])))
        batch, context = points[:, 0], points[:, 1]
        decode = {
            "batch": batch,
            "context_tokens": context,
            "kv_tokens": batch * context,
            "itl_ms": self.base_ms + self.us_per_decode_request * batch / 1e3,
            "suspect": np.zeros(len(batch)),
        }
        save_profile(folder / "decode", self._meta("decode"), {"decode": decode})

    def _meta(self, role: Role) -> ProfileMeta:
        return ProfileMeta(
            schema_version=1,
            model=ModelInfo(name=MODEL_NAME, dtype="bfloat16"),
            gpu=GpuInfo(name="none", count_per_worker=1),
            engine=Engine(name="vllm", version=VLLM),
            role=role,
            tp=1,
            dp=1,
            kv_capacity_tokens=131_072,
            limits=Limits(max_num_seqs=32, max_num_batched_tokens=4096, block_size=32, max_model_len=4096),
            source=Source(text=f"not measured: the pacing {self}, by its definition", licence="Apache-2.0"),
        )
