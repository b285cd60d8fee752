"""The decisions of the last hours in memory, as summaries in ready-made JSON; bounded in time and in number."""

from __future__ import annotations

import bisect
import datetime as dt
import json
import threading
from dataclasses import dataclass

from planner.service.journal import Journal
from planner.service.logs import log
from planner.service.summary import Json, strict_json, summary

#: Whatever the interval: about 25 MiB.
MOST_ENTRIES = 20_000


@dataclass(frozen=True, slots=True)
class Entry:
    """One decision: its number, when (unix time), and its summary as JSON."""

    number: int
    wall_s: float
    json: str


class History:
    """Summaries by number. Every method may be called from any thread.

    Args:
        span_s: wall seconds that are kept.
        most: entries that are kept.
    """

    def __init__(self, span_s: float, most: int = MOST_ENTRIES) -> None:
        self._span_s = span_s
        self._most = most
        self._entries: list[Entry] = []
        self._lock = threading.Lock()
        self.complete = False

    def __len__(self) -> int:
        return len(self._entries)

    def add(self, record: Json) -> None:
        """Take the newest record in, in its JSON form."""
        entry = _entry(record)
        with self._lock:
            # After the clock was set back, what now lies in the future goes: numbers only grow.
            while self._entries and self._entries[-1].number >= entry.number:
                self._entries.pop()
            self._entries.append(entry)
            first = bisect.bisect_left(self._entries, entry.wall_s - self._span_s, key=lambda e: e.wall_s)
            surplus = max(first, len(self._entries) - self._most)
            # In steps, so that a full history is not copied at every tick.
            if surplus > self._most // 100 or (surplus and len(self._entries) < 100):
                del self._entries[:surplus]

    def page(self, since: int | None, limit: int) -> list[Entry]:
        """The first `limit` entries after a number; without one, the newest, oldest of them first."""
        with self._lock:
            if since is None:
                return self._entries[-limit:]
            start = bisect.bisect_right(self._entries, since, key=lambda e: e.number)
            return self._entries[start : start + limit]

    @property
    def oldest(self) -> int | None:
        """Number of the first entry."""
        with self._lock:
            return self._entries[0].number if self._entries else None

    @property
    def newest(self) -> Entry | None:
        """The last entry."""
        with self._lock:
            return self._entries[-1] if self._entries else None

    def preload(self, journal: Journal, graph: str, now_wall_s: float) -> None:
        """Put what the journal still holds of the span before the entries that are there.

        Reads backwards from the journal's end and stops at the first record that is too old.

        Raises:
            OSError: the journal cannot be read.
        """
        found: list[Entry] = []
        damaged = 0
        with self._lock:
            before = self._entries[0].number if self._entries else None
        for place, line in journal.newest_first():
            try:
                record = json.loads(_without_state(line))
                if record["graph"] != graph:
                    continue
                entry = _entry(record)
            except (ArithmeticError, AttributeError, LookupError, RecursionError, TypeError, ValueError):
                damaged += 1
                continue
            if entry.wall_s < now_wall_s - self._span_s or len(found) >= self._most:
                break
            if before is not None and entry.number >= before:
                continue
            before = entry.number
            found.append(entry)
            journal.remember(entry.number, place)
        if damaged:
            log.warning("%d lines are no records and are left out", damaged, extra={"stage": "journal"})
        with self._lock:
            first = self._entries[0].number if self._entries else None
            older = [entry for entry in reversed(found) if first is None or entry.number < first]
            self._entries[:0] = older
            self.complete = True


def _without_state(line: bytes) -> bytes:
    """A record's line without the state, which is most of it and in no summary: a day is read in a third of the time.

    A quote within a string of JSON is escaped, so that neither mark can be part of one.
    """
    start, end = line.find(b',"state":{"forecast":'), line.find(b',"observation":{"interval_s":')
    return line[:start] + line[end:] if 0 < start < end else line


def _entry(record: Json) -> Entry:
    made = summary(record)
    wall_s = dt.datetime.fromisoformat(made["time"]).timestamp()
    return Entry(made["id"], wall_s, strict_json(made))
