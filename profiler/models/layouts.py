"""The layouts that a model can be served in on so many GPUs, and why the others cannot."""

from __future__ import annotations

from dataclasses import dataclass, replace

from profiler.errors import InputError
from profiler.hardware import Gpu, find_gpu
from profiler.models.config import ModelConfig
from profiler.models.memory import (
    DEFAULT_BATCHED_TOKENS,
    DEFAULT_UTILIZATION,
    GIB,
    Fit,
    fit,
    kv_bytes_per_gpu,
)
from profiler.models.params import is_latent, moe_layers


@dataclass(frozen=True, slots=True)
class Layout:
    """How the GPUs of one worker divide a model.

    Attributes:
        tp: GPUs that share each layer.
        dp: ranks that share the requests; the experts lie on all TP x DP GPUs.
        expert_parallel: whether experts lie on them whole, or each GPU has a slice of every expert.
        rejected: why it cannot serve; None where it can, as far as is known.
        fit: one GPU's memory; None where sizes do not divide, or the GPU is not known.
        note: what was not checked, in words.
    """

    tp: int
    dp: int = 1
    expert_parallel: bool = False
    rejected: str | None = None
    fit: Fit | None = None
    note: str | None = None

    @property
    def gpus(self) -> int:
        """GPUs of one worker."""
        return self.tp * self.dp

    @property
    def name(self) -> str:
        """`tp2`, `tp2-dp4` or `tp2-dp4-ep`."""
        parts = [f"tp{self.tp}"]
        if self.dp > 1:
            parts.append(f"dp{self.dp}")
        if self.expert_parallel:
            parts.append("ep")
        return "-".join(parts)

    @property
    def kv_tokens(self) -> int | None:
        """Estimated tokens of KV cache of the worker; None where memory was not computed."""
        return None if self.fit is None else self.fit.kv_tokens_per_rank * self.dp

    @property
    def arguments(self) -> tuple[str, ...]:
        """What `vllm serve` takes for it."""
        found = ["--tensor-parallel-size", str(self.tp)]
        if self.dp > 1:
            found += ["--data-parallel-size", str(self.dp)]
        if self.expert_parallel:
            found.append("--enable-expert-parallel")
        return tuple(found)


def candidates(
    config: ModelConfig,
    gpu: str,
    gpus: int,
    *,
    max_model_len: int | None = None,
    utilization: float = DEFAULT_UTILIZATION,
    max_num_batched_tokens: int = DEFAULT_BATCHED_TOKENS,
) -> list[Layout]:
    """All layouts within so many GPUs: TP in powers of two, and for mixtures of experts DP in them, and EP on and off.

    Args:
        config: the model.
        gpu: short name or the driver's; one that is not known leaves memory unchecked, and the layouts say so.
        gpus: most of one worker.
        max_model_len: longest request, in tokens; None is the model's own limit, as in vLLM.
        utilization: vLLM's `gpu_memory_utilization`.
        max_num_batched_tokens: the largest step of one rank.

    Returns:
        Fewest GPUs first, those that cannot serve among them, with the reason.

    Raises:
        InputError: a number is out of range, or `max_model_len` is above the model's.
    """
    if gpus < 1:
        raise InputError(f"is {gpus}", expected="1 or more", field="gpus")
    if max_num_batched_tokens < 1:
        raise InputError(f"is {max_num_batched_tokens}", expected="1 or more", field="max-num-batched-tokens")
    longest = config.max_positions if max_model_len is None else max_model_len
    if not 1 <= longest <= config.max_positions:
        right = f"1 to the model's {config.max_positions:,} tokens"
        raise InputError(f"is {longest:,}", expected=right, field="max-model-len")
    known = find_gpu(gpu)
    found = []
    for layout in _within(config, gpus):
        reason = _indivisible(config, layout)
        if reason is not None:
            found.append(replace(layout, rejected=reason))
        elif known is None:
            found.append(replace(layout, note=f"memory not checked: GPU {gpu!r} is not known"))
        else:
            memory = fit(config, known, layout, utilization, max_num_batched_tokens)
            found.append(replace(layout, fit=memory, rejected=_too_large(config, known, layout, memory, longest)))
    return found


def _within(config: ModelConfig, gpus: int) -> list[Layout]:
    powers = [2**n for n in range(gpus.bit_length())]
    layouts = []
    for tp in powers:
        for dp in powers if config.experts is not None else (1,):
            if tp * dp <= gpus:
                layouts.append(Layout(tp, dp))
                if config.experts is not None and tp * dp > 1:
                    layouts.append(Layout(tp, dp, expert_parallel=True))
    return sorted(layouts, key=lambda layout: (layout.gpus, -layout.tp, layout.expert_parallel))


def _indivisible(config: ModelConfig, layout: Layout) -> str | None:
    """Which size the layout does not divide, in words; None if it divides all."""
    shape, tp, ranks = config.shape, layout.tp, layout.gpus
    if shape.heads % tp:
        return f"{shape.heads} attention heads do not divide by TP {tp}"
    if not is_latent(shape) and shape.kv_heads % tp and tp % shape.kv_heads:
        return f"{shape.kv_heads} KV heads neither divide by TP {tp} nor it by them"
    if layout.expert_parallel and shape.experts is not None and shape.experts % ranks:
        return f"{shape.experts} experts do not divide by the {ranks} GPUs of TP {tp} x DP {layout.dp}"
    sides: list[tuple[str, int, int]] = []
    if shape.layers > moe_layers(shape):
        sides.append(("intermediate size", shape.intermediate_size, tp))
    if shape.shared_expert_size is not None:
        sides.append(("shared experts' intermediate size", shape.shared_expert_size, tp))
    if shape.moe_intermediate_size is not None:
        parts = 1 if layout.expert_parallel else ranks
        sides.append(("experts' intermediate size", shape.moe_intermediate_size, parts))
    if config.quant_block is not None and not is_latent(shape):
        sides.append(("attention's width", shape.heads * shape.head_dim, tp))
    for what, size, parts in sides:
        if size % parts:
            return f"{what} {size:,} does not divide by {parts}"
        if config.quant_block is not None and (size // parts) % config.quant_block:
            block = f"the quantisation block {config.quant_block}"
            return f"{what} {size:,} over {parts} is {size // parts:,}, not a multiple of {block}"
    return None


def _too_large(config: ModelConfig, gpu: Gpu, layout: Layout, memory: Fit, longest: int) -> str | None:
    """Why memory does not hold the weights and one longest request, in words; None if it does."""
    if memory.kv_tokens_per_rank >= longest:
        return None
    share = memory.budget_bytes / (gpu.memory_gib * GIB)
    taken = memory.weights_bytes + memory.reserve_bytes
    needed = taken + longest * kv_bytes_per_gpu(config.shape, layout)
    text = (
        f"weights {memory.weights_bytes / GIB:.1f} GiB and {memory.reserve_bytes / GIB:.1f} GiB of reserve of the"
        f" {memory.budget_bytes / GIB:.1f} GiB ({share:.2f} of {gpu.memory_gib:g}) leave KV cache for"
        f" {memory.kv_tokens_per_rank:,} tokens a rank; one request of {longest:,} needs {needed / GIB:.1f} GiB a GPU"
    )
    if memory.kv_tokens_per_rank:
        return f"{text}, or a max-model-len of at most {memory.kv_tokens_per_rank:,}"
    return text
