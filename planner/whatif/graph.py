"""A graph from profiles: which roles there are, how fast each is, what one worker holds."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from planner.core.engines import Engines, engines_of
from planner.core.types import Pool, Role
from profiler.errors import InputError
from profiler.folders import load_profiles as folder_profiles
from profiler.tables import Profile


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
    return folder_profiles(folders, field="--profile")


def build_graph(profiles: Sequence[Profile], *, aggregated: bool, max_gpus: int) -> Graph:
    """The graph that these profiles describe, as `engines_of` reads them.

    Raises:
        InputError: a role without a profile, or with several; or one worker is more than the budget.
    """
    engines, by_role = engines_of(profiles, aggregated=aggregated)
    return Graph(engines, by_role, _pools(engines, max_gpus))


def _pools(engines: Engines, max_gpus: int) -> dict[Role, Pool]:
    pools = {}
    for role, timing in zip(engines.roles, engines.timing, strict=True):
        if timing.gpus > max_gpus:
            right = f"at least {timing.gpus}, the GPUs of one {role} worker"
            raise InputError(f"is {max_gpus}", expected=right, field="--max-gpus")
        pools[role] = Pool(role.value, role, timing.gpus, 1, max(1, max_gpus // timing.gpus))
    return pools
