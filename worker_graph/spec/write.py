"""A graph with other counts, and nothing else changed."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from profiler.errors import InputError
from worker_graph.spec.graph import GraphSpec
from worker_graph.spec.node import suggestion


def with_replicas(spec: GraphSpec, replicas: Mapping[str, int]) -> GraphSpec:
    """The same graph with other counts.

    Args:
        spec: the graph; it stays as it is.
        replicas: wanted copies by component; what is not named keeps its count.

    Raises:
        InputError: a component that the graph does not have, or a negative count.
    """
    names = [component.name for component in spec.components]
    for name, count in replicas.items():
        if name not in names:
            problem = f"has no component {name!r}{suggestion(name, names)}"
            raise InputError(problem, expected=", ".join(names), source=spec.source)
        if isinstance(count, bool) or not isinstance(count, int) or count < 0:
            raise spec[name].error(f"would be {count!r}", "replicas", expected="a whole number from 0")
    raw = _unshared(spec.raw)
    components = []
    for component in spec.components:
        changed = component
        if component.name in replicas and replicas[component.name] != component.replicas:
            changed = replace(component, replicas=replicas[component.name])
            at: Any = raw
            for key in component.place:
                at = at[key]
            at["replicas"] = changed.replicas
        components.append(changed)
    return replace(spec, components=tuple(components), raw=raw)


def _unshared(value: Any) -> Any:
    """A copy in which aliases of YAML are written out: two components may share a mapping, but not their counts."""
    if isinstance(value, dict):
        return {key: _unshared(below) for key, below in value.items()}
    if isinstance(value, list):
        return [_unshared(below) for below in value]
    return value
