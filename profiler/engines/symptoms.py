"""What the end of an engine's log says about why it failed."""

from __future__ import annotations

import os
import re
from pathlib import Path

_COLOUR = re.compile(r"\x1b\[[0-9;]*m")
_READ_BYTES = 256 * 1024

#: What is looked for, and what it means; the first that is found counts.
_SYMPTOMS = (
    (
        re.compile(
            r"CUDA out of memory|OutOfMemoryError|CUDA error: out of memory|No available memory for the cache blocks"
            r"|KV cache is needed, which is larger than the available|less than desired GPU memory utilization"
            r"|larger than the maximum number of tokens that can be stored in KV cache"
            r"|Available KV cache memory: -|cudaErrorMemoryAllocation|CUBLAS_STATUS_ALLOC_FAILED",
        ),
        "out of memory",
    ),
    (re.compile(r"ncclSystemError|ncclUnhandled|NCCL error|ncclInternalError"), "its GPUs could not talk (NCCL)"),
    (re.compile(r"address already in use", re.IGNORECASE), "its port was taken"),
)


def tail(log: Path, lines: int = 20) -> list[str]:
    """The last lines of a log that are not empty, without colours."""
    return [line.rstrip() for line in _end_of(log).splitlines() if line.strip()][-lines:]


def symptom(log: Path) -> str | None:
    """Why the engine failed, where its log holds a known sign; else None."""
    text = _end_of(log)
    return next((meaning for sign, meaning in _SYMPTOMS if sign.search(text)), None)


def _end_of(log: Path) -> str:
    try:
        with log.open("rb") as file:
            file.seek(0, os.SEEK_END)
            file.seek(max(0, file.tell() - _READ_BYTES))
            text = file.read().decode(errors="replace")
    except OSError as error:
        return f"log cannot be read: {error.strerror or error}"
    return _COLOUR.sub("", text)
