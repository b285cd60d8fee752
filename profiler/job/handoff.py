"""Hand-offs measured by themselves: where they belong, and how they get into a decode profile that is there."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from profiler.csvfile import COLUMNS, Samples
from profiler.errors import InputError
from profiler.job.settings import slug
from profiler.models.layouts import Layout
from profiler.schema import Cost, ModelInfo, TableName
from profiler.tables import META_FILE, Profile, load_profile, save_profile


def told_from(tables: Mapping[TableName, Samples], prefill_tp: int) -> dict[TableName, Samples]:
    """Tables whose hand-offs say the TP of the prefill worker that they came from."""
    found = dict(tables)
    if "transfer" in found:
        rows = found["transfer"]
        found["transfer"] = {**rows, "prefill_tp": np.full(len(rows["tokens"]), float(prefill_tp))}
    return found


def decode_profiles(to: Path, model: ModelInfo, gpu: str, layout: Layout) -> list[Profile]:
    """Decode profiles of a layout that are there, of any version of the engine.

    Raises:
        InputError: one cannot be read.
    """
    leaf = f"decode-tp{layout.tp}-dp{layout.dp}" + ("-ep" if layout.expert_parallel else "")
    folders = sorted(file.parent for file in (to / slug(model.name) / slug(gpu)).glob(f"vllm-*/{leaf}/{META_FILE}"))
    found = [load_profile(folder) for folder in folders]
    return [profile for profile in found if profile.meta.model.dtype == model.dtype]


def profile_of(to: Path, model: ModelInfo, gpu: str, layout: Layout, version: str | None = None) -> Profile:
    """The decode profile that a hand-off belongs to.

    Args:
        to: folder of the profiles.
        model: whose KV is handed over.
        gpu: short name.
        layout: of the decode worker.
        version: of the engine; None where it is not known yet, and any will do.

    Raises:
        InputError: there is none.
    """
    there = decode_profiles(to, model, gpu, layout)
    fits = [profile for profile in there if version is None or profile.meta.engine.version == version]
    if not fits:
        where = f"{model.name} ({model.dtype}) on {gpu}"
        have = " and ".join(profile.meta.engine.version or "an unknown version" for profile in there)
        problem = f"holds no decode profile of {layout.name} for {where}"
        problem += f" and vLLM {version}, but one of {have}" if there else ""
        right = f"one to add the hand-off to: measure `--layout {layout.name}` first"
        raise InputError(problem, expected=right, source=to, field="--to")
    return fits[0]


def add(profile: Profile, rows: Samples, *, prefill_tp: int, cost: Cost, warnings: Sequence[str]) -> Profile:
    """Write a profile with hand-offs from a prefill worker of one TP; earlier ones from that TP are replaced.

    Nothing is written where the same ones are there: a run that was killed after it had written them adds them, and
    what they cost, once.

    Args:
        profile: of the decode worker.
        rows: of table `transfer`.
        prefill_tp: of the prefill worker.
        cost: of measuring them, added to the profile's.
        warnings: about them, each beginning with `label_of` the TP: those about replaced ones go with these.

    Raises:
        DependencyError: the file system refused.
    """
    new = told_from({"transfer": rows}, prefill_tp)["transfer"]
    old = profile.samples.get("transfer")
    if old is not None:
        from_tp = profile.handed_from(old)
        old = {**old, "prefill_tp": from_tp}
        if _same(_only(old, from_tp == prefill_tp), new):
            return profile
        new = _joined(_only(old, from_tp != prefill_tp), new)
    about = re.compile(rf"{label_of(prefill_tp)}\b")
    meta = profile.meta
    before = meta.cost or Cost(startup_gpu_minutes=0.0, measuring_gpu_minutes=0.0)
    kept = [warning for warning in meta.warnings if about.match(warning) is None]
    changed = meta.model_copy(
        update={
            "cost": Cost(
                startup_gpu_minutes=round(before.startup_gpu_minutes + cost.startup_gpu_minutes, 3),
                measuring_gpu_minutes=round(before.measuring_gpu_minutes + cost.measuring_gpu_minutes, 3),
            ),
            "warnings": (*kept, *warnings),
        }
    )
    return save_profile(profile.path, changed, {**profile.samples, "transfer": new}, overwrite=True)


def label_of(prefill_tp: int) -> str:
    """How warnings about hand-offs from a TP begin."""
    return f"hand-off from TP{prefill_tp}"


def _only(rows: Samples, kept: NDArray[np.bool_]) -> Samples:
    return {name: column[kept] for name, column in rows.items()}


def _joined(first: Samples, second: Samples) -> Samples:
    """Rows of both, by TP, tokens and repeat."""
    joined: dict[str, NDArray[np.float64]] = {}
    for column in COLUMNS["transfer"]:
        parts = [rows.get(column.name, np.full(len(rows["tokens"]), column.default)) for rows in (first, second)]
        joined[column.name] = np.concatenate(parts)
    order = np.lexsort((joined["repeat"], joined["tokens"], joined["prefill_tp"]))
    return {name: column[order] for name, column in joined.items()}


def _same(first: Samples, second: Samples) -> bool:
    names = [column.name for column in COLUMNS["transfer"] if column.name in first and column.name in second]
    return len(first["tokens"]) == len(second["tokens"]) and all(
        np.array_equal(first[name], second[name], equal_nan=True) for name in names
    )
