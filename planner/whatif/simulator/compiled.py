"""How the kernel is compiled: numba in nopython mode, cached on disk under the hash of the kernel's own sources.

numba's stock cache asks only whether the file of the called function changed, not those of its callees, and files
that come from a wheel all bear one date. A folder named after the hash of all sources is right in both cases.
"""

from __future__ import annotations

import hashlib
import os
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any, ParamSpec, TypeVar

import numba

P = ParamSpec("P")
R = TypeVar("R")


def _cache_folder() -> Path | None:
    """The folder for compiled code, made if it is not there; None where none can be written."""
    # `simulation.py` is plain Python around the kernel.
    sources = [path for path in sorted(Path(__file__).parent.glob("*.py")) if path.name != "simulation.py"]
    digest = hashlib.sha256(b"".join(path.read_bytes() for path in sources)).hexdigest()[:16]
    base = os.environ.get("NUMBA_CACHE_DIR") or os.environ.get("XDG_CACHE_HOME") or str(Path.home() / ".cache")
    folder = Path(base) / "plimsoll" / f"kernel-{digest}"
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder):
            pass
    except OSError:
        # A read-only home is no fault: the kernel is then compiled in every process.
        return None
    return folder


_FOLDER = _cache_folder()
if _FOLDER is not None:
    numba.config.CACHE_DIR = str(_FOLDER)  # type: ignore[attr-defined]  # numba sets its options at run time


def _compile(function: Callable[P, R], **more: Any) -> Callable[P, R]:
    """Compile in nopython mode.

    No fast-math: the same seed must give the same result on every machine, so only IEEE operations in program order.
    No reference counting (`_nrt`, an option of numba's own target): the kernel allocates nothing, and counting
    references of the simulation's arrays at each call made it five times slower.
    """
    options: dict[str, Any] = {"cache": _FOLDER is not None, "error_model": "numpy", "_nrt": False, **more}
    compiled: Callable[P, R] = numba.njit(function, **options)
    return compiled


def kernel(function: Callable[P, R]) -> Callable[P, R]:
    """Compile a function that only compiled functions call, into the body of each of its callers.

    A call would pass the whole simulation, some hundred words of arrays, on the stack, which takes longer than most of
    these functions. What is called in many places should therefore be small.
    """
    return _compile(function, forceinline=True, no_cpython_wrapper=True, no_cfunc_wrapper=True)


def entry(function: Callable[P, R]) -> Callable[P, R]:
    """Compile a function that Python calls."""
    return _compile(function, no_cfunc_wrapper=True)
