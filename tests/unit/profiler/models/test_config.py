"""config.json: what is read, and what is refused by which field."""

import json
from pathlib import Path
from typing import Any

import pytest

from profiler.errors import InputError
from profiler.models.catalog import MODELS, config_dict, find_model, full_name, short_name
from profiler.models.config import parse_config, read_config, shape_from_config
from profiler.schema import ModelShape, parse_model

LLAMA = config_dict("llama-3.1-8b")


def changed(name: str = "llama-3.1-8b", **fields: Any) -> dict[str, Any]:
    return {**config_dict(name), **fields}


@pytest.mark.parametrize("name", MODELS)
def test_every_shipped_config_is_read(name: str) -> None:
    config = find_model(name)
    assert config.name == name
    assert config.dtype == "bfloat16"
    assert config.quant_block is None
    assert config.raw["vocab_size"] == config.shape.vocab_size


def test_names() -> None:
    assert full_name("llama-3.1-8b") == full_name("meta-llama/llama-3.1-8b-instruct") == MODELS[0]
    assert full_name(" Qwen3-30B-A3B ") == "Qwen/Qwen3-30B-A3B"
    assert len({short_name(model) for model in MODELS}) == len(MODELS)


def test_an_unknown_name_gets_a_suggestion_and_the_list() -> None:
    with pytest.raises(InputError, match=r"'lama-3.1-8b'; did you mean 'llama-3.1-8b'\?.*mistral-7b-v0.3, deepseek"):
        find_model("lama-3.1-8b")
    with pytest.raises(InputError, match=r"no shipped config for '####'; expected one of"):
        find_model("####")


def test_a_file_or_its_folder(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text(json.dumps(LLAMA))
    by_folder, by_file = read_config(tmp_path), read_config(tmp_path / "config.json")
    assert by_folder == by_file
    assert by_file.architecture == "LlamaForCausalLM"
    assert by_file.max_positions == 131072
    assert by_file.shape == find_model("llama-3.1-8b").shape


def test_layers_with_experts() -> None:
    lite = find_model("deepseek-v2-lite").shape
    assert (lite.experts, lite.experts_per_token, lite.dense_layers, lite.shared_expert_size) == (64, 6, 1, 2816)
    sparse = parse_config(changed("qwen3-30b-a3b", decoder_sparse_step=2, mlp_only_layers=[1]), "x").shape
    assert sparse.dense_layers == 25
    mixtral = changed(num_local_experts=8, num_experts_per_tok=2)
    assert parse_config(mixtral, "x").shape.moe_intermediate_size == 14336


@pytest.mark.parametrize(
    ("quantisation", "expected"),
    [
        ({"quant_method": "fp8", "weight_block_size": [128, 128]}, ("fp8", 1.0, 128)),
        ({"quant_method": "fp8"}, ("fp8", 1.0, None)),
        ({"quant_method": "awq", "bits": 4, "group_size": 64}, ("int4", 0.5, 64)),
        ({"quant_method": "gptq", "bits": 8, "group_size": -1}, ("int8", 1.0, None)),
        (
            {
                "quant_method": "compressed-tensors",
                "config_groups": {"a": {"weights": {"type": "float", "num_bits": 8}}},
            },
            ("fp8", 1.0, None),
        ),
    ],
)
def test_quantised(quantisation: dict[str, Any], expected: tuple[str, float, int | None]) -> None:
    config = parse_config(changed(quantization_config=quantisation), "x")
    assert (config.dtype, config.shape.weight_bytes_per_param, config.quant_block) == expected
    assert config.shape.embedding_bytes_per_param == 2.0
    assert config.shape.kv_bytes_per_element == 2.0


def test_formats_given_by_hand() -> None:
    shape = find_model("llama-3.1-8b", dtype="int4", kv_dtype="fp8").shape
    assert (shape.weight_bytes_per_param, shape.kv_bytes_per_element) == (0.5, 1.0)
    # A float32 checkpoint is served in 16 bits.
    assert parse_config(changed(torch_dtype="float32"), "x").shape.weight_bytes_per_param == 2.0


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"hidden_size": None}, "field hidden_size: is None; expected a positive whole number"),
        ({"num_key_value_heads": -8}, "field num_key_value_heads: is -8"),
        ({"architectures": []}, r"field architectures: is \[\]"),
        ({"torch_dtype": "float8"}, "field torch_dtype: is 'float8'; expected float32"),
        ({"max_position_embeddings": "long"}, "field max_position_embeddings: is 'long'"),
        ({"tie_word_embeddings": 1}, "field tie_word_embeddings: is 1; expected true or false"),
        ({"quantization_config": {"quant_method": "nf4"}}, "field quantization_config.quant_method: is 'nf4'"),
        ({"num_local_experts": 8}, "field num_experts_per_tok: is None"),
        ({"kv_lora_rank": 512}, "field qk_rope_head_dim: is None"),
        ({"layer_types": ["full_attention", "sliding_attention"]}, "field layer_types: holds sliding_attention"),
        ({"mamba_d_state": 16}, "field mamba_d_state: a model with state-space"),
        ({"num_local_experts": 8, "num_experts_per_tok": 9}, "experts_per_token is 9, more than the 8 experts"),
    ],
)
def test_a_wrong_field_is_named(fields: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=message):
        parse_config(changed(**fields), "some.json")


def test_files_that_are_no_config(tmp_path: Path) -> None:
    file = tmp_path / "config.json"
    with pytest.raises(InputError, match=r"config\.json: cannot be read: No such file"):
        read_config(tmp_path)
    file.write_text("[1]")
    with pytest.raises(InputError, match="holds a list; expected a model"):
        read_config(file)
    file.write_bytes(b"\xff\xfe")
    with pytest.raises(InputError, match="is not text"):
        read_config(file)


def test_a_shape_needs_no_architecture(tmp_path: Path) -> None:
    file = tmp_path / "config.json"
    del (data := dict(LLAMA))["architectures"]
    file.write_text(json.dumps(data))
    assert shape_from_config(file, "bfloat16", "bfloat16") == find_model("llama-3.1-8b").shape


def test_a_stored_shape_of_before_still_loads() -> None:
    old = {
        "hidden_size": 4096, "layers": 32, "heads": 32, "kv_heads": 8, "head_dim": 128, "intermediate_size": 14336,
        "vocab_size": 128256, "weight_bytes_per_param": 2.0, "kv_bytes_per_element": 2.0,
    }  # fmt: skip
    assert parse_model(ModelShape, old, "x") == find_model("llama-3.1-8b").shape


@pytest.mark.parametrize(
    "fields",
    [{"experts": 8}, {"kv_lora_rank": 512}, {"dense_layers": 1}, {"q_lora_rank": 3}, {"shared_expert_size": 9}],
)
def test_a_shape_is_whole_or_refused(fields: dict[str, int]) -> None:
    with pytest.raises(InputError, match="is missing"):
        parse_model(ModelShape, {**find_model("llama-3.1-8b").shape.model_dump(), **fields}, "x")
