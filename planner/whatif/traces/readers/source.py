"""Bytes of a trace file as blocks of whole, numbered lines; everything that can be wrong below the format."""

from __future__ import annotations

import gzip
import stat
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO, cast

import numpy as np
from numpy.typing import NDArray

from profiler.errors import InputError

BLOCK_BYTES = 2 << 20
"""Bytes read at once: some 60,000 CSV rows."""
MAX_LINE_BYTES = 1 << 20
"""A prompt of 10 million tokens has 19,532 block hashes of 512 tokens, well below this."""
_GZIP_MAGIC = b"\x1f\x8b"
_SHOWN_CHARACTERS = 60


@dataclass(frozen=True)
class LineBlock:
    """Whole lines, blank ones left out.

    Attributes:
        data: the lines, each ended by a newline.
        numbers: int64, the line number of each in the file, counted from 1.
    """

    data: bytes
    numbers: NDArray[np.int64]


def shown(value: object) -> str:
    """Returns a value as it may be quoted in an error: printable, in quotes, and not longer than a glance."""
    text = value if isinstance(value, str) else str(value)
    return repr(text if len(text) <= _SHOWN_CHARACTERS else text[: _SHOWN_CHARACTERS - 1] + "…")


def line_blocks(path: Path) -> Iterator[LineBlock]:
    """Yields the lines of a file, gzip unpacked, from the start; line ends become a bare newline.

    Raises:
        InputError: the file cannot be read, is a damaged gzip archive, holds NUL bytes or text that is not
            UTF-8, or a line longer than `MAX_LINE_BYTES`.
    """
    next_number = 1
    tail = b""
    for piece in _pieces(path):
        data = tail + piece
        cut = data.rfind(b"\n") + 1
        # A run without a newline must not be collected for ever.
        if len(data) - cut > MAX_LINE_BYTES:
            number = next_number + data.count(b"\n")
            raise InputError(
                f"line is longer than {MAX_LINE_BYTES} bytes",
                expected="one request per line",
                source=path,
                line=number,
            )
        tail = data[cut:]
        if cut:
            yield _block(path, data[:cut], next_number)
            next_number += data.count(b"\n")
    if tail:
        yield _block(path, tail + b"\n", next_number)


def first_line(path: Path) -> tuple[int, str, bool]:
    """Returns number and text of the first line that is not blank, and whether more such lines follow.

    Raises:
        InputError: the file is empty, or as for `line_blocks`.
    """
    number, text = 0, ""
    for block in line_blocks(path):
        for line_number, raw in zip(block.numbers.tolist(), block.data.split(b"\n"), strict=False):
            if number:
                return number, text, True
            number, text = line_number, raw.decode().strip()
    if not number:
        raise InputError("the file is empty", expected="a trace with at least one request", source=path)
    return number, text, False


def _pieces(path: Path) -> Iterator[bytes]:
    """Yields the unpacked bytes of a file; what the system or gzip reports becomes an input error."""
    try:
        if path.is_dir():
            raise InputError("is a directory", expected="a trace file", source=path)
        # A pipe could be read only once, and a device for ever.
        if not stat.S_ISREG(path.stat().st_mode):
            raise InputError("is not a regular file", expected="a trace file", source=path)
        with path.open("rb") as raw:
            packed = raw.peek(len(_GZIP_MAGIC))[: len(_GZIP_MAGIC)] == _GZIP_MAGIC
            stream = cast("BinaryIO", gzip.GzipFile(fileobj=raw) if packed else raw)
            while piece := stream.read(BLOCK_BYTES):
                yield piece
    except FileNotFoundError:
        raise InputError("no such file", expected="an existing trace file", source=path) from None
    except (EOFError, gzip.BadGzipFile, zlib.error) as error:
        raise InputError(f"damaged gzip archive ({error})", expected="a complete gzip file", source=path) from error
    except (OSError, ValueError) as error:
        # ValueError: the path itself holds a NUL byte.
        raise InputError(f"cannot be read ({error})", expected="a readable file", source=path) from error


def _block(path: Path, data: bytes, first_number: int) -> LineBlock:
    if first_number == 1:
        data = data.removeprefix(b"\xef\xbb\xbf")
    _check_text(path, data, first_number)
    if b"\r" in data:
        data = data.replace(b"\r\n", b"\n")
    ends = np.flatnonzero(np.frombuffer(data, dtype=np.uint8) == 0x0A)
    lengths = np.diff(ends, prepend=-1) - 1
    numbers = np.arange(first_number, first_number + len(ends), dtype=np.int64)
    too_long = np.flatnonzero(lengths > MAX_LINE_BYTES)
    if len(too_long):
        raise InputError(
            f"line of {int(lengths[too_long[0]])} bytes",
            expected=f"one request per line, at most {MAX_LINE_BYTES} bytes",
            source=path,
            line=int(numbers[too_long[0]]),
        )
    # Blank lines, mostly at the end of hand-made files, carry nothing; their numbers still count.
    if lengths.min() <= 1:
        lines = data.split(b"\n")[:-1]
        kept = [i for i, line in enumerate(lines) if line.strip()]
        if len(kept) < len(lines):
            data = b"".join(lines[i] + b"\n" for i in kept)
            numbers = numbers[kept]
    return LineBlock(data, numbers)


def _check_text(path: Path, data: bytes, first_number: int) -> None:
    nul = data.find(b"\0")
    if nul >= 0:
        raise InputError(
            "holds a NUL byte",
            expected="a UTF-8 text file, plain or gzip",
            source=path,
            line=first_number + data.count(b"\n", 0, nul),
        )
    if not data.isascii():
        try:
            data.decode()
        except UnicodeDecodeError as error:
            raise InputError(
                f"byte 0x{data[error.start]:02x} is not UTF-8",
                expected="a UTF-8 text file, plain or gzip",
                source=path,
                line=first_number + data.count(b"\n", 0, error.start),
            ) from error
