"""Profiles as the flat keys of a ConfigMap, and the volume items that make folders of them again."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from profiler.csvfile import COLUMNS
from profiler.errors import InputError
from profiler.schema import Role
from profiler.tables import META_FILE, Profile

#: Bytes of all values of a ConfigMap together: what the API server accepts (`MaxSecretSize`).
MOST_BYTES = 1024 * 1024
#: On every ConfigMap of profiles.
LABELS = {
    "app.kubernetes.io/name": "plimsoll",
    "app.kubernetes.io/component": "profiles",
    "app.kubernetes.io/managed-by": "plimsoll-profiler",
}


@dataclass(frozen=True)
class Bundle:
    """Files of profiles under flat names.

    Attributes:
        data: contents by key: the file `prefill.csv` of the profile in folder `prefill-tp1-dp1` has the key
            `prefill-tp1-dp1.prefill.csv`.
        places: by key, where the file belongs below the mounted folder: `prefill-tp1-dp1/prefill.csv`.
    """

    data: Mapping[str, str]
    places: Mapping[str, str]

    @property
    def size(self) -> int:
        """Bytes of all values."""
        return size_of(self.data)

    @property
    def items(self) -> list[dict[str, str]]:
        """`items` of the volume that mounts the ConfigMap, as folders."""
        return [{"key": key, "path": place} for key, place in self.places.items()]

    def manifest(self, name: str, namespace: str | None) -> dict[str, object]:
        """The ConfigMap as an object."""
        metadata: dict[str, object] = {"name": name, "labels": dict(LABELS)}
        if namespace is not None:
            metadata["namespace"] = namespace
        return {"apiVersion": "v1", "kind": "ConfigMap", "metadata": metadata, "data": dict(self.data)}


def size_of(data: Mapping[str, str]) -> int:
    """Bytes of all values of a ConfigMap, as the API server counts them."""
    return sum(len(value.encode()) for value in data.values())


def bundle(profiles: Sequence[Profile], roles: Sequence[Role] = ()) -> Bundle:
    """Put the files of profiles under flat names, byte for byte.

    Args:
        profiles: of one model on one GPU and engine; loaded, hence whole.
        roles: that are wanted; empty for all.

    Raises:
        InputError: two folders have one name, no profile is left, or together they are more than a ConfigMap holds.
    """
    data: dict[str, str] = {}
    places: dict[str, str] = {}
    by_name: dict[str, Path] = {}
    for profile in profiles:
        name, meta = profile.path.name, profile.meta
        if roles and meta.role not in roles:
            continue
        if name in by_name:
            problem = f"{name} is here and in {by_name[name].parent}"
            raise InputError(problem, expected="profiles of one model, GPU and engine", source=profile.path.parent)
        by_name[name] = profile.path
        for file in (META_FILE, *(f"{table}.csv" for table in COLUMNS if table in profile.samples)):
            data[f"{name}.{file}"] = (profile.path / file).read_text(encoding="utf-8")
            places[f"{name}.{file}"] = f"{name}/{file}"
    if not data:
        raise InputError(f"there is no profile of {' or '.join(roles)}", expected="one to bundle", field="--role")
    check_size(data)
    return Bundle(data, places)


def check_size(data: Mapping[str, str]) -> None:
    """Refuse what a ConfigMap cannot hold.

    Raises:
        InputError: says how much each profile takes.
    """
    size = size_of(data)
    if size <= MOST_BYTES:
        return
    shares: dict[str, int] = {}
    for key, value in data.items():
        head = key.split(".", 1)[0]
        shares[head] = shares.get(head, 0) + len(value.encode())
    largest = sorted(shares.items(), key=lambda one: -one[1])
    told = ", ".join(f"{name} {kib(count)}" for name, count in largest)
    right = f"at most {kib(MOST_BYTES)}: fewer roles (--role) or layouts in one ConfigMap"
    raise InputError(f"the profiles are {kib(size)} ({told})", expected=right, field="--configmap")


def kib(size: int) -> str:
    """Bytes as KiB, for people."""
    return f"{size / 1024:,.0f} KiB"
