"""Configuration files: YAML, every field known, every error with its line."""

from __future__ import annotations

import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import yaml

from planner.core.settings import Tuning
from profiler.errors import InputError
from profiler.schema import parse_model

#: Nodes that a file may hold once its aliases are written out; a tuning has dozens, and aliases of aliases explode.
MOST_NODES = 10_000


def load_tuning(path: Path) -> Tuning:
    """The planner's tuning from a YAML file; what it does not name keeps its default.

    Raises:
        InputError: the file cannot be read, is not YAML, names a field twice, or holds an unknown field or a wrong
            value; names line and field, and for an unknown field the closest known one.
    """
    try:
        text = path.read_text(encoding="utf-8")
    except OSError as error:
        raise InputError(f"cannot be read: {error.strerror or error}", source=path, field="--config") from None
    except UnicodeDecodeError as error:
        raise InputError(f"is not text (byte {error.start})", expected="YAML in UTF-8", source=path) from None
    try:
        tree = yaml.compose(text, Loader=yaml.SafeLoader)
        if tree is not None:
            _check(tree, path, {})
        data = yaml.safe_load(text)
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        line = mark.line + 1 if mark is not None else None
        problem = getattr(error, "problem", None) or getattr(error, "reason", None) or "cannot be parsed"
        raise InputError(f"is not YAML: {problem}", source=path, line=line) from None
    except (AttributeError, LookupError, RecursionError, TypeError, ValueError) as error:
        # Dates that do not exist, nesting without end, and what the reader makes of a tag that does not fit its value.
        raise InputError(f"is not YAML that can be read: {error}", source=path) from None
    if data is None:
        return Tuning()
    if not isinstance(data, dict):
        raise InputError(f"holds a {type(data).__name__}", expected="a mapping of settings", source=path, line=1)
    for place, value in _leaves(data, ()):
        # pydantic would read yes and no as 1 and 0, and an infinite time passes every bound from below.
        if isinstance(value, bool) or (isinstance(value, float) and not math.isfinite(value)):
            field = ".".join(str(part) for part in place)
            right = "a finite number; no setting is yes or no"
            raise InputError(f"is {value}", expected=right, source=path, line=_line_of(tree, place), field=field)
    return parse_model(Tuning, data, path, lambda loc: _line_of(tree, loc))


def _check(node: yaml.Node, path: Path, sizes: dict[int, int]) -> int:
    """Nodes in a tree, its aliases written out.

    Args:
        node: the tree.
        path: of the file, for the error.
        sizes: of the nodes seen so far, by identity; 0 for those that are being counted.

    Raises:
        InputError: a field is named twice, an alias is part of what it stands for, or there are too many nodes.
    """
    line = node.start_mark.line + 1
    if id(node) in sizes:
        if sizes[id(node)] == 0:
            raise InputError("an alias is part of what it stands for", source=path, line=line)
        return sizes[id(node)]
    sizes[id(node)] = 0
    below: list[yaml.Node] = []
    if isinstance(node, yaml.MappingNode):
        first_at: dict[str, int] = {}
        for key, value in node.value:
            below += [key, value]
            if not isinstance(key, yaml.ScalarNode):
                continue
            at = key.start_mark.line + 1
            if key.value in first_at:
                again = f"is set twice, first in line {first_at[key.value]}"
                raise InputError(again, expected="each setting once", source=path, line=at, field=key.value)
            first_at[key.value] = at
    elif isinstance(node, yaml.SequenceNode):
        below = node.value
    size = 1 + sum(_check(part, path, sizes) for part in below)
    if size > MOST_NODES:
        raise InputError(f"holds {size:,} values", expected=f"at most {MOST_NODES:,}", source=path, line=line)
    sizes[id(node)] = size
    return size


def _leaves(value: Any, place: tuple[int | str, ...]) -> Iterator[tuple[tuple[int | str, ...], Any]]:
    """Everything that is neither a mapping nor a list, with the keys that lead to it."""
    if isinstance(value, dict):
        for key, below in value.items():
            yield from _leaves(below, (*place, str(key)))
    elif isinstance(value, list):
        for index, below in enumerate(value):
            yield from _leaves(below, (*place, index))
    else:
        yield place, value


def _line_of(tree: yaml.Node | None, path: tuple[int | str, ...]) -> int | None:
    """The line of the deepest node on a path of keys, counted from 1."""
    node, line = tree, None
    for part in path:
        if isinstance(node, yaml.MappingNode):
            pairs = {key.value: (key, value) for key, value in node.value if isinstance(key, yaml.ScalarNode)}
            if str(part) not in pairs:
                break
            key, node = pairs[str(part)]
            line = key.start_mark.line + 1
        elif isinstance(node, yaml.SequenceNode) and isinstance(part, int) and part < len(node.value):
            node = node.value[part]
            line = node.start_mark.line + 1
        else:
            break
    return line
