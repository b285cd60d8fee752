"""Files that options ask for: checked before the work, written after it."""

from __future__ import annotations

import tempfile
from pathlib import Path

from profiler.atomic import write_atomic
from profiler.errors import InputError


def check_outputs(outputs: dict[str, Path | None], inputs: dict[str, Path | None]) -> None:
    """Whether what is asked for can be written: found out before the work, not after it.

    Args:
        outputs: files by option; None where it was not given.
        inputs: files that must not be overwritten, in the same way.

    Raises:
        InputError: one cannot be written, or two are the same.
    """
    taken = {path.resolve(): name for name, path in inputs.items() if path is not None}
    for name, path in outputs.items():
        if path is None:
            continue
        try:
            if path.exists() and not path.is_file():
                kind = "folder" if path.is_dir() else "device or pipe"
                # It would be replaced, not written to.
                raise InputError(f"is a {kind}", expected="a file", source=path, field=name)
            with tempfile.NamedTemporaryFile(dir=path.parent, prefix=f".{path.name}."):
                pass
        except OSError as error:
            raise unwritten(name, path, error) from None
        other = taken.setdefault(path.resolve(), name)
        if other != name:
            raise InputError(f"is the file of {other}, too", expected="a file of its own", source=path, field=name)


def write_output(name: str, path: Path, text: str) -> None:
    """Write a file that an option asked for.

    Raises:
        InputError: it cannot be written.
    """
    try:
        write_atomic(path, text)
    except OSError as error:
        raise unwritten(name, path, error) from None


def unwritten(name: str, path: Path, error: OSError) -> InputError:
    """The error for a file that an option asked for."""
    return InputError(f"cannot be written: {error.strerror or error}", source=path, field=name)
