"""The command line of a container, word by word, each with its place in the file."""

from __future__ import annotations

import re
import shlex
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import PurePosixPath

from profiler.errors import InputError
from profiler.yamlfile import Place
from worker_graph.spec.graph import Component

_REFERENCE = re.compile(r"\$(?:\$|\(([A-Za-z_.\-][A-Za-z0-9_.\-]*)\))")
_SHELLS = frozenset({"sh", "bash", "dash"})
#: What a shell would act on; a script with any of it is more than one command's words.
_SHELL_SYNTAX = re.compile(r"[|&;<>`$(){}*?~\n]")


@dataclass(frozen=True, slots=True)
class Word:
    """One word and the keys that lead to it in the document."""

    text: str
    place: Place


def expand(text: str, env: Mapping[str, str]) -> str:
    """`$(NAME)` replaced from the variables, `$$` by `$`; an unknown name stays as it is written, as in Kubernetes."""

    def replace(match: re.Match[str]) -> str:
        name = match.group(1)
        return "$" if name is None else env.get(name, match.group(0))

    return _REFERENCE.sub(replace, text)


def words_of(component: Component) -> tuple[Word, ...]:
    """The words of a component's command and arguments; `sh -c "one command"` counts as that command's words.

    Raises:
        InputError: the script of a `sh -c` is more than one plain command.
    """
    words = [Word(text, (*component.container, "command", i)) for i, text in enumerate(component.command)]
    words += [Word(text, (*component.container, "args", i)) for i, text in enumerate(component.args)]
    if len(words) < 2 or PurePosixPath(words[0].text).name not in _SHELLS or words[1].text not in {"-c", "-lc", "-ec"}:
        return tuple(words)
    if len(words) != 3:
        raise _script_error(component, words[1], f"is followed by {len(words) - 2} words")
    script = words[2]
    text = script.text.replace("\\\n", " ").strip()
    try:
        split = shlex.split(text)
    except ValueError as error:
        raise _script_error(component, script, f"cannot be split into words: {error}") from None
    if _SHELL_SYNTAX.search(_outside_quotes(text)):
        raise _script_error(component, script, "is more than one plain command")
    if split[:1] == ["exec"]:
        split = split[1:]
    return tuple(Word(part, script.place) for part in split)


def _outside_quotes(text: str) -> str:
    """The text without its single-quoted parts, and of its double-quoted ones only what a shell still acts on."""
    bare = re.sub(r"'[^']*'", "", text)
    return re.sub(r'"([^"$`]*)"', "", bare)


def _script_error(component: Component, word: Word, problem: str) -> InputError:
    return component.document.error(problem, word.place, "command and args as lists of words, without a shell script")
