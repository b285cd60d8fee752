"""Profiles that lie beside recorded runs: machines of one GPU type differ, and a run is held against its own."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from profiler.folders import load_profiles
from profiler.record import find_runs
from profiler.tables import OWN_PROFILES, Profile


def own_profiles(run: Path, root: Path) -> list[list[Profile]]:
    """Profiles in the folders `profiles` on the way from a run up to `root`, the nearest folder's first.

    Args:
        run: its CSV, at or below `root`.
        root: the last folder to look into.

    Raises:
        InputError: such a folder holds no profile, or one that is wrong.
    """
    found = []
    for folder in run.parents:
        if (folder / OWN_PROFILES).is_dir():
            found.append(load_profiles([folder / OWN_PROFILES], field="--run"))
        if folder == root:
            break
    return found


def general(profiles: Sequence[Profile], named: Path, roots: Sequence[Path]) -> list[Profile]:
    """Those of the profiles below `named` that are for every run: without those that lie beside recorded ones.

    Args:
        profiles: found below `named`.
        named: the folder of `--profiles`; that it may itself lie in a folder `profiles` is no matter.
        roots: the folders whose runs are compared; folders `profiles` below them are of these runs.
    """
    base, own = named.resolve(), [root.resolve() for root in roots]

    def of_runs(folder: Path) -> bool:
        return any(folder.is_relative_to(root) for root in own) or bool(find_runs(folder, below=False))

    def is_general(profile: Profile) -> bool:
        path = profile.path.resolve()
        beside = [one.parent for one in (path, *path.parents) if one.name == OWN_PROFILES and one != base]
        return not any(folder.is_relative_to(base) and of_runs(folder) for folder in beside)

    return [profile for profile in profiles if is_general(profile)]
