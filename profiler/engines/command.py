"""The `vllm serve` command of a worker that is measured: every limit that its tables depend on is said, not left."""

from __future__ import annotations

import json
import shutil
from collections.abc import Sequence
from dataclasses import dataclass

from profiler.errors import InputError
from profiler.models.layouts import Layout
from worker_graph.vllm.command import GPUS, NIXL_HOST, NIXL_PORT

#: Arguments that have an option of their own here: given twice, the profile would record one and mean the other.
OWN = {
    "--host": None,
    "--port": "--port",
    "--model": "--model",
    "--served-model-name": "--model",
    "--tensor-parallel-size": "--layout",
    "-tp": "--layout",
    "--data-parallel-size": "--layout",
    "-dp": "--layout",
    "--enable-expert-parallel": "--layout tpN-ep",
    "--max-num-seqs": "--max-num-seqs",
    "--max-num-batched-tokens": "--max-num-batched-tokens",
    "--max-model-len": "--max-model-len",
    "--block-size": "--block-size",
    "--gpu-memory-utilization": "--gpu-memory-utilization",
}


@dataclass(frozen=True, slots=True)
class Limits:
    """What a worker is started with.

    Attributes:
        max_num_seqs, max_num_batched_tokens: of one data-parallel rank.
        block_size: tokens of a KV block.
        max_model_len: longest sequence; None for the model's own.
        gpu_memory_utilization: share of the memory that the engine takes; None for its default.
    """

    max_num_seqs: int
    max_num_batched_tokens: int
    block_size: int
    max_model_len: int | None = None
    gpu_memory_utilization: float | None = None


#: vLLM captures CUDA graphs for twice its sequences, and for no more than so many tokens (VllmConfig, 0.11 to 0.32).
_MOST_CUDAGRAPH_TOKENS = 512


def cudagraph_tokens(limits: Limits, more: Sequence[str]) -> int | None:
    """Tokens up to which an iteration replays CUDA graphs; None where there are none or other arguments choose them.

    Args:
        limits: of the worker.
        more: arguments that it is started with beside them.
    """
    for place, word in enumerate(more):
        name, _, value = word.partition("=")
        if name == "--max-cudagraph-capture-size":
            return int(value or more[place + 1])
        if name in {"--enforce-eager", "--cudagraph-capture-sizes", "--cuda-graph-sizes", "--compilation-config", "-O"}:
            return None
    return min(2 * limits.max_num_seqs, _MOST_CUDAGRAPH_TOKENS)


@dataclass(frozen=True, slots=True)
class Serve:
    """What is served, alike for all layouts.

    Attributes:
        vllm: command that `serve` is given to.
        model: folder or name on the hub.
        name: that requests give.
        dummy: whether the weights are random ones, made on the spot.
        limits: of the scheduler.
        more: arguments passed on as they are.
    """

    vllm: tuple[str, ...]
    model: str
    name: str
    dummy: bool
    limits: Limits
    more: tuple[str, ...] = ()


def check_more(arguments: Sequence[str]) -> None:
    """Refuse arguments that have an option of their own.

    Raises:
        InputError: names the option to use.
    """
    for argument in arguments:
        name = argument.split("=", 1)[0]
        if name.replace("_", "-") in OWN:
            instead = OWN[name.replace("_", "-")]
            right = "nothing: it is chosen here" if instead is None else instead
            raise InputError(f"holds {name}", expected=right, field="--engine-arg")


def find_program(vllm: Sequence[str]) -> str:
    """Where the program is that the command names.

    Raises:
        InputError: nowhere.
    """
    found = shutil.which(vllm[0]) if vllm else None
    if found is None:
        named = vllm[0] if vllm else ""
        raise InputError(f"{named!r} is not a program here", expected="the command of vLLM", field="--vllm")
    return found


def serve_command(
    serve: Serve, layout: Layout, port: int, *, kv_role: str | None = None, host_buffers: bool = False
) -> list[str]:
    """The command of one worker.

    Args:
        serve: what is served.
        layout: over which GPUs.
        port: to listen on.
        kv_role: `kv_producer` or `kv_consumer` of a pair over NIXL; None for a worker by itself.
        host_buffers: whether NIXL moves KV from host memory, as it must on a processor.
    """
    limits = serve.limits
    argv = [*serve.vllm, "serve", serve.model, "--host", "127.0.0.1", "--port", str(port)]
    argv += ["--served-model-name", serve.name, *layout.arguments]
    argv += ["--max-num-seqs", str(limits.max_num_seqs)]
    argv += ["--max-num-batched-tokens", str(limits.max_num_batched_tokens), "--block-size", str(limits.block_size)]
    argv += ["--max-model-len", str(limits.max_model_len)] if limits.max_model_len is not None else []
    if limits.gpu_memory_utilization is not None:
        argv += ["--gpu-memory-utilization", f"{limits.gpu_memory_utilization:g}"]
    argv += ["--load-format", "dummy"] if serve.dummy else []
    if not any(word.split("=")[0] in {"--enable-prefix-caching", "--no-enable-prefix-caching"} for word in serve.more):
        argv.append("--enable-prefix-caching")
    if kv_role is not None and not any(word.startswith("--kv-transfer-config") for word in serve.more):
        transfer = {"kv_connector": "NixlConnector", "kv_role": kv_role}
        transfer |= {"kv_buffer_device": "cpu"} if host_buffers else {}
        argv += ["--kv-transfer-config", json.dumps(transfer, separators=(",", ":"))]
    return [*argv, *serve.more]


def serve_environment(gpus: Sequence[int], nixl_port: int | None) -> dict[str, str]:
    """Variables of one worker: its GPUs, and where its NIXL agent listens."""
    env: dict[str, str] = {}
    if gpus:
        # nvidia-smi counts by bus, CUDA would count the fastest first.
        env |= {"CUDA_DEVICE_ORDER": "PCI_BUS_ID", GPUS: ",".join(map(str, gpus))}
    if nixl_port is not None:
        env |= {NIXL_HOST: "127.0.0.1", NIXL_PORT: str(nixl_port)}
    return env
