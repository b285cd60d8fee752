"""Samples on disk as they are taken: one JSON line each, on the disk before the next one is begun."""

from __future__ import annotations

import datetime as dt
import json
import math
import os
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Any

from profiler.csvfile import KEYS
from profiler.errors import DependencyError, InputError
from profiler.measure import Point, Sample

_FORMAT = 1


class StorageError(DependencyError):
    """The disk is full or gone. What was written before is kept; nothing more can be measured."""


@dataclass
class History:
    """What a journal holds of one engine under test (or of a pair, for the hand-off).

    Attributes:
        samples: in the order taken.
        lost: points that could not be measured, with why, in the order tried.
        spent_s: seconds of measuring so far, lost samples and the pauses between samples included.
        reasons: how many samples were taken by table and reason.
    """

    samples: list[Sample] = field(default_factory=list)
    lost: list[tuple[Point, str]] = field(default_factory=list)
    spent_s: float = 0.0
    reasons: Counter[tuple[str, str]] = field(default_factory=Counter)

    @property
    def failed(self) -> Counter[Point]:
        """How often each point could not be measured."""
        return Counter(point for point, _ in self.lost)

    def reasons_by_table(self) -> dict[str, dict[str, int]]:
        """How many samples were taken for which reason, by table."""
        found: dict[str, dict[str, int]] = {}
        for (table, reason), count in self.reasons.items():
            found.setdefault(table, {})[reason] = count
        return found


