"""What `profile.json` holds, versioned, and how a wrong field is reported."""

from __future__ import annotations

import datetime as dt
import difflib
import json
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any, Literal, NoReturn, Self, TypeVar, get_args

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from profiler.errors import InputError

Role = Literal["prefill", "decode", "aggregated"]
TableName = Literal["prefill", "decode", "mixed", "transfer"]

_Count = Annotated[int, Field(gt=0, le=10**12)]
_Positive = Annotated[float, Field(gt=0)]
_Text = Annotated[str, Field(min_length=1)]


M = TypeVar("M", bound=BaseModel)


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)


class ModelShape(_Strict):
    """Sizes of a decoder-only transformer with gated MLPs; what a roofline needs.

    Dense with grouped query attention unless said otherwise: the experts' fields together make some layers mixtures of
    experts, and the ranks and dimensions of multi-head latent attention (DeepSeek-V2) together replace `head_dim`.

    Attributes:
        hidden_size, layers, heads, kv_heads, head_dim, intermediate_size, vocab_size: as in a model's config.json.
        weight_bytes_per_param: bytes of a weight of the layers.
        kv_bytes_per_element: bytes of a number in the KV cache.
        embedding_bytes_per_param: of the embeddings, which quantised models keep wider; None is as the layers.
        tied_embeddings: the output head is the input embedding.
        experts: routed experts of a layer; None is a dense model.
        experts_per_token: of them, those that a token goes through.
        moe_intermediate_size: of one routed expert.
        shared_expert_size: intermediate size of all shared experts of a layer together; None is without.
        dense_layers: layers without experts in a model that has them; most often the first ones.
        kv_lora_rank, qk_rope_head_dim, qk_nope_head_dim, v_head_dim: latent attention; None is grouped query attention.
        q_lora_rank: of its compressed queries; None is uncompressed.
    """

    hidden_size: _Count
    layers: _Count
    heads: _Count
    kv_heads: _Count
    head_dim: _Count
    intermediate_size: _Count
    vocab_size: _Count
    weight_bytes_per_param: _Positive
    kv_bytes_per_element: _Positive
    embedding_bytes_per_param: _Positive | None = None
    tied_embeddings: bool = False
    experts: _Count | None = None
    experts_per_token: _Count | None = None
    moe_intermediate_size: _Count | None = None
    shared_expert_size: _Count | None = None
    dense_layers: Annotated[int, Field(ge=0)] = 0
    kv_lora_rank: _Count | None = None
    qk_rope_head_dim: _Count | None = None
    qk_nope_head_dim: _Count | None = None
    v_head_dim: _Count | None = None
    q_lora_rank: _Count | None = None

    @model_validator(mode="after")
    def _whole(self) -> Self:
        mixture = {"experts": self.experts, "experts_per_token": self.experts_per_token,
                   "moe_intermediate_size": self.moe_intermediate_size}  # fmt: skip
        latent = {"kv_lora_rank": self.kv_lora_rank, "qk_rope_head_dim": self.qk_rope_head_dim,
                  "qk_nope_head_dim": self.qk_nope_head_dim, "v_head_dim": self.v_head_dim}  # fmt: skip
        for group in (mixture, latent):
            missing = [name for name, value in group.items() if value is None]
            if missing and len(missing) < len(group):
                raise ValueError(f"{', '.join(group)} belong together; {', '.join(missing)} is missing")
        if self.experts is None and (self.shared_expert_size is not None or self.dense_layers):
            raise ValueError("shared_expert_size and dense_layers belong to a mixture of experts; experts is missing")
        if self.experts is not None and self.experts_per_token is not None and self.experts_per_token > self.experts:
            raise ValueError(f"experts_per_token is {self.experts_per_token}, more than the {self.experts} experts")
        if self.dense_layers > self.layers:
            raise ValueError(f"dense_layers is {self.dense_layers}, more than the {self.layers} layers")
        if self.q_lora_rank is not None and self.kv_lora_rank is None:
            raise ValueError("q_lora_rank belongs to latent attention; kv_lora_rank is missing")
        return self


class ModelInfo(_Strict):
    """The model that was measured. Without a shape there is no roofline, and outside follows a plain rule."""

    name: _Text
    dtype: _Text
    shape: ModelShape | None = None


class GpuInfo(_Strict):
    """The GPU and how many of them one worker takes (TP x DP)."""

    name: _Text
    count_per_worker: _Count


class Engine(_Strict):
    """The engine under test; None where the source does not say."""

    name: _Text
    version: str | None = None
    arguments: tuple[str, ...] | None = None


class Limits(_Strict):
    """Limits of the engine's scheduler; None is unknown, not unlimited.

    `max_cudagraph_tokens` is the largest iteration, in tokens, that replays CUDA graphs; `async_scheduling` says that
    the engine decides an iteration while the one before it runs.
    """

    max_num_seqs: _Count | None = None
    max_num_batched_tokens: _Count | None = None
    block_size: _Count | None = None
    max_model_len: _Count | None = None
    max_cudagraph_tokens: _Count | None = None
    async_scheduling: bool | None = None


class ArrayForm(_Strict):
    """Number format and shape of an imported array, so that it can be exported as it was."""

    dtype: _Text
    shape: tuple[int, ...]


class Source(_Strict):
    """Where the samples come from and under which licence.

    `arrays` names the imported arrays in their order; it is present for tables that came from Dynamo.
    """

    text: _Text
    licence: _Text
    form: Literal["measured", "estimated", "dynamo-npz", "dynamo-json"] = "measured"
    arrays: dict[str, ArrayForm] | None = None


