"""Which part of an object that holds all pools is which pool of the planner."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from planner.connectors.kubernetes.targets.discovery import MismatchError
from planner.core.types import Pool, Role

#: Names of Dynamo's examples, which mean a role where nothing else says it.
DEFAULT_NAMES = {"VllmPrefillWorker": Role.PREFILL, "VllmDecodeWorker": Role.DECODE}


@dataclass(frozen=True, slots=True)
class Part:
    """One component, clique or group.

    Attributes:
        name: in the object.
        role: as the object says; None where it says none.
        pool: as its label `plimsoll.io/pool` says; empty without it.
    """

    name: str
    role: Role | None = None
    pool: str = ""


def match(pools: Sequence[Pool], parts: Sequence[Part], whole: str) -> dict[str, Part]:
    """The part of each pool.

    A part is a pool's by its label, or by its name, in lower case where the kind allows no other; else by its role,
    if the pool is the only one of that role; else by Dynamo's default names.

    Args:
        pools: those that are planned.
        parts: what the object has.
        whole: the object, for messages.

    Raises:
        MismatchError: a pool has no part, or more than one.
    """
    found: dict[str, Part] = {}
    for pool in pools:
        ways = (
            [part for part in parts if part.pool == pool.name],
            [part for part in parts if part.name == pool.name],
            [part for part in parts if part.name == pool.name.lower()],
            [part for part in parts if part.role is pool.role],
            [part for part in parts if part.role is None and DEFAULT_NAMES.get(part.name) is pool.role],
        )
        candidates = next((way for way in ways if way), [])
        if not candidates:
            has = ", ".join(f"{part.name} ({part.role or 'no role'})" for part in parts) or "nothing"
            raise MismatchError(f"{whole} has no {pool.role} workers for pool {pool.name}; it has {has}")
        if len(candidates) > 1:
            both = " and ".join(part.name for part in candidates)
            raise MismatchError(
                f"{whole} has {both} for {pool.role}: name the pool as one of them, instead of {pool.name}"
            )
        [part] = candidates
        if part.role is not None and part.role is not pool.role:
            raise MismatchError(f"{whole} has {part.name} for {part.role}, and pool {pool.name} is for {pool.role}")
        found[pool.name] = part
    taken: dict[str, str] = {}
    for name, part in found.items():
        if part.name in taken:
            raise MismatchError(f"pools {taken[part.name]} and {name} are both {part.name} of {whole}")
        taken[part.name] = name
    return found


def role_of(text: str | None) -> Role | None:
    """The role of a component's type or label; None where it names none."""
    try:
        return Role(str(text))
    except ValueError:
        return None
