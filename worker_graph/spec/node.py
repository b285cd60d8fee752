"""A value of a document together with its place: what it must be, or an error that names line and field."""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from profiler.errors import InputError
from profiler.yamlfile import Document, Place


def suggestion(word: str, known: Iterable[str]) -> str:
    """`; did you mean 'x'?` for the closest known word, or nothing when none is close."""
    by_lower = {name.lower(): name for name in known}
    near = difflib.get_close_matches(word.lower(), by_lower, n=1)
    return f" (did you mean {by_lower[near[0]]!r}?)" if near else ""


def shown(value: Any) -> str:
    """A value as an error quotes it."""
    text = repr(value)
    return text if len(text) <= 60 else f"{text[:57]}..."


@dataclass(frozen=True, slots=True)
class Node:
    """One value and the keys that lead to it. Every reader raises InputError when the value is not what it reads."""

    document: Document
    place: Place
    value: Any

    def error(self, problem: str, expected: str = "") -> InputError:
        """An error about this value."""
        return self.document.error(problem, self.place, expected)

    def mapping(self) -> Mapping[str, Any]:
        """The value as a mapping with text for keys."""
        if not isinstance(self.value, dict):
            raise self.error(f"is {shown(self.value)}", "a mapping")
        for key in self.value:
            if not isinstance(key, str):
                raise self.error(f"has the key {shown(key)}", "keys that are text, in quotes if need be")
        return self.value

    def get(self, key: str) -> Node | None:
        """The value of a key of this mapping; None where it is missing or null, which Kubernetes takes as missing."""
        value = self.mapping().get(key)
        return None if value is None else Node(self.document, (*self.place, key), value)

    def items(self) -> list[tuple[str, Node]]:
        """Keys and values of this mapping, empty values included."""
        return [(key, Node(self.document, (*self.place, key), value)) for key, value in self.mapping().items()]

    def entries(self) -> list[Node]:
        """The values of this list."""
        if not isinstance(self.value, list):
            raise self.error(f"is {shown(self.value)}", "a list")
        return [Node(self.document, (*self.place, index), value) for index, value in enumerate(self.value)]

    def below(self, key: str) -> list[Node]:
        """The values of the list that a key of this mapping holds; none where it is missing or null."""
        node = self.get(key)
        return node.entries() if node is not None else []

    def text(self) -> str:
        """The value as text that is not empty."""
        if not isinstance(self.value, str) or not self.value:
            raise self.error(f"is {shown(self.value)}", "text, in quotes if it looks like a number")
        return self.value

    def words(self) -> tuple[str, ...]:
        """The value as a list of text; Kubernetes takes nothing else as a command or its arguments."""
        for node in self.entries():
            if not isinstance(node.value, str):
                raise node.error(f"is {shown(node.value)}", "text, in quotes if it looks like a number")
        return tuple(self.value)

    def count(self, least: int = 0) -> int:
        """The value as a whole number of at least `least`."""
        if isinstance(self.value, bool) or not isinstance(self.value, int) or self.value < least:
            raise self.error(f"is {shown(self.value)}", f"a whole number from {least}")
        return self.value

    def quantity(self) -> int:
        """The value as a Kubernetes quantity of whole devices: 2 or "2"."""
        text = str(self.value)
        if isinstance(self.value, bool) or not (text.isascii() and text.isdigit()):
            raise self.error(f"is {shown(self.value)}", "a whole number of GPUs, such as 1 or '1'")
        return int(text)
