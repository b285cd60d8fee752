"""A worker's timing from profiles. Slow to import: it needs scipy; a worker that starts from a timing file does not."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from profiler.errors import InputError
from profiler.folders import load_profiles, only_of
from profiler.roofline import kv_bytes_per_token
from profiler.timing import DEFAULT_MAX_MODEL_LEN, engine_timing, transfer_timing
from worker_graph.simulated.timing import WorkerTiming


def worker_timing(role: str, folders: Sequence[Path]) -> WorkerTiming:
    """The timing of a worker of this role from the profiles in or below these folders.

    An aggregated worker is described by an aggregated profile, or by a prefill and a decode profile of one GPU count; a
    prefill or a decode worker by both of these, as each needs the other's speed when it serves a whole request.

    Raises:
        InputError: a folder without profiles, a role without one or with several.
    """
    profiles = load_profiles(folders, field="--profile")
    prefill, decode, mixed = (
        only_of(profiles, name, field="--profile") for name in ("prefill", "decode", "aggregated")
    )
    if role == "aggregated" and mixed is not None:
        prefill = decode = mixed
    if prefill is None or decode is None:
        right = "a prefill and a decode profile" + (", or an aggregated one" if role == "aggregated" else "")
        missing = "prefill" if prefill is None else "decode"
        raise InputError(f"no {missing} profile among those given", expected=right, field="--profile")
    if role == "aggregated" and prefill.meta.gpu.count_per_worker != decode.meta.gpu.count_per_worker:
        raise InputError("prefill and decode profiles are of different GPU counts", field="--profile")
    if role == "aggregated" and prefill.meta.spreads_experts != decode.meta.spreads_experts:
        raise InputError("prefill and decode profiles differ in expert parallelism", field="--profile")
    own = prefill if role == "prefill" else decode
    meta = own.meta
    shape = meta.model.shape
    return WorkerTiming.of(
        engine_timing(prefill, decode, limits_of=own),
        transfer_timing([prefill, decode]),
        role=role,
        max_model_len=meta.limits.max_model_len or DEFAULT_MAX_MODEL_LEN,
        kv_bytes_per_token=kv_bytes_per_token(shape) if shape is not None else 0.0,
        source=f"{meta.model.name} on {meta.gpu.name}, {own.path.name}",
    )
