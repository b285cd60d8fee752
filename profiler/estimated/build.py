"""Profiles of a planned worker from the times of its operators, and what is said about them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from profiler.csvfile import Samples
from profiler.errors import InputError
from profiler.estimated.grid import chunks
from profiler.estimated.plan import Plan
from profiler.estimated.query import Answer
from profiler.models.memory import BLOCK_TOKENS
from profiler.schema import Engine, GpuInfo, Limits, ModelInfo, ProfileMeta, Role, Source, TableName

LICENCE = "Apache-2.0"

#: Its makers' figures.
PUBLISHED_ERROR = "mean error 42.6 % of TTFT and 4.9 % of ITL (70B FP8, vLLM, H100 and H200, 95 points)"

_TABLES: Mapping[Role, tuple[TableName, ...]] = {
    "prefill": ("prefill",),
    "decode": ("decode",),
    "aggregated": ("prefill", "decode", "mixed"),
}


def profiles(made: Plan, answer: Answer) -> dict[str, tuple[ProfileMeta, Mapping[TableName, Samples]]]:
    """The profiles of all roles, by the name of their folder."""
    tables = _samples(made, answer)
    return {
        folder: (_meta(made, answer, role), {name: tables[name] for name in _TABLES[role]})
        for role, folder in made.folders.items()
    }


def _samples(made: Plan, answer: Answer) -> dict[TableName, Samples]:
    """Tables of the whole worker: its data-parallel ranks step together, each with one rank's work.

    A lone prompt is computed by one rank; the others run along in the package's tables.
    """
    dp, gpus = made.worker.dp, made.layout.gpus
    by_chunk = dict(zip(made.request.prefill, answer.prefill, strict=True))
    isl = np.array(made.grid.isl, dtype=np.float64)
    ttft = np.array([sum(by_chunk[c] for c in chunks(n, made.max_num_batched_tokens)) for n in made.grid.isl])
    batch, context = np.array(made.grid.decode, dtype=np.float64).T
    itl = np.array(answer.decode)
    tables: dict[TableName, Samples] = {
        "prefill": {"isl": isl, "ttft_ms": ttft, "throughput_tokens_per_s_per_gpu": 1e3 * isl / ttft / made.worker.tp},
        "decode": {
            "batch": batch * dp,
            "kv_tokens": batch * context * dp,
            "context_tokens": context,
            "itl_ms": itl,
            "throughput_tokens_per_s_per_gpu": 1e3 * batch * dp / itl / gpus,
        },
    }
    tokens, steps, held = np.array(made.grid.mixed, dtype=np.float64).reshape(-1, 3).T
    tables["mixed"] = {
        "prefill_tokens": tokens * dp,
        "batch": steps * dp,
        "kv_tokens": steps * held * dp,
        "iteration_ms": np.array(answer.mixed),
    }
    return tables


def _meta(made: Plan, answer: Answer, role: Role) -> ProfileMeta:
    worker, config, dp = made.worker, made.worker.config, made.worker.dp
    return ProfileMeta(
        schema_version=1,
        model=ModelInfo(name=worker.name, dtype=config.dtype, shape=config.shape),
        gpu=GpuInfo(name=made.gpu.name, count_per_worker=made.layout.gpus),
        engine=Engine(name="vllm", version=answer.version, arguments=_arguments(made)),
        role=role,
        tp=worker.tp,
        dp=dp,
        expert_parallel=made.worker.expert_parallel,
        kv_capacity_tokens=made.kv_tokens_per_rank * dp,
        kv_capacity_check=(
            f"memory arithmetic, not read from an engine: what {worker.utilization:g} of {made.gpu.memory_gib:g} GiB "
            "leaves beside weights and activations"
        ),
        limits=Limits(
            max_num_seqs=made.max_num_seqs * dp,
            max_num_batched_tokens=made.max_num_batched_tokens * dp,
            block_size=BLOCK_TOKENS,
            max_model_len=made.max_model_len,
        ),
        source=Source(text=_source(made, answer), licence=LICENCE, form="estimated"),
        warnings=warnings(answer),
    )


def _arguments(made: Plan) -> tuple[str, ...]:
    """What a worker has to be started with for the estimate to be of it."""
    return (
        "vllm",
        "serve",
        made.worker.name,
        *made.layout.arguments,
        *("--max-num-seqs", str(made.max_num_seqs)),
        *("--max-num-batched-tokens", str(made.max_num_batched_tokens)),
        *("--max-model-len", str(made.max_model_len)),
        *("--gpu-memory-utilization", f"{made.worker.utilization:g}"),
        *(("--kv-cache-dtype", "fp8") if made.request.kv == "fp8" else ()),
    )


def _source(made: Plan, answer: Answer) -> str:
    shares = "; ".join(f"{kind} {_share(answer.sources[kind])}" for kind in ("prefill", "decode"))
    borrowed = "" if answer.version == answer.current else f" (those it lacks are of {answer.current})"
    return (
        f"estimated without a GPU by aiconfigurator-core {answer.package} (NVIDIA, {LICENCE}): times of the operators "
        f"of vLLM {answer.version}{borrowed} on {made.request.system}, added up. Share of the time by operators "
        f"timed on that GPU, at 1,024 tokens: {shares}; the rest by its formulas. Prompts beyond "
        f"{made.max_num_batched_tokens:,} tokens are computed in pieces of that many"
    )


def _share(by_source: Mapping[str, float]) -> str:
    total = sum(by_source.values())
    partly = by_source.get("mixed", 0.0)
    text = f"{by_source.get('silicon', 0.0) / total:.0%}"
    return text if not partly else f"{text} and {partly / total:.0%} in part"


def warnings(answer: Answer) -> tuple[str, ...]:
    """What whoever uses the tables must know; shown wherever the profile is."""
    return (
        f"an estimate, not a measurement, by aiconfigurator-core {answer.package}: published {PUBLISHED_ERROR}",
        "the estimate counts the GPU's operators only, no scheduling, launching or HTTP: short prompts and large "
        "batches come out too fast; leave-one-out errors are of reading between estimates, not of the estimates",
        "KV capacity is memory arithmetic; start-up was not measured",
    )


def refuse_existing(folders: Sequence[Path]) -> None:
    """Before any work: no folder of these may be there.

    Raises:
        InputError: one is.
    """
    for folder in folders:
        if folder.exists():
            raise InputError("exists", expected="a new folder, or --overwrite", source=folder)
