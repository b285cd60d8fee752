"""A model's Hugging Face `config.json`, read into the sizes that arithmetic needs."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from profiler.errors import InputError
from profiler.models.formats import bytes_of, given_format, weight_format
from profiler.schema import ModelShape, load_json, parse_model

#: What publishers call the number of routed experts.
_EXPERTS = ("num_experts", "num_local_experts", "n_routed_experts")

#: Fields of layers that keep a state instead of keys and values; memory arithmetic would be wrong without a sign of it.
_STATE_SPACE = ("mamba_d_state", "ssm_cfg", "state_size", "linear_num_key_heads", "mamba_d_conv")


@dataclass(frozen=True)
class ModelConfig:
    """A model's config.

    Attributes:
        name: of the catalogue, or the file that it was read from.
        raw: the whole config.json.
        architecture: the class that builds it, such as `LlamaForCausalLM`.
        shape: its sizes.
        dtype: number format of the weights: `bfloat16`, `fp8`, `int4`, ...
        quant_block: weights along a matrix's side that share a scale; sides are split at its multiples only. None where
            the format has no blocks.
        max_positions: longest context that it was made for, in tokens.
    """

    name: str
    raw: Mapping[str, Any]
    architecture: str
    shape: ModelShape
    dtype: str
    quant_block: int | None
    max_positions: int

    @property
    def experts(self) -> int | None:
        """Routed experts of a layer; None in a dense model."""
        return self.shape.experts


def read_config(path: Path, *, dtype: str | None = None, kv_dtype: str | None = None) -> ModelConfig:
    """Read a `config.json`, or the one in a model's folder.

    Args:
        path: of the file or its folder.
        dtype: number format of the weights; None is the config's own.
        kv_dtype: number format of the KV cache; None is that of the model's activations, as vLLM's `auto`.

    Raises:
        InputError: the file cannot be read, or a field is missing, wrong or of an architecture that is not known here;
            names the field.
    """
    file = path / "config.json" if path.is_dir() else path
    return parse_config(load_config(file), file, dtype=dtype, kv_dtype=kv_dtype)


def load_config(file: Path) -> dict[str, Any]:
    """What a config.json holds, unchecked.

    Raises:
        InputError: the file cannot be read or holds no mapping.
    """
    try:
        data = load_json(file.read_text(encoding="utf-8"), file)
    except OSError as error:
        raise InputError(f"cannot be read: {error.strerror or error}", source=file) from None
    except UnicodeDecodeError as error:
        raise InputError(f"is not text (byte {error.start})", expected="JSON in UTF-8", source=file) from None
    if not isinstance(data, dict):
        raise InputError(f"holds a {type(data).__name__}", expected="a model's config.json", source=file)
    return data


def parse_config(
    data: Mapping[str, Any], source: Path | str, *, dtype: str | None = None, kv_dtype: str | None = None
) -> ModelConfig:
    """A config that is in memory already; `source` names it in errors. Otherwise as `read_config`."""
    _refuse_unknown_kinds(data, source)
    names = data.get("architectures")
    if not isinstance(names, list) or len(names) != 1 or not isinstance(names[0], str):
        right = "a list with the one class that builds the model"
        raise InputError(f"is {names!r}", expected=right, source=source, field="architectures")
    form = weight_format(data, source) if dtype is None else given_format(dtype)
    shape = _shape(data, source, form.bytes, bytes_of(kv_dtype or form.activations))
    return ModelConfig(
        name=str(source),
        raw=data,
        architecture=names[0],
        shape=shape,
        dtype=form.name,
        quant_block=form.block,
        max_positions=_size(data, "max_position_embeddings", source),
    )


def shape_from_config(path: Path, dtype: str, kv_dtype: str) -> ModelShape:
    """The shape in a `config.json`, which need not name its architecture or its limits.

    Raises:
        InputError: the file cannot be read, or a size is missing or wrong; names the field.
    """
    data = load_config(path)
    _refuse_unknown_kinds(data, path)
    return _shape(data, path, bytes_of(dtype), bytes_of(kv_dtype))


def _shape(data: Mapping[str, Any], source: Path | str, weight_bytes: float, kv_bytes: float) -> ModelShape:
    heads = _size(data, "num_attention_heads", source)
    hidden = _size(data, "hidden_size", source)
    layers = _size(data, "num_hidden_layers", source)
    found: dict[str, Any] = {
        "hidden_size": hidden,
        "layers": layers,
        "heads": heads,
        "kv_heads": _size(data, "num_key_value_heads", source),
        "intermediate_size": _size(data, "intermediate_size", source),
        "vocab_size": _size(data, "vocab_size", source),
        "head_dim": _optional(data, "head_dim", source) or hidden // heads,
        "tied_embeddings": _flag(data, "tie_word_embeddings", source),
        "weight_bytes_per_param": weight_bytes,
        "kv_bytes_per_element": kv_bytes,
    }
    if weight_bytes < 2:
        # Quantised models keep the embeddings and the head in 16 bits, and so does vLLM.
        found["embedding_bytes_per_param"] = 2.0
    found |= _mixture(data, source, layers) | _latent(data, source)
    return parse_model(ModelShape, found, source)


def _mixture(data: Mapping[str, Any], source: Path | str, layers: int) -> dict[str, Any]:
    key = next((key for key in _EXPERTS if data.get(key)), None)
    if key is None:
        return {}
    experts = _size(data, key, source)
    # Mixtral has no dense MLP, and calls the size of an expert's intermediate_size.
    size = "moe_intermediate_size" if data.get("moe_intermediate_size") is not None else "intermediate_size"
    each = _size(data, size, source)
    found: dict[str, Any] = {
        "experts": experts,
        "experts_per_token": _size(data, "num_experts_per_tok", source),
        "moe_intermediate_size": each,
        "dense_layers": layers - len(_sparse_layers(data, source, layers)),
    }
    shared = _optional(data, "n_shared_experts", source)
    if shared is not None:
        found["shared_expert_size"] = shared * each
    else:
        found["shared_expert_size"] = _optional(data, "shared_expert_intermediate_size", source)
    return found


def _sparse_layers(data: Mapping[str, Any], source: Path | str, layers: int) -> list[int]:
    """Layers with experts: as transformers' DeepSeek (first_k_dense_replace) and Qwen (mlp_only_layers) place them."""
    first = _optional(data, "first_k_dense_replace", source, least=0) or 0
    every = _optional(data, "moe_layer_freq", source) or 1
    step = _optional(data, "decoder_sparse_step", source) or 1
    dense = data.get("mlp_only_layers") or []
    if not isinstance(dense, list) or not all(isinstance(layer, int) for layer in dense):
        raise InputError(f"is {dense!r}", expected="a list of layers", source=source, field="mlp_only_layers")
    return [i for i in range(first, layers) if i % every == 0 and (i + 1) % step == 0 and i not in dense]


