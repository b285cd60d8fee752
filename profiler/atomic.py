"""Files that appear whole: written beside their place, then renamed."""

from __future__ import annotations

import os
from pathlib import Path


def write_atomic(path: Path, content: str | bytes, *, durable: bool = False) -> None:
    """Write a file so that whoever opens it sees the old content or the new, never half of one.

    Args:
        path: the file; its folder must exist.
        content: text is written as UTF-8.
        durable: also wait until the content and its name are on the disk, so that a power cut loses neither.

    Raises:
        OSError: the file cannot be written; the old one stays as it was.
    """
    part = path.with_name(f".{path.name}.part")
    try:
        with part.open("wb") as file:
            file.write(content.encode() if isinstance(content, str) else content)
            if durable:
                file.flush()
                os.fsync(file.fileno())
        part.replace(path)
    except BaseException:
        part.unlink(missing_ok=True)
        raise
    if durable:
        folder = os.open(path.parent, os.O_RDONLY)
        try:
            os.fsync(folder)
        finally:
            os.close(folder)
