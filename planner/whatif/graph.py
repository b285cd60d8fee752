"""A graph from profiles: which roles there are, how fast each is, what one worker holds."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from planner.core.engines import Engines, engines_of
from planner.core.types import Pool, Role
from planner.whatif.transition import LayoutChange
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


_CHANGE = re.compile(r"(prefill|decode|aggregated)=tp([1-9][0-9]*)(?:-dp([1-9][0-9]*))?@([0-9]+(?:\.[0-9]+)?)")


def split_change(
    text: str, profiles: Sequence[Profile], max_gpus: int, *, aggregated: bool
) -> tuple[list[Profile], LayoutChange]:
    """The profiles that describe the graph before a change, and the change: `decode=tp2@600`.

    Args:
        text: role, layout and second.
        profiles: all of them: of the role that changes in both layouts, of the others in one.
        max_gpus: budget.
        aggregated: whether the graph's workers do both.

    Raises:
        InputError: it cannot be read, or the role has no profile of that layout, or not one of another.
    """
    field = "--change-layout"
    match = _CHANGE.fullmatch(text)
    if match is None:
        raise InputError(f"is {text!r}", expected="ROLE=LAYOUT@SECOND, such as decode=tp2@600", field=field)
    role, new = Role(match[1]), (int(match[2]), int(match[3] or 1))
    mine = {(p.meta.tp, p.meta.dp): p for p in profiles if p.meta.role == role.value}
    if new not in mine or len(mine) != 2:
        have = ", ".join(f"tp{tp}-dp{dp}" for tp, dp in sorted(mine)) or "none"
        right = f"two {role.value} profiles, one of them tp{new[0]}-dp{new[1]}"
        raise InputError(f"{role.value} has profiles of {have}", expected=right, field=field)
    (old,) = mine.keys() - {new}
    before, after = ([p for p in profiles if p is not mine[other]] for other in (new, old))
    changed = build_graph(after, aggregated=aggregated, max_gpus=max_gpus)
    if role not in changed.pools:
        raise InputError(f"the graph has no {role.value} workers", expected=" | ".join(changed.pools), field=field)
    return before, LayoutChange(role, float(match[4]), old, new, changed.engines, changed.pools[role])
