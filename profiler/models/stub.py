"""A model's folder without weights, for `vllm serve FOLDER --load-format dummy`.

The engine draws random weights of the config's sizes; what it takes in time and memory follows from the sizes, but for
routing to experts, which random weights spread more evenly than trained ones.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from profiler.errors import DependencyError, InputError
from profiler.models.config import load_config, parse_config
from profiler.models.tokenizer import tokenizer_files
from profiler.tables import replace_folder

#: Field of config.json by which a stub is known; engines pass over fields that they do not know.
MARK = "plimsoll_stub"

_README = """# Stub of {name}

This folder has no weights and no trained tokenizer. It was written by `profiler model-stub` to measure how fast an
engine serves this architecture:

    vllm serve THIS_FOLDER --load-format dummy

Answers are noise. The tokenizer makes one token of each byte of text, so prompts given as text are several times longer
than with the model's own; give prompts as token ids to set their length. Every id below {size:,} is valid.
"""


def is_stub(folder: Path) -> bool:
    """Whether a folder holds a stub.

    Raises:
        InputError: its config.json cannot be read.
    """
    file = folder / "config.json"
    return file.is_file() and load_config(file).get(MARK) is True


def write_stub(folder: Path, config: Mapping[str, Any], *, name: str) -> None:
    """Write config.json, a tokenizer, generation_config.json and a README that says what this is.

    Args:
        folder: a new or an empty one, or a stub, which is replaced whole.
        config: a config.json's contents.
        name: of the model, for the README and for errors.

    Raises:
        InputError: the folder holds something other than a stub, or the config is not one that can be served here.
        DependencyError: the file system refused.
    """
    parse_config(config, name)
    if folder.exists() and not folder.is_dir():
        raise InputError("is a file", expected="a folder", source=folder, field="--to")
    try:
        if folder.is_dir() and any(folder.iterdir()) and not is_stub(folder):
            right = "a new folder, or a stub to replace"
            raise InputError("is not a stub", expected=right, source=folder, field="--to")
        made: dict[str, str | bytes] = {
            file: json.dumps(content, indent=1, ensure_ascii=False) + "\n"
            for file, content in tokenizer_files(config, name).items()
        }
        # Code that the publisher keeps beside the config (auto_map) is not here: the engine's own has to build it.
        kept = {key: value for key, value in config.items() if key != "auto_map"}
        made["config.json"] = json.dumps({**kept, MARK: True}, indent=2) + "\n"
        made["README.md"] = _README.format(name=name, size=config["vocab_size"])
        # Through a link, so that the folder it leads to is replaced and not the link.
        replace_folder(folder.resolve(), made)
    except OSError as error:
        raise DependencyError(f"{folder}: cannot be written: {error.strerror or error}") from None
