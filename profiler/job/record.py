"""What became of a run, in a file: everything that a report of it needs."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Literal

from profiler.atomic import write_atomic
from profiler.errors import InputError
from profiler.job.journal import StorageError

FILE = "run.json"
_FORMAT = 1


@dataclass(kw_only=True)
class LayoutRecord:
    """What became of one layout.

    Attributes:
        name: `tp1`, `pair-tp1-tp2`.
        outcome: `done` when it gave all its profiles; `skipped` when it was not tried.
        reason: why it failed or was skipped.
        log: last lines of what its engine said, when it failed.
        gpus: of all its engines together.
        profiles: folders, relative to the folder of profiles.
        samples: file with the raw samples, relative to the run's folder.
        startup_s: seconds of each start, by engine.
        measuring_s: seconds of measuring, by engine (`pair` for the hand-off).
        gpu_minutes: start-up and measuring, failed starts included.
        tables: by engine and table: points, samples, and leave-one-out errors `mean` and `worst` where there are some.
        reasons: how many samples were taken for which reason, by engine and table.
        lost: points that could not be measured, with why.
        warnings: what whoever uses the tables should know.
        clocks: SM clock and temperature while measuring.
        facts: what each engine says about itself.
        commands: how each was started.
        runs: recorded on it, relative to the run's folder.
        error: class of the failure: `dependency` or `input`.
    """

    name: str
    outcome: Literal["waiting", "running", "done", "failed", "skipped"] = "waiting"
    reason: str = ""
    log: list[str] = field(default_factory=list)
    gpus: int = 0
    profiles: list[str] = field(default_factory=list)
    samples: str = ""
    startup_s: dict[str, list[float]] = field(default_factory=dict)
    measuring_s: dict[str, float] = field(default_factory=dict)
    gpu_minutes: float = 0.0
    tables: dict[str, dict[str, dict[str, Any]]] = field(default_factory=dict)
    reasons: dict[str, dict[str, dict[str, int]]] = field(default_factory=dict)
    lost: list[dict[str, Any]] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)
    clocks: dict[str, Any] = field(default_factory=dict)
    facts: dict[str, dict[str, Any]] = field(default_factory=dict)
    commands: dict[str, list[str]] = field(default_factory=dict)
    runs: list[str] = field(default_factory=list)
    error: str = ""


@dataclass
class RunRecord:
    """What became of a run.

    Attributes:
        settings: as asked for.
        machine: GPUs and driver.
        model: name, number format and shape.
        code: commit or version of this program.
        started, ended: times in UTC; `ended` is empty while it goes on.
        layouts: in the order in which they are measured, those ruled out beforehand last.
    """

    settings: Mapping[str, Any]
    machine: Mapping[str, Any]
    model: Mapping[str, Any]
    code: str | None
    started: str
    ended: str = ""
    layouts: list[LayoutRecord] = field(default_factory=list)

    def write(self, folder: Path) -> None:
        """Write it to the run's folder.

        Raises:
            StorageError: the disk refused.
        """
        text = json.dumps({"format": _FORMAT} | asdict(self), indent=2, allow_nan=False, default=str) + "\n"
        try:
            write_atomic(folder / FILE, text)
        except OSError as error:
            raise StorageError(f"{folder / FILE}: cannot be written: {error.strerror or error}") from None


def earlier_layouts(folder: Path) -> dict[str, LayoutRecord]:
    """Layouts of an earlier run by name; none where it got to write nothing.

    Raises:
        InputError: the file holds something else.
    """
    path = folder / FILE
    try:
        data = json.loads(path.read_text(encoding="utf-8"))
        return {one["name"]: LayoutRecord(**one) for one in data["layouts"]}
    except FileNotFoundError:
        return {}
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise InputError(
            f"is no record of a run: {error}", expected=f"a {FILE} as it was written", source=path
        ) from None


def exit_code(layouts: Sequence[LayoutRecord]) -> int:
    """0 when every layout that was tried gave its profiles, 1 when some did not, and when none did 3 or 2.

    With none, the first failure tells: 2 for one that a change of the input mends, 3 for something outside.
    """
    tried = [layout for layout in layouts if layout.outcome != "skipped"]
    failed = [layout for layout in tried if layout.outcome != "done"]
    if not failed and tried:
        return 0
    if len(failed) < len(tried):
        return 1
    return 2 if failed and failed[0].error == "input" else 3
