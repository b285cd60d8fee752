"""Configuration files: YAML, every field known, every error with its line."""

from __future__ import annotations

from pathlib import Path

import yaml

from planner.core.settings import Tuning
from profiler.errors import InputError
from profiler.schema import parse_model


def load_tuning(path: Path) -> Tuning:
    """The planner's tuning from a YAML file; what it does not name keeps its default.

    Raises:
        InputError: the file cannot be read, is not YAML, or holds an unknown field or a wrong value; names line and
            field, and for an unknown field the closest known one.
    """
    try:
        text = path.read_text(encoding="utf-8")
    except OSError as error:
        raise InputError(f"cannot be read: {error.strerror or error}", source=path, field="--config") from None
    except UnicodeDecodeError as error:
        raise InputError(f"is not text (byte {error.start})", expected="YAML in UTF-8", source=path) from None
    try:
        tree = yaml.compose(text, Loader=yaml.SafeLoader)
        data = yaml.safe_load(text)
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        line = mark.line + 1 if mark is not None else None
        problem = getattr(error, "problem", None) or "cannot be parsed"
        raise InputError(f"is not YAML: {problem}", source=path, line=line) from None
    except (ValueError, RecursionError) as error:
        # Dates that do not exist, and nesting without end.
        raise InputError(f"is not YAML that can be read: {error}", source=path) from None
    if data is None:
        return Tuning()
    if not isinstance(data, dict):
        raise InputError(f"holds a {type(data).__name__}", expected="a mapping of settings", source=path, line=1)
    return parse_model(Tuning, data, path, lambda loc: _line_of(tree, loc))


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
