"""A worker container with another tensor- and data-parallel size: its engine arguments and its GPUs."""

from __future__ import annotations

import copy
import re
import shlex
from collections.abc import Iterable, Mapping
from pathlib import PurePosixPath
from typing import Any, Final

from profiler.errors import InputError
from worker_graph.spec.containers import GPU_RESOURCES

TP: Final = "--tensor-parallel-size"
DP: Final = "--data-parallel-size"
_PP: Final = "--pipeline-parallel-size"
_LOCAL: Final = "--data-parallel-size-local"

_SHORT: Final = {"-tp": TP, "-dp": DP, "-pp": _PP, "-dpl": _LOCAL}
_SIZES: Final = (TP, DP, _PP, _LOCAL)

#: Flags that tie a worker to a place in a group; its sizes are not its own to change.
_GROUP: Final = frozenset(
    {
        "--nnodes", "--node-rank", "-r", "--headless", "--master-addr", "--data-parallel-rank", "-dpn", "-dpr",
        "--data-parallel-start-rank", "-dpr-start", "--data-parallel-address", "-dpa", "--data-parallel-hybrid-lb",
        "-dph", "--data-parallel-external-lb", "-dpe",
    }
)  # fmt: skip

_SHELLS: Final = frozenset({"sh", "bash", "dash"})
_SCRIPT: Final = re.compile(r"-[a-z]*c")
#: The one command of a shell line that runs the engine, up to what ends a command in a shell.
_ENGINE: Final = re.compile(
    r"(?:\bvllm\s+serve\b|\s-m\s+(?:vllm\.entrypoints\.openai\.api_server|dynamo\.vllm|worker_graph\.simulated)\b)"
)
_ENDS: Final = re.compile(r"(?<!\S)[0-9]*[<>]|[;&|<>)#\n]")
_TAIL: Final = re.compile(r"(?:\s|\\\n)+\Z")


def relayout(container: Mapping[str, Any], tp: int, dp: int) -> dict[str, Any]:
    """The same container with another layout.

    `--tensor-parallel-size` and `--data-parallel-size` are set where they stand: in `command`, in `args`, or in the
    line of a `sh -c "exec vllm serve …"`, in their long and short forms, with `=` or without; one that is not there is
    added behind the other arguments. A size of 1 that is not there stays away, for it is vLLM's own default.
    `--data-parallel-size-local` follows the data-parallel size. GPUs become tp x dp x the pipeline-parallel size,
    under the name that they have, in limits and in requests.

    Args:
        container: as in a pod's `containers`; it stays as it is.
        tp: tensor-parallel size, at least 1.
        dp: data-parallel size, at least 1.

    Raises:
        InputError: a size below 1; arguments that cannot be read (a script of more than one engine command, a size
            that is a variable or no whole number); a worker that is one node of several; more than one kind of GPU.
    """
    name = str(container.get("name") or "container")
    for flag, size in ((TP, tp), (DP, dp)):
        if isinstance(size, bool) or size < 1:
            raise InputError(f"would be {size}", expected="a whole number from 1", field=f"{name}: {flag}")
    made: dict[str, Any] = copy.deepcopy(dict(container))
    words = [(key, i) for key in ("command", "args") for i in range(len(made.get(key) or []))]
    texts = [str(made[key][i]) for key, i in words]
    script = _script(texts, name)
    if script is None:
        changed, pp = _resize(texts, tp, dp, name)
        _put_back(made, len(made.get("command") or []), changed)
    else:
        key, at = words[script]
        line, pp = _resize_line(texts[script], tp, dp, name)
        made[key][at] = line
    _set_gpus(made, tp * dp * pp, name)
    return made


def layout_of(container: Mapping[str, Any]) -> tuple[int, int]:
    """Tensor- and data-parallel size of a container, 1 where its arguments do not say.

    Raises:
        InputError: as `relayout`.
    """
    name = str(container.get("name") or "container")
    texts = [str(word) for key in ("command", "args") for word in container.get(key) or []]
    script = _script(texts, name)
    if script is not None:
        start, end = _engine_command(texts[script], name)
        texts = _split(texts[script][start:end], name)
    found = {flag: int(text) for _, flag, text, _ in _sizes(texts, name)}
    return found.get(TP, 1), found.get(DP, 1)


def _script(texts: list[str], name: str) -> int | None:
    """Where the script of a `sh -c` stands among the words; None where there is no shell."""
    if not texts:
        raise InputError(
            "has no command and no arguments", expected="an engine's command line, to change sizes in", field=name
        )
    if PurePosixPath(texts[0]).name not in _SHELLS:
        return None
    for i, text in enumerate(texts[1:], start=1):
        if _SCRIPT.fullmatch(text) and i + 1 < len(texts):
            return i + 1
    raise InputError(f"runs {texts[0]} without -c", expected="a command line whose sizes can be read", field=name)


def _put_back(made: dict[str, Any], commands: int, texts: list[str]) -> None:
    """What is added goes behind the last word, which is an argument unless the container has none."""
    if made.get("args") or not commands:
        made["command"], made["args"] = texts[:commands], texts[commands:]
        if not commands:
            del made["command"]
    else:
        made["command"] = texts


