"""The worker that an estimate is of: checked by arithmetic, with the points to ask for."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, get_args

from profiler.errors import InputError
from profiler.estimated.grid import Grid, chunks, grid
from profiler.estimated.query import Request
from profiler.hardware import GPUS, Gpu, find_gpu
from profiler.models.config import ModelConfig
from profiler.models.layouts import Layout, candidates
from profiler.models.memory import DEFAULT_UTILIZATION
from profiler.schema import Role
from profiler.timing import DEFAULT_MAX_NUM_BATCHED_TOKENS, DEFAULT_MAX_NUM_SEQS

#: Prompts up to here by default. The package has timed attention up to 16,384 tokens and goes on by a formula.
DEFAULT_LONGEST_ISL = 32768

#: GPUs by the package's names.
SYSTEMS: Mapping[str, str] = {
    "h100-sxm": "h100_sxm",
    "h200-sxm": "h200_sxm",
    "a100-80gb": "a100_sxm",
    "l40s": "l40s",
    "b200": "b200_sxm",
}

#: Number formats of matrices and of experts by the package's names; None where it has none.
_FORMATS: Mapping[str, tuple[str, str | None]] = {
    "bfloat16": ("bfloat16", "bfloat16"),
    "float16": ("bfloat16", "bfloat16"),  # as wide and as fast
    "fp8": ("fp8", "fp8"),
    "fp8 in blocks": ("fp8_block", "fp8_block"),
    "int8": ("int8_wo", None),
    "int4": ("int4_wo", "int4_wo"),
}

#: Architectures that differ by name only; vLLM loads both with one class. A sliding window would tell them apart.
_SAME_AS: Mapping[str, str] = {"MistralForCausalLM": "LlamaForCausalLM"}


@dataclass(frozen=True, kw_only=True)
class Worker:
    """The worker to estimate.

    Attributes:
        config: the model, in the number formats that it is served in.
        name: the model's, as the profiles shall have it.
        gpu: short name or the driver's.
        tp, dp, expert_parallel: how its GPUs divide the model.
        engine_version: of vLLM; None is the package's current one.
        longest_isl: longest prompt; None is 32,768 or what fits.
        max_num_seqs, max_num_batched_tokens: of one data-parallel rank; None is vLLM's default.
        max_model_len: longest request; None is the model's.
        utilization: vLLM's `gpu_memory_utilization`.
    """

    config: ModelConfig
    name: str
    gpu: str
    tp: int = 1
    dp: int = 1
    expert_parallel: bool = False
    engine_version: str | None = None
    longest_isl: int | None = None
    max_num_seqs: int | None = None
    max_num_batched_tokens: int | None = None
    max_model_len: int | None = None
    utilization: float = DEFAULT_UTILIZATION


@dataclass(frozen=True)
class Plan:
    """A worker that can serve, its limits filled in, and what to ask about it.

    Attributes:
        worker: as wanted.
        gpu: each of its GPUs.
        layout: with one GPU's memory.
        kv_tokens_per_rank: by memory arithmetic.
        max_num_seqs, max_num_batched_tokens, max_model_len: of one rank.
        grid: points of one rank.
        request: the same points with the model, for the package.
    """

    worker: Worker
    gpu: Gpu
    layout: Layout
    kv_tokens_per_rank: int
    max_num_seqs: int
    max_num_batched_tokens: int
    max_model_len: int
    grid: Grid
    request: Request

    @property
    def folders(self) -> dict[Role, str]:
        """Names of the profiles' folders: `prefill-tp1-dp1`, ..., `-ep` with expert parallelism."""
        end = "-ep" if self.worker.expert_parallel else ""
        return {role: f"{role}-tp{self.worker.tp}-dp{self.worker.dp}{end}" for role in get_args(Role)}


