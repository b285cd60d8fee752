"""Number formats of weights and of the KV cache, by the names that vLLM and config.json use."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from profiler.errors import InputError

_BYTES = {"float32": 4.0, "bfloat16": 2.0, "float16": 2.0, "fp8": 1.0, "int8": 1.0, "int4": 0.5}

#: Bits of a weight to the format's name here.
_BITS = {4: "int4", 8: "int8"}


@dataclass(frozen=True, slots=True)
class Format:
    """How a model's weights are stored.

    Attributes:
        name: one that `bytes_of` knows.
        activations: number format that the model computes in between its matrices.
        block: weights along a side that share a scale; None is without blocks.
    """

    name: str
    activations: str
    block: int | None

    @property
    def bytes(self) -> float:
        """Bytes of one weight."""
        return bytes_of(self.name)


def bytes_of(dtype: str) -> float:
    """Bytes of one number of a format.

    Raises:
        InputError: the format is not known.
    """
    known = dtype.lower()
    if known not in _BYTES:
        raise InputError(f"unknown number format {dtype!r}", expected=", ".join(_BYTES), field="dtype")
    return _BYTES[known]


def given_format(dtype: str) -> Format:
    """The format that a person names; where it is quantised, the model computes in bfloat16 and blocks are not known.

    Raises:
        InputError: the format is not known.
    """
    return Format(dtype.lower(), dtype.lower() if bytes_of(dtype) >= 2 else "bfloat16", None)


def weight_format(data: Mapping[str, Any], source: Path | str) -> Format:
    """The format that a config.json says its weights have.

    Raises:
        InputError: it says none, or one that is not known here.
    """
    # transformers 5 renamed torch_dtype; published configs have either.
    key = "dtype" if data.get("dtype") is not None else "torch_dtype"
    plain = data.get(key)
    if plain not in ("float32", "bfloat16", "float16"):
        right = "float32, bfloat16 or float16"
        raise InputError(f"is {plain!r}", expected=right, source=source, field=key)
    quantised = data.get("quantization_config")
    if quantised is None:
        # vLLM's `--dtype auto` serves float32 models in 16 bits.
        served = "float16" if plain == "float32" else plain
        return Format(served, served, None)
    if not isinstance(quantised, dict):
        raise InputError(f"is {quantised!r}", expected="a mapping", source=source, field="quantization_config")
    activations = "bfloat16" if plain == "float32" else plain
    method = quantised.get("quant_method")
    if method == "fp8":
        return Format("fp8", activations, _block_of(quantised.get("weight_block_size"), source))
    if method in ("awq", "gptq"):
        bits = quantised.get("bits", quantised.get("w_bit"))
        group = quantised.get("group_size", quantised.get("q_group_size"))
        return Format(_integer(bits, source, "quantization_config.bits"), activations, _group_of(group))
    if method == "compressed-tensors":
        return _compressed(quantised, activations, source)
    right = "fp8, awq, gptq or compressed-tensors; others by naming the format of the weights"
    raise InputError(f"is {method!r}", expected=right, source=source, field="quantization_config.quant_method")


def _compressed(quantised: Mapping[str, Any], activations: str, source: Path | str) -> Format:
    field = "quantization_config.config_groups"
    groups = quantised.get("config_groups")
    if not isinstance(groups, dict) or len(groups) != 1:
        raise InputError("is not one group", expected="one format for all weights", source=source, field=field)
    (group,) = groups.values()
    weights = group.get("weights") if isinstance(group, dict) else None
    if not isinstance(weights, dict):
        raise InputError("has no weights", expected="the format of the weights", source=source, field=field)
    if weights.get("type") == "float" and weights.get("num_bits") == 8:
        return Format("fp8", activations, _block_of(weights.get("block_structure"), source))
    name = _integer(weights.get("num_bits"), source, f"{field}.weights.num_bits")
    return Format(name, activations, _group_of(weights.get("group_size")))


def _integer(bits: Any, source: Path | str, field: str) -> str:
    if bits not in _BITS:
        raise InputError(f"is {bits!r}", expected="4 or 8", source=source, field=field)
    return _BITS[bits]


def _group_of(size: Any) -> int | None:
    """Group of an integer format; -1 is one scale for a whole column."""
    return size if isinstance(size, int) and size > 0 else None


def _block_of(sides: Any, source: Path | str) -> int | None:
    """The larger side of a block: both sides of a matrix are split, the one or the other."""
    if sides is None:
        return None
    if not isinstance(sides, list) or not sides or not all(isinstance(side, int) and side > 0 for side in sides):
        field = "quantization_config.weight_block_size"
        raise InputError(f"is {sides!r}", expected="sides of a block, such as [128, 128]", source=source, field=field)
    return int(max(sides))