def _sizes(texts: list[str], name: str) -> Iterable[tuple[int, str, str, bool]]:
    """(index of the flag's word, its long name, its value, whether both are one word) of each parallel size."""
    for i, word in enumerate(texts):
        written, equals, value = word.partition("=")
        flag = _SHORT.get(written, written.replace("_", "-") if written.startswith("--") else written)
        if flag in _GROUP:
            raise InputError(
                f"has {written}: it is one node of a group", expected="a worker of one node", field=f"{name}: {written}"
            )
        if flag not in _SIZES:
            continue
        text = value if equals else (texts[i + 1] if i + 1 < len(texts) else "")
        if not (text.isascii() and text.isdigit()) or int(text) < 1:
            raise InputError(f"is {text!r}", expected="a whole number from 1, written out", field=f"{name}: {written}")
        yield i, flag, text, bool(equals)


def _resize(texts: list[str], tp: int, dp: int, name: str) -> tuple[list[str], int]:
    """Words with the sizes set, and the pipeline-parallel size."""
    wanted = {TP: tp, DP: dp, _LOCAL: dp}
    made, seen, pp = list(texts), set[str](), 1
    for i, flag, text, joined in _sizes(texts, name):
        if flag == _PP:
            pp = int(text)
            continue
        seen.add(flag)
        made[i if joined else i + 1] = f"{texts[i].partition('=')[0]}={wanted[flag]}" if joined else str(wanted[flag])
    for flag in (TP, DP):
        if flag not in seen and wanted[flag] != 1:
            made += [flag, str(wanted[flag])]
    return made, pp


def _resize_line(line: str, tp: int, dp: int, name: str) -> tuple[str, int]:
    """A shell line with the sizes set in its engine command; every other character stays as it is."""
    start, end = _engine_command(line, name)
    command = line[start:end]
    wanted = {TP: tp, DP: dp, _LOCAL: dp}
    seen, pp = set[str](), 1
    # The words say what is there, quotes and all; what is changed in the text are numbers alone.
    for _, flag, text, _ in _sizes(_split(command, name), name):
        if flag == _PP:
            pp = int(text)
            continue
        seen.add(flag)
    for flag in seen:
        written = (*(short for short, long in _SHORT.items() if long == flag), flag.replace("-", "[-_]"))
        pattern = re.compile(rf"(?<!\S)((?:{'|'.join(written)})(?:=|\s+))(['\"]?)[0-9]+\2(?!\S)")
        command, count = pattern.subn(rf"\g<1>{wanted[flag]}", command)
        if not count:
            raise InputError("is not written out", expected="flag and number as words", field=f"{name}: {flag}")
    added = " ".join(f"{flag} {wanted[flag]}" for flag in (TP, DP) if flag not in seen and wanted[flag] != 1)
    if added:
        # Behind the last word: neither in the next command nor behind a line's continuation.
        kept = _TAIL.sub("", command)
        command = f"{kept} {added}{command[len(kept) :]}"
    return line[:start] + command + line[end:], pp


def _engine_command(line: str, name: str) -> tuple[int, int]:
    """Where the engine's command begins and ends in a shell line."""
    bare = _without_quoted(line)
    found = list(_ENGINE.finditer(bare))
    if len(found) != 1:
        problem = "runs no engine that is known" if not found else "runs more than one engine"
        raise InputError(f"{problem} in its shell line", expected="one vllm serve …", field=name)
    start = found[0].start()
    ends = _ENDS.search(bare, start)
    end = ends.start() if ends else len(line)
    return start, end


def _without_quoted(line: str) -> str:
    """The line with every quoted or escaped character blanked, each at its place."""
    made, quote, i = list(line), "", 0
    while i < len(line):
        if quote:
            closes = line[i] == quote
            made[i] = " " if not closes else line[i]
            if line[i] == "\\" and quote == '"' and i + 1 < len(line):
                made[i + 1] = " "
                i += 1
            elif closes:
                quote = ""
        elif line[i] in "'\"":
            quote = line[i]
        elif line[i] == "\\" and i + 1 < len(line):
            made[i] = made[i + 1] = " "
            i += 1
        i += 1
    return "".join(made)


def _split(command: str, name: str) -> list[str]:
    try:
        return shlex.split(command.replace("\\\n", " "))
    except ValueError as error:
        raise InputError(f"has a shell line that cannot be split into words: {error}", field=name) from None


def _set_gpus(container: dict[str, Any], gpus: int, name: str) -> None:
    resources = container.setdefault("resources", {}) or {}
    container["resources"] = resources
    named = {key for part in ("limits", "requests") for key in resources.get(part) or {} if key in GPU_RESOURCES}
    if len(named) > 1:
        raise InputError(f"has {', '.join(sorted(named))}", expected="one kind of GPU", field=f"{name}: resources")
    for key in named:
        for part in ("limits", "requests"):
            if key in (resources.get(part) or {}):
                resources[part][key] = str(gpus)
    # A worker that asks for no GPU runs on something else (CPUs): it goes on asking for none.
    if not named and not resources:
        del container["resources"]
