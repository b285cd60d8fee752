"""Which profile of one folder stands beside which of another."""

from __future__ import annotations

from collections.abc import Sequence

from profiler.errors import InputError
from profiler.schema import ProfileMeta
from profiler.tables import Profile

#: What makes two profiles a pair: role, TP, DP, and whether experts are spread over the ranks.
Layout = tuple[str, int, int, bool]


def pair(a: Sequence[Profile], b: Sequence[Profile]) -> tuple[list[tuple[Profile, Profile]], list[str]]:
    """Profiles of two folders paired by role, TP and DP; and what has no partner, in words.

    One profile on each side is a pair whatever its layout: whoever names two profiles means these two.

    Raises:
        InputError: a side has two profiles of one layout, or there is no pair, or the two profiles have other roles.
    """
    if len(a) == len(b) == 1:
        if a[0].meta.role != b[0].meta.role:
            problem = f"is of role {b[0].meta.role}"
            raise InputError(problem, expected=f"role {a[0].meta.role}, as {a[0].path}", source=b[0].path)
        return [(a[0], b[0])], []
    first, second = _by_layout(a), _by_layout(b)
    alone = [f"{profile.path}: no partner" for key, profile in first.items() if key not in second]
    alone += [f"{profile.path}: no partner" for key, profile in second.items() if key not in first]
    pairs = [(first[key], second[key]) for key in sorted(first) if key in second]
    if not pairs:
        have = ", ".join(layout_words(key) for key in sorted(first))
        raise InputError("has no profile of a layout that the first has", expected=have, field="B")
    return pairs, alone


def layout_of(profile: Profile) -> Layout:
    """Role, TP, DP and expert parallelism."""
    return profile.meta.role, profile.meta.tp, profile.meta.dp, profile.meta.spreads_experts


def expert_parallel(meta: ProfileMeta) -> bool:
    """Whether the measured engine spread its experts over its ranks."""
    return meta.spreads_experts


def layout_words(layout: Layout) -> str:
    """As in the names of profiles' folders."""
    role, tp, dp, experts = layout
    return f"{role}-tp{tp}-dp{dp}" + ("-ep" if experts else "")


def _by_layout(profiles: Sequence[Profile]) -> dict[Layout, Profile]:
    found: dict[Layout, Profile] = {}
    for profile in profiles:
        other = found.setdefault(layout_of(profile), profile)
        if other is not profile:
            problem = f"is {layout_words(layout_of(profile))}, as {other.path}"
            raise InputError(problem, expected="one profile of a layout below the folder", source=profile.path)
    return found
