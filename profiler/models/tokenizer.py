"""A tokenizer without training: one token a byte, and a name for every other id.

Byte-level BPE (Radford et al. 2019) with no merges, in the form of the `tokenizers` library's tokenizer.json. Text of n
bytes becomes n tokens, about four times what a trained tokenizer makes of English. Every id up to the vocabulary's size
stands for some text, as a model with random weights answers with any of them, and an engine that streams them must have
something to send.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from profiler.errors import InputError

#: Roles as words, one message a line; enough for chat completions to be served.
CHAT_TEMPLATE = (
    "{% for message in messages %}{{ message['role'] }}: {{ message['content'] }}\n{% endfor %}"
    "{% if add_generation_prompt %}assistant: {% endif %}"
)


def byte_characters() -> list[str]:
    """The printable character that stands for each byte in byte-level BPE: itself, or one from U+0100 on."""
    plain = {*range(ord("!"), ord("~") + 1), *range(ord("¡"), ord("¬") + 1), *range(ord("®"), ord("ÿ") + 1)}
    spare = (chr(256 + n) for n in range(256))
    return [chr(byte) if byte in plain else next(spare) for byte in range(256)]


def special_ids(config: Mapping[str, Any], source: str) -> dict[str, list[int]]:
    """Ids of `bos`, `eos` and `pad` in a config.json; `eos` may be several, and the last id is one where none is named.

    Raises:
        InputError: an id is no whole number or not in the vocabulary.
    """
    size = config["vocab_size"]
    found: dict[str, list[int]] = {}
    for role in ("bos", "eos", "pad"):
        value = config.get(f"{role}_token_id")
        ids = value if isinstance(value, list) else [] if value is None else [value]
        for one in ids:
            # Some configs say -1 for none.
            if not isinstance(one, int) or isinstance(one, bool) or not -1 <= one < size:
                right = f"ids below vocab_size ({size:,})"
                raise InputError(f"is {value!r}", expected=right, source=source, field=f"{role}_token_id")
        found[role] = [one for one in ids if one >= 0]
    if not found["eos"]:
        found["eos"] = [size - 1]
    return found


def tokenizer_files(config: Mapping[str, Any], source: str) -> dict[str, Any]:
    """Contents of tokenizer.json, tokenizer_config.json and generation_config.json for a model's config.

    Args:
        config: a config.json with `vocab_size`.
        source: names it in errors.

    Raises:
        InputError: the vocabulary is too small for all bytes, or ids of special tokens are wrong.
    """
    size = config["vocab_size"]
    ids = special_ids(config, source)
    names: dict[int, str] = {}
    for role, own in ids.items():
        for one in own:
            names.setdefault(one, f"<|{role}|>" if one == own[0] else f"<|{role}_{one}|>")
    if size < 256 + len(names):
        right = f"at least {256 + len(names)}: all bytes and the special tokens"
        raise InputError(f"is {size}", expected=right, source=source, field="vocab_size")
    special = sorted(names)
    free = (one for one in range(size) if one not in names)
    vocabulary = {character: next(free) for character in byte_characters()}
    # "Ġ" stands for a space: each reads as " <id>". No merge leads to them, so text never becomes one.
    vocabulary |= {f"Ġ{one}": one for one in free}
    vocabulary |= {names[one]: one for one in special}
    added = [
        {"id": one, "content": names[one], "single_word": False, "lstrip": False, "rstrip": False,
         "normalized": False, "special": True}
        for one in special
    ]  # fmt: skip
    byte_level = {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True, "use_regex": False}
    tokenizer: dict[str, Any] = {
        "version": "1.0",
        "truncation": None,
        "padding": None,
        "added_tokens": added,
        "normalizer": None,
        "pre_tokenizer": byte_level,
        "post_processor": None,
        "decoder": byte_level,
        "model": {
            "type": "BPE",
            "dropout": None,
            "unk_token": None,
            "continuing_subword_prefix": None,
            "end_of_word_suffix": None,
            "fuse_unk": False,
            "byte_fallback": False,
            "ignore_merges": False,
            "vocab": dict(sorted(vocabulary.items(), key=lambda item: item[1])),
            "merges": [],
        },
    }
    first = {role: own[0] for role, own in ids.items() if own} | {"pad": (ids["pad"] or ids["eos"])[0]}
    settings = {
        "tokenizer_class": "PreTrainedTokenizerFast",
        **{f"{role}_token": names[one] for role, one in first.items()},
        "model_max_length": config.get("max_position_embeddings"),
        "clean_up_tokenization_spaces": False,
        "chat_template": CHAT_TEMPLATE,
    }
    generation: dict[str, Any] = {"eos_token_id": ids["eos"] if len(ids["eos"]) > 1 else ids["eos"][0]}
    if ids["bos"]:
        generation["bos_token_id"] = ids["bos"][0]
    return {"tokenizer.json": tokenizer, "tokenizer_config.json": settings, "generation_config.json": generation}
