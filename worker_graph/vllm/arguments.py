"""A worker's command line, split into flags: which program it is, and what each flag says."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import PurePosixPath
from typing import Any

from profiler.errors import InputError
from worker_graph.spec import Component, Word, words_of
from worker_graph.vllm.flags import SHORT, Takes, takes

_PYTHON = re.compile(r"python[0-9.]*")
_NUMBER = re.compile(r"-[0-9.]")
_DYNAMO = "dynamo.vllm"
_API_SERVER = "vllm.entrypoints.openai.api_server"


@dataclass(frozen=True)
class Flag:
    """One flag as written.

    Attributes:
        name: in its long form with hyphens; empty for a word that belongs to no flag.
        values: its values.
        words: what was written, to be passed on as it is.
    """

    name: str
    values: tuple[str, ...]
    words: tuple[Word, ...]


@dataclass(frozen=True)
class Arguments:
    """The arguments of one worker; of a flag that is given twice the last one counts, as in vLLM."""

    component: Component
    flags: tuple[Flag, ...]

    def find(self, *names: str) -> Flag | None:
        """The last flag of any of these names."""
        return next((flag for flag in reversed(self.flags) if flag.name in names), None)

    def error(self, flag: Flag, problem: str, expected: str = "") -> InputError:
        """An error about a flag, at its line."""
        word = flag.words[-1] if flag.values else flag.words[0]
        return self.component.document.error(f"{flag.name} {problem}", word.place, expected)

    def text(self, name: str) -> str | None:
        """The one value of a flag; None where it is not given."""
        flag = self.find(name)
        if flag is None:
            return None
        if not flag.values or not flag.values[0]:
            raise self.error(flag, "has no value")
        return flag.values[0]

    def count(self, name: str, default: int, least: int = 1) -> int:
        """A whole number; `default` where the flag is not given."""
        text = self.text(name)
        flag = self.find(name)
        if text is None or flag is None:
            return default
        if not (text.isascii() and text.isdigit()) or int(text) < least:
            raise self.error(flag, f"is {text!r}", f"a whole number from {least}")
        return int(text)

    def json(self, name: str) -> dict[str, Any] | None:
        """A JSON object; None where the flag is not given."""
        text = self.text(name)
        flag = self.find(name)
        if text is None or flag is None:
            return None
        try:
            value = json.loads(text)
        except ValueError as error:
            raise self.error(flag, f"is not JSON: {error}", "a JSON object in single quotes") from None
        if not isinstance(value, dict):
            raise self.error(flag, f"is a {type(value).__name__}", "a JSON object")
        return value

    def without(self, names: Iterable[str]) -> tuple[Flag, ...]:
        """The flags of other names, in order."""
        dropped = set(names)
        return tuple(flag for flag in self.flags if flag.name not in dropped)


def read_arguments(component: Component) -> Arguments:
    """Split a worker's command line.

    `python3 -m dynamo.vllm …`, `vllm serve MODEL …`, `python3 -m vllm.entrypoints.openai.api_server …` and arguments
    without a command (of the image `vllm/vllm-openai`, whose entrypoint is `vllm serve`) are known.

    Raises:
        InputError: the component is no worker of a role, or runs another program.
    """
    if component.role is None:
        raise component.error("is no worker; it has no vLLM command")
    words = words_of(component)
    if not words:
        expected = "python3 -m dynamo.vllm, or vllm serve, with the model"
        raise component.error("has no command and no arguments", expected=expected)
    return Arguments(component, tuple(_split(_arguments_of(component, words))))


def _arguments_of(component: Component, words: Sequence[Word]) -> Sequence[Word]:
    program = PurePosixPath(words[0].text).name
    following = [word.text for word in words[1:3]]
    if _PYTHON.fullmatch(program) and following in (["-m", _DYNAMO], ["-m", _API_SERVER]):
        return words[3:]
    rest = words
    if program == "vllm" and following[:1] == ["serve"]:
        rest = words[2:]
    elif component.command or not words[0].text.startswith("-"):
        shown = " ".join(word.text for word in words[:3])
        expected = "python3 -m dynamo.vllm, or vllm serve"
        raise component.document.error(f"runs {shown!r}", words[0].place, expected)
    # `vllm serve MODEL`: the one word that belongs to no flag.
    if rest and not rest[0].text.startswith("-"):
        return [Word(f"--model={rest[0].text}", rest[0].place), *rest[1:]]
    return rest


def _split(words: Sequence[Word]) -> Iterable[Flag]:
    at = 0
    while at < len(words):
        word = words[at]
        if not word.text.startswith("-") or _NUMBER.match(word.text):
            yield Flag("", (word.text,), (word,))
            at += 1
            continue
        written, equals, value = word.text.partition("=")
        name = written.replace("_", "-") if written.startswith("--") else SHORT.get(written, written)
        at += 1
        values: list[Word] = []
        most = {Takes.NONE: 0, Takes.ONE: 1, Takes.ANY: len(words)}[takes(name)] if not equals else 0
        while at < len(words) and len(values) < most and _is_value(words[at].text):
            values.append(words[at])
            at += 1
        texts = (value,) if equals else tuple(each.text for each in values)
        yield Flag(name, texts, (word, *values))


def _is_value(text: str) -> bool:
    return not text.startswith("-") or bool(_NUMBER.match(text)) or text == "-"
