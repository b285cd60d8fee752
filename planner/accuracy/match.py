"""Which profiles describe the workers of a recorded run."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import get_args

from planner.core.engines import Engines, engines_of
from planner.core.types import Role
from profiler.errors import InputError
from profiler.hardware import find_gpu
from profiler.record import Recording, RunMeta, Worker
from profiler.schema import Role as RoleName
from profiler.tables import Profile

#: A KV capacity that differs by more from the profile's is told.
CAPACITY_DIFFERS = 0.01


@dataclass(frozen=True)
class Matched:
    """A run's graph.

    Attributes:
        profiles: as they are on disk.
        engines: their timing, with the limits that the run's workers had.
        counts: workers by role.
        notes: where the run's workers and the profiles differ.
    """

    profiles: tuple[Profile, ...]
    engines: Engines
    counts: Mapping[Role, int]
    notes: tuple[str, ...]


def match(
    recording: Recording,
    profiles: Sequence[Profile],
    *,
    by_name: bool,
    layout: str | None = None,
    own: Sequence[Sequence[Profile]] = (),
) -> Matched:
    """The graph that served a run.

    Args:
        recording: the run.
        profiles: to choose from.
        by_name: whether model and GPU must be the run's, too; not where somebody named the profiles himself.
        layout: worker counts in place of the run's own: `1a`, `2p1d`.
        own: profiles of the run's own machine, the nearest first; `profiles` have what these do not.

    Raises:
        InputError: a worker without a profile, or with several; or a layout that does not fit the run.
    """
    meta = recording.meta
    pools = [[one for one in pool if not by_name or _same_machine(one, meta)] for pool in (*own, profiles)]
    chosen: list[Profile] = []
    for name in get_args(RoleName):
        workers = meta.of(name)
        if workers:
            found = (_of_role(recording, pool, name, workers[0]) for pool in pools)
            here = next((some for some in found if some), None)
            if here is None:
                raise _none_fits(recording, pools, name, workers[0])
            chosen += here
            if any((one.tp, one.dp) != (workers[0].tp, workers[0].dp) for one in workers):
                raise InputError(f"{name} workers of several layouts", expected="one", source=recording.path)
    beside = {profile.path for pool in own for profile in pool}
    notes = [f"replayed with {one.path.name} of its own machine" for one in chosen if one.path in beside]
    for profile in chosen:
        if not _same_machine(profile, meta):
            of = f"{profile.meta.model.name} on {profile.meta.gpu.name}"
            notes.append(f"{profile.path.name} is of {of}, the run of {meta.model} on {meta.gpu}")
    limited = [_with_limits(profile, _worker_of(meta, profile), notes) for profile in chosen]
    engines, _ = engines_of(limited, aggregated=meta.mode == "aggregated")
    counts = {role: len(meta.of(role.value)) for role in engines.roles}
    return Matched(tuple(chosen), engines, counts if layout is None else _counts(layout, engines), tuple(notes))


def _of_role(recording: Recording, pool: Sequence[Profile], name: RoleName, worker: Worker) -> list[Profile]:
    """The profiles of a pool that describe a worker, none if it has none."""
    meta = recording.meta
    fitting = [one for one in pool if (one.meta.tp, one.meta.dp) == (worker.tp, worker.dp)]
    found = _of_version(meta, [one for one in fitting if one.meta.role == name])
    if not found and name == "aggregated":
        # A prefill and a decode profile of the same layout say as much.
        both = [_of_version(meta, [one for one in fitting if one.meta.role == part]) for part in ("prefill", "decode")]
        if all(len(part) == 1 for part in both):
            return [both[0][0], both[1][0]]
    if len(found) > 1:
        several = ", ".join(str(one.path) for one in found)
        problem = f"several {_what(meta, name, worker)}: {several}"
        raise InputError(problem, expected="one", source=recording.path, field="--profiles")
    return found


def _none_fits(recording: Recording, pools: Sequence[Sequence[Profile]], name: RoleName, worker: Worker) -> InputError:
    have = ", ".join(sorted({f"{one.path}" for pool in pools for one in pool})) or "none of this model and GPU"
    problem = f"no {_what(recording.meta, name, worker)}; there are: {have}"
    return InputError(problem, source=recording.path, field="--profiles")


def _what(meta: RunMeta, name: RoleName, worker: Worker) -> str:
    return f"{name} profile of {meta.model} on {meta.gpu}, TP {worker.tp}, DP {worker.dp}"


def _of_version(meta: RunMeta, profiles: list[Profile]) -> list[Profile]:
    """Those of the run's engine version, if there are any; a version more or less is better than nothing."""
    same = [one for one in profiles if one.meta.engine.version == meta.engine_version]
    return same or profiles


def _same_machine(profile: Profile, meta: RunMeta) -> bool:
    known, theirs = find_gpu(profile.meta.gpu.name), find_gpu(meta.gpu)
    same_gpu = known is theirs if known is not None else profile.meta.gpu.name == meta.gpu
    return same_gpu and profile.meta.model.name == meta.model


def _worker_of(meta: RunMeta, profile: Profile) -> Worker:
    """The run's worker that a profile describes."""
    workers = meta.of(profile.meta.role) or meta.of("aggregated")
    return workers[0]


def _with_limits(profile: Profile, worker: Worker, notes: list[str]) -> Profile:
    """The profile with the limits under which the run's worker ran; what the run does not say stays."""
    own, limits = profile.meta, profile.meta.limits
    known = {
        "max_num_seqs": worker.max_num_seqs,
        "max_num_batched_tokens": worker.max_num_batched_tokens,
        "block_size": worker.block_size,
        "max_model_len": worker.max_model_len,
    }
    limits = limits.model_copy(update={name: value for name, value in known.items() if value is not None})
    capacity = worker.kv_capacity_tokens
    if capacity is None:
        return replace(profile, meta=own.model_copy(update={"limits": limits}))
    if own.kv_capacity_tokens and abs(capacity / own.kv_capacity_tokens - 1) > CAPACITY_DIFFERS:
        notes.append(
            f"KV of {capacity:,} tokens, {own.kv_capacity_tokens:,} in {profile.path.name}; replayed with the former"
        )
    return replace(profile, meta=own.model_copy(update={"limits": limits, "kv_capacity_tokens": capacity}))


def _counts(layout: str, engines: Engines) -> dict[Role, int]:
    letters = {"a": Role.AGGREGATED, "p": Role.PREFILL, "d": Role.DECODE}
    counts = {letters[letter]: int(number) for number, letter in re.findall(r"(\d+)([apd])", layout)}
    whole = re.fullmatch(r"\d+a|\d+p\d+d", layout)
    if not whole or set(counts) != set(engines.roles) or min(counts.values()) < 1:
        right = "1a" if len(engines.roles) == 1 else "1p1d"
        raise InputError(f"is {layout!r}", expected=f"workers of a run of this kind, such as {right}", field="--layout")
    return counts
