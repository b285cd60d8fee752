"""Which code a result comes from: a digest of a policy's modules and of all that they import of ours.

A result that was kept is only worth keeping while the code that made it is the same; a change of one policy leaves the
results of the others as they are.
"""

from __future__ import annotations

import ast
import hashlib
from functools import cache
from pathlib import Path

#: Packages of ours, whose sources count.
_OURS = ("planner", "profiler", "worker_graph")

#: The values of the settings are in a run's key; that module imports the whole forecast for its defaults.
_LEFT_OUT = frozenset({"planner.core.settings"})

#: What every replay runs.
_REPLAY = ("planner.whatif.replay", "planner.whatif.graph", "planner.whatif.traces")


@cache
def digest(module: str) -> str:
    """Sixteen hexadecimal digits that change with the code of a policy, or with that of the replay.

    Args:
        module: that makes the policy, such as `planner.whatif.policies.hpa`.
    """
    names = sorted(_closure((module, *_REPLAY)))
    whole = hashlib.sha256()
    for name in names:
        path = _file(name)
        if path is not None:
            whole.update(name.encode() + b"\0" + path.read_bytes() + b"\0")
    return whole.hexdigest()[:16]


def _closure(first: tuple[str, ...]) -> set[str]:
    seen: set[str] = set()
    todo = list(first)
    while todo:
        name = todo.pop()
        if name in seen or name in _LEFT_OUT:
            continue
        seen.add(name)
        todo += _imports(name)
    return seen


@cache
def _imports(module: str) -> tuple[str, ...]:
    """Modules of ours that a module imports, anywhere in it; a name imported from a package may be a module of it."""
    path = _file(module)
    if path is None:
        return ()
    found: list[str] = []
    for node in ast.walk(ast.parse(path.read_bytes())):
        if isinstance(node, ast.Import):
            found += [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom) and node.module is not None:
            below = [f"{node.module}.{alias.name}" for alias in node.names]
            modules = [name for name in below if _file(name) is not None]
            # `from package import module` needs nothing that the package itself holds.
            found += modules if len(modules) == len(below) else [node.module, *modules]
    return tuple(name for name in found if name.split(".", maxsplit=1)[0] in _OURS)


@cache
def _file(module: str) -> Path | None:
    """The source of a module of ours; None for what is none."""
    first, *rest = module.split(".")
    if first not in _OURS:
        return None
    path = Path(__file__).parents[3].joinpath(first, *rest)
    return next((file for file in (path.with_suffix(".py"), path / "__init__.py") if file.is_file()), None)
