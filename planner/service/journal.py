"""The journal: decision records as JSON lines, rotated by size, that outlives crashes and full disks."""

from __future__ import annotations

import fcntl
import os
import threading
from collections import OrderedDict, deque
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from planner.service.logs import log

#: Records kept in memory while they cannot be written: an hour of ticks of 15 s, some 8 MiB.
MOST_PENDING = 240

#: Bytes read at once when looking for the ends of lines from behind.
BLOCK = 1 << 20


@dataclass(frozen=True, slots=True)
class Place:
    """Where a line is: the file's number, counting up with each rotation, and its bytes in that file."""

    file: int
    offset: int
    length: int


class Journal:
    """Appends lines and finds them again. Every method may be called from any thread.

    Args:
        path: the file; `path.1` is the one before it, and so on.
        max_bytes: size beyond which a file is rotated.
        keep: rotated files kept.
        index: places remembered, for reading single lines.
    """

    def __init__(self, path: Path, *, max_bytes: int, keep: int, index: int) -> None:
        self.path = path
        self._max_bytes = max_bytes
        self._keep = keep
        self._most_places = index
        self._lock = threading.RLock()
        self._file = -1
        self._size = 0
        self._number = 0
        self._pending: deque[tuple[int, bytes]] = deque()
        self._places: OrderedDict[int, Place] = OrderedDict()
        self.lost = 0

    @property
    def pending(self) -> int:
        """Records that wait in memory for the disk."""
        with self._lock:
            return len(self._pending)

    # -- writing ---------------------------------------------------------------------------------------------------

    def append(self, number: int, line: str) -> None:
        """Write a record, and those that could not be written before it.

        Args:
            number: of the record, for `read`.
            line: without its end.

        Raises:
            OSError: the disk refused; the record waits in memory for the next call.
        """
        with self._lock:
            if len(self._pending) >= MOST_PENDING:
                self._pending.popleft()
                self.lost += 1
            self._pending.append((number, line.encode() + b"\n"))
            self.flush()

    def flush(self) -> None:
        """Write what waits.

        Raises:
            OSError: the disk refused.
        """
        with self._lock:
            try:
                while self._pending:
                    number, content = self._pending[0]
                    self._open()
                    if self._size and self._size + len(content) > self._max_bytes:
                        self._rotate()
                        self._open()
                    self._write(content)
                    self.remember(number, Place(self._number, self._size, len(content)))
                    self._size += len(content)
                    self._pending.popleft()
            except OSError:
                # The next call opens it anew, and cuts off what was written in part.
                self._close()
                raise

    def close(self) -> None:
        """Write what waits, if that is possible, and close the file."""
        with self._lock:
            try:
                self.flush()
            except OSError as error:
                log.error("%d records are lost: %s", len(self._pending), error, extra={"stage": "journal"})
            self._close()

    def open(self) -> None:
        """Open the file now, and cut a torn last line off.

        Raises:
            OSError: it cannot be opened, or another process writes to it.
        """
        with self._lock:
            self._open()

    def _open(self) -> None:
        if self._file >= 0:
            return
        self.path.parent.mkdir(parents=True, exist_ok=True)
        file = os.open(self.path, os.O_RDWR | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, 0o644)
        try:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                raise OSError(0, "another process writes to it", str(self.path)) from None
            self._size = _repaired(file, self.path)
        except BaseException:
            os.close(file)
            raise
        self._file = file

    def _write(self, content: bytes) -> None:
        rest = memoryview(content)
        while rest:
            rest = rest[os.write(self._file, rest) :]

    def _close(self) -> None:
        if self._file < 0:
            return
        # Cut now what a full disk took in part; if even that fails, the next opening does it.
        with suppress(OSError):
            os.ftruncate(self._file, self._size)
        os.close(self._file)
        self._file = -1

    def _rotate(self) -> None:
        self._close()
        for k in range(self._keep - 1, 0, -1):
            if self._at(k).exists():
                self._at(k).replace(self._at(k + 1))
        if self._keep:
            self.path.replace(self._at(1))
        else:
            self.path.unlink()
        self._number += 1

    def _at(self, back: int) -> Path:
        return self.path.with_name(f"{self.path.name}.{back}") if back else self.path

    # -- reading ---------------------------------------------------------------------------------------------------

    def remember(self, number: int, place: Place) -> None:
        """Keep where a record is."""
        with self._lock:
            self._places[number] = place
            while len(self._places) > self._most_places:
                self._places.popitem(last=False)

    def read(self, number: int) -> str | None:
        """A record's line, without its end; None when it is gone.

        Raises:
            OSError: its file cannot be read.
        """
        with self._lock:
            for pending, content in self._pending:
                if pending == number:
                    return content.decode().rstrip("\n")
            place = self._places.get(number)
            if place is None or self._number - place.file > self._keep:
                return None
            try:
                with self._at(self._number - place.file).open("rb") as file:
                    file.seek(place.offset)
                    content = file.read(place.length)
            except FileNotFoundError:
                return None
        return content.decode().rstrip("\n") if content.endswith(b"\n") else None

    def newest_first(self) -> Iterator[tuple[Place, bytes]]:
        """Lines that are on the disk now, from the last one back, over all files.

        Raises:
            OSError: a file cannot be read.
        """
        with self._lock:
            # Opened together: a rotation meanwhile renames them, and the handles stay.
            files = []
            for back in range(self._keep + 1):
                with suppress(FileNotFoundError):
                    files.append((self._number - back, self._at(back).open("rb")))
            size = self._size
        try:
            for number, file in files:
                end = size if number == files[0][0] and self._file >= 0 else os.fstat(file.fileno()).st_size
                for offset, line in _lines_backwards(file.fileno(), end):
                    yield Place(number, offset, len(line) + 1), line
        finally:
            for _, file in files:
                file.close()


def _lines_backwards(file: int, end: int) -> Iterator[tuple[int, bytes]]:
    """Whole lines before `end`, last first, with their offsets; what follows the last newline is left out."""
    rest, position = b"", end
    while position > 0:
        start = max(0, position - BLOCK)
        data = os.pread(file, position - start, start) + rest
        # But for the file's beginning, a block begins within a line, which waits for the block before.
        cut = data.find(b"\n") + 1 if start > 0 else 0
        if start > 0 and cut == 0:
            rest, position = data, start
            continue
        body = data[cut:]
        offset = start + cut + body.rfind(b"\n") + 1
        for line in reversed(body.split(b"\n")[:-1]):
            offset -= len(line) + 1
            yield offset, line
        rest, position = data[:cut], start


def _repaired(file: int, path: Path) -> int:
    """Cut a file off after its last whole line, and return its size then."""
    size = os.fstat(file).st_size
    end = size
    while end > 0:
        start = max(0, end - BLOCK)
        found = os.pread(file, end - start, start).rfind(b"\n")
        if found >= 0:
            end = start + found + 1
            break
        end = start
    if end < size:
        torn = os.pread(file, min(size - end, 200), end).decode(errors="replace")
        text = "%s ended in the middle of a line: %d bytes cut off, which began %r"
        log.warning(text, path, size - end, torn, extra={"stage": "journal"})
        os.ftruncate(file, end)
    return end
