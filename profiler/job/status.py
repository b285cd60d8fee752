"""Where a run stands, in a file that others read while it goes on, on a terminal, and in a log."""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from types import TracebackType
from typing import Any, Literal

import yaml
from rich.progress import BarColumn, Progress, SpinnerColumn, TaskID, TextColumn

from profiler.atomic import write_atomic
from profiler.console import stderr
from profiler.job.journal import StorageError

Phase = Literal["initialising", "starting", "sampling", "saving", "done", "failed"]

#: Seconds between lines where nobody sees a bar.
LINE_EVERY_S = 10.0


@dataclass(frozen=True)
class Status:
    """Where a run stands.

    Attributes:
        phase: of the run; `failed` when it left a layout without profiles or was interrupted.
        layout: name of the layout that is measured; empty before the first.
        layout_number, layouts: which one it is, counted from 1, of how many.
        message: in words.
        samples: taken of this layout, those of a resumed run included.
        errors: relative leave-one-out error by table, mean over its points; tables without one are left out.
        left_s: expected seconds left; None when not known.
        gpu_minutes: of all layouts so far, start-up included.
        cost: the same in money; None without a price.
    """

    phase: Phase = "initialising"
    layout: str = ""
    layout_number: int = 0
    layouts: int = 0
    message: str = ""
    samples: int = 0
    errors: Mapping[str, float] = field(default_factory=dict)
    left_s: float | None = None
    gpu_minutes: float = 0.0
    cost: float | None = None


class Reporter:
    """Writes the status on every change: to files for machines, to standard error for people.

    Args:
        files: as YAML where the name says so, else as JSON.
        price_per_gpu_hour: in any currency; None when not known.
        show: whether people are told.
        watch: is given every new status.
    """

    def __init__(
        self,
        files: tuple[Path, ...],
        price_per_gpu_hour: float | None = None,
        *,
        show: bool = True,
        watch: Callable[[Status], None] | None = None,
    ) -> None:
        self.status = Status()
        self._files = files
        self._price = price_per_gpu_hour
        self._show = show
        self._watch = watch
        self._line_at = -LINE_EVERY_S
        self._bar: Progress | None = None
        self._task: TaskID | None = None

    def __enter__(self) -> Reporter:
        if self._show and sys.stderr.isatty():
            columns = (
                SpinnerColumn(),
                TextColumn("{task.description}"),
                BarColumn(),
                TextColumn("{task.fields[tail]}"),
            )
            self._bar = Progress(*columns, console=stderr)
            self._task = self._bar.add_task("", total=1.0, tail="")
            self._bar.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._bar is not None:
            self._bar.stop()

    def say(self, text: str) -> None:
        """A line for people."""
        if self._show:
            stderr.print(text, soft_wrap=True, markup=False)

    def update(self, *, done_share: float | None = None, **changes: Any) -> None:
        """Change the status.

        Args:
            done_share: how much of the layout's measuring is done, 0 to 1; None for not known.
            changes: fields of `Status`.

        Raises:
            StorageError: a status file cannot be written.
        """
        before = self.status
        self.status = replace(before, **changes)
        if self._price is not None:
            self.status = replace(self.status, cost=round(self.status.gpu_minutes / 60.0 * self._price, 4))
        self._write()
        if self._watch is not None:
            self._watch(self.status)
        if self._bar is not None and self._task is not None:
            self._bar.update(self._task, description=self._head(), completed=done_share or 0.0, tail=self._tail())
        elif self._show:
            now = time.monotonic()
            turned = (before.phase, before.layout) != (self.status.phase, self.status.layout)
            if turned or now - self._line_at >= LINE_EVERY_S:
                self._line_at = now
                self.say(f"{self._head()}: {self._tail()}")

    def _write(self) -> None:
        for path in self._files:
            data = asdict(self.status) | {"errors": dict(self.status.errors)}
            text = yaml.safe_dump(data, sort_keys=False) if path.suffix in {".yaml", ".yml"} else _json(data)
            try:
                write_atomic(path, text)
            except OSError as error:
                raise StorageError(f"{path}: cannot be written: {error.strerror or error}") from None

    def _head(self) -> str:
        status = self.status
        place = f" {status.layout} ({status.layout_number} of {status.layouts})" if status.layout else ""
        return f"{status.phase}{place}"

    def _tail(self) -> str:
        status = self.status
        parts = [status.message] if status.message else []
        parts += [f"{status.samples} samples"] if status.samples else []
        parts += [f"{table} {100 * error:.1f} %" for table, error in status.errors.items()]
        parts += [f"{status.left_s / 60:.1f} min left"] if status.left_s is not None else []
        parts += [f"{status.gpu_minutes:.1f} GPU-min"]
        parts += [f"cost {status.cost:.2f}"] if status.cost is not None else []
        return ", ".join(parts)


def _json(data: object) -> str:
    return json.dumps(data, indent=2, allow_nan=False) + "\n"
