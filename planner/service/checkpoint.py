"""What the planner has learned, on disk: replaced whole at each tick, read once at the start."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Literal

from pydantic import TypeAdapter, ValidationError

from planner.core.state import PlannerState
from planner.service.logs import log
from profiler.atomic import write_atomic

_STAGE = {"stage": "checkpoint"}


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """One checkpoint.

    Attributes:
        graph: that the state is about.
        speed_up: of the clock that its times were read from.
        lead_time_s: measured so far, planner seconds; None before enough starts were seen.
        state: after the last tick. Its times are absolute, so that its age needs no field of its own.
    """

    graph: str
    speed_up: float
    lead_time_s: float | None
    state: PlannerState
    version: Literal[1] = 1


@cache
def _adapter() -> TypeAdapter[Checkpoint]:
    return TypeAdapter(Checkpoint)


def save(path: Path, checkpoint: Checkpoint) -> None:
    """Replace the file; after a crash at any moment the old one or the new one is there, whole.

    Raises:
        OSError: it cannot be written; the old one stays.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    write_atomic(path, _adapter().dump_json(checkpoint), durable=True)


def load(path: Path, graph: str, speed_up: float) -> Checkpoint | None:
    """The checkpoint of this graph; None where there is none that can be used, which the log then explains.

    One that cannot be used is moved aside, not overwritten by the next tick.

    Args:
        path: the file.
        graph: that is planned now.
        speed_up: of the clock now; times of another one mean nothing.
    """
    try:
        content = path.read_bytes()
    except FileNotFoundError:
        log.info("none at %s: the planner starts without memory", path, extra=_STAGE)
        return None
    except OSError as error:
        log.error("%s cannot be read: %s", path, error.strerror or error, extra=_STAGE)
        return None
    try:
        found = _adapter().validate_json(content)
    except (ValidationError, RecursionError) as error:
        first = error.errors(include_url=False)[0]["msg"] if isinstance(error, ValidationError) else str(error)
        _aside(path, "damaged", f"is damaged ({first})")
        return None
    if found.graph != graph or found.speed_up != speed_up:
        _aside(path, "other", f"is of graph {found.graph} at speed_up {found.speed_up:g}")
        return None
    return found


def _aside(path: Path, suffix: str, problem: str) -> None:
    kept = path.with_name(f"{path.name}.{suffix}")
    try:
        path.replace(kept)
        where = f"kept as {kept.name}"
    except OSError as error:
        where = f"and cannot be moved aside: {error.strerror or error}"
    log.error("%s %s; %s; the planner starts without memory", path, problem, where, extra=_STAGE)
