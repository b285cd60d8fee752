"""What the planner has learned, kept beside it: replaced whole at each tick, read once at the start."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Literal, Protocol

from pydantic import TypeAdapter, ValidationError

from planner.connectors.base import ConnectorError
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


class Keeper(Protocol):
    """Where a checkpoint is kept.

    Attributes:
        where: for people.
        shared: whether other planners of the graph write it too; then only the one that acts does.
    """

    where: str
    shared: bool

    def read(self) -> bytes | None:
        """The content; None where there is none. Raises OSError or ConnectorError where it cannot be read."""

    def write(self, content: bytes) -> None:
        """Replace it whole. Raises OSError or ConnectorError where it cannot be written; the old one stays."""

    def aside(self, suffix: str) -> str:
        """Keep the content elsewhere; the name of that place. Raises OSError or ConnectorError."""


class FileKeeper:
    """A file.

    Args:
        path: of the file; its folder is made when it is first written.
    """

    shared = False

    def __init__(self, path: Path) -> None:
        self._path = path
        self.where = str(path)

    def read(self) -> bytes | None:
        """The file's content; None without a file."""
        try:
            return self._path.read_bytes()
        except FileNotFoundError:
            return None

    def write(self, content: bytes) -> None:
        """Replace the file; after a crash at any moment the old one or the new one is there, whole."""
        self._path.parent.mkdir(parents=True, exist_ok=True)
        write_atomic(self._path, content, durable=True)

    def aside(self, suffix: str) -> str:
        """Rename the file."""
        kept = self._path.with_name(f"{self._path.name}.{suffix}")
        self._path.replace(kept)
        return kept.name


def save(keeper: Keeper, checkpoint: Checkpoint) -> None:
    """Replace what is kept.

    Raises:
        OSError, ConnectorError: it cannot be written; the old one stays.
    """
    keeper.write(_adapter().dump_json(checkpoint))


def load(keeper: Keeper, graph: str, speed_up: float) -> Checkpoint | None:
    """The checkpoint of this graph; None where there is none that can be used, which the log then explains.

    One that cannot be used is moved aside, not overwritten by the next tick.

    Args:
        keeper: where it is.
        graph: that is planned now.
        speed_up: of the clock now; times of another one mean nothing.

    Raises:
        OSError, ConnectorError: it cannot be read, which may go away by itself.
    """
    content = keeper.read()
    if content is None:
        log.info("none at %s: the planner starts without memory", keeper.where, extra=_STAGE)
        return None
    try:
        found = _adapter().validate_json(content)
    except (ValidationError, RecursionError) as error:
        first = error.errors(include_url=False)[0]["msg"] if isinstance(error, ValidationError) else str(error)
        _aside(keeper, "damaged", f"is damaged ({first})")
        return None
    if found.graph != graph or found.speed_up != speed_up:
        _aside(keeper, "other", f"is of graph {found.graph} at speed_up {found.speed_up:g}")
        return None
    return found


def _aside(keeper: Keeper, suffix: str, problem: str) -> None:
    try:
        where = f"kept as {keeper.aside(suffix)}"
    except (OSError, ConnectorError) as error:
        where = f"and cannot be moved aside: {error}"
    log.error("%s %s; %s; the planner starts without memory", keeper.where, problem, where, extra=_STAGE)
