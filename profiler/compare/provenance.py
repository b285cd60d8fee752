"""What differs in how two profiles came about."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from profiler.schema import ProfileMeta


@dataclass(frozen=True, slots=True)
class Difference:
    """One fact that is not the same in both; values as in `profile.json`, None for unknown."""

    field: str
    a: Any
    b: Any


def differences(a: ProfileMeta, b: ProfileMeta) -> Iterator[Difference]:
    """Facts of `profile.json` that are not the same in both, measured values apart."""
    for name, one, other in _facts(a, b):
        if one != other:
            yield Difference(name, one, other)


def _facts(a: ProfileMeta, b: ProfileMeta) -> Iterator[tuple[str, Any, Any]]:
    yield "model", a.model.name, b.model.name
    yield "dtype", a.model.dtype, b.model.dtype
    yield "gpu", a.gpu.name, b.gpu.name
    yield "gpus per worker", a.gpu.count_per_worker, b.gpu.count_per_worker
    yield "tp", a.tp, b.tp
    yield "dp", a.dp, b.dp
    yield "expert parallelism", a.spreads_experts, b.spreads_experts
    yield "driver", a.driver, b.driver
    yield "engine", a.engine.name, b.engine.name
    yield "engine version", a.engine.version, b.engine.version
    yield "engine arguments", _words(a.engine.arguments), _words(b.engine.arguments)
    for name in type(a.limits).model_fields:
        yield name, getattr(a.limits, name), getattr(b.limits, name)
    yield "kv_capacity_tokens", a.kv_capacity_tokens, b.kv_capacity_tokens
    yield "form", a.source.form, b.source.form
    yield "date", None if a.date is None else str(a.date), None if b.date is None else str(b.date)
    yield "commit", a.commit, b.commit


def _words(arguments: tuple[str, ...] | None) -> str | None:
    return None if arguments is None else " ".join(arguments)
