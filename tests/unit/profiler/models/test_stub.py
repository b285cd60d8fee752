"""A folder without weights: what is in it, and what it never overwrites."""

import json
from pathlib import Path
from typing import Any

import pytest

from profiler.errors import DependencyError, InputError
from profiler.models.catalog import MODELS, config_dict
from profiler.models.stub import is_stub, write_stub
from profiler.models.tokenizer import byte_characters, tokenizer_files

SMALL = {**config_dict("llama-3.1-8b"), "vocab_size": 300, "bos_token_id": 1, "eos_token_id": [2, 299]}


def read(path: Path) -> Any:
    return json.loads(path.read_text(encoding="utf-8"))


def test_a_stub_says_that_it_is_one(tmp_path: Path) -> None:
    folder = tmp_path / "new" / "stub"
    write_stub(folder, {**SMALL, "auto_map": {"AutoConfig": "x.Y"}}, name="small")
    assert is_stub(folder)
    assert "no weights" in (folder / "README.md").read_text()
    assert read(folder / "config.json") == {**SMALL, "plimsoll_stub": True}
    assert read(folder / "generation_config.json") == {"eos_token_id": [2, 299], "bos_token_id": 1}


@pytest.mark.parametrize("name", MODELS)
def test_every_id_has_one_token(name: str) -> None:
    config = config_dict(name)
    files = tokenizer_files(config, name)
    vocabulary = files["tokenizer.json"]["model"]["vocab"]
    assert list(vocabulary.values()) == list(range(config["vocab_size"]))
    assert set(byte_characters()) <= vocabulary.keys()
    settings = files["tokenizer_config.json"]
    eos = config["eos_token_id"]
    assert vocabulary[settings["eos_token"]] == (eos[0] if isinstance(eos, list) else eos)
    assert vocabulary[settings["bos_token"]] == config["bos_token_id"]
    for added in files["tokenizer.json"]["added_tokens"]:
        assert vocabulary[added["content"]] == added["id"]


def test_special_tokens_never_take_a_byte() -> None:
    vocabulary = tokenizer_files(SMALL, "x")["tokenizer.json"]["model"]["vocab"]
    assert [vocabulary[character] for character in byte_characters()] == [0, *range(3, 258)]


def test_bytes_as_gpt_2_maps_them() -> None:
    characters = byte_characters()
    assert len(set(characters)) == 256
    assert (characters[32], characters[10], characters[65], characters[0xAD]) == ("Ġ", "Ċ", "A", "Ń")


def test_a_config_without_special_tokens_ends_with_the_last_id() -> None:
    plain = {key: value for key, value in SMALL.items() if not key.endswith("_token_id")}
    files = tokenizer_files(plain, "x")
    assert files["generation_config.json"] == {"eos_token_id": 299}
    assert "bos_token" not in files["tokenizer_config.json"]


def test_a_stub_is_replaced_and_nothing_else(tmp_path: Path) -> None:
    write_stub(tmp_path / "a", SMALL, name="small")
    write_stub(tmp_path / "a", {**SMALL, "vocab_size": 400}, name="small")
    assert read(tmp_path / "a" / "config.json")["vocab_size"] == 400

    real = tmp_path / "real"
    real.mkdir()
    (real / "config.json").write_text(json.dumps(SMALL))
    (real / "model.safetensors").write_bytes(b"weights")
    with pytest.raises(InputError, match=r"real, field --to: is not a stub; expected a new folder"):
        write_stub(real, SMALL, name="small")
    assert sorted(path.name for path in real.iterdir()) == ["config.json", "model.safetensors"]
    assert "plimsoll_stub" not in read(real / "config.json")

    (tmp_path / "file").write_text("x")
    with pytest.raises(InputError, match="is a file; expected a folder"):
        write_stub(tmp_path / "file", SMALL, name="small")
    (tmp_path / "empty").mkdir()
    write_stub(tmp_path / "empty", SMALL, name="small")


def test_a_folder_that_cannot_be_written(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("x")
    with pytest.raises(DependencyError, match="cannot be written"):
        write_stub(tmp_path / "file" / "stub", SMALL, name="small")


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"vocab_size": 258}, "field vocab_size: is 258; expected at least 259"),
        ({"eos_token_id": 300}, r"field eos_token_id: is 300; expected ids below vocab_size \(300\)"),
        ({"bos_token_id": "<s>"}, "field bos_token_id: is '<s>'"),
        ({"hidden_size": 0}, "field hidden_size: is 0"),
    ],
)
def test_what_cannot_be_a_stub(tmp_path: Path, fields: dict[str, Any], message: str) -> None:
    # vocab_size 258 has no id 299: the special tokens are then 1, 2 and 3.
    base = {**SMALL, "eos_token_id": [2, 3]}
    with pytest.raises(InputError, match=message):
        write_stub(tmp_path / "stub", {**base, **fields}, name="small")
    assert not (tmp_path / "stub").exists()
