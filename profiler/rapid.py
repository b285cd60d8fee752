"""A first profile from a minute of micro-benchmarks: kernels' times, and what an engine adds to them.

The kernels are put together in `profiler.kernels.parts`. What no micro-benchmark sees is the engine around them:
scheduling, input preparation, sampling, streaming. It is assumed (`ASSUMED`), or calibrated on measured profiles
(`calibrated`); `differences` says how far the estimate is from measured points either way.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from profiler.csvfile import Samples
from profiler.errors import InputError
from profiler.hardware import find_gpu
from profiler.kernels.handoff import handoff_estimate_ms
from profiler.kernels.micro import CopyResult, Micro
from profiler.kernels.parts import CHUNK_TOKENS, Parts
from profiler.models.memory import DEFAULT_UTILIZATION
from profiler.roofline import Roofline
from profiler.schema import Engine, GpuInfo, Limits, ModelInfo, ModelShape, ProfileMeta, Role, Source, TableName
from profiler.streaming import engine_itl_ms, streaming_limit
from profiler.tables import Profile, save_profile

_ROLES: Mapping[Role, tuple[TableName, ...]] = {
    "prefill": ("prefill",),
    "decode": ("decode", "transfer"),
    "aggregated": ("prefill", "decode"),
}


@dataclass(frozen=True, slots=True)
class Overheads:
    """What an engine adds to its kernels, in milliseconds.

    Attributes:
        prefill_ms: of each step of a prompt: HTTP and tokenizing, scheduling, launches without a CUDA graph, sampling
            and the first chunk of the stream.
        decode_ms: of each decode step.
        decode_per_request_ms: of each running request in a decode step: scheduling, sampling, detokenizing, streaming.
        source: where the figures come from.
        handoff_ms: of each hand-off beside moving its blocks: two engines' polls, notifications, the second request.
        link_gb_per_s: payload of one rank's link between the two, GB/s.
    """

    prefill_ms: float
    decode_ms: float
    decode_per_request_ms: float
    source: str
    handoff_ms: float = 12.5
    link_gb_per_s: float = 20.0


#: What fits vLLM 0.26 with Llama-3.1-8B on two H100 and three H200 machines (`profiling_results`), rounded; how far off
#: it is on each stands in docs/reference/gpu-results.md. It schedules ahead, so that a decode step is hardly longer
#: than its kernels; prefill beyond CUDA graphs is launched kernel by kernel, by a processor that another machine has
#: not: 8 to 14 ms. `calibrated` fits the machine at hand. The hand-off is what NIXL took between two H200s: blocks went
#: over NVLink one by one, at a twentieth of its rate.
ASSUMED = Overheads(12.0, 0.0, 0.002, "assumed")


@dataclass(frozen=True, slots=True)
class Difference:
    """Relative error of an estimate against measured points: mean and worst of its size, and the mean with its sign."""

    mean: float
    worst: float
    bias: float
    points: int


def estimate_tables(
    micro: Micro, shape: ModelShape, tp: int, overheads: Overheads = ASSUMED, *, capacity_tokens: int | None = None
) -> dict[TableName, Samples]:
    """Tables of prefill and decode, one row for each length, and each batch and context, that was measured.

    With copies of KV blocks among the micro-benchmarks, one of the hand-off to a worker of the same layout, too.

    Args:
        micro: micro-benchmarks of this model at this TP size.
        shape: the whole model.
        tp: ranks.
        overheads: of the engine.
        capacity_tokens: of the KV cache; decode rows beyond it are left out, as no engine could hold them.

    Raises:
        InputError: the micro-benchmarks are of another model or TP size, lack a part, or no decode row fits.
    """
    if micro.shape != shape:
        wrong = [n for n in type(shape).model_fields if getattr(shape, n) != getattr(micro.shape, n)]
        found = ", ".join(f"{n} {getattr(micro.shape, n)} for {getattr(shape, n)}" for n in wrong)
        raise InputError(f"another model was measured: {found}", expected="a run with this model", field="shape")
    if micro.tp != tp:
        raise InputError(f"was measured at TP {micro.tp}", expected=f"a run with --tp {tp}", field="tp")
    parts = Parts(micro)
    lengths = np.array(sorted({p.tokens for p in micro.prefill}), dtype=np.float64)
    steps = np.ceil(lengths / CHUNK_TOKENS)
    ttft = parts.prefill_ms(lengths) + steps * overheads.prefill_ms
    prefill = {"isl": lengths, "ttft_ms": np.maximum.accumulate(ttft), "repeat": np.zeros(len(lengths)),
               "throughput_tokens_per_s_per_gpu": lengths / ttft * 1e3 / tp}  # fmt: skip
    rows: list[tuple[float, ...]] = []
    for point in sorted(micro.decode, key=lambda p: (p.batch, p.context)):
        kv = point.batch * point.context
        if capacity_tokens is not None and kv > capacity_tokens:
            continue
        kernels = float(parts.decode_ms(point.batch, point.context))
        itl = kernels + overheads.decode_ms + overheads.decode_per_request_ms * point.batch
        rows.append((point.batch, kv, point.context, itl, point.batch / itl * 1e3 / tp, 0.0))
    if not rows:
        expected = "a measured batch and context that fit"
        raise InputError(
            f"no decode row within {capacity_tokens} tokens of KV cache", expected=expected, field="decode"
        )
    names = ("batch", "kv_tokens", "context_tokens", "itl_ms", "throughput_tokens_per_s_per_gpu", "repeat")
    columns = np.array(rows, dtype=np.float64).T
    tables: dict[TableName, Samples] = {"prefill": prefill, "decode": dict(zip(names, columns, strict=True))}
    if micro.copies is not None:
        moved = np.array([_moved_ms(micro, micro.copies, overheads, int(n)) for n in lengths])
        tables["transfer"] = {
            "tokens": lengths,
            "transfer_ms": overheads.handoff_ms + moved,
            "repeat": np.zeros(len(lengths)),
            "prefill_tp": np.full(len(lengths), float(tp)),
        }
    return tables


def _moved_ms(micro: Micro, copies: CopyResult, overheads: Overheads, tokens: int) -> float:
    return handoff_estimate_ms(micro.shape, tokens, copies, overheads.link_gb_per_s, tp=micro.tp)


def calibrated(micro: Micro, measured: Sequence[Profile]) -> Overheads:
    """Overheads that bring the estimate to measured tables, none below 0; what has no table stays assumed.

    Prefill: the median of measured less estimated TTFT, per step; of hand-offs likewise. Decode: a constant and a part
    per request, by least squares of the error relative to the measured step.

    Args:
        micro: micro-benchmarks of the measured model and layout.
        measured: profiles with tables of prefill, decode or both; of each table the first one counts.

    Raises:
        InputError: there is no table to calibrate on, or a profile is of another layout.
    """
    from scipy.optimize import nnls  # noqa: PLC0415 - only calibration fits

    parts, found = Parts(micro), ASSUMED
    points = measured_points(micro, measured)
    if "prefill" in points:
        (isl,), ttft = points["prefill"]
        each = (ttft - parts.prefill_ms(isl)) / np.ceil(isl / CHUNK_TOKENS)
        found = replace(found, prefill_ms=max(0.0, float(np.median(each))))
    if "decode" in points:
        (batch, context), itl = points["decode"]
        weighted = np.column_stack([np.ones_like(batch), batch]) / itl[:, None]
        (constant, per_request), _ = nnls(weighted, (itl - parts.decode_ms(batch, context)) / itl)
        found = replace(found, decode_ms=float(constant), decode_per_request_ms=float(per_request))
    if micro.copies is not None and "transfer" in points:
        (tokens,), taken = points["transfer"]
        moved = np.array([_moved_ms(micro, micro.copies, found, int(n)) for n in tokens])
        found = replace(found, handoff_ms=max(0.0, float(np.median(taken - moved))))
    else:
        points.pop("transfer", None)
    return replace(found, source=f"calibrated on measured {' and '.join(points)}")


def differences(micro: Micro, overheads: Overheads, measured: Sequence[Profile]) -> dict[TableName, Difference]:
    """How far the estimate is from measured points.

    Raises:
        InputError: there is no table to compare with, or a profile is of another layout.
    """
    parts = Parts(micro)
    result: dict[TableName, Difference] = {}
    for table, (at, times) in measured_points(micro, measured).items():
        if table == "transfer":
            if micro.copies is None:
                continue
            moved = [_moved_ms(micro, micro.copies, overheads, int(n)) for n in at[0]]
            estimate = overheads.handoff_ms + np.array(moved)
        elif table == "prefill":
            estimate = parts.prefill_ms(at[0]) + np.ceil(at[0] / CHUNK_TOKENS) * overheads.prefill_ms
        else:
            estimate = parts.decode_ms(*at) + overheads.decode_ms + overheads.decode_per_request_ms * at[0]
        error = estimate / times - 1.0
        size = np.abs(error)
        result[table] = Difference(float(size.mean()), float(size.max()), float(error.mean()), len(error))
    return result


Points = tuple[tuple[NDArray[np.float64], ...], NDArray[np.float64]]


def measured_points(micro: Micro, measured: Sequence[Profile]) -> dict[TableName, Points]:
    """Coordinates and times of measured tables: (isl,) and TTFT, (batch, context) and ITL, (tokens,) and hand-off.

    Repeats are points; of hand-offs those between workers of one layout count.

    Raises:
        InputError: no profile has such a table, or one is of another layout.
    """
    found: dict[TableName, Points] = {}
    for profile in measured:
        if profile.meta.tp != micro.tp or profile.meta.dp != 1:
            problem = f"is TP {profile.meta.tp}, DP {profile.meta.dp}"
            raise InputError(problem, expected=f"a profile at TP {micro.tp}, DP 1", source=profile.path)
        rows = profile.samples.get("prefill")
        if rows is not None and "prefill" not in found:
            lone = np.ones(len(rows["isl"]), dtype=np.bool_)
            for name, value in (("batch", 1.0), ("prefix_hit_tokens", 0.0)):
                lone &= rows[name] == value if name in rows else True
            found["prefill"] = ((rows["isl"][lone],), rows["ttft_ms"][lone])
        rows = profile.samples.get("decode")
        if rows is not None and "decode" not in found:
            # Kernels tell what the engine takes, not where its front end falls behind.
            itl = engine_itl_ms(rows, streaming_limit(rows))
            good = np.isfinite(itl)
            if "suspect" in rows:
                good &= rows["suspect"] == 0
            batch = rows["batch"][good]
            found["decode"] = ((batch, rows["kv_tokens"][good] / batch), itl[good])
        rows = profile.samples.get("transfer")
        if rows is not None and "transfer" not in found:
            alike = profile.handed_from(rows) == micro.tp
            if alike.any():
                found["transfer"] = ((rows["tokens"][alike],), rows["transfer_ms"][alike])
    if not found:
        where = measured[0].path if measured else None
        raise InputError("no table to compare with", expected="prefill.csv or decode.csv", source=where)
    return found


def save_estimates(
    micro: Micro,
    to: Path,
    overheads: Overheads = ASSUMED,
    *,
    compared: Mapping[TableName, Difference] | None = None,
    overwrite: bool = False,
) -> list[Profile]:
    """Write the profiles of the three roles to `to`/<role>-tp<T>-dp1, or none of them.

    Args:
        micro: to estimate from.
        to: folder.
        overheads: of the engine.
        compared: how far this estimate was from measured points, for the profiles' warnings.
        overwrite: replace profiles that are there.

    Raises:
        InputError: a part was not measured, or a folder exists and `overwrite` is off.
        DependencyError: the file system refused.
    """
    meta = estimated_meta(micro, overheads, compared or {})
    tables = estimate_tables(micro, micro.shape, micro.tp, overheads, capacity_tokens=meta.kv_capacity_tokens)
    folders = {role: to / f"{role}-tp{micro.tp}-dp1" for role in _ROLES}
    for folder in folders.values():
        if folder.exists() and not overwrite:
            raise InputError("exists", expected="a new folder, or --overwrite", source=folder)
    return [
        save_profile(folders[role], meta.model_copy(update={"role": role}),
                     {name: tables[name] for name in names if name in tables}, overwrite=overwrite)
        for role, names in _ROLES.items()
    ]  # fmt: skip


def estimated_meta(micro: Micro, overheads: Overheads, compared: Mapping[TableName, Difference]) -> ProfileMeta:
    """What an estimated profile says about itself, role `aggregated`."""
    gpu = find_gpu(micro.gpu)
    info = ModelInfo(name=micro.model, dtype=micro.dtype, shape=micro.shape)
    capacity = None
    if gpu is not None:
        roofline = Roofline(micro.shape, gpu, gpu.peak_for(micro.dtype), micro.tp)
        capacity = int(roofline.kv_capacity_that_fits(DEFAULT_UTILIZATION)) or None
    warnings = [
        f"estimated from micro-benchmarks, not measured on an engine; overheads {overheads.source}: "
        f"{overheads.prefill_ms:.3g} ms a prefill step, {overheads.decode_ms:.3g} ms a decode step and "
        f"{overheads.decode_per_request_ms:.3g} ms a running request"
    ]
    if compared:
        warnings += [
            f"estimate of {table} against {one.points} measured points: mean error {one.mean:.1%}, worst "
            f"{one.worst:.1%}, bias {one.bias:+.1%}"
            for table, one in compared.items()
        ]
    else:
        warnings.append("the error of this estimate against an engine is not known")
    if micro.copies is not None:
        warnings.append(
            f"the hand-off is put together from copies of KV blocks, {overheads.link_gb_per_s:g} GB/s between workers"
            f" and {overheads.handoff_ms:g} ms, which were assumed"
        )
    warnings += ["start-up was not measured", "mixed iterations were not measured"]
    if micro.skipped:
        warnings.append(f"micro-benchmarks left out {len(micro.skipped)} points, such as {micro.skipped[0]}")
    return ProfileMeta(
        schema_version=1,
        model=info,
        gpu=GpuInfo(name=micro.gpu, count_per_worker=micro.tp),
        driver=micro.driver,
        engine=Engine(name="micro-benchmarks", version=f"torch-{micro.torch}"),
        role="aggregated",
        tp=micro.tp,
        dp=1,
        kv_capacity_tokens=capacity,
        kv_capacity_check=None if capacity is None else "memory arithmetic alone: no engine was asked",
        limits=Limits(max_num_batched_tokens=CHUNK_TOKENS),
        date=micro.date,
        source=Source(text="torch micro-benchmarks (profiler rapid)", licence="Apache-2.0", form="estimated"),
        warnings=tuple(warnings),
    )