class Journal:
    """The samples of one layout.

    A line torn by a kill is cut off when the journal is opened again: it was the last one, and its sample is taken
    again. Any other line that cannot be read is an error, since something else than this program wrote it.

    Args:
        path: the file.

    Raises:
        InputError: a file that is there is no journal.
        StorageError: it cannot be read.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.fingerprint: dict[str, Any] | None = None
        #: By label: seconds of each start; of the last one what the engine said, how its KV capacity was checked, and
        #: its command.
        self.startups_s: dict[str, list[float]] = {}
        self.facts: dict[str, dict[str, Any]] = {}
        self.checks: dict[str, str | None] = {}
        self.commands: dict[str, list[str] | None] = {}
        #: Profiles that were about to be written, hence of this run if they are there.
        self.saving: list[str] = []
        self._histories: dict[str, History] = {}
        self._file: IO[bytes] | None = None
        self._good = 0
        self._read()

    def history(self, label: str) -> History:
        """What was measured under a label: `aggregated`, `prefill`, `decode` or `pair`."""
        return self._histories.setdefault(label, History())

    @property
    def samples(self) -> int:
        """How many samples there are."""
        return sum(len(history.samples) for history in self._histories.values())

    def check(self, fingerprint: Mapping[str, Any]) -> None:
        """Refuse to go on with samples of something else.

        Args:
            fingerprint: what is about to be measured; keys that are not known yet may be left out.

        Raises:
            InputError: the samples are of something else; names what differs.
        """
        for key, value in fingerprint.items():
            if self.fingerprint is not None and self.fingerprint.get(key) != value:
                then = json.dumps(self.fingerprint.get(key))
                problem = f"its samples were taken with {key} {then}, and now it is {json.dumps(value)}"
                right = "the same engine, or a run of another --name"
                raise InputError(problem, expected=right, source=self.path, line=1, field=key)

    def open(self, fingerprint: Mapping[str, Any]) -> None:
        """Make ready to write; a fresh journal gets its header.

        Raises:
            InputError: as `check`.
            StorageError: the disk refused.
        """
        self.check(fingerprint)
        try:
            # Not for appending: after a torn line, writing goes on where the last whole one ended.
            self._file = self.path.open("r+b" if self.path.exists() else "w+b")
            self._file.truncate(self._good)
            self._file.seek(self._good)
        except OSError as error:
            raise StorageError(f"{self.path}: cannot be written: {error.strerror or error}") from None
        if self.fingerprint is None:
            self._write({"kind": "header", "format": _FORMAT, "fingerprint": dict(fingerprint)})
            self.fingerprint = dict(fingerprint)

    def started(
        self,
        label: str,
        startup_s: float | None,
        facts: Mapping[str, Any],
        check: str | None,
        command: Sequence[str] | None,
    ) -> None:
        """Note that an engine serves.

        Args:
            label: of the engine.
            startup_s: seconds that it took; None for one that ran already.
            facts: what it says about itself.
            check: how its KV capacity was cross-checked.
            command: that started it; None for one that ran already.
        """
        argv = None if command is None else list(command)
        record = {"kind": "started", "label": label, "startup_s": startup_s, "facts": dict(facts), "check": check}
        self._write(record | {"command": argv})
        self._note_start(record | {"command": argv})

    def save(self, profiles: Sequence[str]) -> None:
        """Note which profiles are about to be written."""
        self._write({"kind": "saving", "profiles": list(profiles)})
        self.saving = list(profiles)

    def add(self, label: str, sample: Sample, why: str, spent_s: float) -> None:
        """Note a sample, why it was taken, and how many seconds went by since the last line of its label."""
        self._write(
            {
                "kind": "sample",
                "label": label,
                "table": sample.point.table,
                "at": list(sample.point.at),
                "values": {name: None if math.isnan(value) else value for name, value in sample.values.items()},
                "why": why,
                "wall_s": sample.wall_s,
                "spent_s": spent_s,
            }
        )
        history = self.history(label)
        history.samples.append(sample)
        history.reasons[sample.point.table, why] += 1
        history.spent_s += spent_s

    def lose(self, label: str, point: Point, reason: str, spent_s: float) -> None:
        """Note a point that could not be measured."""
        self._write(
            {
                "kind": "lost",
                "label": label,
                "table": point.table,
                "at": list(point.at),
                "reason": reason,
                "spent_s": spent_s,
            }
        )
        history = self.history(label)
        history.lost.append((point, reason))
        history.spent_s += spent_s

    def spend(self, label: str, spent_s: float) -> None:
        """Note seconds of measuring that gave nothing: an engine died, or the run was interrupted."""
        self._write({"kind": "spent", "label": label, "spent_s": spent_s})
        self.history(label).spent_s += spent_s

    def close(self) -> None:
        """Let go of the file."""
        if self._file is not None:
            self._file.close()
            self._file = None

    def _write(self, record: dict[str, Any]) -> None:
        if self._file is None:
            raise AssertionError("written to before it was opened")
        now = dt.datetime.now(dt.UTC).isoformat(timespec="milliseconds")
        line = json.dumps(record | {"time": now}, allow_nan=False).encode() + b"\n"
        try:
            self._file.write(line)
            self._file.flush()
            os.fsync(self._file.fileno())
        except OSError as error:
            raise StorageError(
                f"{self.path}: cannot be written: {error.strerror or error}; the {self.samples} samples before are kept"
            ) from None
        self._good += len(line)

    def _read(self) -> None:
        try:
            content = self.path.read_bytes()
        except FileNotFoundError:
            return
        except OSError as error:
            raise StorageError(f"{self.path}: cannot be read: {error.strerror or error}") from None
        for number, line in enumerate(content.splitlines(keepends=True), start=1):
            if not line.endswith(b"\n"):
                return  # torn: `open` cuts it off
            try:
                record = json.loads(line)
                self._take(record, number)
            except (ValueError, KeyError, TypeError, AttributeError) as error:
                if self._good + len(line) == len(content):
                    return  # blocks of the last line that never reached the disk
                problem = f"is no record of a run: {error!r}"
                raise InputError(problem, expected="a line as it was written", source=self.path, line=number) from None
            self._good += len(line)

    def _note_start(self, record: dict[str, Any]) -> None:
        label = str(record["label"])
        self.facts[label] = dict(record["facts"])
        self.checks[label], self.commands[label] = record["check"], record["command"]
        if record["startup_s"] is not None:
            self.startups_s.setdefault(label, []).append(float(record["startup_s"]))

    def _take(self, record: dict[str, Any], number: int) -> None:
        kind = record["kind"]
        if number == 1:
            if kind != "header" or record["format"] != _FORMAT:
                raise ValueError(f"begins with {kind!r}, expected a header of format {_FORMAT}")
            self.fingerprint = dict(record["fingerprint"])
        elif kind == "started":
            self._note_start(record)
        elif kind == "spent":
            self.history(record["label"]).spent_s += float(record["spent_s"])
        elif kind == "saving":
            self.saving = [str(path) for path in record["profiles"]]
        elif kind == "sample":
            point = _point(record)
            values = {name: math.nan if value is None else float(value) for name, value in record["values"].items()}
            history = self.history(record["label"])
            history.samples.append(Sample(point, values, float(record["wall_s"])))
            history.reasons[point.table, str(record["why"])] += 1
            history.spent_s += float(record["spent_s"])
        elif kind == "lost":
            history = self.history(record["label"])
            history.lost.append((_point(record), str(record["reason"])))
            history.spent_s += float(record["spent_s"])
        else:
            raise ValueError(f"unknown kind {kind!r}")


def _point(record: dict[str, Any]) -> Point:
    table, at = record["table"], tuple(float(value) for value in record["at"])
    if len(at) != len(KEYS[table]):
        raise ValueError(f"{table} has {len(KEYS[table])} coordinates, not {len(at)}")
    return Point(table, at)