class TableError(_Strict):
    """Relative leave-one-out error: mean and worst over the points with measured neighbours on all sides.

    `mean` and `worst` are of single samples, whose own scatter is in them; `mean_of_medians` is of the medians of
    repeats, which is what tables are read for.
    """

    mean: Annotated[float, Field(ge=0)]
    worst: Annotated[float, Field(ge=0)]
    points: Annotated[int, Field(ge=1)]
    mean_of_medians: Annotated[float, Field(ge=0)] | None = None


class Cost(_Strict):
    """What a layout's measurement cost, in minutes of one GPU: start-up apart from measuring."""

    startup_gpu_minutes: Annotated[float, Field(ge=0)]
    measuring_gpu_minutes: Annotated[float, Field(ge=0)]


class Validation(_Strict):
    """An open-loop run on the measured engine that the tables have not seen, against the simulator's replay of it.

    Attributes:
        run: name of the recorded run.
        mode: what served it, `aggregated` or `disaggregated`.
        requests: completed ones that were compared.
        rate_rps: offered.
        measured_ms, simulated_ms: by `ttft_p50`, `ttft_p90`, `ttft_p99`, `itl_p50`, `itl_p90`.
    """

    run: _Text
    mode: Literal["aggregated", "disaggregated"]
    requests: _Count
    rate_rps: _Positive
    measured_ms: dict[str, _Positive]
    simulated_ms: dict[str, _Positive]


class ProfileMeta(_Strict):
    """`profile.json`: everything about a profile but its samples.

    Attributes:
        expert_parallel: the experts lie whole on the worker's GPUs; see `spreads_experts`.
        kv_capacity_tokens: tokens of KV cache of one worker (all its DP ranks); None when unknown.
        kv_capacity_check: how that figure was cross-checked, in words.
        startup_s: measured seconds from asking for the pod until it served, one per start; None when not
            measured.
        date: day of the measurement; None when the source does not say.
        commit: commit of the profiler that measured; None for imported tables.
        errors: leave-one-out error by table.
        cost: GPU time that it took; None for imported tables.
        validation: runs that its simulation was compared with.
    """

    schema_version: Literal[1]
    model: ModelInfo
    gpu: GpuInfo
    driver: str | None = None
    engine: Engine
    role: Role
    tp: _Count
    dp: _Count
    expert_parallel: bool = False
    kv_capacity_tokens: _Count | None = None
    kv_capacity_check: str | None = None
    limits: Limits = Limits()
    startup_s: tuple[Annotated[float, Field(ge=0)], ...] | None = None
    date: dt.date | None = None
    commit: str | None = None
    source: Source
    errors: dict[TableName, TableError] = Field(default_factory=dict)
    cost: Cost | None = None
    validation: tuple[Validation, ...] = ()
    warnings: tuple[str, ...] = ()

    @property
    def spreads_experts(self) -> bool:
        """Whether the worker's experts lie whole on its GPUs; only their arguments tell it of older profiles."""
        arguments = self.engine.arguments or ()
        return self.expert_parallel or any(word.replace("_", "-") == "--enable-expert-parallel" for word in arguments)


def parse_meta(text: str, source: Path) -> ProfileMeta:
    """Read `profile.json`.

    Raises:
        InputError: it is not JSON, or a field is unknown, missing or wrong; names the field and, for an
            unknown one, the closest known field.
    """
    return parse_model(ProfileMeta, load_json(text, source), source)


def load_json(text: str, source: Path) -> Any:
    """JSON without NaN and infinities, as nothing here may hold them.

    Raises:
        InputError: the text is not such JSON.
    """
    try:
        return json.loads(text, parse_constant=_refuse_constant)
    except json.JSONDecodeError as error:
        raise InputError(f"not JSON: {error.msg}", source=source, line=error.lineno) from None
    except (ValueError, RecursionError) as error:
        raise InputError(f"not JSON that can be read: {error}", source=source) from None


def parse_model(
    model: type[M], data: Any, source: Path | str, line_of: Callable[[tuple[int | str, ...]], int | None] | None = None
) -> M:
    """Validate `data` and turn the first problem into an InputError that names file and field.

    Args:
        model: what the data must be.
        data: as read.
        source: the file, for the error.
        line_of: the line of a path of keys in the file, where the format knows lines.
    """
    try:
        return model.model_validate(data)
    except ValidationError as error:
        problem = error.errors(include_url=False, include_input=True)[0]
        field = ".".join(str(part) for part in problem["loc"])
        line = line_of(problem["loc"]) if line_of is not None else None
        if problem["type"] == "extra_forbidden":
            known = _fields_at(model, problem["loc"][:-1])
            close = difflib.get_close_matches(str(problem["loc"][-1]), known, n=1, cutoff=0.0)
            hint = f"did you mean {close[0]!r}?" if close else ""
            raise InputError(f"unknown field; {hint}".rstrip("; "), source=source, line=line, field=field) from None
        if problem["type"] == "missing":
            raise InputError("missing", source=source, line=line, field=field) from None
        value = repr(problem["input"])
        value = value if len(value) <= 60 else value[:57] + "..."
        message = problem["msg"].removeprefix("Input should be ")
        raise InputError(f"is {value}", expected=message, source=source, line=line, field=field or None) from None


def _refuse_constant(name: str) -> NoReturn:
    raise ValueError(f"{name} is not a number")


def _fields_at(model: type[BaseModel], path: tuple[int | str, ...]) -> list[str]:
    """Names of the fields of the model nested at `path`."""
    current = model
    for part in path:
        field = current.model_fields.get(str(part))
        if field is None:
            continue  # a key of a dictionary or an index: the model below it was found one step earlier
        for kind in _models_in(field.annotation):
            current = kind
    return list(current.model_fields)


def _models_in(annotation: Any) -> list[type[BaseModel]]:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return [annotation]
    return [model for inner in get_args(annotation) for model in _models_in(inner)]
