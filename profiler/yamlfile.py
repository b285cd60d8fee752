"""YAML files that people write: every document with the line of every value, and errors that name them."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import yaml
from pydantic import BaseModel

from profiler.errors import InputError
from profiler.schema import parse_model

M = TypeVar("M", bound=BaseModel)

#: Nodes that a file may hold once its aliases are written out; people write thousands, and aliases of aliases explode.
MOST_NODES = 10_000

#: Keys and indices that lead to a value.
Place = tuple[int | str, ...]


@dataclass(frozen=True)
class Document:
    """One document: its data, and the line of the deepest known node on a path, counted from 1."""

    source: Path
    data: Any
    line_of: Callable[[Place], int | None]

    def error(self, problem: str, place: Place = (), expected: str = "") -> InputError:
        """An error about the value at a place."""
        field = ".".join(str(part) for part in place) or None
        return InputError(problem, expected=expected, source=self.source, line=self.line_of(place), field=field)


def read_yaml(path: Path, *, field: str) -> list[Document]:
    """The documents of a file that are not empty.

    Args:
        path: the file.
        field: the option or setting that named it, for the error when it cannot be read.

    Raises:
        InputError: the file cannot be read, is not YAML, or names a field twice; names the line.
    """
    try:
        text = path.read_text(encoding="utf-8")
    except OSError as error:
        raise InputError(f"cannot be read: {error.strerror or error}", source=path, field=field) from None
    except UnicodeDecodeError as error:
        raise InputError(f"is not text (byte {error.start})", expected="YAML in UTF-8", source=path) from None
    try:
        trees = [tree for tree in yaml.compose_all(text, Loader=yaml.SafeLoader) if tree is not None]
        sizes: dict[int, int] = {}
        for tree in trees:
            _check(tree, path, sizes)
        values = [value for value in yaml.safe_load_all(text) if value is not None]
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        line = mark.line + 1 if mark is not None else None
        problem = getattr(error, "problem", None) or getattr(error, "reason", None) or "cannot be parsed"
        raise InputError(f"is not YAML: {problem}", source=path, line=line) from None
    except (AttributeError, LookupError, RecursionError, TypeError, ValueError) as error:
        # Dates that do not exist, nesting without end, and what the reader makes of a tag that does not fit its value.
        raise InputError(f"is not YAML that can be read: {error}", source=path) from None
    # An explicit null composes to a node but loads as nothing.
    trees = [tree for tree in trees if not (isinstance(tree, yaml.ScalarNode) and tree.tag == "tag:yaml.org,2002:null")]
    return [Document(path, value, _lines(tree)) for tree, value in zip(trees, values, strict=True)]


def load_settings(path: Path, model: type[M], *, field: str, flags: frozenset[str] = frozenset()) -> M:
    """One document of settings; what it does not name keeps its default.

    Args:
        path: the file.
        model: of the settings.
        field: the option or setting that named the file.
        flags: last parts of the names of the settings that are yes or no; for all others a yes or no is an error.

    Raises:
        InputError: as `read_yaml`, or an unknown field or a wrong value; names line and field, and for an unknown
            field the closest known one.
    """
    documents = read_yaml(path, field=field)
    if len(documents) > 1:
        line = documents[1].line_of(())
        raise InputError("holds a second document", expected="one document of settings", source=path, line=line)
    document = documents[0] if documents else Document(path, {}, lambda _: None)
    if not isinstance(document.data, dict):
        found = f"holds a {type(document.data).__name__}"
        raise InputError(found, expected="a mapping of settings", source=path, line=1)
    for place, value in _leaves(document.data, ()):
        # pydantic would read yes and no as 1 and 0, and an infinite time passes every bound from below.
        wrong_flag = isinstance(value, bool) and place[-1:] != () and place[-1] not in flags
        if wrong_flag or (isinstance(value, float) and not math.isfinite(value)):
            right = "a finite number; no setting is yes or no" if not flags else "a finite number"
            raise document.error(f"is {value}", place, right)
    return parse_model(model, document.data, path, document.line_of)


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


def _leaves(value: Any, place: Place) -> Iterator[tuple[Place, Any]]:
    """Everything that is neither a mapping nor a list, with the keys that lead to it."""
    if isinstance(value, dict):
        for key, below in value.items():
            yield from _leaves(below, (*place, str(key)))
    elif isinstance(value, list):
        for index, below in enumerate(value):
            yield from _leaves(below, (*place, index))
    else:
        yield place, value


def _lines(tree: yaml.Node) -> Callable[[Place], int | None]:
    def line_of(place: Place) -> int | None:
        node: yaml.Node = tree
        line = tree.start_mark.line + 1
        for part in place:
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

    return line_of
