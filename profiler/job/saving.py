"""From samples to profiles: a folder for each role, all from the same samples, with where they come from."""

from __future__ import annotations

import datetime as dt
import re
import subprocess
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path

from profiler.job.handoff import told_from
from profiler.job.settings import slug
from profiler.measure import Facts, Sample, rows_of
from profiler.models.layouts import Layout
from profiler.schema import Cost, Engine, GpuInfo, Limits, ModelInfo, ProfileMeta, Role, Source, TableName
from profiler.tables import Profile, save_profile

#: The version of vLLM, major and minor, that schedules asynchronously unless told otherwise.
ASYNC_SINCE = (0, 14)
AHEAD_BY_VERSION = "asynchronous scheduling is taken from the version of vLLM; the engine was not started here"

#: Tables by the role whose profile holds them.
TABLES_OF: Mapping[Role, tuple[TableName, ...]] = {
    "prefill": ("prefill",),
    "decode": ("decode", "transfer"),
    "aggregated": ("prefill", "decode", "mixed"),
}
#: Without these a role has no profile.
NEEDED: Mapping[Role, tuple[TableName, ...]] = {
    "prefill": ("prefill",),
    "decode": ("decode",),
    "aggregated": ("prefill", "decode"),
}


@dataclass(frozen=True, kw_only=True)
class Measured:
    """Everything about one measured worker that goes into its profiles.

    Attributes:
        model: with its shape, where known.
        gpu: short name.
        driver: of the GPU.
        layout: of the worker.
        facts: what the engine says.
        argv: how it was started; None where it ran already.
        startups_s: how long its starts took.
        measuring_gpu_s: GPU-seconds of measuring; those of the hand-off are of both engines.
        capacity_check: how its KV capacity was cross-checked.
        warnings: what whoever uses the tables should know.
        prefill_tp: of the worker that samples of a hand-off came from; None where there are none.
    """

    model: ModelInfo
    gpu: str
    driver: str | None
    layout: Layout
    facts: Facts
    argv: tuple[str, ...] | None
    startups_s: tuple[float, ...]
    measuring_gpu_s: float
    capacity_check: str | None
    warnings: tuple[str, ...]
    prefill_tp: int | None = None


def folder_of(to: Path, model: str, gpu: str, version: str | None, role: Role, layout: Layout) -> Path:
    """Where a profile lies.

    Layouts with expert parallelism end in `-ep`: the folder of one must not hide that of the other.
    """
    engine = f"vllm-{slug(version) if version else 'unknown'}"
    leaf = f"{role}-tp{layout.tp}-dp{layout.dp}" + ("-ep" if layout.expert_parallel else "")
    return to / slug(model) / slug(gpu) / engine / leaf


def save(
    measured: Measured, samples: Sequence[Sample], roles: Sequence[Role], to: Path, *, overwrite: bool
) -> tuple[list[Profile], list[str]]:
    """Write the profile of every role that the samples suffice for.

    Returns:
        The profiles, and for each role without one why.

    Raises:
        InputError: a profile is there and `overwrite` is off.
        DependencyError: the file system refused.
    """
    rows = rows_of(samples) if measured.prefill_tp is None else told_from(rows_of(samples), measured.prefill_tp)
    profiles, missing = [], []
    for role in roles:
        lacking = [table for table in NEEDED[role] if table not in rows]
        if "prefill" in NEEDED[role] and "prefill" in rows:
            lone = (rows["prefill"]["batch"] == 1) & (rows["prefill"]["prefix_hit_tokens"] == 0)
            lacking += [] if lone.any() else ["prefill"]
        if lacking:
            missing.append(f"no {role} profile: there are no samples of {' and '.join(lacking)}")
            continue
        tables = {table: rows[table] for table in TABLES_OF[role] if table in rows}
        meta = _meta(measured, role)
        folder = folder_of(to, measured.model.name, measured.gpu, measured.facts.version, role, measured.layout)
        profiles.append(save_profile(folder, meta, tables, overwrite=overwrite))
    return profiles, missing


def _meta(measured: Measured, role: Role) -> ProfileMeta:
    facts, gpus = measured.facts, measured.layout.gpus
    started = measured.startups_s
    ahead = async_scheduling(facts.version, measured.argv)
    guessed = (AHEAD_BY_VERSION,) if ahead and measured.argv is None else ()
    return ProfileMeta(
        schema_version=1,
        model=measured.model,
        gpu=GpuInfo(name=measured.gpu, count_per_worker=gpus),
        driver=measured.driver,
        engine=Engine(name="vllm", version=facts.version, arguments=measured.argv),
        role=role,
        tp=measured.layout.tp,
        dp=measured.layout.dp,
        expert_parallel=measured.layout.expert_parallel,
        kv_capacity_tokens=facts.kv_capacity_tokens,
        kv_capacity_check=measured.capacity_check,
        limits=Limits(
            max_num_seqs=facts.max_num_seqs,
            max_num_batched_tokens=facts.max_num_batched_tokens,
            block_size=facts.block_size,
            max_model_len=facts.max_model_len,
            max_cudagraph_tokens=facts.max_cudagraph_tokens,
            async_scheduling=ahead,
        ),
        startup_s=tuple(round(seconds, 3) for seconds in started) or None,
        date=dt.datetime.now(dt.UTC).date(),
        commit=code_version(),
        source=Source(text=_source(measured), licence="Apache-2.0", form="measured"),
        cost=Cost(
            startup_gpu_minutes=round(sum(started) * gpus / 60.0, 3),
            measuring_gpu_minutes=round(measured.measuring_gpu_s / 60.0, 3),
        ),
        warnings=(*measured.warnings, *guessed),
    )


def async_scheduling(version: str | None, argv: Sequence[str] | None) -> bool | None:
    """Whether an engine decides an iteration while the one before it runs; None where that cannot be told.

    vLLM does from 0.14 on, with hand-offs by NIXL, too, but for what turns it off: an option, executors that cannot,
    and some ways of speculative decoding (`VllmConfig.__post_init__`).

    Args:
        version: of vLLM; None is unknown.
        argv: how it was started; None for an engine that ran already.
    """
    arguments = [part for argument in argv or () for part in argument.split("=", 1)]
    if "--no-async-scheduling" in arguments:
        return False
    if "--async-scheduling" in arguments:
        return True
    number = re.match(r"(\d+)\.(\d+)", version or "")
    # The simulated engine takes its rules from a timing file, whatever version its API is of.
    if number is None or version is None or version.endswith("+simulated"):
        return None
    if (int(number[1]), int(number[2])) < ASYNC_SINCE or "ray" in arguments:
        return False
    return None if "--speculative-config" in arguments else True


def _source(measured: Measured) -> str:
    how = "an engine started by the profiler" if measured.argv is not None else f"an engine at {measured.facts.url}"
    return f"measured by profiler run on {how}; raw samples with their repeats in the tables beside this file"


def code_version() -> str | None:
    """Commit of the checkout that this program runs from, `+changes` where files differ from it; else its version."""
    here = Path(__file__).resolve().parent
    try:
        command = ["git", "-C", str(here), "describe", "--always", "--abbrev=40", "--exclude=*", "--dirty=+changes"]
        done = subprocess.run(command, capture_output=True, text=True, timeout=30.0, check=False)  # noqa: S603
    except (OSError, subprocess.TimeoutExpired):
        done = None  # no git: the version of the package is next
    if done is not None and done.returncode == 0 and (here.parent.parent / ".git").exists():
        return done.stdout.strip()
    try:
        return f"plimsoll {metadata.version('plimsoll')}"
    except metadata.PackageNotFoundError:
        return None
