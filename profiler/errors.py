"""Errors that a user can mend, and how they read.

    PlimsollError
    ├── InputError        a file, a field or a flag is wrong; exit code 2
    └── DependencyError   something outside failed (a server, a GPU, a package); exit code 3

Exit code 2 asks for a change of the input; 3 may go away by itself.
"""

from __future__ import annotations

from pathlib import Path


class PlimsollError(Exception):
    """Base of every error that is reported to the user as one line, without a traceback."""

    exit_code = 3


class DependencyError(PlimsollError):
    """Something outside the program failed."""


class InputError(PlimsollError):
    """Bad input: names the file, the line, the field, the value and what would be right.

    Args:
        problem: what is wrong, with the value that was found.
        expected: what would be right; empty when the problem says it.
        source: the file that the value came from.
        line: its line in that file, counted from 1.
        field: the field, column or flag.
    """

    exit_code = 2

    def __init__(
        self,
        problem: str,
        *,
        expected: str = "",
        source: Path | str | None = None,
        line: int | None = None,
        field: str | None = None,
    ) -> None:
        self.problem = problem
        self.expected = expected
        self.source = str(source) if source is not None else None
        self.line = line
        self.field = field
        where = [str(source)] if source is not None else []
        if line is not None:
            where.append(f"line {line}")
        if field:
            where.append(f"field {field}")
        prefix = ", ".join(where)
        text = f"{prefix}: {problem}" if prefix else problem
        super().__init__(f"{text}; expected {expected}" if expected else text)