def _latent(data: Mapping[str, Any], source: Path | str) -> dict[str, Any]:
    if data.get("kv_lora_rank") is None:
        return {}
    needed = ("kv_lora_rank", "qk_rope_head_dim", "qk_nope_head_dim", "v_head_dim")
    found: dict[str, Any] = {key: _size(data, key, source) for key in needed}
    return found | {"q_lora_rank": _optional(data, "q_lora_rank", source)}


def _refuse_unknown_kinds(data: Mapping[str, Any], source: Path | str) -> None:
    """Models whose memory does not follow from the sizes that are read here."""
    right = "a decoder-only transformer in which every layer attends to the whole context"
    if isinstance(data.get("text_config"), dict) and "hidden_size" not in data:
        raise InputError("a model of several modalities", expected=right, source=source, field="text_config")
    for key in _STATE_SPACE:
        if data.get(key) is not None:
            raise InputError("a model with state-space or linear layers", expected=right, source=source, field=key)
    kinds = data.get("layer_types")
    if isinstance(kinds, list) and set(kinds) - {"full_attention"}:
        others = ", ".join(sorted(str(kind) for kind in set(kinds) - {"full_attention"}))
        raise InputError(f"holds {others}", expected=right, source=source, field="layer_types")


def _size(data: Mapping[str, Any], key: str, source: Path | str, least: int = 1) -> int:
    value = data.get(key)
    if not isinstance(value, int) or isinstance(value, bool) or not least <= value < 10**9:
        right = "a positive whole number" if least else "a whole number, 0 or more"
        raise InputError(f"is {value!r}", expected=right, source=source, field=key)
    return value


def _optional(data: Mapping[str, Any], key: str, source: Path | str, least: int = 1) -> int | None:
    return None if data.get(key) is None else _size(data, key, source, least)


def _flag(data: Mapping[str, Any], key: str, source: Path | str) -> bool:
    value = data.get(key)
    if value is not None and not isinstance(value, bool):
        raise InputError(f"is {value!r}", expected="true or false", source=source, field=key)
    return bool(value)
