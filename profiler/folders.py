"""Profiles by the folders that a person names."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from profiler.errors import InputError
from profiler.schema import ProfileMeta
from profiler.tables import Profile, find_profiles, load_profile


def load_profiles(folders: Sequence[Path], *, field: str) -> list[Profile]:
    """The profiles in or below these folders, each once.

    Args:
        folders: in the order in which they were named.
        field: the option or setting that named them, for errors.

    Raises:
        InputError: a folder without profiles, or a profile that is wrong.
    """
    paths: dict[Path, Path] = {}
    for folder in folders:
        try:
            found = find_profiles(folder) if folder.is_dir() else []
        except OSError as error:
            raise InputError(f"cannot be read: {error.strerror or error}", source=folder, field=field) from None
        if not found:
            right = "a profile's folder, with profile.json in it or below it"
            raise InputError("holds no profile", expected=right, source=folder, field=field)
        for path in found:
            # One folder may be given by several names; it stays under the first.
            paths.setdefault(path.resolve(), path)
    return [load_profile(path) for path in paths.values()]


def layout_words(meta: ProfileMeta) -> str:
    """TP and, where there are any, DP and expert parallelism: `TP2 DP2 EP`."""
    return f"TP{meta.tp}" + (f" DP{meta.dp}" if meta.dp > 1 else "") + (" EP" if meta.spreads_experts else "")


def only_of(profiles: Sequence[Profile], role: str, *, field: str) -> Profile | None:
    """The one profile of a role; None where there is none.

    Args:
        profiles: loaded; those of other roles are left aside.
        role: as in the profile's own metadata.
        field: the option or setting that named them, for errors.

    Raises:
        InputError: there are several.
    """
    have = [profile for profile in profiles if profile.meta.role == role]
    if len(have) > 1:
        layouts = ", ".join(f"{profile.path} ({layout_words(profile.meta)})" for profile in have)
        raise InputError(f"{len(have)} {role} layouts: {layouts}", expected="one per role", field=field)
    return have[0] if have else None
