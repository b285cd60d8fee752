"""Finished runs on disk: one JSON line each, written as soon as it is known; an arena goes on where it ended."""

from __future__ import annotations

from pathlib import Path
from types import TracebackType

from planner.whatif.arena.record import RunRecord, from_line, to_line
from profiler.errors import InputError

FILE = "runs.jsonl"


class Store:
    """The runs of a folder; open for appending while it is used as a context.

    Args:
        folder: made if it is not there.
        fresh: forget what is there.

    Raises:
        InputError: the folder cannot be written to.
    """

    def __init__(self, folder: Path, *, fresh: bool = False) -> None:
        self._path = folder / FILE
        self.runs: dict[str, RunRecord] = {}
        try:
            folder.mkdir(parents=True, exist_ok=True)
            if not fresh and self._path.is_file():
                self._read()
            self._file = self._path.open("w" if fresh else "a", encoding="utf-8")
        except OSError as error:
            raise InputError(f"cannot be written: {error.strerror or error}", source=folder, field="--out") from None

    def _read(self) -> None:
        text = self._path.read_text(encoding="utf-8", errors="replace")
        for line in text.splitlines():
            record = from_line(line)
            # A line that was cut off by a power cut is a run to do again.
            if record is not None and record.figures is not None:
                self.runs[record.key] = record
        if text and not text.endswith("\n"):
            with self._path.open("a", encoding="utf-8") as file:
                file.write("\n")

    def add(self, record: RunRecord) -> None:
        """Write a run down, and flush it."""
        self._file.write(to_line(record) + "\n")
        self._file.flush()
        self.runs[record.key] = record

    def __enter__(self) -> Store:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._file.close()
