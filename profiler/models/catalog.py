"""Models whose published config.json is shipped, by full or short name.

The files in `configs/` hold what the publishers' hold, as of 2025, but for fields that point to code or files beside
them (`auto_map`).
"""

from __future__ import annotations

import difflib
from importlib import resources
from pathlib import Path
from typing import Any

from profiler.errors import InputError
from profiler.models.config import ModelConfig, parse_config
from profiler.schema import load_json

#: Full names, as on the publishers' pages.
MODELS: tuple[str, ...] = (
    "meta-llama/Llama-3.1-8B-Instruct",
    "meta-llama/Llama-3.1-70B-Instruct",
    "Qwen/Qwen3-8B",
    "Qwen/Qwen3-32B",
    "Qwen/Qwen3-30B-A3B",
    "mistralai/Mistral-7B-Instruct-v0.3",
    "deepseek-ai/DeepSeek-V2-Lite",
)


def short_name(name: str) -> str:
    """`meta-llama/Llama-3.1-8B-Instruct` -> `llama-3.1-8b`."""
    return name.rpartition("/")[2].lower().replace("-instruct", "")


def full_name(name: str) -> str:
    """The full name that a full or short name stands for, upper and lower case alike.

    Raises:
        InputError: no model of the catalogue has it; names the closest one and all of them.
    """
    known = {alias: full for full in MODELS for alias in _aliases(full)}
    found = known.get(name.strip().lower())
    if found is not None:
        return found
    close = difflib.get_close_matches(name.strip().lower(), known, n=1)
    hint = f"; did you mean {short_name(known[close[0]])!r}?" if close else ""
    shorts = ", ".join(short_name(full) for full in MODELS)
    right = f"one of {shorts}, or a config.json by --config"
    raise InputError(f"no shipped config for {name!r}{hint}", expected=right, field="NAME")


def config_dict(name: str) -> dict[str, Any]:
    """The config.json of a model of the catalogue.

    Raises:
        InputError: as `full_name`.
    """
    file = f"{full_name(name).replace('/', '--')}.json"
    text = resources.files("profiler.models").joinpath("configs", file).read_text(encoding="utf-8")
    data: dict[str, Any] = load_json(text, Path(file))
    return data


def find_model(name: str, *, dtype: str | None = None, kv_dtype: str | None = None) -> ModelConfig:
    """A model of the catalogue.

    Args:
        name: full or short.
        dtype: number format of the weights; None is the config's own.
        kv_dtype: of the KV cache; None is that of the model's activations.

    Raises:
        InputError: as `full_name`, or a number format that is not known.
    """
    return parse_config(config_dict(name), full_name(name), dtype=dtype, kv_dtype=kv_dtype)


def _aliases(full: str) -> set[str]:
    plain = full.lower()
    return {plain, plain.rpartition("/")[2], short_name(full), plain.replace("-instruct", "")}
