"""A graph from profiles: which roles there are, how fast each is, what one worker holds."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from planner.core.types import Pool, Role
from planner.whatif.simulator.simulation import Engines
from profiler.errors import InputError
from profiler.tables import Profile, find_profiles, load_profile
from profiler.timing import engine_timing, transfer_timing


@dataclass(frozen=True)
class Graph:
    """Engines and profiles by role, and one pool for each."""

    engines: Engines
    profiles: Mapping[Role, Profile]
    pools: Mapping[Role, Pool]


def load_profiles(folders: Sequence[Path]) -> list[Profile]:
    """The profiles in or below these folders, each once.

    Raises:
        InputError: a folder without profiles, or a profile that is wrong.
    """
    paths: dict[Path, Path] = {}
    for folder in folders:
        try:
            found = find_profiles(folder) if folder.is_dir() else []
        except OSError as error:
            problem = f"cannot be read: {error.strerror or error}"
            raise InputError(problem, source=folder, field="--profile") from None
        if not found:
            right = "a profile's folder, with profile.json in it or below it"
            raise InputError("holds no profile", expected=right, source=folder, field="--profile")
        for path in found:
            # One folder may be given by several names; it stays under the first.
            paths.setdefault(path.resolve(), path)
    return [load_profile(path) for path in paths.values()]


def build_graph(profiles: Sequence[Profile], *, aggregated: bool, max_gpus: int) -> Graph:
    """The graph that these profiles describe.

    An aggregated worker may be described by an aggregated profile, or by a prefill and a decode profile of one GPU
    count.

    Raises:
        InputError: a role without a profile, or with several.
    """
    by_role: dict[str, list[Profile]] = {}
    for profile in profiles:
        by_role.setdefault(profile.meta.role, []).append(profile)

    def only(role: str) -> Profile | None:
        have = by_role.get(role, [])
        if len(have) > 1:
            layouts = ", ".join(str(profile.path) for profile in have)
            raise InputError(f"{len(have)} {role} layouts: {layouts}", expected="one per role", field="--profile")
        return have[0] if have else None

    prefill, decode, mixed = only("prefill"), only("decode"), only("aggregated")
    if aggregated:
        fill, step = (mixed, mixed) if mixed is not None else (prefill, decode)
        if fill is None or step is None:
            right = "an aggregated profile, or a prefill and a decode profile"
            raise InputError("the aggregated graph is not described", expected=right, field="--profile")
        if fill.meta.gpu.count_per_worker != step.meta.gpu.count_per_worker:
            raise InputError("prefill and decode profiles are of different GPU counts", field="--profile")
        timing = engine_timing(fill, step, limits_of=step)
        engines = Engines((Role.AGGREGATED,), (timing,), transfer_timing([]))
        return Graph(engines, {Role.AGGREGATED: step}, _pools(engines, max_gpus))
    if prefill is None or decode is None:
        missing = "prefill" if prefill is None else "decode"
        right = "a prefill and a decode profile, or --start with aggregated workers (1a)"
        raise InputError(f"no {missing} profile among those given", expected=right, field="--profile")
    engines = Engines(
        (Role.PREFILL, Role.DECODE),
        (engine_timing(prefill, decode, limits_of=prefill), engine_timing(prefill, decode, limits_of=decode)),
        transfer_timing([prefill, decode]),
    )
    return Graph(engines, {Role.PREFILL: prefill, Role.DECODE: decode}, _pools(engines, max_gpus))


def _pools(engines: Engines, max_gpus: int) -> dict[Role, Pool]:
    pools = {}
    for role, timing in zip(engines.roles, engines.timing, strict=True):
        if timing.gpus > max_gpus:
            right = f"at least {timing.gpus}, the GPUs of one {role} worker"
            raise InputError(f"is {max_gpus}", expected=right, field="--max-gpus")
        pools[role] = Pool(role.value, role, timing.gpus, 1, max(1, max_gpus // timing.gpus))
    return pools
