"""Counts in the words of messages and Events."""

from __future__ import annotations


def counted(count: int) -> str:
    """`1 worker`, `2 workers`."""
    return f"{count} worker{'' if count == 1 else 's'}"