def plan(worker: Worker) -> Plan:
    """Check the worker by arithmetic, and lay out the grid within its limits.

    Raises:
        InputError: the GPU, the layout or the number format is not known, the layout cannot serve the model, or limits
            contradict each other.
    """
    config, gpu = worker.config, find_gpu(worker.gpu)
    if gpu is None or gpu.name not in SYSTEMS:
        known = ", ".join(known.name for known in GPUS if known.name in SYSTEMS)
        raise InputError(f"unknown GPU {worker.gpu!r}", expected=f"one of {known}", field="--gpu")
    batched = worker.max_num_batched_tokens or DEFAULT_MAX_NUM_BATCHED_TOKENS
    seqs = worker.max_num_seqs or min(DEFAULT_MAX_NUM_SEQS, batched)
    if seqs > batched:
        right = f"at most {batched:,}, the tokens of one iteration"
        raise InputError(f"is {seqs:,}", expected=right, field="--max-num-seqs")
    layout, kv = _layout(worker, gpu, batched)
    longest = min(worker.max_model_len or config.max_positions, kv)
    isl = worker.longest_isl if worker.longest_isl is not None else min(DEFAULT_LONGEST_ISL, longest)
    if not 1 <= isl <= longest:
        right = f"1 to {longest:,}, what the model and its KV cache hold"
        raise InputError(f"is {isl:,}", expected=right, field="--longest-isl")
    points = grid(longest_isl=isl, longest_context=longest, max_num_seqs=seqs, max_num_batched_tokens=batched, kv=kv)
    request = _request(worker, SYSTEMS[gpu.name], points, batched)
    model_len = worker.max_model_len or config.max_positions
    return Plan(worker, gpu, layout, kv, seqs, batched, model_len, points, request)


def _layout(worker: Worker, gpu: Gpu, batched: int) -> tuple[Layout, int]:
    """The layout, and tokens of KV cache of one of its ranks."""
    every = candidates(
        worker.config,
        gpu.name,
        worker.tp * worker.dp,
        max_model_len=worker.max_model_len,
        utilization=worker.utilization,
        max_num_batched_tokens=batched,
    )
    wanted = Layout(worker.tp, worker.dp, worker.expert_parallel)
    found = next((one for one in every if one.name == wanted.name), None)
    if found is None:
        names = ", ".join(one.name for one in every if one.rejected is None)
        right = f"powers of two, with DP and expert parallelism for mixtures of experts only: {names or 'none fits'}"
        raise InputError(f"{wanted.name} is no layout of {worker.name}", expected=right, field="--tp")
    if found.rejected is not None or found.fit is None:
        raise InputError(f"{found.name} cannot serve {worker.name} on {gpu.name}: {found.rejected}", field="--tp")
    return found, found.fit.kv_tokens_per_rank


def _request(worker: Worker, system: str, points: Grid, batched: int) -> Request:
    config = worker.config
    name = config.dtype if config.quant_block is None or config.dtype != "fp8" else "fp8 in blocks"
    if name not in _FORMATS:
        raise InputError(f"is {config.dtype}", expected=", ".join(_FORMATS), field="--dtype")
    gemm, moe = _FORMATS[name]
    if config.experts is not None and moe is None:
        raise InputError(f"is {config.dtype}, which no table of experts has", field="--dtype")
    ranks = worker.tp * worker.dp if config.experts is not None else 1
    kv = "fp8" if config.shape.kv_bytes_per_element < 2 else "bfloat16"
    new = {chunk: None for isl in points.isl for chunk in chunks(isl, batched)}
    return Request(
        config=_known_architecture(config),
        system=system,
        version=worker.engine_version,
        tp=worker.tp,
        dp=worker.dp,
        moe_tp=1 if worker.expert_parallel else ranks,
        moe_ep=ranks if worker.expert_parallel else 1,
        gemm=gemm,
        moe=moe if config.experts is not None else None,
        kv=kv,
        prefill=tuple(new),
        decode=points.decode,
        mixed=points.mixed,
    )


def _known_architecture(config: ModelConfig) -> Mapping[str, Any]:
    same = _SAME_AS.get(config.architecture)
    if same is None or config.raw.get("sliding_window") is not None:
        return config.raw
    return {**config.raw, "architectures": [same], "model_type": same.removesuffix("ForCausalLM").lower()}
