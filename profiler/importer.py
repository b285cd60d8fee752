"""From Dynamo's folder to profiles: what the files do not say has to be said by whoever imports them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from profiler.csvfile import Samples
from profiler.dynamo import RawTable, decode_samples, find_raw, prefill_samples
from profiler.errors import InputError
from profiler.models.config import shape_from_config
from profiler.roofline import Roofline
from profiler.schema import (
    Engine,
    GpuInfo,
    Limits,
    ModelInfo,
    ProfileMeta,
    Role,
    Source,
    TableName,
)
from profiler.tables import Profile, save_profile

__all__ = ["Described", "Imported", "read_dynamo", "save_all", "shape_from_config"]


@dataclass(frozen=True)
class Described:
    """What a person says about tables that say nothing themselves."""

    model: ModelInfo
    gpu: str
    engine: Engine
    tp: int
    dp: int
    source: str
    licence: str
    limits: Limits = field(default_factory=Limits)
    driver: str | None = None


@dataclass(frozen=True)
class Imported:
    """One profile that is ready to be written."""

    meta: ProfileMeta
    samples: Mapping[TableName, Samples]

    @property
    def folder(self) -> str:
        """Name of its folder."""
        return f"{self.meta.role}-tp{self.meta.tp}-dp{self.meta.dp}"


def read_dynamo(source: Path, described: Described) -> list[Imported]:
    """Read and check both halves of Dynamo's profile, or the one that is there. Writes nothing.

    Raises:
        InputError: there is neither half, or one is refused.
    """
    if not source.is_dir():
        raise InputError("is not a folder", expected="Dynamo's profiling results", source=source)
    result = []
    prefill = find_raw(source, "prefill")
    if prefill is not None:
        meta = _meta(described, "prefill", prefill)
        result.append(Imported(meta, {"prefill": prefill_samples(prefill)}))
    decode = find_raw(source, "decode")
    if decode is not None:
        meta = _meta(described, "decode", decode)
        samples, capacity, check, warnings = decode_samples(decode, meta.tp * meta.dp, Roofline.of(meta))
        if samples["suspect"].all():
            raise InputError("every row is saturated: none ran its batch together", source=decode.path)
        known = {
            "kv_capacity_tokens": capacity,
            "kv_capacity_check": check,
            "warnings": (*meta.warnings, *warnings),
        }
        result.append(Imported(meta.model_copy(update=known), {"decode": samples}))
    if not result:
        expected = "selected_{prefill,decode}_interpolation/raw_data.npz or {prefill,decode}_raw_data.json"
        raise InputError("holds no table of Dynamo", expected=expected, source=source)
    return result


def save_all(imported: list[Imported], to: Path, *, overwrite: bool) -> list[Profile]:
    """Write profiles below `to`, or none of them when one is already there.

    Raises:
        InputError: a folder exists and `overwrite` is off.
        DependencyError: the file system refused.
    """
    for one in imported:
        if (to / one.folder).exists() and not overwrite:
            raise InputError("exists", expected="a new folder, or --overwrite", source=to / one.folder)
    return [save_profile(to / one.folder, one.meta, one.samples, overwrite=overwrite) for one in imported]


def _meta(described: Described, role: Role, raw: RawTable) -> ProfileMeta:
    known = ["one sample per point: the spread of repeats is unknown"]
    if described.engine.version is None:
        known.append("engine version unknown")
    if described.limits.max_num_batched_tokens is None:
        known.append("max_num_batched_tokens unknown: prefill of several prompts together is not known")
    if described.limits.max_num_seqs is None:
        known.append("max_num_seqs unknown: the engine's own limit on running requests is not known")
    return ProfileMeta(
        schema_version=1,
        model=described.model,
        gpu=GpuInfo(name=described.gpu, count_per_worker=described.tp * described.dp),
        driver=described.driver,
        engine=described.engine,
        role=role,
        tp=described.tp,
        dp=described.dp,
        limits=described.limits,
        source=Source(text=described.source, licence=described.licence, form=raw.form, arrays=raw.forms),
        warnings=(*known, "start-up was not measured"),
    )
